"""Somebody who can write the artefact store puts genuine older files back in it: no package has the older numbers.

The store is a folder, an object store in memory, or Azure storage; the run reads it as another machine does, with
nothing in its cache."""

from __future__ import annotations

import gzip
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg
import fsspec
import pytest

from edgepack_assets.artefacts.artefact import Artefact, Blob
from edgepack_assets.artefacts.store import ArtefactStore, open_backend
from edgepack_assets.config.registry_settings import AzureCredentialSettings
from edgepack_assets.definitions import build_defs
from edgepack_assets.defs import kept_helpers
from edgepack_assets_tests.artefacts.conftest import root_url
from edgepack_assets_tests.defs.assets.recorded import record
from edgepack_assets_tests.packaging.conftest import Built
from edgepack_assets_tests.tasks.plant import METRICS, PackagingHere, Plant

BETTER = {**METRICS, "silhouette": 0.9}
INPUTS = ["payload_data", "config_package", "validation_results", "metrics"]


@dataclass
class PutBack:
    """A plant whose press:1 was materialized twice: first with better numbers, on other raw data."""

    plant: Plant
    instance: dg.DagsterInstance
    older: dict[str, Artefact]
    newer: dict[str, Artefact]

    def __post_init__(self) -> None:
        self.backend = open_backend(self.plant.built.store.root_url, AzureCredentialSettings(), 20)
        self._manifests: dict[tuple[int, str], bytes] = {}
        for generation, artefacts in enumerate((self.older, self.newer)):
            for artefact in artefacts.values():
                self.plant.built.store.save(artefact)
                record(self.instance, artefact)
                path = self.manifest_path(artefact.asset)
                self._manifests[generation, artefact.asset] = self.backend.read(path)

    def manifest_path(self, asset: str) -> str:
        return f"{self.backend.root}/manifests/{asset}/press/1.json"

    def put_back(self, assets: list[str], generation: int = 0) -> None:
        for asset in assets:
            self.backend.write(self.manifest_path(asset), self._manifests[generation, asset])

    def put_in_place_of(self, blob: Blob, data: bytes) -> None:
        path = f"{self.backend.root}/blobs/{blob.digest[:2]}/{blob.digest}"
        if self.backend.local_folder is not None:
            Path(path).chmod(0o644)
        self.backend.write(path, data)

    def run(self) -> tuple[bool, str]:
        """deployment_package alone, with a cold cache: whether it succeeded, and what it said."""
        settings = self.plant.task_context().settings
        shutil.rmtree(settings.artefacts.cache, ignore_errors=True)
        job = build_defs(settings.file).resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(
            instance=self.instance, partition_key="press:1",
            asset_selection=[dg.AssetKey("deployment_package")], raise_on_error=False,
        )  # fmt: skip
        told = [event.step_failure_data for event in result.all_events if event.is_step_failure]
        return result.success, "".join(
            str(each.user_failure_data and each.user_failure_data.description) for each in told
        )


@pytest.fixture(params=["local", "memory", "abfs"])
def there(
    request: pytest.FixtureRequest, built: Built, tmp_path: Path, empty_storage: Path, monkeypatch: pytest.MonkeyPatch
) -> PutBack:
    url = root_url(request.param, request, tmp_path)
    store = ArtefactStore(url, tmp_path / "elsewhere", AzureCredentialSettings(), 20)
    for package in built.lock.packages:
        store.put_file(built.store.fetch(Blob(digest=package.digest, size=package.size, media_type="x")), "x")
    plant = Plant(replace(built, store=store), tmp_path)
    made = [plant.validated(1, BETTER, raw=1), plant.validated(1, METRICS, raw=2)]
    older, newer = ({each.asset: each for each in validated.inputs().values()} for validated in made)
    home = shutil.copytree(empty_storage, tmp_path / "home")
    instance = dg.DagsterInstance.local_temp(str(home))
    request.addfinalizer(instance.dispose)
    # The memory is this process's own, so packages must be made in it.
    monkeypatch.setattr(kept_helpers, "PackagingWorker", PackagingHere)
    if request.param == "memory":
        file_system, root = fsspec.core.url_to_fs(url)
        request.addfinalizer(lambda: file_system.rm(root, recursive=True))
    instance.add_dynamic_partitions("models", ["press:1"])
    return PutBack(plant, instance, older, newer)


def test_no_older_manifest_is_packaged_and_the_newest_is(there: PutBack) -> None:
    """Each alone, and all at once: a whole store from a backup."""
    for assets in (["metrics"], ["payload_data"], ["validation_results"], INPUTS):
        there.put_back(assets)
        succeeded, said = there.run()
        assert not succeeded, assets
        assert "is not the one that Dagster recorded last" in said, assets
        assert any(f"materialize {asset} of press:1 again" in said for asset in assets), said
        assert there.plant.packages() == []
        there.put_back(assets, generation=1)
    succeeded, said = there.run()
    assert succeeded, said
    [package] = there.plant.packages()
    assert package.tags["silhouette"] == "0.5"


def spoiled_metrics(there: PutBack) -> tuple[Blob, bytes]:
    older = there.plant.built.store.read_bytes(there.older["metrics"].parts["metrics"])
    return there.newer["metrics"].parts["metrics"], older


def spoiled_records(there: PutBack) -> tuple[Blob, bytes]:
    older = there.plant.built.store.read_bytes(there.older["payload_data"].parts["records"])
    return there.newer["payload_data"].parts["records"], older


def spoiled_results(there: PutBack) -> tuple[Blob, bytes]:
    results = there.newer["validation_results"].parts["results"]
    lines = gzip.decompress(there.plant.built.store.read_bytes(results))
    return results, gzip.compress(lines[::-1], mtime=0)


def test_other_bytes_under_the_name_of_a_blob_are_never_packaged(there: PutBack) -> None:
    for spoil in (spoiled_metrics, spoiled_records, spoiled_results):
        blob, data = spoil(there)
        sound = there.plant.built.store.read_bytes(blob)
        there.put_in_place_of(blob, data)
        succeeded, said = there.run()
        assert not succeeded, spoil
        assert f"bytes differ from their sha256 {blob.digest}" in said or f"does not hold blob {blob.digest}" in said
        assert there.plant.packages() == []
        there.put_in_place_of(blob, sound)
