"""A model type of another distribution: installed as a user would, from the registry to the registered package, by a
command and by the sensor. Nothing of this project is changed for it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
import yaml

from edgepack_assets.environments.uv import uv_command, uv_environment
from edgepack_assets.registry.base import Kind, RegisteredVersion
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets_tests.e2e.conftest import PROJECT, run_with

EXAMPLE = PROJECT / "examples/anomaly_detector"
PATIENCE = 300.0
CONFIG = {
    "registry": {"path": "registry"},
    "artefacts": {"root": "artefacts"},
    "sensors": {"start": "all", "interval": 1},
    "model_types": {
        "pump_3": {
            "implementation": "anomaly_detector",
            "model_name": "pump_anomalies",
            "package_name": "Pump Anomalies",
            "raw_data": {"name": "pump_recording"},
            "settings": {"columns": ["vibration", "current", "temperature"]},
            "gates": {"recall": {"min": 0.8}, "average_precision": {"min": 0.8}},
        },
    },
}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with this project and, installed by uv, the example."""
    folder = tmp_path_factory.mktemp("user")
    shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__"))

    def uv(*arguments: str) -> None:
        done = subprocess.run(
            uv_command(*arguments), env=uv_environment(), capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr

    uv("venv", "--quiet", f"--python={sys.executable}", str(folder / "venv"))
    interpreter = folder / "venv/bin/python"
    [site] = (folder / "venv/lib").glob("python*/site-packages")
    # what this project needs is not installed a second time
    (site / "project.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    uv("pip", "install", "--quiet", "--no-deps", f"--python={interpreter}", str(folder / "source"))
    return interpreter


def test_a_model_of_it_is_packaged_by_command_and_by_sensor(python: Path, tmp_path: Path) -> None:
    (tmp_path / "edgepack.yaml").write_text(yaml.safe_dump(CONFIG))
    shutil.copyfile(PROJECT / "dagster.yaml", tmp_path / "dagster.yaml")
    packages = ["scikit-learn==1.5.2", "numpy==1.26.4", "pandas==2.2.3", "pyarrow"]
    recording = tmp_path / "recording.parquet"
    for seed in (1, 2):
        run_with(packages, "train_anomalies.py", recording, tmp_path / f"model-{seed}", str(seed))
    shell = {k: v for k, v in os.environ.items() if not k.startswith(("DAGSTER", "EDGEPACK", "SIMATICAI", "PYTHON"))}
    environment = {
        **shell,
        "EDGEPACK_CONFIG": str(tmp_path / "edgepack.yaml"),
        "DAGSTER_HOME": str(tmp_path),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "DAGSTER_MODULE_NAME": "edgepack_assets.definitions",
    }

    def run(*command: str) -> None:
        done = subprocess.run(
            [str(python), *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}\n{done.stderr[-6000:]}"

    registry = LocalRegistry(tmp_path / "registry")
    registry.register(Kind.DATA, "pump_recording", recording, {})
    edgepack = ("-c", "from edgepack_assets.cli.main import main; main()")
    run(*edgepack, "model", "add", "pump_anomalies", str(tmp_path / "model-1"))
    run("-m", "dagster", "asset", "materialize", "--select", "*", "--partition", "pump_3:1")
    [package] = registry.versions(Kind.MODEL, "Pump-Anomalies-edge")
    assert float(package.tags["recall"]) >= 0.8
    assert float(package.tags["average_precision"]) >= 0.8
    registry.register(Kind.MODEL, "pump_anomalies", tmp_path / "model-2", {})
    log = (tmp_path / "daemon.log").open("wb")
    daemon = subprocess.Popen(
        [str(python), "-m", "dagster._daemon", "run", "-m", "edgepack_assets.definitions"], cwd=tmp_path,
        env=environment, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    try:
        found = _packages(registry)
        assert len(found) == 2, (tmp_path / "daemon.log").read_text()[-6000:]
        assert {each.tags["model_version"] for each in found} == {"1", "2"}
    finally:
        os.killpg(daemon.pid, signal.SIGTERM)
        daemon.wait(60)
        log.close()


def _packages(registry: LocalRegistry) -> list[RegisteredVersion]:
    """Both packages, as soon as the sensor's run has registered the second."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and len(registry.versions(Kind.MODEL, "Pump-Anomalies-edge")) < 2:
        time.sleep(1)
    return registry.versions(Kind.MODEL, "Pump-Anomalies-edge")
