"""Which process follows a run, and what the launcher does when it is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher import ResumeRunContext, WorkerStatus
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.storage.dagster_run import DagsterRun

from edgepack_assets.defs.remote.worker import WORKER_TAG, is_alive, is_followed, worker
from edgepack_assets.defs.run_launcher import MOST, WatchedRunLauncher


def run_with(tag: str, run_id: str = "run-1") -> DagsterRun:
    return DagsterRun(job_name="package_model", run_id=run_id, tags={WORKER_TAG: tag})


def test_a_process_is_alive_until_it_has_ended() -> None:
    assert is_alive(run_with(worker("run-1"))) is True
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    tag = worker("run-1", process.pid)
    assert is_alive(run_with(tag)) is True
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked for it
    assert is_alive(run_with(tag)) is False
    process.wait()
    assert is_alive(run_with(tag)) is False
    assert worker("run-1", process.pid) == "run-1"


def test_what_cannot_be_known_is_not_said() -> None:
    run_id, pid, started, host, boot, namespace = worker("run-1").split(" ")
    again = [run_id, pid, str(int(started) - 1), host, boot, namespace]
    assert is_alive(run_with(" ".join(again))) is False, "the number belongs to another process now"
    assert is_alive(run_with(" ".join([run_id, pid, started, host, "another start", namespace]))) is None
    assert is_alive(run_with(" ".join([run_id, pid, started, host, "another-start", namespace]))) is False
    assert is_alive(run_with(" ".join([run_id, pid, started, "elsewhere", boot, namespace]))) is None
    assert is_alive(run_with(" ".join([run_id, pid, started, host, boot, "pid:[1]"]))) is None
    for tag in ("", "run-1", "run-1 x", "run-1 " + "x " * 5):
        assert is_alive(run_with(tag)) is None
    inherited = run_with(worker("run-1"), "run-2")  # a re-execution has the tags of its parent
    assert is_alive(inherited) is None
    assert not is_followed(inherited)
    assert is_followed(run_with("run-1"))


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text(
        "run_launcher: {module: edgepack_assets.run_launcher, class: WatchedRunLauncher}\n"
        "telemetry: {enabled: false}\nrun_monitoring: {enabled: true, max_resume_run_attempts: 3}\n"
    )
    with dg.DagsterInstance.from_config(str(tmp_path)) as made:
        yield made


@dg.job
def nothing() -> None: ...


def started(instance: dg.DagsterInstance, **tags: str) -> DagsterRun:
    return instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED, tags=tags)


def test_a_lost_run_whose_work_was_done_here_has_failed(instance: dg.DagsterInstance) -> None:
    launcher = instance.run_launcher
    assert isinstance(launcher, WatchedRunLauncher)
    assert launcher.supports_resume_run
    run = started(instance)
    launcher.resume_run(ResumeRunContext(run, None, 1))
    ended = instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.status is dg.DagsterRunStatus.FAILURE


def test_the_health_of_a_run_is_that_of_who_follows_its_job(instance: dg.DagsterInstance) -> None:
    run = started(instance)
    for pid, expected in ((os.getpid(), WorkerStatus.RUNNING), (2**22 + 1, WorkerStatus.RUNNING)):
        instance.add_run_tags(run.run_id, {WORKER_TAG: worker(run.run_id, pid)})
        known = instance.get_run_by_id(run.run_id)
        assert known is not None
        assert instance.run_launcher.check_run_worker_health(known).status is expected
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    instance.add_run_tags(run.run_id, {WORKER_TAG: worker(run.run_id, process.pid)})
    process.kill()
    process.wait()
    known = instance.get_run_by_id(run.run_id)
    assert known is not None
    assert instance.run_launcher.check_run_worker_health(known).status is WorkerStatus.FAILED


@pytest.mark.parametrize("attempts", [0, 3])
def test_a_lost_process_is_replaced_a_few_times(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    """By ourselves, unless Dagster does it. Python without the code of the run ends at once, each time."""
    monkeypatch.setattr(type(instance), "run_monitoring_max_resume_run_attempts", attempts)
    repository = RepositoryPythonOrigin(sys.executable, ModuleCodePointer("no_such_module", "defs", None), None, [], {})
    run = instance.create_run_for_job(
        nothing, status=dg.DagsterRunStatus.STARTED, job_code_origin=JobPythonOrigin("nothing", repository)
    )
    gone = worker(run.run_id).split(" ")
    gone[2] = "1"
    said = []
    for _ in range(MOST + 1):
        instance.add_run_tags(run.run_id, {WORKER_TAG: " ".join(gone)})
        known = instance.get_run_by_id(run.run_id)
        assert known is not None
        said.append(instance.run_launcher.check_run_worker_health(known).status)
    followed = [] if attempts else [WorkerStatus.RUNNING] * MOST
    assert said == [*followed, *[WorkerStatus.FAILED] * (MOST + 1 - len(followed))]
    launcher = instance.run_launcher
    assert isinstance(launcher, WatchedRunLauncher)
    for process in launcher._resumed:
        process.kill()
        process.wait()


def test_a_run_of_the_command_line_can_be_cancelled_if_it_is_a_job(instance: dg.DagsterInstance) -> None:
    here, there = started(instance), started(instance)
    instance.add_run_tags(there.run_id, {WORKER_TAG: worker(there.run_id)})
    assert not instance.run_launcher.terminate(here.run_id)
    assert instance.run_launcher.terminate(there.run_id)
    told = instance.get_run_by_id(there.run_id)
    assert told is not None
    assert told.status is dg.DagsterRunStatus.CANCELING
