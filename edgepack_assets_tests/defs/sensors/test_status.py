"""`edgepack sensors` on a real instance that holds what a daemon writes."""

import re
import time
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner, Result
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.types import DaemonHeartbeat
from dagster._utils.error import SerializableErrorInfo

from edgepack_assets.cli.main import main
from edgepack_assets.defs.sensors.status import _why_failed
from edgepack_assets.new_models.cursor import State

CONFIG = """\
registry: {path: registry}
model_types:
  press:
    implementation: state_identifier
    model_name: press_model
    package_name: Press
    raw_data: {name: press_raw}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "edgepack.yaml").write_text(CONFIG)
    made = tmp_path / "home"
    made.mkdir()
    monkeypatch.setenv("EDGEPACK_CONFIG", str(tmp_path / "edgepack.yaml"))
    monkeypatch.setenv("DAGSTER_HOME", str(made))
    return made


def tick(home: Path, name: str, status: TickStatus, ago: float, *, reason: str = "", cursor: str = "") -> None:
    location = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="edgepack_assets.definitions"))
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)
    at = time.time() - ago
    error = SerializableErrorInfo("the registry is gone", [], None) if status is TickStatus.FAILURE else None
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "1", []))
        data = SensorInstigatorData(last_tick_timestamp=at, cursor=cursor or None)
        instance.add_instigator_state(
            InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.DECLARED_IN_CODE, data)
        )
        instance.create_tick(
            TickData(origin.get_id(), name, InstigatorType.SENSOR, status, at, skip_reason=reason or None, error=error,
                     selector_id=origin.get_selector().get_id())
        )  # fmt: skip


def sensors() -> Result:
    return CliRunner().invoke(main, ["sensors"])


def test_sensors_that_look_are_well_and_say_what_waits(home: Path) -> None:
    state = State("press_model", 0)
    state.waiting = {7: 1, 3: 1}
    tick(home, "press_models", TickStatus.SKIPPED, 5, reason="nothing new", cursor=state.to_cursor())
    tick(home, "raw_data_versions", TickStatus.SKIPPED, 5, reason="press: nothing new")
    done = sensors()
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[1].split()[:2] == ["press_models", "on"]
    assert re.search(r" \d+ (s|min) ago +nothing new$", lines[1])
    assert lines[3].split()[:2] == ["run_failures", "off"]
    assert lines[4:] == [f"waits for approval: edgepack model approve press_model:{version}" for version in (3, 7)]


def test_of_a_chain_of_errors_that_of_this_project_is_shown(home: Path) -> None:
    library = SerializableErrorInfo("RuntimeError: boom", [], "RuntimeError")
    told = "edgepack_assets.errors.PluginError: the model type x cannot be imported"
    ours = SerializableErrorInfo(told, [], "PluginError", library)
    around = SerializableErrorInfo("SensorExecutionError: an error occurred", [], "SensorExecutionError", ours)
    assert _why_failed(around) == "the model type x cannot be imported"
    assert _why_failed(library) == "RuntimeError: boom"
    assert _why_failed(None) == ""


def test_what_is_not_well_fails(home: Path) -> None:
    done = sensors()
    assert done.exit_code == 1
    assert "the Dagster daemon is not running (last heartbeat: never)" in done.output
    tick(home, "press_models", TickStatus.SKIPPED, 5000, reason="nothing new")
    tick(home, "raw_data_versions", TickStatus.FAILURE, 5)
    done = sensors()
    assert done.exit_code == 1
    assert "no tick since then: nothing new" in done.output
    assert "its last tick failed: the registry is gone" in done.output
    assert "failed or late: press_models, raw_data_versions" in done.output
