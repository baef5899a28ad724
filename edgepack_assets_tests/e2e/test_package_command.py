"""`edgepack package`, as a user types it: twice in a process of its own, as in test_remote_run.py, else in this one,
whose helpers stay."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
import yaml

from edgepack_assets_tests.e2e.conftest import Plant

pytestmark = pytest.mark.usefixtures("kept_helpers")

TYPE = {"implementation": "state_identifier", "raw_data": {"name": "state_identifier_raw"}}


def settings_of(name: str, **more: object) -> dict[str, object]:
    return {**TYPE, "model_name": name, "package_name": name, **more}


def test_the_latest_version_is_packaged_and_told_as_json(plant: Plant, variants: Path, tmp_path: Path) -> None:
    plant.configure(command=settings_of("command"))
    version = plant.add_model("command", variants / "sparse")
    target = tmp_path / "package.env"
    done = plant.run("edgepack", "package", "command:latest", "--json", "--output-file", str(target))
    (result,) = json.loads(done.stdout)
    (package,) = plant.packages("command-edge")
    assert result["key"] == f"command:{version}"
    assert result["outcome"] == "succeeded"
    assert result["package"] == str(package)
    assert result["run_id"] == package.tags["run_id"]
    assert result["metrics"]["silhouette"] == pytest.approx(float(package.tags["silhouette"]))
    assert "deployment_package" in done.stderr
    assert "package_name=command-edge" in target.read_text()

    again = plant.edgepack("package", f"command:{version}", "--from", "metrics")
    assert [line.split()[1] for line in again.stdout.splitlines()[:2]] == ["metrics", "deployment_package"]
    assert "command-edge:1 (registered before)" in again.stdout


def test_a_gate_that_fails_is_the_reason_and_can_be_overridden(plant: Plant, variants: Path) -> None:
    plant.configure(overridden=settings_of("overridden", gates={"silhouette": {"min": 1.0}}))
    key = f"overridden:{plant.add_model('overridden', variants / 'sparse')}"
    done = plant.edgepack("package", key, check=False)
    assert done.returncode == 1
    assert f"metrics.pass_gates of {key}: gate on silhouette: " in done.stderr
    assert plant.packages("overridden-edge") == []
    done = plant.edgepack("package", key, "--override", "the line stands still")
    assert [line.split()[1] for line in done.stdout.splitlines()[4:6]] == ["metrics", "deployment_package"]
    (package,) = plant.packages("overridden-edge")
    assert "the line stands still" in package.tags.values()


def test_what_is_missing_is_packaged_and_nothing_else(plant: Plant, variants: Path) -> None:
    document = yaml.safe_load(plant.config.read_text())
    kept = {"state_identifier": document["model_types"]["state_identifier"], "missing": settings_of("missing")}
    config = plant.folder / "missing.yaml"  # not all that other tests have left in the plant
    config.write_text(yaml.safe_dump({**document, "model_types": kept}))
    of_config = replace(plant, environment={**plant.environment, "EDGEPACK_CONFIG": str(config)})
    of_config.add_model("missing", variants / "sparse")
    of_config.edgepack("package", "state_identifier:1", "--from", "deployment_package")
    done = of_config.edgepack("package", "--all-missing", "--json")
    results = {result["key"]: result["outcome"] for result in json.loads(done.stdout)}
    assert results.pop("missing:1") == "succeeded"
    assert "state_identifier:1" not in results


def test_models_that_one_process_packages_one_after_the_other_ship_what_they_ship_alone(plant: Plant) -> None:
    keys = ["image_classification:1", "state_identifier:1"]
    results = json.loads(plant.run("edgepack", "package", *keys, "--parallel", "1", "--json").stdout)
    assert [(result["key"], result["outcome"]) for result in results] == [(key, "succeeded") for key in keys]
    assert all(result["registered_before"] for result in results), "the same content"
    # Of the first lines: Dagster ends what passes a run's output on without waiting for the last ones.
    processes = [
        set(re.findall(r" - (\d+) - payload_data - STEP_START", Path(result["log"]).read_text())) for result in results
    ]
    assert len(processes[0]) == 1
    assert processes[0] == processes[1]


def test_packages_are_looked_at_compared_and_run_again(plant: Plant, variants: Path, tmp_path: Path) -> None:
    plant.configure(looked=settings_of("looked"))
    for name in ("sparse", "sparse"):
        key = f"looked:{plant.add_model('looked', variants / name)}"
        plant.materialize(key)
    report = tmp_path / "report.html"
    plant.edgepack("package", "show", "looked-edge:2", "--html", str(report))
    page = report.read_text()
    for text in ("looked-edge:2", "Compared with the package before", "looked-edge:1", "silhouette", "scikit-learn"):
        assert text in page
    assert page.count("data:image/png;base64,") >= 2, "the answers, and those of both packages"
    compared = plant.edgepack("package", "compare", "looked:1", "looked-edge:2", "--json", "--html", str(report))
    answers = json.loads(compared.stdout)["answers"]
    assert (answers["differing"], answers["output"]) == (0, "prediction")
    assert answers["both"] > 10
    assert "data:image/png;base64," in report.read_text()
    assert "each as recorded" in plant.edgepack("package", "verify-run", "looked-edge:2").stdout
    raw = next(data["location"] for data in plant.listed("data") if data["name"] == "state_identifier_raw")
    plant.edgepack("package", "run", "looked-edge:2", raw, "--output-file", str(tmp_path / "mine.csv"))
    assert (tmp_path / "mine.csv").read_text().count("\n") == answers["both"] + 1
    other = plant.edgepack("package", "compare", "looked:1", "image_classification:1", check=False)
    assert (other.returncode, other.stdout) == (1, "")
    assert "only packages of one kind can be compared" in other.stderr
    shown = json.loads(plant.edgepack("model", "show", "looked:2", "--json").stdout)
    assert [package["package"] for package in shown["packages"]] == ["looked-edge:2"]
    assert {run["status"] for run in shown["runs"]} == {"success"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name model versions"),
        (["state_identifier:1", "--all-missing"], "name model versions"),
        (["state_identifier"], "is no model version and no package of"),
        (["unknown:1"], "model_types has no entry 'unknown'"),
        (["state_identifier:77"], "has no version 77"),
        (["unknown:latest"], "'unknown:latest' is no model version"),
        (["state_identifier:1", "--from", "raw_data"], "'raw_data' is none of payload_data, config_package"),
        (["state_identifier:1", "--override", " "], "give a reason"),
        (["state_identifier:1", "image_classification:1", "--output-file", "x.env"], "takes one model version"),
        (["state_identifier:1", "--no-wait", "--from", "metrics"], "--no-wait hands over whole runs"),
    ],
)
def test_a_mistake_is_a_sentence(plant: Plant, arguments: list[str], message: str) -> None:
    done = plant.edgepack("package", *arguments, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_run_is_handed_over_to_the_daemon(plant: Plant) -> None:
    done = plant.edgepack("package", "state_identifier:1", "--no-wait", "--json")
    (launched,) = json.loads(done.stdout)
    assert "no Dagster daemon is running" in done.stderr
    with dg.DagsterInstance.from_config(plant.environment["DAGSTER_HOME"]) as instance:
        run = instance.get_run_by_id(launched["run_id"])
    assert run is not None
    assert (run.status, run.job_name) == (dg.DagsterRunStatus.QUEUED, "package_model")
    assert run.tags["dagster/partition"] == "state_identifier:1"
