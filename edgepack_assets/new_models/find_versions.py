"""Finding new versions in the registry: a sweep over all of them now and then, a probe of the newest in between.

A version that is found becomes pending, unless it has been handled or was there before the first start.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from edgepack_assets.errors import CorruptError, EdgepackError, TransientError
from edgepack_assets.new_models.cursor import Baseline, State
from edgepack_assets.new_models.run_requests import created_ms
from edgepack_assets.new_models.tick import Tick, is_version_number
from edgepack_assets.registry.base import Kind, RegisteredVersion, damaged_in_words, refuse_unread
from edgepack_assets.text_format import counted

_GAP = 10
"""Versions above the highest known that are requested one by one; for more of them a sweep is cheaper."""
_MISSING_TRIES = 5
"""Ticks in which a version is requested that the registry calls newest but does not give; then a sweep decides."""
_SWEEP_SHARE = 10
"""A sweep takes at most one part in this many of the time."""


def find_versions(tick: Tick) -> None:
    """Make the registry's new versions pending."""
    state = tick.state
    if state.baseline is None or tick.now >= state.sweep_due:
        try:
            sweep_all_versions(tick)
            return
        except TransientError:
            raise
        except EdgepackError as error:
            if state.baseline is None:
                raise
            # One damaged version must not hide the new ones, which need no sweep.
            state.sweep_due = tick.now + tick.rules.sweep_interval
            tick.decision.fault = error
            tick.add_message(f"could not look at every version: {error}")
    probe_newest_version(tick)


def sweep_all_versions(tick: Tick) -> None:
    """Look at every version that the registry has."""
    began = time.monotonic()
    state, name = tick.state, tick.rules.model_name
    sound, damaged = tick.registry.versions_and_damaged(Kind.MODEL, name)
    versions = _valid_versions(tick, sound)
    if damaged:
        tick.decision.fault = CorruptError(damaged_in_words(damaged))
        tick.add_message(str(tick.decision.fault))
        if state.baseline is None:
            refuse_unread(damaged)  # what was there before the first start must be known
    if state.baseline is None:
        if not versions:
            tick.add_message(f"the registry has no version of {name} yet")
            return
        _set_baseline(tick, versions)
    for version in versions.values():
        add_if_new(tick, version)
    state.top = max([state.top, *versions])
    spent = time.monotonic() - began
    state.sweep_due = tick.now + max(tick.rules.sweep_interval, int(spent * _SWEEP_SHARE))
    tick.known = versions


def _valid_versions(tick: Tick, versions: Iterable[RegisteredVersion]) -> dict[int, RegisteredVersion]:
    """Versions by number, the latest registration of each. Those that are no numbers are left out."""
    valid: dict[int, RegisteredVersion] = {}
    for version in versions:
        number = version.version
        if not is_version_number(number):
            tick.add_message(f"skipped {version.name}:{number}: versions must be whole numbers from 1 up")
        elif number not in valid or created_ms(version) > created_ms(valid[number]):
            valid[number] = version
    return dict(sorted(valid.items()))


def _set_baseline(tick: Tick, versions: dict[int, RegisteredVersion]) -> None:
    """Record what the registry had before the first start, except what the start rule wants packaged."""
    state, rule = tick.state, tick.rules.start
    # If the registry was empty in the first tick, what was registered since then is new, whatever the rule says.
    # Else all of it was there before. The times are the registry's own where there are any.
    old = [n for n, version in versions.items() if tick.is_first or created_ms(version) <= state.started]
    skipped = {"latest": old[:-1], "none": old, "all": []}[rule]
    for number in skipped:
        state.record.add(number, created_ms(versions[number]))
    until = max((created_ms(versions[n]) for n in old), default=state.started)
    state.baseline = Baseline(max(old, default=0), until)
    tick.add_message(
        f"first start: {counted(len(versions), 'version')} of {tick.rules.model_name}, {len(skipped)} of them skipped "
        f"(sensors.start is {rule})"
    )


def add_if_new(tick: Tick, version: RegisteredVersion) -> None:
    """Make a version pending, if it is new. One that was there before the first start is recorded as handled."""
    state, number, created = tick.state, version.number, created_ms(version)
    if (number, created) in state.record or number in state.pending or state.waiting.get(number) == created:
        return
    baseline = state.baseline
    assert baseline is not None
    is_old = number < baseline.top and created <= baseline.until and not state.record.has_number(number)
    if is_old and tick.rules.start != "all":  # the registry did not show it at the first start
        state.record.add(number, created)
        return
    state.waiting.pop(number, None)
    state.pending.add(number)


def probe_newest_version(tick: Tick) -> None:
    """Look at the newest version, and at those between it and the highest known one."""
    state = tick.state
    newest = tick.registry.newest_version(Kind.MODEL, tick.rules.model_name)
    if (
        not is_version_number(newest)
        or _has_number(state, newest)
        or (newest == state.missing and state.missing_tries >= _MISSING_TRIES)
    ):
        return
    if newest - state.top > _GAP:
        state.top = newest
        sweep_all_versions(tick)
        return
    for number in range(min(state.top + 1, newest), newest + 1):
        version = None if _has_number(state, number) else tick.get_version(number)
        if version is not None:
            state.top = max(state.top, number)
            add_if_new(tick, version)
    if not _has_number(state, newest):
        state.missing_tries = state.missing_tries + 1 if state.missing == newest else 1
        state.missing = newest


def _has_number(state: State, number: int) -> bool:
    return state.record.has_number(number) or number in state.pending or number in state.waiting
