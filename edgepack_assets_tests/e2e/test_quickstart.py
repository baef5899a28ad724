"""The quickstart's result, looked at as a user would: the table, the registry, Dagster's records, the zip."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import dagster as dg
import pytest
import yaml

from edgepack_assets.defs.assets.input_versions import RAW_DATA, observation
from edgepack_assets.partitions import ModelKey
from edgepack_assets_tests.defs.assets.staleness import why_stale
from edgepack_assets_tests.e2e.conftest import Plant

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


def test_the_stock_runner_gives_the_same_answers(plant: Plant, tmp_path: Path) -> None:
    """The SDK's own LocalPipelineRunner on the registered package, wheels from the package only."""
    version = plant.packages("State-Identifier-edge")[0]
    plant.edgepack("model", "download", str(version), str(tmp_path))
    (package,) = tmp_path.rglob("*.zip")
    home = Path(plant.environment["DAGSTER_HOME"]).parent
    manifest = json.loads((home / "artefacts/manifests/validation_results/state_identifier/1.json").read_text())
    payload = json.loads((home / "artefacts/manifests/payload_data/state_identifier/1.json").read_text())

    def blob(part: dict[str, str]) -> Path:
        return home / "artefacts/blobs" / part["digest"][:2] / part["digest"]

    script = tmp_path / "stock.py"
    script.write_text(
        "import gzip, json, sys\n"
        "from simaticai.testing.pipeline_runner import LocalPipelineRunner\n"
        "records = [json.loads(l) for l in gzip.open(sys.argv[2], 'rt')][:1200]\n"
        "with LocalPipelineRunner(sys.argv[1], path=sys.argv[3]) as runner:\n"
        "    answers = runner.run_component('inference', records)\n"
        "json.dump(answers, open(sys.argv[4], 'w'))\n"
    )
    with zipfile.ZipFile(package) as archive:
        python = yaml.safe_load(archive.read("pipeline_config.yml"))["dataFlowPipeline"]["components"][0]["runtime"]
    here = plant.run("python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").stdout.strip()
    if here != python["version"]:
        pytest.skip(f"the stock runner runs a {python['version']} package only on that Python; this is {here}")
    out = tmp_path / "answers.json"
    plant.run("python", str(script), str(package), str(blob(payload["parts"]["records"])), str(tmp_path / "run"),
              str(out))  # fmt: skip
    stock = json.loads(out.read_text())
    import gzip

    with gzip.open(blob(manifest["parts"]["results"]), "rt") as stream:
        ours = [entry["outputs"] for entry in map(json.loads, stream) if entry["record"] < 1200 and entry["outputs"]]
    assert stock == ours
    assert len(ours) > 0


def test_dagster_validates_the_code_location(plant: Plant) -> None:
    done = plant.run("dagster", "definitions", "validate", check=False)
    assert done.returncode == 0, done.stderr
    assert isinstance(done, subprocess.CompletedProcess)
