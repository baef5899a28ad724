"""The commands of docs/operations.md, typed as they are written, in the order in which they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

from edgepack_assets_tests.e2e.conftest import PROJECT, Plant

COMMAND = re.compile(r"^    ((?:edgepack|dagster) .*)$", re.MULTILINE)


def test_every_command_works_as_written(plant: Plant, tmp_path: Path) -> None:
    folder = tmp_path / "plant"
    shutil.copytree(plant.folder, folder, symlinks=True)
    recording = next((folder / ".edgepack/registry/data/state_identifier_raw/1/content").iterdir())
    pd.read_parquet(recording).to_parquet(folder / "recording.parquet")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DAGSTER", "EDGEPACK", "SIMATICAI"))}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    commands = COMMAND.findall((PROJECT / "docs/operations.md").read_text())
    assert len(commands) > 12
    failed = []
    for command in commands:
        done = subprocess.run(
            ["bash", "-euc", f'eval "$(edgepack env)"\n{command}'], cwd=folder, env=environment, capture_output=True,
            text=True, timeout=300, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        # Nobody runs a daemon here, which is what this one is for.
        right = "nobody runs the sensors" in said if command == "edgepack sensors" else done.returncode == 0
        if not right:
            failed.append(f"{command}\n{said[-1500:]}")
    assert not failed, "\n\n".join(failed)
    assert (folder / "State-Identifier-edge_1.zip").is_file()
