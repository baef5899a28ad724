"""Requesting the first runs of versions that are pending or were approved, unless a person has launched one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice

from edgepack_assets.new_models.run_requests import RunOutcome, SeenRun, created_ms, is_of
from edgepack_assets.new_models.tick import RUNS_SEEN, Tick
from edgepack_assets.registry.approval import approval_of
from edgepack_assets.registry.base import RegisteredVersion

POLLS = 10
"""Versions waiting for approval that are looked up in the registry in one tick."""
_MOST_LOOKS = 5
"""How many times the runs of RUNS_SEEN pending versions are looked up in one tick."""


def request_approved_versions(tick: Tick) -> None:
    """Request runs of the waiting versions that were approved since, or of all if no approval is needed any more."""
    state = tick.state
    if not tick.rules.needs_approval:
        for number in state.waiting:
            state.pending.add(number)
        state.waiting.clear()
        return
    approved = []
    polled = tick.select_in_turn(state.waiting, POLLS)
    # A sweep has brought the tags of every version, so those are looked at as well.
    for number in sorted({*polled, *(n for n in state.waiting if n in tick.known)}):
        version = tick.get_version(number)
        if version is None:
            # If it comes back, a sweep finds it.
            tick.add_message(f"{tick.partition_name(number)}: waited for approval, but is no longer in the registry")
            del state.waiting[number]
            continue
        if state.waiting[number] != created_ms(version):  # the number was registered again
            tick.put_on_waiting_list(version)
        if approval_of(version.tags) is not None:
            approved.append(version)
    _request_first_runs(tick, approved, also_look_at=tick.select_in_turn(state.waiting, RUNS_SEEN))


def request_pending_versions(tick: Tick) -> None:
    """Request runs of pending versions, as many as fit into the batch."""
    state = tick.state
    candidates: list[RegisteredVersion] = []
    room = tick.rules.batch - len(tick.decision.requests)
    for tried, number in enumerate(_first_pending(tick, room) if room > 0 else ()):
        if len(candidates) >= room or tried >= 2 * tick.rules.batch:
            break
        version = tick.get_version(number)
        if version is None or (number, created_ms(version)) in state.record:
            state.pending.discard(number)  # if it comes back, a sweep finds it
        elif tick.lacks_approval(version):
            state.pending.discard(number)
            tick.put_on_waiting_list(version)
        else:
            candidates.append(version)
    _request_first_runs(tick, candidates)


def _first_pending(tick: Tick, room: int) -> Iterable[int]:
    """The pending versions. If they are more than fit, those that a person has launched come last: they would take the
    places of others, in each tick until their runs end."""
    pending = tick.state.pending
    if len(pending) <= room:
        return pending
    by_hand: set[int] = set()
    looked_at = iter(pending)
    for _ in range(_MOST_LOOKS):
        numbers = list(islice(looked_at, RUNS_SEEN))
        seen = {run.version for run in tick.runs_of(numbers) if _is_under_way_by_hand(run)} if numbers else set()
        by_hand |= seen
        if len(numbers) - len(seen) >= room:  # enough without the rest
            break
    tick.launched |= by_hand
    return chain((number for number in pending if number not in by_hand), sorted(by_hand))


def _is_under_way_by_hand(run: SeenRun) -> bool:
    return run.run_key is None and run.makes_package and run.outcome is RunOutcome.RUNNING


def _request_first_runs(tick: Tick, candidates: Sequence[RegisteredVersion], also_look_at: Iterable[int] = ()) -> None:
    """Request the candidates' first runs, except for partitions that a person has launched. `also_look_at` are waiting
    versions for which only that question is asked."""
    by_number = {version.number: version for version in candidates}
    registered = {
        number: created_ms(by_number[number]) if number in by_number else tick.state.waiting[number]
        for number in sorted({*by_number, *also_look_at})
    }
    launched = _outcomes_of_launched_runs(tick, registered)
    for number, created in registered.items():
        name, outcomes = tick.partition_name(number), launched.get(number, set())
        if RunOutcome.SUCCEEDED in outcomes:
            tick.add_message(f"{name}: packaged by a run that was launched by hand")
            tick.record_as_handled(number, created)
        elif RunOutcome.RUNNING in outcomes:
            tick.add_message(f"{name}: a run that was launched by hand is in progress")
            tick.launched.add(number)
        elif number in by_number and not tick.batch_is_full():
            tick.request_run(by_number[number], 1)


def _outcomes_of_launched_runs(tick: Tick, registered: dict[int, int]) -> dict[int, set[RunOutcome]]:
    """The outcomes of runs that make the package of these registrations (number -> time of registration)."""
    launched: dict[int, set[RunOutcome]] = {}
    for run in tick.runs_of(list(registered)) if registered else ():
        created = registered[run.version]
        # A run that was requested for another registration of this number makes no package of this one.
        is_of_another = run.run_key is not None and not is_of(run.run_key, tick.rules, run.version, created)
        if run.makes_package and run.created >= created and not is_of_another:
            launched.setdefault(run.version, set()).add(run.outcome)
    return launched
