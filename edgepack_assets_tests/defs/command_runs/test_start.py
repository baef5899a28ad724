"""A command with one run: what its process starts before Dagster is imported, and what is left when it gets no further.

The helper is a real packaging worker. No run is made here except where one must be."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import Settings
from edgepack_assets.defs.command_runs import start
from edgepack_assets.defs.command_runs.display import RunDisplay
from edgepack_assets.defs.command_runs.messages import PackageRequest
from edgepack_assets.defs.command_runs.runs import run_requests
from edgepack_assets.defs.command_runs.start import helpers_for, nothing_ahead
from edgepack_assets.defs.kept_helpers import Helpers
from edgepack_assets.errors import ConfigError, EdgepackError, InfrastructureError
from edgepack_assets.new_models.run_requests import RunOutcome
from edgepack_assets.partitions import ModelKey

KEY = ModelKey("press", 1)
SILENT = RunDisplay(lambda line: None)


def starting(pids: Path) -> Callable[[Helpers], None]:
    """Start a packaging worker, and write down its process and that of the run."""

    def start(helpers: Helpers) -> None:
        helpers.packaging.start()
        assert helpers.packaging._process is not None
        pids.with_suffix(".new").write_text(f"{os.getpid()} {helpers.packaging._process.pid}")
        pids.with_suffix(".new").rename(pids)

    return start


def has_ended(pids: Path) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids.read_text().split())


def wait_for_end(pids: Path) -> None:
    """What lost its owner ends by itself, a moment later."""
    deadline = time.monotonic() + 60
    while not has_ended(pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def run_one(home: Path, load: Any, start: Callable[[Helpers], None] = nothing_ahead) -> Any:
    [result] = run_requests([PackageRequest(KEY)], load, home, SILENT, start=start)
    return result


def test_a_configuration_that_is_refused_is_the_commands_error(tmp_path: Path) -> None:
    def load(console: object) -> None:
        raise ConfigError("edgepack.yaml: no such metric")

    with pytest.raises(ConfigError, match="no such metric"):
        run_one(tmp_path, load, starting(tmp_path / "pids"))
    assert has_ended(tmp_path / "pids")


def test_an_instance_that_cannot_be_used_is_the_commands_error(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("no_such_key: 1")
    with pytest.raises(InfrastructureError, match=f"the Dagster instance in {tmp_path} cannot be used"):
        run_one(tmp_path, lambda console: None)


@pytest.mark.parametrize("end", [lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: 1 / 0])
def test_a_process_that_dies_before_its_run_is_the_result_of_its_request(
    tmp_path: Path, end: Callable[[], object]
) -> None:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}")

    def start(helpers: Helpers) -> None:
        starting(tmp_path / "pids")(helpers)
        end()

    result = run_one(tmp_path, lambda console: None, start)
    assert result.outcome is RunOutcome.INFRASTRUCTURE_FAILURE
    assert "its process " in result.reasons[0]
    wait_for_end(tmp_path / "pids")


COMMAND = """
import sys, time
from pathlib import Path
from edgepack_assets.defs.command_runs.messages import PackageRequest
from edgepack_assets.defs.command_runs.runs import run_requests
from edgepack_assets_tests.defs.command_runs.test_start import KEY, SILENT, starting
home = Path(sys.argv[1])
def start(helpers):
    starting(home / "pids")(helpers)
    time.sleep(600 if sys.argv[2] == "interrupted" else 3)
def load(console):
    (home / "loaded").touch()
try:
    run_requests([PackageRequest(KEY)], load, home, SILENT, start=start)
except KeyboardInterrupt:
    print("interrupted")
"""


def command(home: Path, how: str) -> subprocess.Popen[str]:
    """A command whose process has started its helper."""
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}")
    started = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(home), how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (home / "pids").exists():
        assert started.poll() is None
        time.sleep(0.02)
    return started


def test_ctrl_c_before_the_run_leaves_nothing(tmp_path: Path) -> None:
    with command(tmp_path, "interrupted") as interrupted:
        interrupted.send_signal(signal.SIGINT)
        assert interrupted.communicate(timeout=120) == ("interrupted\n", "")
    assert has_ended(tmp_path / "pids")


def test_a_command_that_is_killed_before_the_run_gets_none(tmp_path: Path) -> None:
    with command(tmp_path, "killed") as killed:
        killed.kill()
        killed.communicate(timeout=120)
    wait_for_end(tmp_path / "pids")
    assert (tmp_path / "loaded").exists()
    assert not (tmp_path / "history" / "runs" / "index.db").exists() or _runs(tmp_path) == 0


def _runs(home: Path) -> int:
    import dagster as dg

    with dg.DagsterInstance.from_config(str(home)) as instance:
        return instance.get_runs_count()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    config = tmp_path / "edgepack.yaml"
    config.write_text(
        "model_types: {press: {implementation: state_identifier, model_name: m, package_name: p, raw_data: {name: r}}}"
    )
    return load_settings(config)


@pytest.mark.parametrize("error", [None, EdgepackError("the disk is full"), OSError(11, "no more processes")])
def test_what_cannot_be_started_ahead_fails_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    said: list[object] = []

    def start_child(key: ModelKey, context: Any) -> None:
        context.sandbox.log.warning("model code is NOT isolated")
        assert context.sandbox.isolation
        said.append(key)
        if error is not None:
            raise error

    monkeypatch.setattr(start, "start_child_ahead", start_child)
    helpers = Helpers()
    monkeypatch.setattr(helpers.packaging, "start", lambda: said.append("worker"))
    helpers_for(PackageRequest(KEY), settings, None)(helpers)  # type: ignore[arg-type]
    assert said == [KEY, "worker"]
    # What is missing of the isolation is found out again, and said, by the run.
    assert helpers.sandbox(settings.runtime)._isolation is None
    helpers.close()


def test_a_run_that_needs_no_helpers_starts_none(settings: Settings) -> None:
    request = PackageRequest(KEY, ("metrics", "deployment_package"))
    assert helpers_for(request, settings, None) is nothing_ahead  # type: ignore[arg-type]
