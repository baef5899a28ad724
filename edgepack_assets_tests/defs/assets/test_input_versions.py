"""Data versions of what the registry has: a partition is stale when, and only when, it was made from other data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import dagster as dg
import pytest

from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.loader import load_settings
from edgepack_assets.defs.assets import input_versions as observed
from edgepack_assets.defs.assets.input_versions import (
    RAW_DATA,
    REGISTERED_MODEL,
    current_raw_data,
    data_version,
    input_tags,
    raw_data_observations,
    raw_data_tags,
)
from edgepack_assets.partitions import ModelKey
from edgepack_assets_tests.defs.assets.staleness import KEYS, Plant, plant_in

NEW_DATA = ["raw_data has a new data version"]


@pytest.fixture
def plant(tmp_path: Path, prepared_plant: Path) -> Iterator[Plant]:  # another one than the tiny component's
    with plant_in(tmp_path, prepared_plant) as made:
        yield made


def observe(plant: Plant, *keys: str) -> None:
    settings = load_settings(plant.config)
    for key in map(ModelKey.parse, keys):
        raw = current_raw_data(key.model_type, settings, plant.registry)
        current = data_version(raw.name, raw.version, raw.resolve().digest)
        for event in raw_data_observations([key], raw, current):
            plant.instance.report_runless_asset_event(event)


def versions(plant: Plant, key: str) -> list[str]:
    wanted = dg.AssetRecordsFilter(RAW_DATA, asset_partitions=[key])
    records = plant.instance.fetch_observations(wanted, limit=50).records
    return [r.asset_observation.tags["dagster/data_version"] for r in records if r.asset_observation]


def test_new_raw_data_makes_stale_what_was_made_from_the_old_and_nothing_else(plant: Plant) -> None:
    first = f"press_raw:1@{plant.registry.versions(observed.Kind.DATA, 'press_raw')[0].resolve().digest}"
    assert versions(plant, "press:1") == [first]
    assert plant.stale() == {}
    observe(plant, *KEYS)  # nothing new
    assert plant.stale() == {}
    second = plant.record("press", 2.0)
    observe(plant, *KEYS)
    assert plant.stale() == {"press:1": NEW_DATA, "press:2": NEW_DATA}
    plant.materialize("press:1")
    assert plant.stale() == {"press:2": NEW_DATA}
    assert versions(plant, "press:1")[0] == f"press_raw:2@{second.digest}"


def test_without_a_sensor_a_run_itself_tells_what_it_found(plant: Plant) -> None:
    plant.record("press", 2.0)
    plant.materialize("press:1")
    assert plant.stale() == {}
    assert [version.partition("@")[0] for version in versions(plant, "press:1")] == ["press_raw:2", "press_raw:1"]


def test_going_back_to_an_earlier_version_is_no_staleness_once_it_is_made(plant: Plant) -> None:
    plant.record("press", 2.0)
    plant.materialize("press:1")
    plant.configure(raw_data={"name": "press_raw", "version": 1})
    observe(plant, "press:1")
    assert plant.stale() == {"press:1": NEW_DATA}
    plant.materialize("press:1")
    assert plant.stale() == {}


def test_data_that_appears_while_a_step_runs_leaves_its_result_stale(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module("edgepack_assets.defs.assets.payload_data")  # the package holds the asset under this name
    make: Callable[..., object] = module.make_payload

    def make_while_others_register(*arguments: object) -> object:
        made = make(*arguments)
        plant.record("press", 3.0)
        observe(plant, "press:1")  # the sensor is quicker than the step
        return made

    monkeypatch.setattr(module, "make_payload", make_while_others_register)
    plant.materialize("press:1")
    assert plant.stale() == {"press:1": NEW_DATA}
    monkeypatch.undo()
    plant.materialize("press:1")
    assert plant.stale() == {}


def test_a_step_points_to_the_observation_of_what_it_used(plant: Plant) -> None:
    key = ModelKey("press", 1)
    first = input_tags(plant.instance, REGISTERED_MODEL, key, "press_model:1@a", "press_model:1@a")
    again = input_tags(plant.instance, REGISTERED_MODEL, key, "press_model:1@a", "press_model:1@a")
    assert first == again
    assert first["dagster/input_data_version/registered_model"] == "press_model:1@a"
    assert int(first["dagster/input_event_pointer/registered_model"]) > 0


def test_what_is_made_later_from_an_old_payload_is_as_stale_as_the_payload(plant: Plant) -> None:
    """A step after the payload's may come when newer data was seen, and Dagster would say it was made from that."""
    key, artefacts = ModelKey("press", 1), ArtefactStore(str(plant.folder / "artefacts"), plant.folder / "cache")
    before = versions(plant, "press:1")
    plant.record("press", 2.0)
    observe(plant, "press:1")
    payload = artefacts.load("payload_data", "press:1")
    tags = raw_data_tags(plant.instance, key, payload)
    assert tags["dagster/input_data_version/raw_data"] == before[0]
    observations = plant.instance.fetch_observations(dg.AssetRecordsFilter(RAW_DATA, asset_partitions=["press:1"]), 10)
    oldest = observations.records[-1]
    assert tags["dagster/input_event_pointer/raw_data"] == str(oldest.storage_id)
    assert [version.partition("@")[0] for version in versions(plant, "press:1")] == ["press_raw:2", "press_raw:1"]


def test_a_payload_of_another_instance_is_pointed_to_and_changes_nothing_that_was_seen(plant: Plant) -> None:
    payload = ArtefactStore(str(plant.folder / "artefacts"), plant.folder / "cache").load("payload_data", "press:1")
    (used,) = versions(plant, "press:1")
    with dg.instance_for_test() as other:
        newer = observed.observation(RAW_DATA, ModelKey("press", 1), "press_raw:2@b", {})
        other.report_runless_asset_event(newer)
        tags = raw_data_tags(other, ModelKey("press", 1), payload)
        assert tags["dagster/input_data_version/raw_data"] == used
        found = versions(Plant(plant.folder, other), "press:1")
        assert found == ["press_raw:2@b", used, "press_raw:2@b"]
