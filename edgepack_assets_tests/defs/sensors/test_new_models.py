"""The registry sensors on a real instance and a real local registry, tick by tick."""

import json
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster import RunRequest

from edgepack_assets.config.loader import load_settings
from edgepack_assets.definitions import build_defs
from edgepack_assets.defs.sensors import bounded_registry
from edgepack_assets.defs.sensors.new_models import registry_sensors
from edgepack_assets.errors import ConfigError, EdgepackError, ModelError, TransientError
from edgepack_assets.registry import approval
from edgepack_assets.registry.base import Kind, RegisteredVersion
from edgepack_assets.registry.local import LocalRegistry

ENTRY = {
    "implementation": "state_identifier",
    "model_name": "press_model",
    "package_name": "Press",
    "raw_data": {"name": "press_raw"},
}


class Plant:
    """A configuration, its registry, a Dagster instance, and a daemon's part of a tick."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.folder, self.instance = folder, instance
        self.registry = LocalRegistry(folder / "registry")
        self.cursor: str | None = None
        self.said = ""
        self.configure()

    def configure(self, approval: object = "auto", **sensors: object) -> None:
        document = {
            "registry": {"path": "registry"},
            "run": {"environment": "prod", "build_reference": "2026.7"},
            "sensors": {"start": "all", "sweep_interval": 1, **sensors},
            "model_types": {"press": {**ENTRY, "approval": approval}},
        }
        (self.folder / "edgepack.yaml").write_text(yaml.safe_dump(document))

    @property
    def sensor(self) -> dg.SensorDefinition:
        [found] = registry_sensors(load_settings(self.folder / "edgepack.yaml"))
        return found

    def add(self, version: int | None = None, **tags: str) -> RegisteredVersion:
        content = self.folder / "model.bin"
        content.write_bytes(b"x")
        return self.registry.register(Kind.MODEL, "press_model", content, tags, version=version)

    def tick(self) -> list[RunRequest]:
        """Evaluate as the daemon does, make the runs, save the cursor."""
        result = self.sensor(dg.build_sensor_context(self.instance, cursor=self.cursor))
        if isinstance(result, dg.SkipReason):
            self.said = result.skip_message or ""
            return []
        assert isinstance(result, dg.SensorResult)
        self.said = (result.skip_reason.skip_message or "") if result.skip_reason else ""
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        assert not result.dynamic_partitions_requests
        requests = list(result.run_requests or ())
        for request in requests:
            self.launch(request.partition_key, {**request.tags, "dagster/run_key": request.run_key})
        self.cursor = result.cursor
        return requests

    def launch(self, key: str | None, tags: dict[str, str] | None = None) -> dg.DagsterRun:
        return self.instance.create_run_for_job(
            build_defs(self.folder / "edgepack.yaml").resolve_job_def("package_model"),
            tags={**(tags or {}), "dagster/partition": str(key)},
        )

    def runs(self) -> list[dg.DagsterRun]:
        return list(self.instance.get_runs())


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Plant(tmp_path, instance)


def keys(requests: list[RunRequest]) -> list[str | None]:
    return [request.partition_key for request in requests]


def test_a_new_version_gets_its_partition_and_one_run_with_its_identity(plant: Plant) -> None:
    assert plant.tick() == []
    assert plant.said == "the registry has no version of press_model yet"
    found = plant.add(**{"odd \u202e\n": "\x01'"})
    plant.instance.add_dynamic_partitions("models", ["press:1"])  # a person was faster, and launched nothing
    [request] = plant.tick()
    assert request.partition_key == "press:1"
    assert request.tags == {
        "edgepack/model_type": "press",
        "edgepack/model_name": "press_model",
        "edgepack/model_version": "1",
        "edgepack/registered": found.created.isoformat(),
        "edgepack/attempt": "1",
        "edgepack/environment": "prod",
        "edgepack/build_reference": "2026.7",
    }
    stamp = found.created.isoformat(timespec="milliseconds")
    assert request.run_key == f"press|press_model:1|{stamp}|1"
    assert plant.instance.get_dynamic_partitions("models") == ["press:1"]
    assert plant.tick() == []
    assert plant.said == "nothing new: the highest version of press_model is 1; runs in progress: 1"


def test_the_sensors_of_the_code_location_run_by_default(tmp_path: Path) -> None:
    entries = {name: {**ENTRY, "package_name": name} for name in ("press", "line-4")}
    file = tmp_path / "edgepack.yaml"
    file.write_text(yaml.safe_dump({"model_types": entries, "sensors": {"interval": 7}}))
    sensors = {sensor.name: sensor for sensor in build_defs(file).sensors or ()}
    assert sensors.keys() == {"press_models", "line_4_models", "raw_data_versions", "run_failures"}
    for name in ("press_models", "line_4_models"):
        sensor = sensors[name]
        assert isinstance(sensor, dg.SensorDefinition)
        assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
        assert sensor.minimum_interval_seconds == 7
        assert sensor.job_name == "package_model"
    entries["line_4"] = {**ENTRY, "package_name": "other"}
    file.write_text(yaml.safe_dump({"model_types": entries}))
    with pytest.raises(ConfigError, match="'line-4' and 'line_4' would share the sensor line_4_models"):
        build_defs(file)


def test_a_number_deleted_and_registered_again_is_another_version(plant: Plant) -> None:
    plant.configure(sweep_interval=1)
    plant.add()
    assert keys(plant.tick()) == ["press:1"]
    shutil.rmtree(plant.registry.path / "models" / "press_model" / "1")
    plant.add(version=1)
    plant.cursor = _sweep_due(plant.cursor)
    assert keys(plant.tick()) == ["press:1"]
    assert len({run.tags["dagster/run_key"] for run in plant.runs()}) == 2


def test_a_late_lower_version_is_found_by_the_sweep_and_what_was_there_stays_skipped(plant: Plant) -> None:
    plant.configure(start="latest", sweep_interval=900)
    for version in (1, 2, 3, 8):
        plant.add(version=version)
    assert keys(plant.tick()) == ["press:8"]
    plant.add(version=7)
    assert plant.tick() == []
    plant.cursor = _sweep_due(plant.cursor)
    assert keys(plant.tick()) == ["press:7"]


@pytest.mark.parametrize(("start", "first"), [("all", [1, 2, 3]), ("latest", [3]), ("none", [])])
def test_the_first_start_follows_the_setting(plant: Plant, start: str, first: list[int]) -> None:
    plant.configure(start=start)
    for _ in range(3):
        plant.add()
    assert keys(plant.tick()) == [f"press:{version}" for version in first]
    plant.add()
    assert keys(plant.tick()) == ["press:4"]


def test_a_backlog_is_worked_off_in_batches(plant: Plant) -> None:
    plant.configure(batch=2)
    for _ in range(5):
        plant.add()
    assert [keys(plant.tick()) for _ in range(4)] == [["press:1", "press:2"], ["press:3", "press:4"], ["press:5"], []]


# Runs that failed ----------------------------------------------------------------------------------------


@dg.op
def breaks(context: dg.OpExecutionContext) -> None:
    kind = context.run.tags["kind"]
    if kind == "model":
        raise dg.Failure("no preprocessing", metadata={"error": ModelError.__name__}, allow_retries=False)
    if kind == "registry":
        raise dg.Failure("the registry is gone", metadata={"error": TransientError.__name__})
    if kind == "artefact":
        raise EdgepackError("an artefact is damaged")
    raise ConnectionResetError("connection reset by peer")


@dg.job
def breaking() -> None:
    breaks()


def fail_run(plant: Plant, run: dg.DagsterRun, kind: str) -> None:
    if kind == "killed":
        plant.instance.report_run_failed(run, "the run's process is gone")
    elif kind == "canceled":
        plant.instance.report_run_canceled(run)
    else:
        # The run's own events are those of a job that broke in this way.
        plant.instance.delete_run(run.run_id)
        result = breaking.execute_in_process(
            instance=plant.instance, run_id=run.run_id, tags={**run.tags, "kind": kind}, raise_on_error=False
        )
        assert not result.success


@pytest.mark.parametrize("kind", ["killed", "registry", "reset"])
def test_a_run_that_failed_for_want_of_infrastructure_is_requested_again_a_bounded_number_of_times(
    plant: Plant, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.add()
    for attempt in (1, 2, 3, 4):
        if attempt > 2:
            assert plant.tick() == []
            assert (
                f"run {attempt - 1} of 4 failed because of infrastructure; the next one is requested in" in plant.said
            )
            clock, later = time.time, (300, 3000)[attempt - 3]
            monkeypatch.setattr(time, "time", lambda clock=clock, later=later: clock() + later)
        [request] = plant.tick()
        monkeypatch.undo()
        assert request.tags["edgepack/attempt"] == str(attempt)
        assert plant.tick() == []
        [run] = [run for run in plant.runs() if run.tags.get("dagster/run_key") == request.run_key]
        fail_run(plant, run, kind)
    assert plant.tick() == []
    assert "press:1: all 4 runs failed because of infrastructure" in plant.said
    assert plant.tick() == []
    assert plant.said == "nothing new: the highest version of press_model is 1"


@pytest.mark.parametrize("kind", ["model", "artefact", "canceled"])
def test_a_run_that_failed_on_the_model_or_was_canceled_is_not_requested_again(plant: Plant, kind: str) -> None:
    plant.add()
    plant.tick()
    [run] = plant.runs()
    fail_run(plant, run, kind)
    assert plant.tick() == []
    assert "press:1: its run" in plant.said
    assert "is not requested again" in plant.said
    assert plant.tick() == []
    assert "press:1" not in plant.said


# Approval ------------------------------------------------------------------------------------------------


def waiting(plant: Plant) -> list[object]:
    events = plant.instance.fetch_observations(dg.AssetKey("registered_model"), limit=100).records
    return [e.asset_observation.metadata["approval"].value for e in reversed(events) if e.asset_observation]


def approve(plant: Plant, version: int) -> None:
    found = plant.registry.get(Kind.MODEL, "press_model", version)
    approval.approve(plant.registry, found, "Anna Öz\n", datetime(2026, 5, 1, tzinfo=UTC))


def test_a_version_waits_for_its_approval_in_plain_sight(plant: Plant) -> None:
    plant.configure(approval={"default": "auto", "prod": "required"}, sweep_interval=900)
    plant.add()
    assert plant.tick() == []
    assert plant.instance.get_dynamic_partitions("models") == ["press:1"]
    said = "waiting for approval: press:1 (edgepack model approve press_model:1, or launch it by hand)"
    assert said in plant.said
    assert plant.tick() == []
    assert said in plant.said
    assert waiting(plant) == ["waiting"]
    approve(plant, 1)
    [request] = plant.tick()
    assert request.tags["edgepack/approved_by"] == "Anna Öz"
    assert request.tags["edgepack/approved_at"] == "2026-05-01T00:00:00+00:00"
    assert waiting(plant) == ["waiting", "approved by Anna Öz 2026-05-01T00:00:00+00:00"]
    assert plant.tick() == []


def test_what_a_person_launches_is_not_launched_again(plant: Plant) -> None:
    plant.configure(approval="required")
    plant.add()
    plant.tick()
    run = plant.launch("press:1")
    approve(plant, 1)
    assert plant.tick() == []
    assert "press:1: a run that was launched by hand is in progress" in plant.said
    plant.instance.handle_new_event(_success(run))
    assert plant.tick() == []
    assert "press:1: packaged by a run that was launched by hand" in plant.said
    assert plant.tick() == []
    assert len(plant.runs()) == 1


def test_without_the_need_for_approval_everything_that_waits_is_run(plant: Plant) -> None:
    plant.configure(approval={"prod": "required"})
    plant.add()
    assert plant.tick() == []
    plant.configure(approval={"dev": "required"})
    assert keys(plant.tick()) == ["press:1"]


# A registry that does not answer -------------------------------------------------------------------------


def test_a_registry_that_is_gone_is_skipped_with_its_reason_and_then_a_failure(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.configure(failure_after=600)
    plant.add()
    plant.tick()
    before = plant.cursor
    now = [10_000_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])

    def gone(*_: object) -> None:
        raise ConnectionRefusedError("connection refused")

    with monkeypatch.context() as patched:
        patched.setattr(LocalRegistry, "versions_and_damaged", gone)
        patched.setattr(LocalRegistry, "newest_version", gone)
        for _ in range(3):
            assert plant.tick() == []
            assert "ConnectionRefusedError: connection refused" in plant.said
            now[0] += 250
            bounded_registry._silent_since.clear()  # another process serves the code location
        assert plant.cursor == before
        with pytest.raises(EdgepackError, match=r"no good answer from the registry for 750 s .*connection refused"):
            plant.tick()
    assert plant.cursor == before
    plant.add()
    assert keys(plant.tick()) == ["press:2"]


def test_one_damaged_version_hides_no_other(plant: Plant) -> None:
    plant.configure(start="all", failure_after=0)
    plant.add()
    plant.tick()
    (plant.registry.path / "models" / "press_model" / "1" / "version.json").write_text("{")
    plant.add()
    plant.cursor = _sweep_due(plant.cursor)
    assert keys(plant.tick()) == ["press:2"]
    plant.cursor = _sweep_due(plant.cursor)
    with pytest.raises(EdgepackError, match=r"press_model/1/version.json: is damaged"):
        plant.tick()


def test_a_cursor_that_somebody_edited_is_refused(plant: Plant) -> None:
    for text in ("{}", "5", '{"format":1}', "x"):
        plant.cursor = text
        with pytest.raises(EdgepackError, match=r"the sensor's cursor was changed and cannot be read"):
            plant.tick()


def _sweep_due(cursor: str | None) -> str:
    return json.dumps({**json.loads(cursor or "{}"), "sweep_due": 0})


def _success(run: dg.DagsterRun) -> dg.EventLogEntry:
    event = dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, run.job_name)
    return dg.EventLogEntry(
        error_info=None, level="INFO", user_message="", run_id=run.run_id, timestamp=datetime.now(UTC).timestamp(),
        job_name=run.job_name, dagster_event=event,
    )  # fmt: skip
