"""Following the runs that were requested: which ended, which are requested again, which are given up."""

from __future__ import annotations

from edgepack_assets.new_models.cursor import RequestedRun
from edgepack_assets.new_models.find_versions import add_if_new
from edgepack_assets.new_models.run_requests import RunOutcome, SeenRun, created_ms, run_key, wait_before
from edgepack_assets.new_models.tick import RUNS_SEEN, Tick
from edgepack_assets.text_format import counted

LOST_AFTER = 600
"""Seconds after which a requested run that is not found is requested again, under the same key."""
GONE_AFTER = 24 * 3600
"""Seconds after which a failed run is given up if the registry does not show its version any more."""

_MAY_BE_REPEATED = (RunOutcome.INFRASTRUCTURE_FAILURE, RunOutcome.UNAPPROVED)


def follow_requested_runs(tick: Tick) -> None:
    """Look at requested runs, in turn if there are many, until the batch of requests is full."""
    numbers = tick.select_in_turn(tick.state.runs, RUNS_SEEN)
    runs: dict[int, list[SeenRun]] = {}
    for run in tick.runs_of(numbers) if numbers else ():
        runs.setdefault(run.version, []).append(run)
    for number in numbers:
        if tick.batch_is_full():
            break
        _follow_run(tick, number, tick.state.runs[number], runs.get(number, []))


def _follow_run(tick: Tick, number: int, requested: RequestedRun, runs: list[SeenRun]) -> None:
    """Look at one requested run. `runs` are all runs of its partition."""
    key = run_key(tick.rules, number, requested.created, requested.attempt)
    own = max((run for run in runs if run.run_key == key), key=lambda run: run.created, default=None)
    if own is None:
        if tick.now - requested.requested > LOST_AFTER:
            tick.add_message(f"{tick.partition_name(number)}: requested run not found; requesting it again")
            _request_again(tick, number, requested, requested.attempt)
    elif own.outcome in _MAY_BE_REPEATED:
        _follow_repeatable(tick, number, requested, own, runs)
    elif own.outcome is not RunOutcome.RUNNING:
        if own.outcome is not RunOutcome.SUCCEEDED:
            tick.add_message(f"{tick.partition_name(number)}: its run {own.outcome}; it is not requested again")
        del tick.state.runs[number]


def _follow_repeatable(tick: Tick, number: int, requested: RequestedRun, own: SeenRun, runs: list[SeenRun]) -> None:
    """A run failed for a reason that may pass: request it again, unless a later run of the partition replaces it."""
    later = {run.outcome for run in runs if run.makes_package and run is not own and run.created >= own.created}
    if RunOutcome.RUNNING in later:  # launched by a person
        return
    if RunOutcome.SUCCEEDED not in later:
        if requested.attempt < tick.rules.attempts:
            _request_next_attempt(tick, number, requested, own)
            return
        tick.add_message(
            f"{tick.partition_name(number)}: all {counted(tick.rules.attempts, 'run')} {own.outcome}; remove the cause "
            "and materialize the partition by hand"
        )
    del tick.state.runs[number]


def _request_next_attempt(tick: Tick, number: int, requested: RequestedRun, own: SeenRun) -> None:
    """Request the next attempt when its time has come."""
    name, attempt = tick.partition_name(number), requested.attempt + 1
    status = f"run {requested.attempt} of {tick.rules.attempts} {own.outcome}"
    wait = wait_before(attempt, tick.rules) if own.outcome is RunOutcome.INFRASTRUCTURE_FAILURE else 0
    left = own.finished // 1000 + wait - tick.now
    if left > 0:
        tick.add_message(f"{name}: {status}; the next one is requested in {left} s")
        return
    tick.add_message(f"{name}: {status}")
    _request_again(tick, number, requested, attempt)


def _request_again(tick: Tick, number: int, requested: RequestedRun, attempt: int) -> None:
    """Request another run of the same registration, if the registry still has it and it is still approved."""
    name, version = tick.partition_name(number), tick.get_version(number)
    if version is None:
        tick.add_message(f"{name}: the registry does not show that version")
        if tick.now - requested.requested > GONE_AFTER:
            del tick.state.runs[number]
    elif created_ms(version) != requested.created:  # the number was registered again
        del tick.state.runs[number]
        add_if_new(tick, version)
    elif tick.lacks_approval(version):
        tick.add_message(f"{name}: its approval was withdrawn; it waits until it is approved again")
    else:
        tick.request_run(version, attempt)
