"""The quickstart's result, looked at as a user would: the table, the registry, Dagster's records, the zip."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from edgepack_assets.artefacts.store import open_store
from edgepack_assets.config.loader import load_settings
from edgepack_assets.defs.assets.input_versions import RAW_DATA, observation
from edgepack_assets.model_types.interface import read_lines
from edgepack_assets.partitions import ModelKey
from edgepack_assets_tests.defs.assets.staleness import why_stale
from edgepack_assets_tests.e2e.conftest import Plant
from edgepack_assets_tests.packaging.stock import stock_runner

TYPES = {
    "state_identifier": ("State-Identifier-edge", {"silhouette", "dunn_index", "inertia"}),
    "image_classification": (
        "Image-Classification-edge",
        {"accuracy_validation", "avg_precision_validation", "avg_recall_validation", "avg_f1_score_validation"},
    ),
}
ASSETS = ["payload_data", "config_package", "prepped_data", "validation_results", "metrics", "deployment_package"]


def test_it_tells_what_it_made_and_what_to_type_next(plant: Plant) -> None:
    for name, _ in TYPES.values():
        assert f"{name}" in plant.quickstart_said
    assert 'eval "$(edgepack env)"' in plant.quickstart_said
    assert "edgepack ui" in plant.quickstart_said


def test_run_again_it_does_no_work_and_says_so(plant: Plant) -> None:
    before = plant.listed() + plant.listed("data")
    again = plant.run("python", "-m", "edgepack_assets.quickstart").stdout
    assert "nothing to do" in again
    assert plant.listed() + plant.listed("data") == before


@pytest.mark.parametrize("model_type", TYPES)
def test_the_package_is_registered_with_its_model_and_metrics(plant: Plant, model_type: str) -> None:
    name, metrics = TYPES[model_type]
    package = next(p for p in plant.listed() if p["name"] == name and p["tags"]["model_version"] == "1")
    tags = package["tags"]
    assert tags["model_name"] == model_type
    assert metrics <= tags.keys()
    assert all(float(tags[metric]) == float(tags[metric]) for metric in metrics)
    assert len(tags["packageid"]) == 36


def test_new_raw_data_shows_all_that_was_made_from_the_old(plant: Plant, tmp_path: Path) -> None:
    shutil.copytree(plant.environment["DAGSTER_HOME"], tmp_path / "home")  # others' partitions stay as they are
    made_from_raw = {"payload_data", "prepped_data", "validation_results", "metrics", "deployment_package"}
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:

        def stale() -> set[str]:
            """Assets of the state identifier's first model that are stale, all for one reason."""
            told = {asset: why_stale(instance, plant.config, asset, "state_identifier:1") for asset in ASSETS}
            assert all(reasons in ([], ["raw_data has a new data version"]) for reasons in told.values()), told
            return {asset for asset, reasons in told.items() if reasons}

        assert stale() == set()
        key = ModelKey("state_identifier", 1)
        new = observation(RAW_DATA, key, "state_identifier_raw:2@0", {})
        instance.report_runless_asset_event(new)
        assert stale() == made_from_raw


@pytest.mark.parametrize("model_type", TYPES)
def test_the_zip_carries_its_version_and_exactly_the_locked_wheels(
    plant: Plant, tmp_path: Path, model_type: str
) -> None:
    name, _ = TYPES[model_type]
    version = plant.packages(name)[0]
    plant.edgepack("model", "download", str(version), str(tmp_path))
    (path,) = tmp_path.rglob("*.zip")
    with zipfile.ZipFile(path) as package:
        config = yaml.safe_load(package.read("pipeline_config.yml"))
        with package.open("components/inference_0.0.1.zip") as inner, zipfile.ZipFile(inner) as component:
            lock = component.read("requirements.lock").decode().split("\n")
            with component.open("PythonPackages.zip") as packed, zipfile.ZipFile(packed) as wheels:
                found = {w.split("-")[0].lower().replace("_", "-") for w in wheels.namelist()}
                assert all(entry.compress_type == zipfile.ZIP_STORED for entry in wheels.infolist())
    assert config["dataFlowPipelineInfo"]["dataFlowPipelineVersion"] == str(version.version)
    assert config["dataFlowPipelineInfo"]["packageId"] == version.tags["packageid"]
    assert {line.split("==")[0].lower().replace("_", "-").replace(".", "-") for line in lock if line} == found
    assert not any(wheel.startswith("mlflow") for wheel in found)


def test_every_asset_is_on_the_instance_with_its_check(plant: Plant) -> None:
    with dg.DagsterInstance.from_config(plant.environment["DAGSTER_HOME"]) as instance:
        for asset in ASSETS:
            found = instance.fetch_materializations(dg.AssetKey(asset), limit=1000).records
            assert {f"{model_type}:1" for model_type in TYPES} <= {record.partition_key for record in found}
            metadata = found[0].asset_materialization.metadata
            assert "digest" in metadata


def test_pictures_are_in_the_metadata_not_paths(plant: Plant) -> None:
    with dg.DagsterInstance.from_config(plant.environment["DAGSTER_HOME"]) as instance:
        for asset, partition in [
            ("prepped_data", "state_identifier:1"),
            ("validation_results", "state_identifier:1"),
            ("validation_results", "image_classification:1"),
            ("metrics", "image_classification:1"),
        ]:
            wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[partition])
            record = instance.fetch_materializations(wanted, limit=1).records[0]
            texts = [
                value.md_str
                for value in record.asset_materialization.metadata.values()
                if isinstance(value, dg.MarkdownMetadataValue)
            ]
            assert any("data:image/png;base64," in text for text in texts), asset


def test_the_stock_runner_gives_the_same_answers(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's own LocalPipelineRunner on the registered package, wheels from the package only."""
    version = plant.packages("State-Identifier-edge")[0]
    plant.edgepack("model", "download", str(version), str(tmp_path))
    (package,) = tmp_path.rglob("*.zip")
    with zipfile.ZipFile(package) as archive:
        python = yaml.safe_load(archive.read("pipeline_config.yml"))["dataFlowPipeline"]["components"][0]["runtime"]
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here != python["version"]:
        pytest.skip(f"the stock runner runs a {python['version']} package only on that Python; this is {here}")
    store = open_store(load_settings(plant.config))

    def lines(asset: str, part: str) -> list[dict[str, Any]]:
        artefact = store.load(asset, "state_identifier:1")
        assert artefact is not None
        return [*read_lines(store.fetch(artefact.parts[part]))]

    with stock_runner(package, tmp_path / "run", monkeypatch) as stock:
        theirs = stock.run_component("inference", lines("payload_data", "records")[:1200])
    results = lines("validation_results", "results")
    assert theirs == [each["outputs"] for each in results if each["record"] < 1200 and each["outputs"]] != []


def test_dagster_validates_the_code_location(plant: Plant) -> None:
    done = plant.run("dagster", "definitions", "validate", check=False)
    assert done.returncode == 0, done.stderr
    assert isinstance(done, subprocess.CompletedProcess)
