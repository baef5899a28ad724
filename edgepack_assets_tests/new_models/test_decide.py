"""What single looks cost, and come to, where a history would not tell."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edgepack_assets.errors import CorruptError
from edgepack_assets.new_models.cursor import State
from edgepack_assets.new_models.decide import decide
from edgepack_assets.new_models.first_runs import POLLS
from edgepack_assets.new_models.follow_runs import GONE_AFTER, LOST_AFTER
from edgepack_assets.new_models.run_requests import Rules, RunOutcome, SeenRun
from edgepack_assets.new_models.tick import Decision
from edgepack_assets.registry.base import DamagedVersion, Kind
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets_tests.new_models.simulated import START, SimulatedRegistry

RULES = Rules(model_type="press", model_name="press_model", start="all")


class Sensor:
    """Looks in a row at a registry that is well."""

    def __init__(self, rules: Rules = RULES, versions: int = 0) -> None:
        self.registry = SimulatedRegistry(random.Random(1))  # noqa: S311 - only shuffles
        self.rules = rules
        self.state: State | None = None
        self.runs: list[SeenRun] = []
        self.asked_about: list[int] = []
        for number in range(1, versions + 1):
            self.registry.now += 1
            self.registry.add(number)

    def look(self, after: float = 30) -> Decision:
        self.registry.now += after
        self.registry.calls = 0
        self.asked_about = []
        given = self.state.to_cursor() if self.state else ""
        made = decide(self.state, self.rules, self.registry, self._runs_of, self.registry.now)  # type: ignore[arg-type]
        assert given == (self.state.to_cursor() if self.state else "")  # the next tick may decide from it again
        self.state = State.from_cursor(made.state.to_cursor())
        return made

    def _runs_of(self, versions: Sequence[int]) -> list[SeenRun]:
        self.asked_about += versions
        return [run for run in self.runs if run.version in versions]

    def requested(self, after: float = 30) -> list[int]:
        return [request.registered.version for request in self.look(after).requests]


def test_a_look_with_nothing_new_asks_the_registry_once_and_dagster_nothing() -> None:
    sensor = Sensor(replace(RULES, start="latest"), versions=5000)
    [request] = sensor.look().requests
    assert request.registered.version == 5000
    sensor.runs = [
        SeenRun(5000, request.run_key, (START + 9000) * 1000, (START + 9000) * 1000, RunOutcome.SUCCEEDED, True)
    ]
    sensor.look()
    for _ in range(20):
        sensor.look()
        assert (sensor.registry.calls, sensor.asked_about) == (1, [])
    sensor.registry.add(5001)
    assert sensor.requested() == [5001]
    assert sensor.registry.calls == 2


def test_what_waits_for_approval_is_polled_in_turns() -> None:
    sensor = Sensor(replace(RULES, needs_approval=True), versions=35)
    assert len(sensor.look().newly_waiting) == 35
    sensor.registry.approve(33)
    polls = []
    for _ in range(5):
        polls.append(sensor.requested())
        assert sensor.registry.calls <= 1 + POLLS
    assert sorted(polls) == [[], [], [], [], [33]]


def test_a_hint_that_names_a_version_nobody_has_is_not_followed_for_ever() -> None:
    sensor = Sensor(replace(RULES, start="none"), versions=3)
    sensor.look()
    sensor.registry.newest_version = lambda kind, name: 9  # type: ignore[method-assign]
    calls = []
    for _ in range(12):
        assert sensor.requested() == []
        calls.append(sensor.registry.calls)
    assert calls[-1] == 0
    sensor.registry.add(9)
    assert sensor.requested(after=1000) == [9]  # by the sweep


def test_versions_that_are_no_numbers_are_told_of_and_passed_over() -> None:
    sensor = Sensor()
    for version in ("final", True, 0, -1, None, 1.5, 10**19):
        sensor.registry.add(version)  # type: ignore[arg-type]
    sensor.registry.add(2)
    made = sensor.look()
    assert [request.registered.version for request in made.requests] == [2]
    assert "skipped press_model:final: versions must be whole numbers from 1 up" in made.messages
    sensor.registry.newest_version = lambda kind, name: "final"  # type: ignore[assignment,method-assign,return-value]
    assert sensor.requested() == []


def test_damaged_versions_are_told_of_and_hide_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    sensor = Sensor(versions=3)
    broken = [DamagedVersion(Kind.MODEL, "press_model", number, "tags.json: is damaged") for number in range(4, 12)]
    monkeypatch.setattr(sensor.registry, "damaged", lambda kind, name: broken)
    made = sensor.look()
    assert [request.registered.version for request in made.requests] == [1, 2, 3]
    assert isinstance(made.fault, CorruptError)
    (words,) = [words for words in made.messages if "damaged" in words]
    assert words.startswith("press_model:11 is damaged and passed over (tags.json: is damaged); press_model:10 is")
    assert words.endswith("; 3 more are damaged")


def test_a_request_that_came_to_nothing_is_made_again_under_its_key() -> None:
    sensor = Sensor(versions=1)
    [first] = sensor.look().requests
    assert sensor.requested(after=LOST_AFTER) == []
    [again] = sensor.look(after=1).requests
    assert (again.run_key, again.attempt) == (first.run_key, 1)


def test_a_failed_version_that_left_the_registry_waits_a_day_for_it() -> None:
    sensor = Sensor(versions=1)
    [request] = sensor.look().requests
    sensor.runs = [SeenRun(1, request.run_key, START * 1000, START * 1000, RunOutcome.INFRASTRUCTURE_FAILURE, True)]
    sensor.registry.archived = {1}
    assert sensor.requested() == []
    sensor.registry.archived = set()
    assert sensor.requested() == [1]
    sensor.registry.archived = {1}
    sensor.runs = [
        SeenRun(1, f"{request.run_key[:-1]}2", START * 1000, START * 1000, RunOutcome.INFRASTRUCTURE_FAILURE, True)
    ]
    assert sensor.requested(after=GONE_AFTER + 1) == []
    sensor.registry.archived = set()
    assert sensor.requested() == []


def test_attempts_that_infrastructure_fails_grow_apart() -> None:
    sensor = Sensor(replace(RULES, attempts=6, interval=20), versions=1)
    [request] = sensor.look().requests
    for attempt, wait in {2: 0, 3: 200, 4: 2000, 5: 3600, 6: 3600}.items():
        over = int(sensor.registry.now) * 1000
        sensor.runs.append(SeenRun(1, request.run_key, over, over, RunOutcome.INFRASTRUCTURE_FAILURE, True))
        if wait:
            made = sensor.look(after=wait - 1)
            assert made.requests == []
            words = (
                f"press:1: run {attempt - 1} of 6 failed because of infrastructure; the next one is requested in 1 s"
            )
            assert words in made.messages
        [request] = sensor.look(after=1).requests
        assert request.attempt == attempt
    over = int(sensor.registry.now) * 1000
    sensor.runs.append(SeenRun(1, request.run_key, over, over, RunOutcome.INFRASTRUCTURE_FAILURE, True))
    assert sensor.requested(after=5000) == []
    assert sensor.requested(after=5000) == []


@pytest.mark.parametrize("ended", [RunOutcome.INFRASTRUCTURE_FAILURE, RunOutcome.UNAPPROVED, None])
def test_an_approval_that_was_taken_back_holds_up_the_next_attempt_until_it_is_given_again(
    ended: RunOutcome | None,
) -> None:
    sensor = Sensor(replace(RULES, needs_approval=True), versions=1)
    sensor.look()
    sensor.registry.approve(1)
    [first] = sensor.look().requests
    sensor.registry.versions_there[1] = replace(sensor.registry.versions_there[1], tags={})
    if ended is not None:  # else the request came to nothing
        sensor.runs = [SeenRun(1, first.run_key, START * 1000, START * 1000, ended, True)]
    for after in (LOST_AFTER + 1, 30, 2000):
        made = sensor.look(after)
        assert made.requests == []
        assert "press:1: its approval was withdrawn; it waits until it is approved again" in made.messages
    sensor.registry.approve(1)
    [again] = sensor.look().requests
    assert again.attempt == (1 if ended is None else 2)
    assert again.approval is not None
    assert again.approval.by == "Anna"
    sensor.runs.append(SeenRun(1, again.run_key, START * 1000, START * 1000, RunOutcome.SUCCEEDED, True))
    assert sensor.requested() == []
    assert sensor.requested() == []


def test_another_model_name_is_a_first_start() -> None:
    sensor = Sensor(replace(RULES, start="latest"), versions=4)
    assert sensor.requested() == [4]
    sensor.rules = replace(sensor.rules, model_name="other_model")
    assert sensor.requested() == [4]


def test_a_registry_that_shows_its_history_only_later_does_not_set_off_all_of_it() -> None:
    sensor = Sensor(replace(RULES, start="latest"), versions=6)
    sensor.registry.mood = "empty"
    assert sensor.requested() == []
    sensor.registry.mood = "well"
    for number in (7, 8):
        sensor.registry.now += 1
        sensor.registry.add(number)
    assert sensor.requested() == [6, 7, 8]  # the latest of those before, and all that came since


@pytest.mark.parametrize("mood", ["dead"])
def test_a_registry_that_dies_leaves_the_state_as_it_was(mood: str) -> None:
    sensor = Sensor(versions=3)
    sensor.look()
    assert sensor.state is not None
    before = sensor.state.to_cursor()
    sensor.registry.mood = mood
    with pytest.raises(ConnectionError):
        sensor.look(after=2000)
    assert sensor.state.to_cursor() == before


def test_an_archived_version_is_not_packaged(tmp_path: Path) -> None:
    """Of a real registry: nothing of the sensor knows the archive."""
    registry, file = LocalRegistry(tmp_path / "registry"), tmp_path / "model.pkl"
    file.write_bytes(b"model")
    for _ in range(3):
        registry.register(Kind.MODEL, "press_model", file, {})
    registry.set_archived(Kind.MODEL, "press_model", 2, True)
    first = decide(None, RULES, registry, lambda _: [], START)
    assert [request.registered.version for request in first.requests] == [1, 3]
    registry.register(Kind.MODEL, "press_model", file, {})
    registry.set_archived(Kind.MODEL, "press_model", 4, True)
    assert decide(first.state, RULES, registry, lambda _: [], START + 30).requests == []
    registry.set_archived(Kind.MODEL, "press_model", 4, False)
    later = decide(first.state, RULES, registry, lambda _: [], START + 60)
    assert [request.registered.version for request in later.requests] == [4]


def test_a_version_whose_run_is_in_progress_is_not_counted_as_one_to_be_requested() -> None:
    sensor = Sensor(versions=2)
    later = (START + 9000) * 1000
    sensor.runs = [SeenRun(2, None, later, later, RunOutcome.RUNNING, True)]
    messages = sensor.look().messages
    assert "press:2: a run that was launched by hand is in progress" in messages
    assert not [message for message in messages if "to be requested" in message]
    sensor.rules = replace(RULES, batch=2)
    for number in (3, 4, 5):
        sensor.registry.add(number)
    made = sensor.look()
    assert [request.registered.version for request in made.requests] == [3, 4]
    assert "1 more version to be requested" in made.messages


@pytest.mark.parametrize("by_hand", [3, 4, 250, 700])
def test_versions_that_a_person_has_launched_hold_up_no_others(by_hand: int) -> None:
    """As many as fit into a tick, or more: a backfill of old versions may take hours."""
    sensor = Sensor(replace(RULES, batch=3), versions=by_hand + 5)
    later = (START + 9000) * 1000
    sensor.runs = [SeenRun(number, None, later, later, RunOutcome.RUNNING, True) for number in range(1, by_hand + 1)]
    requested = [*sensor.requested(), *sensor.requested()]
    assert requested == [by_hand + each for each in range(1, 6)]
    assert sensor.requested() == []
    sensor.runs = [replace(run, outcome=RunOutcome.SUCCEEDED) for run in sensor.runs[1:]]  # the first one was deleted
    found = [number for _ in range(by_hand) for number in sensor.requested(after=0.1)]
    assert found == [1]
    assert sensor.state is not None
    assert not sensor.state.pending
