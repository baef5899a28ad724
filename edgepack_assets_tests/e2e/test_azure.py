"""The whole main job on Azure ML: models appear in the workspace while `edgepack ui` runs, and become packages."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import Settings
from edgepack_assets.quickstart.add_samples import SAMPLES
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.base import Kind
from edgepack_assets_tests.azure.loopback import LoopbackAzure
from edgepack_assets_tests.e2e.conftest import PROJECT, Plant
from edgepack_assets_tests.e2e.dev import Dev

METRICS = {"state_identifier": "silhouette", "image_classification": "accuracy_validation"}
ASSETS = {"payload_data", "config_package", "prepped_data", "validation_results", "metrics", "deployment_package"}


@pytest.fixture
def known(first_plant: Path) -> Settings:
    """Those of the plant whose models, data and environments are taken: test_azure_jobs.py makes environments."""
    return load_settings(first_plant / "edgepack.yaml")


@pytest.fixture
def plant(azure: LoopbackAzure, known: Settings, tmp_path: Path) -> Plant:
    # The components' wheels come from an index that is none of Azure's.
    azure.pass_on()
    plant = Plant(tmp_path / "plant")
    plant.folder.mkdir()
    document = yaml.safe_load((PROJECT / "edgepack.yaml").read_text())
    document["registry"] = {**azure.registry_section(), "credential": {"type": "service_principal"}}
    container = f"{azure.azure_ml.container}@{azure.storage.host.replace('.blob.', '.dfs.')}"
    document["artefacts"] = {"root": f"abfs://{container}/edgepack"}
    document["runtime"] = {"environments": str(known.runtime.environments)}
    document["sensors"] = {"interval": 2}
    plant.config.write_text(yaml.safe_dump(document, sort_keys=False))
    shutil.copyfile(PROJECT / "dagster.yaml", plant.folder / "dagster.yaml")
    plant.prepare()
    for sample in SAMPLES:
        name = document["model_types"][sample.implementation]["raw_data"]["name"]
        tags = [f"--tag={key}={value}" for key, value in sample.data_tags.items()]
        plant.edgepack("data", "add", name, open_registry(known).get(Kind.DATA, name, 1).location, *tags)
    return plant


@pytest.fixture
def dev(plant: Plant) -> Iterator[Dev]:
    made = Dev(plant.folder, plant.environment)
    try:
        yield made
    finally:
        made.stop()


def test_models_that_appear_in_the_workspace_become_packages(
    plant: Plant, dev: Dev, azure: LoopbackAzure, known: Settings, tmp_path: Path
) -> None:
    settings = load_settings(plant.config)
    assert settings.runtime.isolation == "required"
    dev.wait_for_ticks(1, len(METRICS))
    assert dev.runs() == []

    for name in METRICS:
        model = open_registry(known).get(Kind.MODEL, name, 1)
        assert plant.add_model(name, Path(model.location), "--tag=line=4") == 1
    dev.wait_until("both runs", lambda: len(runs := dev.runs()) == 2 and all(run.is_finished for run in runs))
    assert all(run.is_success for run in dev.runs()), dev.log.read_text()[-6000:]
    dev.wait_for_ticks(3, len(METRICS))  # looks again, and finds nothing new
    assert {run.tags["dagster/partition"] for run in dev.runs()} == {f"{name}:1" for name in METRICS}
    assert len(dev.runs()) == 2

    registry = open_registry(settings)
    packages = {}
    for name, metric in METRICS.items():
        [package] = registry.versions(Kind.MODEL, settings.model_type(name).registered_package_name)
        packages[name] = package
        tags = package.tags
        assert (tags["model_name"], tags["model_version"], tags["environment"]) == (name, "1", "dev")
        assert float(tags[metric]) >= settings.model_type(name).gates[metric].min
        path = registry.download(package, tmp_path / f"package of {name}")
        [file] = [path] if path.is_file() else path.rglob("*.zip")
        with zipfile.ZipFile(file) as content:
            info = yaml.safe_load(content.read("pipeline_config.yml"))["dataFlowPipelineInfo"]
        assert (info["packageId"], info["dataFlowPipelineVersion"]) == (tags["packageid"], str(package.version))
    assert len({package.tags["packageid"] for package in packages.values()}) == 2
    with dev.instance() as instance:
        for asset in ASSETS:
            assert instance.get_materialized_partitions(dg.AssetKey(asset)) == {f"{name}:1" for name in METRICS}

    dev.stop()
    places = list(_holding(azure.principal.secret, tmp_path))
    assert places == []
    shelf = {
        kind: {name: [v.properties for v in versions.values()] for name, versions in named.items()}
        for kind, named in azure.azure_ml.workspace.assets.items()
    }
    kept = json.dumps(shelf, default=str)
    assert packages["state_identifier"].tags["packageid"] in kept
    assert azure.principal.secret not in kept
    assert azure.identity.tokens
    for token in azure.identity.tokens:
        assert list(_holding(token, plant.folder / ".edgepack" / "dagster")) == []


def _holding(secret: str, folder: Path) -> Iterator[str]:
    """Every file below a folder that holds the secret, be it inside zips inside zips."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and _holds(secret.encode(), path.read_bytes()):
            yield str(path)


def _holds(secret: bytes, data: bytes) -> bool:
    if secret in data:
        return True
    if not data.startswith(b"PK\x03\x04"):
        return False
    with zipfile.ZipFile(io.BytesIO(data)) as content:
        found: Any = (content.read(entry) for entry in content.infolist())
        return any(_holds(secret, inner) for inner in found)
