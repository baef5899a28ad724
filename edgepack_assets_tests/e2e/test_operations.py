"""The commands of docs/operations.md, typed as they are written, in the order in which they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import pandas as pd

from edgepack_assets.config.loader import load_settings
from edgepack_assets_tests.e2e.conftest import PROJECT, Plant, copytree
from edgepack_assets_tests.e2e.dev import Dev

WEB_SERVERS = 2
COMMAND = re.compile(r"^    ((?:edgepack|dagster) .*)$", re.MULTILINE)


def test_every_command_works_as_written(first_plant: Path, tmp_path: Path) -> None:
    folder = tmp_path / "plant"
    # Other workers add environments there meanwhile, and one that is moved is built again.
    copytree(first_plant, folder, without=load_settings(first_plant / "edgepack.yaml").runtime.environments)
    recording = next((folder / ".edgepack/registry/data/state_identifier_raw/1/content").iterdir())
    pd.read_parquet(recording).to_parquet(folder / "recording.parquet")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DAGSTER", "EDGEPACK", "SIMATICAI"))}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    here = Plant(folder)  # as `eval "$(edgepack env)"` makes a shell, which stands at the top of that page
    here.prepare()
    commands = COMMAND.findall((PROJECT / "docs/operations.md").read_text())
    assert len(commands) > 12
    assert sum(command.startswith("edgepack webserver") for command in commands) == WEB_SERVERS
    failed = []
    for command in commands:
        if command.startswith("edgepack webserver"):
            assert_serves(command, folder, environment)
            continue
        done = typed(command, here)
        said = done.stdout + done.stderr
        # No daemon runs here, which this command reports as a failure.
        right = "the Dagster daemon is not running" in said if command == "edgepack sensors" else done.returncode == 0
        if not right:
            failed.append(f"{command}\n{said[-1500:]}")
    assert not failed, "\n\n".join(failed)
    assert (folder / "State-Identifier-edge_1.zip").is_file()


def typed(command: str, here: Plant) -> subprocess.CompletedProcess[str]:
    """The command's end. One of edgepack runs in this process: that a shell finds it is shown by the web servers."""
    program, *arguments = shlex.split(command)
    if program == "edgepack":
        return here.edgepack(*arguments, check=False)
    return here.run(program, *arguments, check=False, timeout=300)


def assert_serves(command: str, folder: Path, environment: dict[str, str]) -> None:
    """The web server of the command answers under the name that it allows, and launches unless it is read-only."""
    name = command.rpartition("--allow-host ")[2]
    dev = Dev(folder, environment | {"DAGSTER_HOME": str(folder / ".edgepack/dagster")}, command=command.split())
    try:
        dev.wait_until(command, dev.answers)
        request = urllib.request.Request(
            f"{dev.address}/graphql",
            b'{"query": "{ permissions { permission value } }"}',
            {"Content-Type": "application/json", "Host": name, "Origin": f"https://{name}"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            permissions = {p["permission"]: p["value"] for p in json.load(answer)["data"]["permissions"]}
        assert permissions["launch_pipeline_execution"] == ("--read-only" not in command)
    finally:
        dev.stop()
