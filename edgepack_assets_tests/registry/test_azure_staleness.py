"""Raw data whose versions are text, through Dagster: observed once, pinned in the payload, stale where outdated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from edgepack_assets.definitions import build_defs
from edgepack_assets.defs.assets.input_versions import RAW_DATA
from edgepack_assets.defs.resources import EdgepackResource
from edgepack_assets.defs.sensors.raw_data import raw_data_versions
from edgepack_assets.registry.azure_ml import AzureMLRegistry
from edgepack_assets_tests.azure.loopback import LoopbackAzure
from edgepack_assets_tests.defs.assets.staleness import why_stale
from edgepack_assets_tests.registry.conftest import azure_ml

KEY = "press:1"


class Plant:
    """A plant whose raw data lies in Azure ML, under versions that others chose."""

    def __init__(self, azure: LoopbackAzure, folder: Path, instance: dg.DagsterInstance) -> None:
        self.azure, self.folder, self.instance = azure, folder, instance
        self.registry: AzureMLRegistry = azure_ml(azure, "workspace")
        self.config = folder / "edgepack.yaml"
        self.cursor: str | None = None

    def configure(self, version: Any) -> None:
        entry = {"implementation": "state_identifier", "model_name": "press", "package_name": "Press",
                 "raw_data": {"name": "raw", "version": version}}  # fmt: skip
        document = {
            "registry": self.azure.registry_section(),
            "artefacts": {"root": "artefacts"},
            "model_types": {"press": entry},
        }
        self.config.write_text(yaml.safe_dump(document))

    def record(self, version: str, value: float, **properties: Any) -> None:
        file = self.folder / "table.parquet"
        pq.write_table(pa.table({phase: [value, value + 1] for phase in ("ph1", "ph2", "ph3")}), file)
        uri = f"azureml://datastores/workspaceblobstore/paths/theirs/{value}/table.parquet"
        container = self.registry._places.datastore("workspaceblobstore")
        container.upload([(f"theirs/{value}/table.parquet", file)], "theirs")
        shelf = self.azure.azure_ml.workspace
        self.azure.azure_ml.put(shelf, "data", "raw", version, {"dataUri": uri, "dataType": "uri_file", **properties})

    def materialize(self) -> dict[str, Any]:
        job = build_defs(self.config).resolve_implicit_global_asset_job_def()
        done = job.execute_in_process(
            instance=self.instance, partition_key=KEY, asset_selection=[dg.AssetKey("payload_data")]
        )
        assert done.success
        (event,) = done.asset_materializations_for_node("payload_data")
        return {name: value.value for name, value in event.metadata.items()}

    def tick(self) -> tuple[int, str]:
        resources = {"edgepack": EdgepackResource(config_file=self.config)}
        with dg.build_sensor_context(self.instance, cursor=self.cursor, resources=resources) as context:
            result = raw_data_versions(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        return len(result.asset_events), str(result.skip_reason.skip_message if result.skip_reason else "")

    def observed(self) -> list[str]:
        wanted = dg.AssetRecordsFilter(RAW_DATA, asset_partitions=[KEY])
        records = self.instance.fetch_observations(wanted, limit=50).records
        return [r.asset_observation.tags["dagster/data_version"] for r in records if r.asset_observation]


@pytest.fixture
def plant(azure: LoopbackAzure, tmp_path: Path) -> Iterator[Plant]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        instance.add_dynamic_partitions("models", [KEY])
        yield Plant(azure, tmp_path, instance)


def test_newer_raw_data_under_any_name_makes_a_payload_stale(plant: Plant) -> None:
    plant.configure("latest")
    for number, version in enumerate(["2024-06-01", "v1.2", "a:b@c d", "3", "1.0.0"], 1):
        plant.record(version, number)
        assert plant.tick()[0] == (number > 1)
        assert bool(why_stale(plant.instance, plant.config, "payload_data", KEY)) == (number > 1)
        assert plant.materialize()["raw_data"] == f"raw:{version}"
        assert not why_stale(plant.instance, plant.config, "payload_data", KEY)
        assert plant.observed()[0].rpartition("@")[0] == f"raw:{version}"
        assert "nothing new" in plant.tick()[1] or plant.tick()[0] == 0


def test_a_version_that_is_not_made_yet_is_seen_when_it_is(plant: Plant) -> None:
    plant.configure("latest")
    plant.record("old", 1)
    plant.materialize()
    plant.tick()
    plant.record("new", 2, provisioningState="Creating")
    assert "raw:old, nothing new" in plant.tick()[1]
    kept = plant.azure.azure_ml.workspace.assets["data"]["raw"]["new"].properties
    kept["provisioningState"] = "Succeeded"
    observed, said = plant.tick()
    assert (observed, "raw:new, observed for 1 partition" in said) == (1, True)
    assert why_stale(plant.instance, plant.config, "payload_data", KEY) == ["raw_data has a new data version"]


def test_a_version_that_is_configured_stays_whatever_comes_later(plant: Plant) -> None:
    plant.configure("2024-06-01")
    plant.record("2024-06-01", 1)
    plant.record("2024-07-01", 2)
    assert plant.materialize()["raw_data"] == "raw:2024-06-01"
    plant.tick()
    plant.record("2024-08-01", 3)
    assert "raw:2024-06-01, nothing new" in plant.tick()[1]
    assert not why_stale(plant.instance, plant.config, "payload_data", KEY)
