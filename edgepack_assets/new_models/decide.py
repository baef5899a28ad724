"""One tick of a sensor: its state, the registry's versions and its runs lead to a new state, requests and messages.

Nothing here acts: the caller adds partitions, starts runs and saves the new state with them. A tick that is lost, or
repeated with the same state, does no damage: the same requests come again under the same run keys, and Dagster starts
each key once.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgepack_assets.new_models.cursor import State
from edgepack_assets.new_models.find_versions import find_versions
from edgepack_assets.new_models.first_runs import request_approved_versions, request_pending_versions
from edgepack_assets.new_models.follow_runs import follow_requested_runs
from edgepack_assets.new_models.run_requests import Rules
from edgepack_assets.new_models.tick import Decision, RunsOf, Tick
from edgepack_assets.registry.base import Registry
from edgepack_assets.text_format import counted


def decide(state: State | None, rules: Rules, registry: Registry, runs_of: RunsOf, now: float) -> Decision:
    """Decide once. `state` is None at the first start; `runs_of` gives the runs of versions' partitions; `now` is in s.

    Errors of the registry are raised, and `state` is not changed then: the next tick can decide again."""
    is_first = state is None or state.model != rules.model_name
    new_state = State(rules.model_name, int(now * 1000)) if state is None or is_first else state.copy()
    tick = Tick(new_state, rules, registry, runs_of, int(now), is_first, Decision(new_state))
    find_versions(tick)
    follow_requested_runs(tick)
    request_approved_versions(tick)
    request_pending_versions(tick)
    new_state.turn += 1
    _add_summary(tick)
    return tick.decision


def _add_summary(tick: Tick) -> None:
    state, rules, requests = tick.state, tick.rules, tick.decision.requests
    if requests:
        tick.add_message(f"requested {_join_names([tick.partition_name(r.registered.number) for r in requests])}")
    elif not tick.decision.messages:
        tick.decision.is_quiet = not (state.waiting or state.pending or state.runs)
        tick.add_message(f"nothing new: the highest version of {rules.model_name} is {state.top}")
    if state.waiting:
        names = _join_names([tick.partition_name(number) for number in sorted(state.waiting)])
        tick.add_message(
            f"waiting for approval: {names} (edgepack model approve {rules.model_name}:{min(state.waiting)}, "
            "or launch it by hand)"
        )
    if left := len(state.pending) - sum(number in state.pending for number in tick.launched):
        tick.add_message(f"{counted(left, 'more version')} to be requested")
    if state.runs:
        tick.add_message(f"runs in progress: {len(state.runs)}")


def _join_names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown
