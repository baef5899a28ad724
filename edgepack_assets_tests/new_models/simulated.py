"""A registry and a daemon that misbehave on purpose, from a seed: what a sensor meets in its life, without waiting.

The daemon does in order what Dagster 1.13's does with a sensor's result (dagster/_daemon/sensor.py): partitions are
added; the tick is written with its run requests and the new cursor; each run is made, once for a run key; the cursor
is saved. It can die between any two of these, and goes on from what was written.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from edgepack_assets.errors import CorruptError, EdgepackError, NotFoundError, TransientError
from edgepack_assets.new_models.cursor import State
from edgepack_assets.new_models.decide import decide
from edgepack_assets.new_models.many_types import Limits, Memory, look_at_types, read_states, remember_tick
from edgepack_assets.new_models.run_requests import Request, Rules, RunOutcome, SeenRun, created_ms
from edgepack_assets.new_models.tick import Decision
from edgepack_assets.registry.approval import APPROVED_AT, APPROVED_BY
from edgepack_assets.registry.base import DamagedVersion, Kind, RegisteredVersion, ResolvedVersion

START = 1_700_000_000


@dataclass
class SimulatedRegistry:
    """Versions with the time from which the index shows them."""

    random: random.Random
    now: float = START
    versions_there: dict[int, RegisteredVersion] = field(default_factory=dict)
    visible_from: dict[int, float] = field(default_factory=dict)
    archived: set[int] = field(default_factory=set)
    mood: str = "well"
    calls: int = 0

    def add(self, number: int, lag: float = 0) -> RegisteredVersion:
        made = ResolvedVersion(
            kind=Kind.MODEL, name="press_model", version=number, created=datetime.fromtimestamp(self.now, UTC),
            digest="0" * 64, size=1, is_folder=False, location=f"sim://{number}", tags={"odd \u202e\n": "\0 ; ' \""},
        )  # fmt: skip
        self.versions_there[number] = made
        self.visible_from[number] = self.now + lag
        self.archived.discard(number)
        return made

    def approve(self, number: int) -> None:
        found = self.versions_there[number]
        tags = {**found.tags, APPROVED_BY: "Anna", APPROVED_AT: "2026-01-01T00:00:00+00:00"}
        self.versions_there[number] = replace(found, tags=tags)

    def visible(self) -> list[int]:
        if self.mood == "empty":
            return []
        return [n for n in self.versions_there if n not in self.archived and self.visible_from[n] <= self.now]

    def damaged(self, kind: Kind, name: str, above: int = 0) -> list[DamagedVersion]:
        return []

    def _called(self) -> None:
        self.calls += 1
        if self.mood == "dead" or (self.mood == "dying" and self.random.random() < 0.4):
            raise ConnectionError("the registry is gone")

    # the interface, as far as a look needs it

    def versions(self, kind: Kind, name: str) -> list[RegisteredVersion]:
        self._called()
        found = [self.versions_there[n] for n in self.visible()]
        if self.mood == "partial":
            found = [version for version in found if self.random.random() < 0.6]
        if self.mood == "repeats":
            found += found[: len(found) // 2]
        self.random.shuffle(found)
        return found

    def versions_and_damaged(self, kind: Kind, name: str) -> tuple[list[RegisteredVersion], list[DamagedVersion]]:
        return self.versions(kind, name), self.damaged(kind, name)

    def newest_version(self, kind: Kind, name: str) -> int | None:
        self._called()
        found = self.visible()
        if self.mood == "partial" and found:
            return self.random.choice(found)
        if self.mood == "repeats":  # a hint that is ahead
            return max(self.versions_there, default=None)
        return max(found, default=None)

    def get(self, kind: Kind, name: str, version: int) -> RegisteredVersion:
        self._called()
        if version not in self.visible():
            raise NotFoundError(f"no version {version}")
        return self.versions_there[version]


class Died(Exception):
    """The daemon was killed."""


@dataclass
class Run:
    number: int
    created: int
    run_key: str | None
    began: float
    ended: RunOutcome = RunOutcome.RUNNING
    over: float = 0


@dataclass
class SimulatedDagster:
    """Partitions, runs, the cursor and the tick that was written last."""

    random: random.Random
    registry: SimulatedRegistry
    rules: Rules
    cursor: str | None = None
    partitions: set[int] = field(default_factory=set)
    runs: list[Run] = field(default_factory=list)
    reserved: tuple[list[Request], str] | None = None
    waits_told: list[tuple[int, int]] = field(default_factory=list)
    most_requested: int = 0

    def runs_of(self, versions: Sequence[int]) -> Iterator[SeenRun]:
        for run in self.runs:
            if run.number in versions:
                yield SeenRun(run.number, run.run_key, int(run.began * 1000), int(run.over * 1000), run.ended, True)

    def tick(self, dies_after: str = "", is_stopped_amid: bool = False) -> None:
        """One tick. `dies_after` names the step after which the daemon is killed."""
        if self.reserved is not None:
            requests, cursor = self.reserved
            if self.random.random() < 0.8:  # else too long ago: Dagster looks anew
                self._submit(requests, cursor, dies_after, is_stopped_amid)
                return
            self.reserved = None
        state = State.from_cursor(self.cursor) if self.cursor else None
        try:
            made = decide(state, self.rules, self.registry, self.runs_of, self.registry.now)  # type: ignore[arg-type]
        except ConnectionError:
            return
        self.most_requested = max(self.most_requested, len(made.requests))
        self._die("look", dies_after)
        self.waits_told += [(found.version, created_ms(found)) for found in made.newly_waiting]
        self.partitions |= {found.version for found in [*made.newly_waiting, *(r.registered for r in made.requests)]}
        self._die("partitions", dies_after)
        cursor = made.state.to_cursor()
        if made.requests:
            self.reserved = made.requests, cursor
            self._die("reserved", dies_after)
            self._submit(made.requests, cursor, dies_after, is_stopped_amid)
        else:
            self.cursor = cursor

    def _submit(self, requests: list[Request], cursor: str, dies_after: str, is_stopped_amid: bool) -> None:
        known = {run.run_key for run in self.runs}
        for request in requests:
            if request.run_key not in known:
                assert request.registered.version in self.partitions
                created = created_ms(request.registered)
                self.runs.append(Run(request.registered.version, created, request.run_key, self.registry.now))
            if self.random.random() < 0.5:
                self._die("a run", dies_after)
            if is_stopped_amid and self.random.random() < 0.3:  # the rest is dropped, though the cursor is saved
                break
        self._die("runs", dies_after)
        self.cursor, self.reserved = cursor, None

    @staticmethod
    def _die(step: str, dies_after: str) -> None:
        if step == dies_after:
            raise Died


class SimulatedStore:
    """The rows in which the sensor for many model types keeps their states."""

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}
        self.changes = 0

    def token(self) -> str:
        return str(self.changes)

    def read(self, model_types: Iterable[str], unread: dict[str, EdgepackError]) -> dict[str, State]:
        return {name: State.from_cursor(self.rows[name]) for name in model_types if self.rows.get(name)}

    def began_anew(self, model_types: Iterable[str]) -> dict[str, int]:
        return {}

    def write(self, states: Mapping[str, str]) -> None:
        self.rows.update(states)
        self.changes += bool(states)


@dataclass
class SimulatedMany(SimulatedDagster):
    """The sensor for many model types, two of which nobody can look at. The project may begin with a sensor for each
    (`is_shared` is False), whose cursor then is `own_cursor`."""

    store: SimulatedStore = field(default_factory=SimulatedStore)
    memory: Memory = field(default_factory=Memory)
    is_shared: bool = True
    own_cursor: str | None = None

    def grow(self) -> None:
        """From now on one sensor looks at all model types."""
        self.is_shared, self.own_cursor, self.cursor = True, self.cursor, None
        if self.reserved is not None:  # it was cut off in a tick
            self.own_cursor, self.reserved = self.reserved[1], None

    def tick(self, dies_after: str = "", is_stopped_amid: bool = False) -> None:
        if not self.is_shared:
            super().tick(dies_after, is_stopped_amid)
            return
        if self.reserved is not None:
            requests, cursor = self.reserved
            if self.random.random() < 0.8:
                self._submit(requests, cursor, dies_after, is_stopped_amid)
                return
            self.reserved = None
        if self.random.random() < 0.2:  # another process
            self.memory = Memory()
        names = ("broken", "press", "silent")
        own = {"press": State.from_cursor(self.own_cursor)} if self.own_cursor else {}
        cursor = read_states(self.memory, self.cursor, names, self.store, lambda unread: own)
        times = iter(self.random.choices([True, False], [9, 1], k=3))
        limits = Limits(self.rules.batch, self.rules.interval, lambda: next(times), lambda: self.registry.now)
        result = look_at_types(list(names), cursor, self.memory, self._look, limits, int(self.registry.now))
        self._die("look", dies_after)
        made = result.decisions.get("press", Decision(State("", 0)))
        self.most_requested = max(self.most_requested, len(made.requests))
        self.waits_told += [(found.number, created_ms(found)) for found in made.newly_waiting]
        self.partitions |= {found.number for found in [*made.newly_waiting, *(r.registered for r in made.requests)]}
        self._die("partitions", dies_after)
        self.store.write(result.saved)
        text = result.cursor.to_text()
        remember_tick(self.memory, text, names, self.store)
        self._die("saved", dies_after)
        if made.requests:
            self.reserved = made.requests, text
            self._die("reserved", dies_after)
            self._submit(made.requests, text, dies_after, is_stopped_amid)
        elif made.state.started or self.cursor is not None:
            self.cursor = text

    def _look(self, name: str, state: State | None, room: int) -> Decision:
        if name != "press":
            raise CorruptError(f"nobody can look at {name}") if name == "broken" else TransientError("no answer")
        rules = replace(self.rules, batch=room)
        try:
            return decide(state, rules, self.registry, self.runs_of, self.registry.now)  # type: ignore[arg-type]
        except ConnectionError as error:
            raise TransientError(str(error)) from error


STEPS = ("look", "partitions", "saved", "reserved", "a run", "runs")
