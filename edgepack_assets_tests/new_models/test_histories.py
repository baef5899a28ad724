"""A thousand histories: whatever registry and daemon do, no version is missed and none is run twice."""

from __future__ import annotations

import contextlib
import random
from collections import Counter

import pytest

from edgepack_assets.new_models.follow_runs import LOST_AFTER
from edgepack_assets.new_models.run_requests import Rules, RunOutcome, created_ms
from edgepack_assets_tests.new_models.simulated import (
    STEPS,
    Died,
    Run,
    SimulatedDagster,
    SimulatedMany,
    SimulatedRegistry,
)

HISTORIES = 1200
CHUNKS = 12
LATER = [pytest.mark.long, pytest.mark.no_cover]
"""Marks of all chunks but the first, which runs the lines that the others run too: measuring them takes four times as
long as they take."""
QUIET = 16
"""Ticks without a run. In three the registry is swept anew, and a run that was lost is given up."""
MOODS = ("well", "well", "well", "empty", "dead", "dying", "partial", "repeats")


class History:
    """One life of a sensor: a model type's own, or (`is_shared`) the one for many model types."""

    def __init__(self, seed: int, is_shared: bool = False) -> None:
        self.random = random.Random(seed)  # noqa: S311 - the same history for a seed is the point
        self.registry = SimulatedRegistry(self.random)
        self.rules = Rules(
            model_type="press",
            model_name="press_model",
            needs_approval=self.random.random() < 0.3,
            start=self.random.choice(["all", "latest", "none"]),
            batch=self.random.choice([1, 3, 50]),
            attempts=self.random.choice([1, 3, 5]),
            interval=self.random.choice([1, 30]),
            sweep_interval=self.random.choice([60, 300]),
        )
        self.dagster = SimulatedDagster(self.random, self.registry, self.rules)
        if is_shared:
            is_grown = self.random.random() < 0.5
            self.dagster = SimulatedMany(self.random, self.registry, self.rules, is_shared=not is_grown)
        self.skipped: set[tuple[int, int]] = set()
        self.either: set[tuple[int, int]] = set()
        self.left_out: list[int] = []

    def live(self) -> None:
        for _ in range(self.random.choice([0, 1, 5, 30])):
            self.pass_time()
            self.register()
        if self.random.random() < 0.5:
            self.registry.now += 300  # the index has caught up
        self.start()
        for _ in range(self.random.randint(5, 40)):
            self.pass_time()
            for _ in range(self.random.randint(0, 3)):
                self.random.choice(
                    [self.register, self.register, self.leave_out, self.catch_up, self.archive, self.register_again,
                     self.approve, self.launch_by_hand]
                )()  # fmt: skip
            self.registry.mood = self.random.choice(MOODS)
            if isinstance(self.dagster, SimulatedMany) and not self.dagster.is_shared and self.random.random() < 0.1:
                self.dagster.grow()
            self.tick()
            self.end_runs()
        self.come_to_rest()

    def pass_time(self) -> None:
        self.registry.now += self.random.choice([1, 30, 30, 30, 400])

    # what happens in the registry

    def register(self) -> None:
        number = max([*self.registry.versions_there, *self.left_out], default=0) + self.random.choice([1, 1, 1, 2, 15])
        self.registry.add(number, lag=self.random.choice([0, 0, 25, 100]))

    def leave_out(self) -> None:
        self.left_out.append(max([*self.registry.versions_there, *self.left_out], default=0) + 1)

    def catch_up(self) -> None:
        if self.left_out:
            self.registry.add(self.left_out.pop(0), lag=self.random.choice([0, 25, 400]))

    def archive(self) -> None:
        if self.registry.versions_there:
            self.registry.archived ^= {self.random.choice(list(self.registry.versions_there))}

    def register_again(self) -> None:
        if self.registry.versions_there:
            self.registry.add(self.random.choice(list(self.registry.versions_there)), lag=self.random.choice([0, 25]))

    def approve(self) -> None:
        if self.registry.versions_there:
            self.registry.approve(self.random.choice(list(self.registry.versions_there)))

    def launch_by_hand(self) -> None:
        if self.dagster.partitions:
            number = self.random.choice(sorted(self.dagster.partitions))
            created = created_ms(self.registry.versions_there[number])
            self.dagster.runs.append(Run(number, created, None, self.registry.now))

    # what happens in Dagster

    def start(self) -> None:
        self.registry.mood = self.random.choice(["well", "well", "dead"])
        while self.dagster.cursor is None:  # a look that nobody remembers was no start
            shown = [self.registry.versions_there[n] for n in self.registry.visible()]
            hidden = [v for n, v in self.registry.versions_there.items() if n not in self.registry.visible()]
            self.tick()
            self.registry.mood = "well"
        if self.rules.start == "all":
            return
        top = max((v.version for v in shown), default=0)
        until = max((created_ms(v) for v in shown), default=0)
        self.skipped = {(v.version, created_ms(v)) for v in shown} - (
            {(top, created_ms(v)) for v in shown if v.version == top} if self.rules.start == "latest" else set()
        )
        # Registered before the first start, shown after it: new if nothing shown then was newer.
        if shown:
            self.skipped |= {(v.version, created_ms(v)) for v in hidden if v.version < top and created_ms(v) <= until}
        else:
            self.either = {(v.version, created_ms(v)) for v in hidden}

    def tick(self) -> None:
        dies_after = self.random.choice([*STEPS, "", "", "", "", ""])
        with contextlib.suppress(Died):
            self.dagster.tick(dies_after, is_stopped_amid=self.random.random() < 0.03)

    def end_runs(self, well: bool = False) -> None:
        for run in self.dagster.runs:
            if run.ended is RunOutcome.RUNNING and (well or self.random.random() < 0.5):
                weights = [1, 0, 0, 0] if well else [6, 1, 2, 3]
                run.ended = self.random.choices(
                    [
                        RunOutcome.SUCCEEDED,
                        RunOutcome.CANCELED,
                        RunOutcome.MODEL_FAILURE,
                        RunOutcome.INFRASTRUCTURE_FAILURE,
                    ],
                    weights,
                )[0]
                run.over = self.registry.now

    def come_to_rest(self) -> None:
        """The registry and the daemon are well until nothing has come of so many ticks that nothing will, or for as
        long as everything would need to come right one after the other."""
        self.registry.mood = "well"
        before, quiet = -1, 0
        for _ in range(3 * len(self.registry.versions_there) + 20):
            self.registry.now += max(self.rules.sweep_interval, LOST_AFTER) / 3
            self.dagster.tick()
            self.end_runs(well=True)
            made = len(self.dagster.runs) + len(self.dagster.waits_told)
            quiet = 0 if made != before or self.dagster.reserved else quiet + 1
            before = made
            if quiet == QUIET:
                return

    # what is asserted

    def check(self) -> None:
        mine = [run for run in self.dagster.runs if run.run_key is not None]
        keys = Counter(run.run_key for run in mine)
        assert not [key for key, count in keys.items() if count > 1]
        for (number, created), count in Counter((run.number, run.created) for run in mine).items():
            failures = [
                r
                for r in mine
                if (r.number, r.created, r.ended) == (number, created, RunOutcome.INFRASTRUCTURE_FAILURE)
            ]
            assert count <= min(self.rules.attempts, 1 + len(failures)), f"version {number} was run twice"
            assert (number, created) not in self.skipped, f"version {number} was there before the start"
        by_hand = [run for run in self.dagster.runs if run.run_key is None]
        ran = {(run.number, run.created) for run in mine}
        for number in self.registry.visible():
            version = self.registry.versions_there[number]
            this = number, created_ms(version)
            if this in self.skipped | self.either:
                continue
            # A run launched by hand works on what the registry has then.
            if any(run.number == number and run.began * 1000 >= this[1] for run in by_hand):
                continue
            if self.rules.needs_approval and "approved_by" not in version.tags:
                assert this not in ran
                assert this in self.dagster.waits_told
                assert number in self.dagster.partitions
            else:
                assert this in ran, f"version {number} was missed"
        assert self.dagster.most_requested <= self.rules.batch
        if self.dagster.cursor is not None:
            assert len(self.dagster.cursor) < 12_000


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("chunk", [0, *(pytest.param(chunk, marks=LATER) for chunk in range(1, CHUNKS))])
def test_nothing_is_missed_and_nothing_runs_twice(chunk: int, is_shared: bool) -> None:
    for seed in range(chunk, HISTORIES, CHUNKS):
        history = History(seed, is_shared)
        try:
            history.live()
            history.check()
        except Exception as error:
            error.add_note(f"history {seed}: {history.rules}")
            raise
