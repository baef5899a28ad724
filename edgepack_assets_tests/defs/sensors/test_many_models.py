"""The sensor for many model types, on a real instance and a real local registry, tick by tick."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner, Result
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, SensorInstigatorData
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from edgepack_assets.cli.main import main
from edgepack_assets.config.loader import load_settings
from edgepack_assets.defs.sensors import bounded_registry, many_models, registry_sensors
from edgepack_assets.defs.sensors.state_store import SHARED, StateStore, sensor_name
from edgepack_assets.errors import TransientError
from edgepack_assets.registry.base import Kind
from edgepack_assets.registry.local import LocalRegistry

TYPES = ("press", "oven", "saw")
MODULE = LoadableTargetOrigin(module_name="edgepack_assets.definitions")


class Plant:
    """A configuration with three model types, and what a daemon keeps of its sensors."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir()
        self.registry = LocalRegistry(folder / "registry")
        self.cursors: dict[str, str | None] = {}
        self.location: str = "edgepack_assets"
        self.said = ""
        self.configure()

    def configure(self, own_up_to: int = 2, sensor: dict[str, bool] | None = None, **sensors: Any) -> None:
        entries = {
            name: {"implementation": "state_identifier", "model_name": name, "package_name": name.title(),
                   "raw_data": {"name": "raw"}, "sensor": (sensor or {}).get(name)}
            for name in TYPES
        }  # fmt: skip
        settings = {"start": "all", "sweep_interval": 1, "own_up_to": own_up_to, **sensors}
        document = {"registry": {"path": "registry"}, "sensors": settings, "model_types": entries}
        (self.folder / "edgepack.yaml").write_text(yaml.safe_dump(document))

    def add(self, *names: str) -> None:
        (self.folder / "model.bin").write_bytes(b"x")
        for name in names:
            self.registry.register(Kind.MODEL, name, self.folder / "model.bin", {})

    def tick(self, saves: bool = True) -> list[str]:
        """Evaluate every sensor of new models as the daemon does. Without `saves` the tick is lost."""
        keys = []
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            for sensor in registry_sensors(load_settings(self.folder / "edgepack.yaml")):
                origin = ManagedGrpcPythonEnvCodeLocationOrigin(MODULE, self.location) if self.location else None
                with dg.SensorEvaluationContext(
                    None, None, None, self.cursors.get(sensor.name), None, None, None, instance,
                    code_location_origin=origin,
                ) as context:  # fmt: skip
                    result = sensor(context)
                if isinstance(result, dg.SkipReason):
                    self.said = result.skip_message or ""
                    continue
                assert isinstance(result, dg.SensorResult)
                self.said = (result.skip_reason.skip_message or "") if result.skip_reason else ""
                keys += [str(request.partition_key) for request in result.run_requests or ()]
                if saves:
                    self.cursors[sensor.name] = result.cursor
                    self.keep(instance, sensor.name)
        return sorted(keys)

    def keep(self, instance: dg.DagsterInstance, name: str, status: Any = InstigatorStatus.DECLARED_IN_CODE) -> None:
        location = ManagedGrpcPythonEnvCodeLocationOrigin(MODULE, self.location or "plant")
        origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)
        data = SensorInstigatorData(last_tick_timestamp=1.0, cursor=self.cursors.get(name))
        state = InstigatorState(origin, InstigatorType.SENSOR, status, data)
        is_there = instance.get_instigator_state(state.instigator_origin_id, state.selector_id) is not None
        (instance.update_instigator_state if is_there else instance.add_instigator_state)(state)

    def restart(self) -> None:
        """Another process serves the code location."""
        many_models._processes.clear()


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    made = Plant(tmp_path)
    monkeypatch.setenv("EDGEPACK_CONFIG", str(tmp_path / "edgepack.yaml"))
    monkeypatch.setenv("DAGSTER_HOME", str(made.home))
    yield made
    made.restart()


def shown(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["sensors", *arguments])


def test_one_sensor_requests_each_version_of_each_model_type_once(plant: Plant) -> None:
    plant.add(*TYPES)
    assert plant.tick() == ["oven:1", "press:1", "saw:1"]
    assert list(plant.cursors) == [SHARED]
    assert plant.tick() == []
    plant.add("saw")
    plant.restart()
    assert plant.tick(saves=False) == ["saw:2"]
    assert plant.tick() == ["saw:2"]  # the first one was lost
    assert plant.tick() == []
    assert json.loads(plant.cursors[SHARED] or "")["changed"] == {}


def test_a_project_grows_and_shrinks_without_a_version_missed_or_repeated(plant: Plant) -> None:
    plant.configure(own_up_to=3)
    plant.add(*TYPES)
    assert plant.tick() == ["oven:1", "press:1", "saw:1"]
    assert list(plant.cursors) == sorted(sensor_name(name) for name in TYPES)
    plant.configure(own_up_to=2)
    plant.add("oven")
    assert plant.tick() == ["oven:2"]
    plant.add("press")
    plant.configure(own_up_to=3)  # the cursor of the sensor for many was saved, but not yet written into the rows
    assert plant.tick() == ["press:2"]
    assert plant.tick() == []
    plant.configure(own_up_to=2)
    plant.restart()
    assert plant.tick() == []
    plant.add("saw")
    assert plant.tick() == ["saw:2"]


@pytest.mark.parametrize("is_grown", [False, True])
def test_a_model_type_is_switched_off_alone(plant: Plant, is_grown: bool) -> None:
    plant.configure(own_up_to=2 if is_grown else 3, sensor={"oven": False})
    plant.add(*TYPES)
    assert plant.tick() == ["press:1", "saw:1"]
    assert "switched off by model_types.oven.sensor" in shown().output
    plant.configure(own_up_to=2 if is_grown else 3)
    assert plant.tick() == ["oven:1"]


def test_a_sensor_that_was_switched_off_in_the_ui_stays_off_when_the_project_grows(plant: Plant) -> None:
    with dg.DagsterInstance.from_config(str(plant.home)) as instance:
        plant.keep(instance, "oven_models", InstigatorStatus.STOPPED)
    plant.add(*TYPES)
    assert plant.tick() == ["press:1", "saw:1"]
    assert "set model_types.oven.sensor to true" in shown().output
    plant.configure(sensor={"oven": True})
    assert plant.tick() == ["oven:1"]


def test_a_damaged_and_a_silent_model_type_do_not_hold_up_the_others(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.add(*TYPES)
    (plant.folder / "registry/models/press/1/version.json").write_text("{")
    released = threading.Event()

    class Silent(LocalRegistry):
        def versions_and_damaged(self, kind: Kind, name: str) -> Any:
            if name == "oven":
                released.wait(60)
            return super().versions_and_damaged(kind, name)

    monkeypatch.setattr(bounded_registry, "open_registry", lambda settings: Silent(settings.registry.path))
    monkeypatch.setattr(many_models, "_ONE_TYPE", 0.5)
    try:
        assert plant.tick() == ["saw:1"]
        assert plant.tick() == []
        assert "oven: a call of an earlier tick has no answer yet" in plant.said
        assert "press:1 is damaged" in plant.said
        assert "registry_models: press" in shown().output
        plant.add("saw")
        assert plant.tick() == ["saw:2"]
    finally:
        released.set()


def test_a_registry_that_knows_all_newest_versions_is_asked_once(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    class Knowing(LocalRegistry):
        is_away = False

        def newest_versions(self, kind: Kind, most_calls: int) -> dict[str, int]:
            if self.is_away:
                raise TransientError("throttled")
            assert most_calls == len(TYPES)
            return {name: len(self.versions(kind, name)) for name in self.names(kind)}

        def newest_version(self, kind: Kind, name: str) -> int | None:
            raise AssertionError("asked for a single model type")

    monkeypatch.setattr(bounded_registry, "open_registry", lambda settings: Knowing(settings.registry.path))
    plant.configure(sweep_interval=3600)
    plant.add("oven", "press")
    assert plant.tick() == ["oven:1", "press:1"]
    plant.add("oven")
    assert plant.tick() == ["oven:2"]
    plant.add("saw", "press")
    monkeypatch.setattr(Knowing, "is_away", True)
    assert plant.tick() == []
    assert "does not answer" in plant.said
    assert "throttled" in plant.said
    plant.restart()
    assert plant.tick() == []
    monkeypatch.setattr(Knowing, "is_away", False)
    assert plant.tick() == ["press:2", "saw:1"]


def test_a_model_type_starts_anew_when_a_person_asks_for_it(plant: Plant) -> None:
    plant.add(*TYPES)
    plant.tick()
    plant.tick()
    result = shown("--start-anew", "saw")
    assert result.exit_code == 0, result.output
    assert plant.tick() == ["saw:1"]  # under the same run key, so that Dagster starts it only if its run is gone
    assert plant.tick() == []
    assert shown("--start-anew", "nothing").exit_code == 2
    plant.configure(own_up_to=3)
    assert "dagster sensor cursor saw_models --delete" in shown("--start-anew", "saw").output


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": 99}'])
def test_a_state_that_cannot_be_read_holds_up_its_own_model_type_alone(plant: Plant, damage: str) -> None:
    plant.configure(start="latest")
    plant.add(*TYPES)
    plant.tick()
    plant.tick()
    with dg.DagsterInstance.from_config(str(plant.home)) as instance:
        rows = instance.daemon_cursor_storage
        key = "edgepack/model_types/edgepack_assets/oven/state"
        sound = rows.get_cursor_values({key})[key]
        rows.set_cursor_values({key: damage})
    plant.restart()
    plant.add("press", "oven", "oven")
    assert plant.tick() == ["press:2"]
    plant.add("saw")
    assert plant.tick() == ["saw:2"]
    assert plant.tick() == []
    assert "oven: which versions of oven were handled cannot be read" in plant.said
    assert "edgepack sensors --start-anew oven" in plant.said
    result = shown()
    assert "registry_models: oven  on" in result.output
    assert "no good answer" not in result.output
    with dg.DagsterInstance.from_config(str(plant.home)) as instance:
        rows = instance.daemon_cursor_storage
        assert rows.get_cursor_values({key})[key] == damage  # for a person to look at
        if damage == "{":
            rows.set_cursor_values({key: sound})
    if damage == "{":
        assert plant.tick() == ["oven:2", "oven:3"]
    else:
        assert shown("--start-anew", "oven").exit_code == 0
        assert plant.tick() == ["oven:3"]
    assert plant.tick() == []


def test_a_damaged_cursor_of_a_sensor_before_the_project_grew_holds_up_its_own_model_type_alone(plant: Plant) -> None:
    plant.configure(own_up_to=3)
    plant.add(*TYPES)
    plant.tick()
    plant.cursors["oven_models"] = "{"
    with dg.DagsterInstance.from_config(str(plant.home)) as instance:
        plant.keep(instance, "oven_models")
    plant.configure()
    plant.add("press", "oven")
    assert plant.tick() == ["press:2"]
    assert plant.tick() == []
    assert "oven: its own sensor oven_models" in plant.said
    assert shown("--start-anew", "oven").exit_code == 0
    assert plant.tick() == ["oven:1", "oven:2"]
    plant.restart()
    assert plant.tick() == []


def test_new_and_known_rows_may_be_written_together(plant: Plant) -> None:
    plant.add(*TYPES)
    plant.tick()
    plant.tick()
    with dg.DagsterInstance.from_config(str(plant.home)) as instance:
        store = StateStore(instance, "edgepack_assets")
        [text] = [state.to_cursor() for state in store.read(["saw"]).values()]
        store.write({"saw": "", "new": text})
        assert list(store.read(["saw", "new"])) == ["new"]


def test_two_projects_on_one_instance_do_not_take_each_other_s_rows(
    plant: Plant, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same model types and models, each in a registry of its own."""
    other = Plant(tmp_path_factory.mktemp("other"))
    other.home = plant.home
    plant.location, other.location = "plant", "other"
    plant.add(*TYPES, "saw", "saw")
    other.add(*TYPES)
    for _ in range(2):
        plant.tick()
        other.tick()
        for each in (plant, other):
            each.restart()
    assert (plant.tick(), other.tick()) == ([], [])
    other.add("saw")
    assert (plant.tick(), other.tick()) == ([], ["saw:2"])
    plant.add("saw")
    assert (other.tick(), plant.tick()) == ([], ["saw:4"])


@pytest.mark.parametrize("crash", [False, True])
def test_rows_of_an_earlier_release_and_of_a_renamed_code_location_go_on(
    plant: Plant, crash: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier release wrote no code location into the rows."""
    plant.location = ""
    plant.add(*TYPES)
    assert len(plant.tick()) == 3
    assert plant.tick() == []  # the rows have it all now
    plant.add("oven")
    for location in ("plant", "renamed"):
        plant.location = location
        plant.restart()
        if crash:
            with monkeypatch.context() as patched:
                patched.setattr(StateStore, "_write", _write_once_and_die(StateStore._write))
                with pytest.raises(KeyboardInterrupt):
                    plant.tick()
            plant.restart()
        assert plant.tick() == (["oven:2"] if location == "plant" else [])
        assert plant.tick() == []
        with dg.DagsterInstance.from_config(str(plant.home)) as instance:
            assert StateStore(instance, "").read(TYPES) == {}
            assert set(StateStore(instance, location).read(TYPES)) == set(TYPES)
        plant.cursors.clear()  # Dagster keeps them by the name of the location
    assert shown("--start-anew", "saw").exit_code == 0
    assert plant.tick() == ["saw:1"]


def _write_once_and_die(write: Any) -> Any:
    def dying(store: StateStore, rows: Any) -> None:
        write(store, rows)
        raise KeyboardInterrupt

    return dying
