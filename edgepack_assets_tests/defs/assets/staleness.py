"""What the UI is told of a partition: Dagster's own resolver, on a plant with raw data and no model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from edgepack_assets.definitions import build_defs
from edgepack_assets.registry.base import Kind, ResolvedVersion
from edgepack_assets.registry.local import LocalRegistry

KEYS = ["press:1", "press:2", "saw:1"]


@dataclass
class Plant:
    """Two state identifiers, `press` and `saw`, on raw data of their own; a real instance with three partitions."""

    folder: Path
    instance: dg.DagsterInstance

    @property
    def registry(self) -> LocalRegistry:
        return LocalRegistry(self.folder / "registry")

    @property
    def config(self) -> Path:
        return self.folder / "edgepack.yaml"

    def configure(self, **press: Any) -> None:
        names = ("press", "saw")
        entries = {
            name: {"implementation": "state_identifier", "model_name": f"{name}_model", "package_name": name,
                   "raw_data": {"name": f"{name}_raw"}}
            for name in names
        }  # fmt: skip
        entries["press"] |= press
        self.config.write_text(yaml.safe_dump({"registry": {"path": "registry"}, "artefacts": {"root": "artefacts"},
                                               "model_types": entries}))  # fmt: skip

    def record(self, name: str, value: float) -> ResolvedVersion:
        """New raw data."""
        path = self.folder / f"{name}.parquet"
        pq.write_table(pa.table({phase: [value, value + 1] for phase in ("ph1", "ph2", "ph3")}), path)
        return self.registry.register(Kind.DATA, f"{name}_raw", path, {})

    def materialize(self, partition: str) -> None:
        """payload_data of a partition."""
        defs = build_defs(self.config)
        job = defs.resolve_implicit_global_asset_job_def()
        done = job.execute_in_process(
            instance=self.instance, partition_key=partition, asset_selection=[dg.AssetKey("payload_data")]
        )
        assert done.success

    def stale(self, asset: str = "payload_data") -> dict[str, list[str]]:
        """The stale partitions of an asset, with the reasons that the UI shows."""
        found = {key: why_stale(self.instance, self.config, asset, key) for key in KEYS}
        return {key: reasons for key, reasons in found.items() if reasons}


def why_stale(instance: dg.DagsterInstance, config: Path, asset: str, key: str) -> list[str]:
    """The reasons that the UI gives for an asset's partition being stale; none if it is not."""
    graph = build_defs(config).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    status = resolver.get_status(dg.AssetKey(asset), key)
    causes = resolver.get_stale_root_causes(dg.AssetKey(asset), key)
    assert (status == StaleStatus.STALE) == bool(causes)
    return [f"{cause.asset_key.to_user_string()} {cause.reason}" for cause in causes]


@pytest.fixture(scope="session")
def prepared_plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a plant whose three partitions have payloads. Nothing in it depends on where it lies."""
    folder = tmp_path_factory.mktemp("prepared-plant")
    with dg.instance_for_test(temp_dir=str(folder)) as instance:
        plant = Plant(folder, instance)
        plant.configure()
        instance.add_dynamic_partitions("models", KEYS)
        for name in ("press", "saw"):
            plant.record(name, 1.0)
        for key in KEYS:
            plant.materialize(key)
    return folder


@contextmanager
def plant_in(folder: Path, prepared: Path) -> Iterator[Plant]:
    """A copy of a prepared plant."""
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
    with dg.instance_for_test(temp_dir=str(folder)) as instance:
        yield Plant(folder, instance)
