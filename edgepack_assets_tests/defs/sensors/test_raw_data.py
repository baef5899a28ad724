"""The sensor of raw data, called as the daemon calls it, on a real instance."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from edgepack_assets.defs.resources import EdgepackResource
from edgepack_assets.defs.sensors import bounded_registry
from edgepack_assets.defs.sensors import raw_data as sensors
from edgepack_assets.defs.sensors.raw_data import VALIDATED_AGAIN, raw_data_versions
from edgepack_assets.errors import CorruptError, EdgepackError, TransientError
from edgepack_assets.registry.base import Kind
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets_tests.defs.assets.staleness import Plant, plant_in


class Daemon:
    """Keeps the cursor from tick to tick and stores what a tick observed."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.cursor: str | None = None

    def tick(self) -> tuple[list[dg.RunRequest], int, str]:
        """(runs requested, partitions observed, what it said)."""
        resources = {"edgepack": EdgepackResource(self.plant.config)}
        with dg.build_sensor_context(self.plant.instance, cursor=self.cursor, resources=resources) as context:
            result = raw_data_versions(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        for event in result.asset_events:
            self.plant.instance.report_runless_asset_event(event)
        said = result.skip_reason.skip_message if result.skip_reason else None
        return list(result.run_requests or []), len(result.asset_events), said or ""


@pytest.fixture
def plant(tmp_path: Path, prepared_plant: Path) -> Iterator[Plant]:
    with plant_in(tmp_path, prepared_plant) as made:
        yield made


def package(plant: Plant, model_version: int, raw_data: str, **tags: str) -> None:
    """A package that stands in the registry; its config package is on the instance."""
    (plant.folder / "package.zip").write_bytes(b"x")
    plant.registry.register(
        Kind.MODEL, "press-edge", plant.folder / "package.zip",
        {"model_name": "press_model", "model_version": str(model_version), "raw_data": raw_data, **tags},
    )  # fmt: skip
    plant.instance.report_runless_asset_event(
        dg.AssetMaterialization("config_package", partition=f"press:{model_version}")
    )


def test_damaged_raw_data_is_never_the_latest_and_said(plant: Plant) -> None:
    daemon = Daemon(plant)
    daemon.tick()
    plant.record("press", 2.0)
    (plant.registry.path / "data" / "press_raw" / "2" / "tags.json").write_text("")
    runs, observed, said = daemon.tick()
    assert (runs, observed) == ([], 0)
    assert "press: press_raw:1, nothing new; press: press_raw:2 is damaged and passed over" in said
    plant.record("press", 3.0)
    runs, observed, said = daemon.tick()
    assert observed == 2
    assert "damaged" not in said  # an older one that nothing would use


def test_new_raw_data_is_observed_once_and_shows_partitions_as_stale(plant: Plant) -> None:
    daemon = Daemon(plant)
    assert daemon.tick()[:2] == ([], 3)
    assert daemon.tick()[:2] == ([], 0)
    assert plant.stale() == {}
    plant.record("press", 2.0)
    runs, observed, said = daemon.tick()
    assert (runs, observed) == ([], 2)
    assert "press: press_raw:2, observed for 2 partitions; saw: saw_raw:1, nothing new" in said
    assert plant.stale().keys() == {"press:1", "press:2"}
    assert daemon.tick()[:2] == ([], 0)


def test_a_tick_looks_raw_data_up_once(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second look may cost a download of its digest, and may find another version than the cursor gets."""
    looked_up: list[str] = []
    last = LocalRegistry.last
    monkeypatch.setattr(LocalRegistry, "last", lambda self, *of: looked_up.append(of[1]) or last(self, *of))
    assert Daemon(plant).tick()[1] == 3
    assert sorted(looked_up) == ["press_raw", "saw_raw"]


def test_many_partitions_are_observed_in_batches(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensors, "BATCH", 1)
    daemon = Daemon(plant)
    daemon.tick()
    plant.record("press", 2.0)
    assert [daemon.tick()[1] for _ in range(4)] == [1, 1, 0, 0]
    assert plant.stale().keys() == {"press:1", "press:2"}


def test_the_latest_package_is_validated_again_where_that_is_asked_for(plant: Plant) -> None:
    package(plant, 2, "press_raw:1")
    package(plant, 1, "press_raw:1")  # registered later, of an older model
    daemon = Daemon(plant)
    plant.record("press", 2.0)
    assert daemon.tick()[0] == []  # not asked for
    plant.configure(revalidate=True)
    plant.record("press", 3.0)
    ((run,), observed, _) = daemon.tick()
    assert (run.partition_key, run.asset_selection) == ("press:2", VALIDATED_AGAIN)
    assert dg.AssetKey("config_package") not in VALIDATED_AGAIN
    assert run.run_key is not None
    assert run.run_key.startswith("revalidate press-edge:1 on press_raw:3@")
    assert observed == 2
    assert daemon.tick()[0] == []
    daemon.cursor = None  # a cursor that was lost asks for the same run, which the daemon knows by its key
    assert [each.run_key for each in daemon.tick()[0]] == [run.run_key]


@pytest.mark.parametrize(
    "cursor",
    ["x", "[]", "[" * 100_000, '{"press": 3}', '{"press": {"version": 3}}', '{"": 1}',
     '{"press": {"version": "v", "after": "x"}}', '{"press": {"version": "v", "after": [1]}}'],
)  # fmt: skip
def test_a_cursor_that_was_changed_is_told_and_kept(plant: Plant, cursor: str) -> None:
    daemon = Daemon(plant)
    daemon.cursor = cursor
    with pytest.raises(EdgepackError, match="the sensor's cursor was changed and cannot be read"):
        daemon.tick()
    assert daemon.cursor == cursor
    daemon.cursor = None
    assert daemon.tick()[1] == 3


@pytest.mark.parametrize("tags", [{"raw_data": "press_raw:2"}, {"metrics_20261123T100000Z": json.dumps({
    "metrics": {"silhouette": 0.5}, "raw_data": "press_raw:2"})}])  # fmt: skip
def test_what_was_validated_on_the_data_is_left_alone(plant: Plant, tags: dict[str, str]) -> None:
    plant.configure(revalidate=True)
    package(plant, 2, **{"raw_data": "press_raw:1", **tags})
    plant.record("press", 2.0)
    runs, _, said = Daemon(plant).tick()
    assert runs == []
    assert "press-edge:1 was validated on press_raw:2" in said


def test_without_a_package_or_its_config_package_there_is_nothing_to_validate(plant: Plant) -> None:
    plant.configure(revalidate=True)
    assert "press: no package to validate again" in Daemon(plant).tick()[2]
    tags = {"model_name": "press_model", "model_version": "9", "raw_data": "press_raw:0"}
    plant.registry.register(Kind.MODEL, "press-edge", plant.config, tags)
    assert "this instance has no config_package of press:9" in Daemon(plant).tick()[2]


@pytest.mark.parametrize("error", [TransientError, CorruptError])  # unreachable, or one damaged version in it
def test_a_registry_that_gives_no_answer_moves_no_cursor_and_hides_no_other_types_news(
    plant: Plant, error: type[EdgepackError], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(plant)
    daemon.tick()
    plant.record("press", 2.0)
    plant.record("saw", 2.0)
    last = LocalRegistry.last

    def down_for_press(self: LocalRegistry, kind: Kind, name: str) -> object:
        if name == "press_raw":
            raise error("the registry does not answer")
        return last(self, kind, name)

    with monkeypatch.context() as patch:
        patch.setattr(LocalRegistry, "last", down_for_press)
        _, observed, said = daemon.tick()
    assert observed == 1
    assert "press: not looked at: the registry does not answer" in said
    assert plant.stale().keys() == {"saw:1"}
    assert daemon.tick()[1] == 2
    assert plant.stale().keys() == {"press:1", "press:2", "saw:1"}


def test_a_registry_that_stays_down_is_a_failure_only_when_that_lasts(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(plant)
    daemon.tick()
    before = daemon.cursor
    last = LocalRegistry.last
    now = [10_000_000_000.0]
    monkeypatch.setattr(bounded_registry.time, "time", lambda: now[0])
    down = {"press_raw", "saw_raw"}

    def answers(self: LocalRegistry, kind: Kind, name: str) -> object:
        if name in down:
            raise ConnectionRefusedError("connection refused")  # of a client library, no EdgepackError
        return last(self, kind, name)

    monkeypatch.setattr(LocalRegistry, "last", answers)
    for _ in range(3):
        assert "press: not looked at: ConnectionRefusedError: connection refused; saw: not" in daemon.tick()[2]
        now[0] += 700
    assert daemon.cursor == before
    with pytest.raises(EdgepackError, match=r"no good answer from the registry for 2100 s .*connection refused"):
        daemon.tick()
    plant.record("saw", 2.0)
    down.remove("saw_raw")
    assert daemon.tick()[1] == 1  # what there is to be told is told
    with pytest.raises(EdgepackError, match=r"no good answer from the registry for 2100 s"):
        daemon.tick()
    down.clear()
    assert "press: press_raw:1, nothing new" in daemon.tick()[2]
    down.add("press_raw")
    assert "press: not looked at" in daemon.tick()[2]  # counted anew


def test_raw_data_that_is_not_there_yet_is_no_failure(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10_000_000_000.0]
    monkeypatch.setattr(bounded_registry.time, "time", lambda: now[0])
    shutil.rmtree(plant.registry.path / "data" / "press_raw")
    daemon = Daemon(plant)
    for _ in range(3):
        assert "press: the registry has no data asset 'press_raw'" in daemon.tick()[2]
        now[0] += 100_000


def test_a_registry_that_hangs_holds_up_no_tick(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster takes a tick of more than a minute for a failure, and the network may swallow what is sent."""
    daemon = Daemon(plant)
    over, asked = threading.Event(), []

    def hangs(*_: object) -> object:
        asked.append(threading.current_thread())
        over.wait(60)
        raise ConnectionResetError("at last")

    with monkeypatch.context() as patch:
        patch.setattr(sensors, "TICK", 0.2)
        patch.setattr(LocalRegistry, "last", hangs)
        left = "1 model type to be looked at first in the next tick"
        assert daemon.tick()[2] == f"press: not looked at: no answer within 0 s; {left}"
        assert daemon.tick()[2] == f"saw: not looked at: no answer within 0 s; {left}"
        assert "press: not looked at: a call of an earlier tick has no answer yet; saw: not" in daemon.tick()[2]
        assert len(asked) <= 2  # one question for each type: they do not pile up
        over.set()
        for thread in asked:
            thread.join(60)
    assert daemon.tick()[1] == 3
