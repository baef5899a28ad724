"""docs/ci.md as it is written: its pipelines' scripts and its commands, in the plant."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgepack_assets_tests.e2e.conftest import PROJECT, Plant

TEXT = (PROJECT / "docs/ci.md").read_text()
PIPELINES = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]
COMMANDS = re.findall(r"^    (dagster .*?)\n\n", TEXT, re.DOTALL | re.MULTILINE)


def step_named_package(document: Any) -> str:
    """The script of a pipeline's step `package`, wherever it stands."""
    if isinstance(document, dict) and "package" in (document.get("id"), document.get("name")):
        script = document.get("run") or document.get("bash")
        if script:
            return str(script)
    items = document.values() if isinstance(document, dict) else document if isinstance(document, list) else []
    return next((found for item in items if (found := step_named_package(item))), "")


def bash(plant: Plant, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # On a build machine the project is installed where commands are found.
    path = f"{Path(sys.executable).parent}:{plant.environment['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script], cwd=plant.folder,
        env={**plant.environment, "PATH": path, **environment}, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(plant: Plant) -> Path:
    """`model/`, as a training step leaves it."""
    location = next(Path(p["location"]) for p in plant.listed() if p["name"] == "state_identifier")
    (mlmodel,) = location.rglob("MLmodel")
    folder = plant.folder / "model"
    shutil.copytree(mlmodel.parent, folder, copy_function=shutil.copyfile)
    return folder


def test_there_are_pipelines_and_commands_to_try() -> None:
    assert len(PIPELINES) == 4
    assert all(step_named_package(pipeline) for pipeline in PIPELINES)
    assert len(COMMANDS) == 2


@pytest.mark.parametrize("pipeline", range(4))
def test_a_pipelines_script_hands_the_package_over(plant: Plant, model: Path, tmp_path: Path, pipeline: int) -> None:
    newest = max(p["version"] for p in plant.listed() if p["name"] == "state_identifier")
    (tmp_path / "outputs").touch()
    done = bash(
        plant, step_named_package(PIPELINES[pipeline]), RUNNER_TEMP=str(tmp_path), AGENT_TEMPDIRECTORY=str(tmp_path),
        GITHUB_OUTPUT=str(tmp_path / "outputs"), PARTITION=f"state_identifier:{newest}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    if pipeline % 2 == 0:
        told = dict(line.split("=", 1) for line in (tmp_path / "outputs").read_text().splitlines())
    else:
        told = dict(re.findall(r"^##vso\[task\.setvariable variable=(\w+);isOutput=true\](.*)$", done.stdout, re.M))
    package = plant.packages("State-Identifier-edge")[-1]
    assert (told["package_name"], told["package_version"]) == (package.name, str(package.version))
    assert told["package_id"] == package.tags["packageid"]
    assert told["metric_silhouette"] == package.tags["silhouette"]
    released = pipeline >= 2
    assert told["model_version"] == str(newest if released else newest + 1)
    assert told["registered_before"] == ("true" if released else "false")


def test_the_commands_work_as_written(plant: Plant, model: Path) -> None:
    """The second one only helps where a gate does not hold, so it gets one."""
    done = bash(plant, COMMANDS[0])
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((plant.folder / ".edgepack" / "outputs" / "package.json").read_text())
    assert json.dumps(told, indent=2) in done.stdout  # the command ends with showing it
    assert told["model_version"] == 2
    before = plant.config.read_text()
    document = yaml.safe_load(before)
    document["model_types"]["state_identifier"]["gates"] = {"silhouette": {"min": 1.0}}
    plant.config.write_text(yaml.safe_dump(document))
    try:
        refused = plant.materialize("state_identifier:2", "deployment_package", check=False)
        assert refused.returncode != 0
        done = bash(plant, COMMANDS[1])
    finally:
        plant.config.write_text(before)
    assert done.returncode == 0, done.stdout + done.stderr
    package = next(p for p in plant.packages("State-Identifier-edge") if p.version == told["package_version"])
    assert package.tags["gates_overridden"] == "trial on line 4, agreed with QA"
    assert "gate on silhouette" in package.tags["gates_overridden_failed"]
