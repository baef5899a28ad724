"""One look of a sensor: its state, what the registry says and how its runs went -> new state, requests, words.

Nothing here acts: adding partitions and starting runs is the caller's, who saves the new state with them. A look
that is lost, or repeated with the same state, does no harm: the same requests come again under the same run keys,
which the scheduler starts once.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

from edgepack_assets.errors import CorruptError, EdgepackError, NotFoundError, TransientError
from edgepack_assets.new_models.cursor import AskedRun, Baseline, State
from edgepack_assets.new_models.run_requests import (
    Request,
    Rules,
    RunOutcome,
    SeenRun,
    created_ms,
    is_of,
    run_key,
    wait_before,
)
from edgepack_assets.partitions import ModelKey, is_version
from edgepack_assets.registry.approval import approval_of
from edgepack_assets.registry.base import Kind, RegisteredVersion, Registry, damaged_in_words

POLLS = 10
"""Versions waiting for approval that one look asks the registry about."""
RUNS_SEEN = 200
"""Partitions whose runs one look asks about."""
LOST_AFTER = 600
"""Seconds after which a requested run that is nowhere to be seen is requested again, under the same key."""
GONE_AFTER = 24 * 3600
"""Seconds after which a failed run's version that the registry does not show any more is given up."""
_GAP = 10
"""Versions above the highest known that are asked for one by one; more than these need a sweep."""
_GHOST_TRIES = 5
"""How often the newest version is asked for that the registry names but does not give, until the next sweep."""
_SWEEP_SHARE = 10
"""A sweep takes at most one part in this many of the time."""


@dataclass
class Decision:
    """What one look came to. `waits` are the versions that began to wait for approval, `fault` what kept it from
    looking at every version."""

    state: State
    requests: list[Request] = field(default_factory=list)
    waits: list[RegisteredVersion] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    fault: EdgepackError | None = None


RunsOf = Callable[[Sequence[int]], Iterable[SeenRun]]


def decide(state: State | None, rules: Rules, registry: Registry, runs_of: RunsOf, now: float) -> Decision:
    """Look once. `state` is None at the first start; `runs_of` gives the runs of versions' partitions; `now` is in s.

    Whatever the registry raises passes through, and `state` is as it was: looking again later is safe."""
    is_first = state is None or state.model != rules.model_name
    begun = State(rules.model_name, int(now * 1000)) if state is None or is_first else copy.deepcopy(state)
    return _Looking(begun, rules, registry, runs_of, now=now, is_first=is_first).all()


class _Looking:
    def __init__(
        self, state: State, rules: Rules, registry: Registry, runs_of: RunsOf, *, now: float, is_first: bool
    ) -> None:
        self.state, self.is_first, self.rules, self.registry = state, is_first, rules, registry
        self.runs_of, self.now = runs_of, int(now)
        self.made = Decision(state)
        self.at_hand: dict[int, RegisteredVersion] = {}

    def all(self) -> Decision:
        self.find()
        self.follow_runs()
        self.follow_waiting()
        self.work_off()
        self.state.turn += 1
        self.sum_up()
        return self.made

    def say(self, text: str) -> None:
        self.made.words.append(text)

    # What there is ------------------------------------------------------------------------------------------

    def find(self) -> None:
        state = self.state
        if state.baseline is None or self.now >= state.sweep_due:
            try:
                self.sweep()
            except TransientError:
                raise
            except EdgepackError as error:
                if state.baseline is None:
                    raise
                # One damaged version must not hide the new ones, which need no sweep.
                state.sweep_due = self.now + self.rules.sweep_interval
                self.made.fault = error
                self.say(f"could not look at every version: {error}")
            else:
                return
        self.probe()

    def sweep(self) -> None:
        began = time.monotonic()
        found = self.sound(self.registry.versions(Kind.MODEL, self.rules.model_name))
        if damaged := self.registry.damaged(Kind.MODEL, self.rules.model_name):
            self.made.fault = CorruptError(damaged_in_words(damaged))
            self.say(str(self.made.fault))
        state = self.state
        if state.baseline is None:
            if not found:
                self.say(f"the registry has no version of {self.rules.model_name} yet")
                return
            self.first_start(found)
        for number, version in found.items():
            self.take(number, version)
        state.top = max([state.top, *found])
        spent = time.monotonic() - began
        state.sweep_due = self.now + max(self.rules.sweep_interval, int(spent * _SWEEP_SHARE))
        self.at_hand = found

    def sound(self, versions: Iterable[RegisteredVersion]) -> dict[int, RegisteredVersion]:
        """By number, the latest registration of each; without what is no version of ours."""
        found: dict[int, RegisteredVersion] = {}
        for version in versions:
            number = version.version
            if not _is_version(number):
                self.say(f"passed over {version.name}:{number}: no whole number from 1 up")
            elif number not in found or created_ms(version) > created_ms(found[number]):
                found[number] = version
        return dict(sorted(found.items()))

    def first_start(self, found: dict[int, RegisteredVersion]) -> None:
        """Record what the registry had before; what the start rule asks for is left to be found."""
        state = self.state
        # A registry that had nothing at the first look: what was registered since then is new, whatever the rule.
        # Else all of it was there before. The times are the registry's own where it has said any.
        history = [n for n, version in found.items() if self.is_first or created_ms(version) <= state.started]
        rule = self.rules.start
        skipped = history[:-1] if rule == "latest" else history if rule == "none" else []
        for number in skipped:
            state.record.add(number, created_ms(found[number]))
        until = max((created_ms(found[n]) for n in history), default=state.started)
        state.baseline = Baseline(max(history, default=0), until)
        self.say(
            f"first start: {len(found)} versions of {self.rules.model_name}, {len(skipped)} of them passed over "
            f"(sensors.start is {rule})"
        )

    def take(self, number: int, version: RegisteredVersion) -> None:
        """Put a version where it belongs, if it is new."""
        state, created = self.state, created_ms(version)
        if (number, created) in state.record or number in state.pending or state.waiting.get(number) == created:
            return
        base = state.baseline
        assert base is not None
        was_there = number < base.top and created <= base.until and not state.record.has_number(number)
        if was_there and self.rules.start != "all":  # at the first start, though the registry did not show it
            state.record.add(number, created)
            return
        state.waiting.pop(number, None)
        state.pending.add(number)

    def probe(self) -> None:
        state = self.state
        newest = self.registry.newest_version(Kind.MODEL, self.rules.model_name)
        if (
            not _is_version(newest)
            or self.is_known(newest)
            or (newest == state.ghost[0] and state.ghost[1] >= _GHOST_TRIES)
        ):
            return
        if newest - state.top > _GAP:
            state.top = newest
            self.sweep()
            return
        for number in range(min(state.top + 1, newest), newest + 1):
            found = None if self.is_known(number) else self.get(number)
            if found is not None:
                state.top = max(state.top, number)
                self.take(number, found)
        if not self.is_known(newest):
            state.ghost = (newest, state.ghost[1] + 1 if state.ghost[0] == newest else 1)

    def is_known(self, number: int) -> bool:
        state = self.state
        return state.record.has_number(number) or number in state.pending or number in state.waiting

    def get(self, number: int) -> RegisteredVersion | None:
        """A version; None if it is not there (any more, or yet) or damaged."""
        if number not in self.at_hand:
            try:
                self.at_hand[number] = self.registry.get(Kind.MODEL, self.rules.model_name, number)
            except NotFoundError:
                return None
            except TransientError:
                raise
            except EdgepackError as error:
                # One damaged version must not keep the others waiting; a sweep finds it again when it is mended.
                self.say(f"{self.name(number)} is passed over: {error}")
                return None
        return self.at_hand[number]

    # Runs that were requested -------------------------------------------------------------------------------

    def follow_runs(self) -> None:
        state = self.state
        watched = self.round(sorted(state.runs), RUNS_SEEN)
        runs: dict[int, list[SeenRun]] = {}
        for run in self.runs_of(watched) if watched else ():
            runs.setdefault(run.version, []).append(run)
        for number in watched:
            if len(self.made.requests) >= self.rules.batch:
                break
            self.follow(number, state.runs[number], runs.get(number, []))

    def follow(self, number: int, asked: AskedRun, runs: list[SeenRun]) -> None:
        state, rules = self.state, self.rules
        key = run_key(rules, number, asked.created, asked.attempt)
        own = max((run for run in runs if run.run_key == key), key=lambda run: run.began, default=None)
        if own is None:
            if self.now - asked.asked > LOST_AFTER:
                self.say(f"{self.name(number)}: its run was requested and is nowhere to be seen: requested again")
                self.request_again(number, asked, asked.attempt)
            return
        if own.ended is RunOutcome.RUNNING:
            return
        if own.ended in (RunOutcome.INFRASTRUCTURE_FAILURE, RunOutcome.UNAPPROVED):
            later = [run.ended for run in runs if run.whole and run is not own and run.began >= own.began]
            if RunOutcome.RUNNING in later:
                return  # a person was faster
            if RunOutcome.SUCCEEDED not in later and asked.attempt < rules.attempts:
                self.follow_with_another(number, asked, own)
                return
            if RunOutcome.SUCCEEDED not in later:
                self.say(
                    f"{self.name(number)}: all {rules.attempts} runs {own.ended}; mend it and materialize the "
                    "partition by hand"
                )
        elif own.ended is not RunOutcome.SUCCEEDED:
            self.say(f"{self.name(number)}: its run {own.ended}, and is not requested again")
        del state.runs[number]

    def follow_with_another(self, number: int, asked: AskedRun, own: SeenRun) -> None:
        attempt, words = asked.attempt + 1, f"run {asked.attempt} of {self.rules.attempts} {own.ended}"
        wait = wait_before(attempt, self.rules) if own.ended is RunOutcome.INFRASTRUCTURE_FAILURE else 0
        left = own.over // 1000 + wait - self.now
        if left > 0:
            self.say(f"{self.name(number)}: {words}; the next one is requested in {left} s")
            return
        self.say(f"{self.name(number)}: {words}")
        self.request_again(number, asked, attempt)

    def request_again(self, number: int, asked: AskedRun, attempt: int) -> None:
        found = self.get(number)
        if found is not None and created_ms(found) == asked.created:
            if self.rules.needs_approval and approval_of(found.tags) is None:
                self.say(f"{self.name(number)}: its approval was taken back, so it waits until it is given again")
            else:
                self.request(found, attempt)
        elif found is not None:
            del self.state.runs[number]
            self.take(number, found)
        else:
            self.say(f"{self.name(number)}: the registry does not show that version")
            if self.now - asked.asked > GONE_AFTER:
                del self.state.runs[number]

    def request(self, found: RegisteredVersion, attempt: int) -> None:
        state, number, created = self.state, found.number, created_ms(found)
        state.record.add(number, created)
        state.pending.discard(number)
        state.waiting.pop(number, None)
        state.runs[number] = AskedRun(created, attempt, self.now)
        key = run_key(self.rules, number, created, attempt)
        self.made.requests.append(Request(found, attempt, key, approval_of(found.tags)))

    # Approval and backlog -----------------------------------------------------------------------------------

    def follow_waiting(self) -> None:
        state = self.state
        if not self.rules.needs_approval:
            for number in state.waiting:
                state.pending.add(number)
            state.waiting.clear()
            return
        polled = self.round(sorted(state.waiting), POLLS)
        candidates = []
        # A sweep has brought every version's tags along.
        for number in sorted({*polled, *(n for n in state.waiting if n in self.at_hand)}):
            found = self.get(number)
            if found is None:
                # Found again by a sweep if it comes back.
                self.say(f"{self.name(number)}: waited for approval, and is no longer in the registry")
                del state.waiting[number]
                continue
            if state.waiting[number] != created_ms(found):  # registered again
                state.waiting[number] = created_ms(found)
                self.made.waits.append(found)
            if approval_of(found.tags) is not None:
                candidates.append(found)
        self.start(candidates, also_look_at=self.round(sorted(state.waiting), RUNS_SEEN))

    def work_off(self) -> None:
        """Request runs of pending versions, as many as the batch has room for."""
        state = self.state
        candidates: list[RegisteredVersion] = []
        room = self.rules.batch - len(self.made.requests)
        for tried, number in enumerate(state.pending if room > 0 else ()):
            if len(candidates) >= room or tried >= 2 * self.rules.batch:
                break
            found = self.get(number)
            if found is None or (number, created_ms(found)) in state.record:
                state.pending.discard(number)  # found again by a sweep if it comes back
            elif self.rules.needs_approval and approval_of(found.tags) is None:
                state.pending.discard(number)
                state.waiting[number] = created_ms(found)
                self.made.waits.append(found)
            else:
                candidates.append(found)
        self.start(candidates)

    def start(self, candidates: Sequence[RegisteredVersion], also_look_at: Iterable[int] = ()) -> None:
        """Request the candidates' first runs, but for those that a person has launched."""
        state = self.state
        by_number = {found.number: found for found in candidates}
        asked_about = sorted({*by_number, *also_look_at})
        launched: dict[int, set[RunOutcome]] = {}
        for run in self.runs_of(asked_about) if asked_about else ():
            created = created_ms(by_number[run.version]) if run.version in by_number else state.waiting[run.version]
            # What was requested for another registration of this number is no package of this one.
            other = run.run_key is not None and not is_of(run.run_key, self.rules, run.version, created)
            if run.whole and run.began >= created and not other:
                launched.setdefault(run.version, set()).add(run.ended)
        for number in asked_about:
            ended = launched.get(number, set())
            if RunOutcome.SUCCEEDED in ended:
                self.say(f"{self.name(number)}: packaged by a run that was launched by hand")
                created = created_ms(by_number[number]) if number in by_number else state.waiting[number]
                state.record.add(number, created)
                state.pending.discard(number)
                state.waiting.pop(number, None)
            elif RunOutcome.RUNNING in ended:
                self.say(f"{self.name(number)}: a run that was launched by hand is under way")
            elif number in by_number and len(self.made.requests) < self.rules.batch:
                self.request(by_number[number], 1)

    # Words --------------------------------------------------------------------------------------------------

    def name(self, number: int) -> str:
        return str(ModelKey(self.rules.model_type, number))

    def round(self, numbers: Sequence[int], size: int) -> list[int]:
        """`size` of the numbers, others each time, so that every one has its turn."""
        if len(numbers) <= size:
            return list(numbers)
        at = self.state.turn * size % len(numbers)
        return [*numbers[at:], *numbers[:at]][:size]

    def sum_up(self) -> None:
        state, made = self.state, self.made
        if made.requests:
            self.say(f"requested {_listed([self.name(request.found.number) for request in made.requests])}")
        elif not made.words:
            self.say(f"nothing new: the highest version of {self.rules.model_name} is {state.top}")
        if state.waiting:
            names = _listed([self.name(number) for number in sorted(state.waiting)])
            self.say(
                f"waiting for approval: {names} (edgepack model approve {self.rules.model_name}:"
                f"{min(state.waiting)}, or launch it by hand)"
            )
        if state.pending:
            self.say(f"{len(state.pending)} more versions to be requested")
        if state.runs:
            self.say(f"runs under way: {len(state.runs)}")


def _is_version(number: object) -> TypeGuard[int]:
    # What a registry gives is not what its type says if somebody else writes to it.
    return isinstance(number, int) and not isinstance(number, bool) and is_version(str(number))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown
