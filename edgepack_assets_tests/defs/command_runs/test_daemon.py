"""How `edgepack package --no-wait` asks Dagster for a run."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from edgepack_assets.defs.command_runs.daemon import WORKSPACE_VARIABLE, launch
from edgepack_assets.defs.command_runs.runs import PackageRequest
from edgepack_assets.defs.instance import MODULE, MODULE_VARIABLE
from edgepack_assets.partitions import ModelKey


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """The commands that were started, with their environment."""
    asked: list[tuple[list[str], dict[str, str]]] = []

    def run(command: list[str], env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append((command, env))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("OF_EDGEPACK_YAML", "a value that the configuration refers to")
    monkeypatch.delenv(WORKSPACE_VARIABLE, raising=False)
    return asked


def test_the_run_gets_the_environment_of_the_command(asked: list[tuple[list[str], dict[str, str]]]) -> None:
    launch(PackageRequest(ModelKey("state_identifier", 1)), {MODULE_VARIABLE: MODULE})
    [(command, environment)] = asked
    assert environment["OF_EDGEPACK_YAML"] == "a value that the configuration refers to"
    assert command[command.index("--module-name") + 1] == MODULE
    assert "--workspace" not in command


def test_the_run_belongs_to_the_code_location_that_another_process_serves(
    asked: list[tuple[list[str], dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WORKSPACE_VARIABLE, "/plant/workspace.yaml")
    monkeypatch.setenv(MODULE_VARIABLE, MODULE)
    launch(PackageRequest(ModelKey("state_identifier", 1)), {MODULE_VARIABLE: MODULE})
    [(command, environment)] = asked
    assert command[command.index("--workspace") + 1] == "/plant/workspace.yaml"
    assert "--module-name" not in command
    assert MODULE_VARIABLE not in environment  # Dagster refuses both
