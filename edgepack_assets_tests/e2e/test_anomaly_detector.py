"""A model type of another distribution: installed as a user would, from the registry to the registered package, by a
command and by the sensor. Nothing of this project is changed for it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from edgepack_assets.registry.base import Kind, RegisteredVersion
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets_tests.e2e.conftest import PROJECT, run_with
from edgepack_assets_tests.e2e.users import EDGEPACK, commands, environment_with

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


def test_a_model_of_it_is_packaged_by_command_and_by_sensor(environments: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__"))
    python = environment_with(source, tmp_path / "venv")
    (tmp_path / "edgepack.yaml").write_text(yaml.safe_dump({**CONFIG, "runtime": {"environments": str(environments)}}))
    shutil.copyfile(PROJECT / "dagster.yaml", tmp_path / "dagster.yaml")
    recording = _recorded(tmp_path)
    packages = ["scikit-learn==1.5.2", "numpy==1.26.4"]
    run_with(packages, "train_anomalies.py", tmp_path / "rows.npy", tmp_path, "1", "2")
    run, environment = commands(python, tmp_path)
    registry = LocalRegistry(tmp_path / "registry")
    registry.register(Kind.DATA, "pump_recording", recording, {})
    run(*EDGEPACK, "model", "add", "pump_anomalies", str(tmp_path / "model-1"))
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


def _recorded(folder: Path) -> Path:
    """A recording of a pump with labelled events; rows.npy has the rows without events."""
    random = np.random.default_rng(7)
    values, event = random.normal([2.0, 40.0, 60.0], [0.1, 1.0, 0.5], (600, 3)), np.zeros(600, dtype=bool)
    event[[50, 51, 200, 201, 202, 430, 555]] = True
    values[event] += [2.0, 15.0, 9.0]
    np.save(folder / "rows.npy", values[~event])
    frame = pd.DataFrame(values, columns=["vibration", "current", "temperature"])
    frame.assign(event=event, ignored="x").to_parquet(folder / "recording.parquet")
    return folder / "recording.parquet"


def _packages(registry: LocalRegistry) -> list[RegisteredVersion]:
    """Both packages, as soon as the sensor's run has registered the second."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and len(registry.versions(Kind.MODEL, "Pump-Anomalies-edge")) < 2:
        time.sleep(1)
    return registry.versions(Kind.MODEL, "Pump-Anomalies-edge")
