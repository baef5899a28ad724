"""Runs that a command starts: progress, persistence, what a failure says, and how they end when they are cut short."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from edgepack_assets.defs.command_runs import process
from edgepack_assets.defs.command_runs.display import RunDisplay
from edgepack_assets.defs.command_runs.runs import (
    ASSETS,
    PackageRequest,
    PackageResult,
    assets_from,
    failures_in_words,
    is_materialized,
    run_requests,
)
from edgepack_assets.defs.failures import PlainFailure
from edgepack_assets.new_models.run_requests import RunOutcome
from edgepack_assets.partitions import PARTITIONS_NAME, ModelKey

pytestmark = pytest.mark.long


class DiesInstead:
    """The process is killed where it would have taken an order."""

    def __init__(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


MODELS = dg.DynamicPartitionsDefinition(name=PARTITIONS_NAME)


@dg.asset(partitions_def=MODELS)
def config_package(context: dg.AssetExecutionContext) -> None:
    """Of versions 2, 4 and 5 it fails: on the model, with its process, and in Dagster."""
    if context.partition_key == "press:2":
        raise PlainFailure("config_package of press:2: it holds no model file", "ModelError")
    if context.partition_key == "press:4":
        print("the last of press:4", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if context.partition_key == "press:5":
        raise ConnectionResetError("the store is gone")
    if context.partition_key == "press:7":
        time.sleep(600)
    if context.partition_key == "press:9":
        process.Taken = DiesInstead  # type: ignore[misc] # in this fork


@dg.asset(
    partitions_def=MODELS,
    deps=[config_package],
    config_schema={"note": dg.Field(str, default_value="none")},
    check_specs=[dg.AssetCheckSpec("is_registered_as_built", asset="deployment_package", blocking=True)],
)
def deployment_package(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Of version 3 the check fails."""
    print(f"what {context.partition_key} prints")
    subprocess.run(["sh", "-c", f"echo and a child of {context.partition_key} >&2"], check=True)
    check = dg.AssetCheckResult(passed=context.partition_key != "press:3", description="other bytes")
    note = context.op_execution_context.op_config["note"]
    return dg.MaterializeResult(
        metadata={"package": "press-edge:1", "note": note, "process": os.getpid()}, check_results=[check]
    )


def load(console: dg.LoggerDefinition) -> dg.Definitions:
    """Definitions with the job's name and two of its assets."""
    job = dg.define_asset_job("package_model", selection="*", partitions_def=MODELS)
    return dg.Definitions(assets=[config_package, deployment_package], jobs=[job], loggers={"console": console})


BOTH = ("config_package", "deployment_package")


@dataclass(frozen=True)
class Runs:
    """What materializing several partitions said and left behind."""

    home: Path
    lines: list[list[str]]
    results: dict[int, PackageResult]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}")
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        instance.add_dynamic_partitions(PARTITIONS_NAME, [f"press:{version}" for version in range(1, 12)])
    return folder


@pytest.fixture(scope="module")
def runs(home: Path) -> Runs:
    lines: list[str] = []
    requests = [PackageRequest(ModelKey("press", version), BOTH) for version in (1, 2, 3, 4, 5)]
    results = run_requests(requests, load, home, RunDisplay(lines.append))
    assert [result.key for result in results] == [request.key for request in requests]
    return Runs(home, [line.split() for line in lines], {result.key.version: result for result in results})


def test_there_is_a_line_of_progress_per_asset(runs: Runs) -> None:
    good = [words for words in runs.lines if words[0] == "press:1"]
    assert [words[1] for words in good] == list(BOTH)
    assert all(words[-1] == "s" for words in good)
    assert ["press:2", "config_package", "failed"] in runs.lines


def test_each_request_has_a_result_of_its_own(runs: Runs) -> None:
    outcomes = {version: result.outcome for version, result in runs.results.items()}
    assert outcomes == {
        1: RunOutcome.SUCCEEDED, 2: RunOutcome.MODEL_FAILURE, 3: RunOutcome.MODEL_FAILURE,
        4: RunOutcome.INFRASTRUCTURE_FAILURE, 5: RunOutcome.INFRASTRUCTURE_FAILURE,
    }  # fmt: skip
    assert runs.results[1].package["package"] == "press-edge:1"
    assert runs.results[2].reasons == ("config_package of press:2: it holds no model file",)
    assert runs.results[2].package == {}


def test_runs_and_materializations_are_kept_on_the_instance(runs: Runs) -> None:
    assert is_materialized("deployment_package", ModelKey("press", 1), runs.home)
    assert not is_materialized("deployment_package", ModelKey("press", 2), runs.home)
    statuses = {1: "SUCCESS", 2: "FAILURE", 3: "FAILURE", 4: "FAILURE", 5: "FAILURE"}
    with dg.DagsterInstance.from_config(str(runs.home)) as instance:
        for version, status in statuses.items():
            run = instance.get_run_by_id(runs.results[version].run_id)
            assert run is not None
            assert (run.job_name, run.status.value) == ("package_model", status)
            assert run.tags["dagster/partition"] == f"press:{version}"


def test_a_failure_says_why_and_where_its_log_is(runs: Runs) -> None:
    message = failures_in_words(list(runs.results.values()))
    log = runs.home / "package_logs" / "press" / "2.log"
    lines = message.splitlines()
    assert "press:2 was not packaged:" in lines
    assert "config_package of press:2: it holds no model file" in lines
    assert f"The whole log: {log}" in lines
    assert "STEP_FAILURE" in log.read_text()
    assert "press:1" not in message


def test_a_process_that_was_killed_says_so_and_its_run_has_ended(runs: Runs) -> None:
    first, *last = runs.results[4].reasons
    assert first == "its process was ended by SIGKILL"
    assert any("STEP_START" in line for line in last)
    assert last[-1] == "the last of press:4" == runs.results[4].log.read_text().splitlines()[-1]


def test_what_an_asset_prints_goes_to_its_log(runs: Runs) -> None:
    assert "what press:1 prints" in runs.results[1].log.read_text()


def test_a_failure_that_is_no_bug_has_no_stack_trace(runs: Runs) -> None:
    with dg.DagsterInstance.from_config(str(runs.home)) as instance:
        (plain,) = instance.all_logs(runs.results[2].run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        (bug,) = instance.all_logs(runs.results[5].run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    assert plain.dagster_event is not None
    assert bug.dagster_event is not None
    error = plain.dagster_event.step_failure_data.error
    assert error is not None
    assert error.message.splitlines()[0] == "config_package of press:2: it holds no model file"
    assert error.stack == []
    assert error.cause is None
    unexpected = bug.dagster_event.step_failure_data.error
    assert unexpected is not None
    assert unexpected.stack


def one_after_the_other(home: Path, *versions: int) -> list[PackageResult]:
    requests = [PackageRequest(ModelKey("press", version), BOTH) for version in versions]
    return run_requests(requests, load, home, RunDisplay(lambda line: None), parallel=1)


def test_a_process_makes_the_next_run_unless_one_failed(home: Path) -> None:
    first, second, failed, third, fourth = one_after_the_other(home, 1, 8, 3, 10, 11)
    assert first.package["process"] == second.package["process"]
    assert not failed.succeeded
    assert third.package["process"] == fourth.package["process"] != first.package["process"]
    with pytest.raises(ProcessLookupError):
        os.kill(third.package["process"], 0)


def test_each_run_of_a_process_has_a_log_and_an_instance_of_its_own(home: Path) -> None:
    results = one_after_the_other(home, 8, 10)
    for result, other in (results, reversed(results)):
        log = result.log.read_text().splitlines()
        assert log.count(f"what {result.key} prints") == 1
        assert log.count(f"and a child of {result.key}") == 1
        assert f"what {other.key} prints" not in log
        assert not any(other.run_id in line for line in log)
    assert len({result.run_id for result in results}) == 2


def test_what_a_process_cannot_begin_is_run_by_another(home: Path) -> None:
    first, second = one_after_the_other(home, 9, 8)
    assert first.succeeded
    assert second.succeeded
    assert first.package["process"] != second.package["process"]


def test_a_process_has_a_bound_of_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgepack_assets.defs.command_runs.runs.MOST_RUNS", 1)
    first, second = one_after_the_other(home, 8, 10)
    assert first.package["process"] != second.package["process"]


def test_some_assets_with_a_run_configuration(home: Path) -> None:
    config = {"ops": {"deployment_package": {"config": {"note": "by hand"}}}}
    (result,) = run_requests(
        [PackageRequest(ModelKey("press", 6), ("deployment_package",), config)],
        load,
        home,
        RunDisplay(lambda line: None),
    )
    assert result.succeeded
    assert result.package["note"] == "by hand"
    assert not is_materialized("config_package", ModelKey("press", 6), home)


def test_what_is_made_from_an_asset() -> None:
    assert assets_from("deployment_package") == ("deployment_package",)
    assert assets_from("metrics") == ("metrics", "deployment_package")
    assert assets_from("payload_data") == tuple(asset for asset in ASSETS if asset != "config_package")
    with pytest.raises(ValueError, match="raw_data"):
        assets_from("raw_data")


INTERRUPTED = """
import sys
from pathlib import Path
from edgepack_assets.defs.command_runs.display import RunDisplay
from edgepack_assets.defs.command_runs.runs import PackageRequest, run_requests
from edgepack_assets.partitions import ModelKey
from edgepack_assets_tests.defs.command_runs.test_runs import BOTH, load
try:
    run_requests([PackageRequest(ModelKey("press", 7), BOTH)], load, Path(sys.argv[1]), RunDisplay(lambda line: None))
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_command_cancels_its_runs(home: Path, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        instance.add_dynamic_partitions(PARTITIONS_NAME, ["press:7"])
        with subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as command:
            while not (records := _steps_that_began(instance)):
                assert command.poll() is None
                time.sleep(0.1)
            command.send_signal(number)
            output, _ = command.communicate(timeout=120)
        assert output == "interrupted\n"
        (run,) = instance.get_runs()
        assert run.run_id == records[0]
        assert run.status is dg.DagsterRunStatus.CANCELED


def test_output_that_nobody_reads_any_more_cancels_the_other_runs(home: Path) -> None:
    """Whether a run is under way, or has ended unseen: its process must not be waited for as if it had more to do."""

    def line(text: str) -> None:
        if "deployment_package" in text:
            raise BrokenPipeError

    requests = [PackageRequest(ModelKey("press", version), BOTH) for version in (7, 1)]
    with pytest.raises(BrokenPipeError):
        run_requests(requests, load, home, RunDisplay(line))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        states = {run.tags["dagster/partition"]: run.status for run in instance.get_runs(limit=2)}
    assert states["press:7"] is dg.DagsterRunStatus.CANCELED
    assert states["press:1"].value in {"SUCCESS", "CANCELED"}


def _steps_that_began(instance: dg.DagsterInstance) -> list[str]:
    return [
        run.run_id
        for run in instance.get_runs()
        if instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_START)
    ]
