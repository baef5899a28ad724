"""Processes that make several runs: real ones, with light jobs on a real instance, ended and changed in every way."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.code_pointer import FileCodePointer
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._serdes import serialize_value

from edgepack_assets.defs.remote.worker import PROCESS_TAG
from edgepack_assets.defs.run_launcher import WatchedRunLauncher
from edgepack_assets.defs.run_processes.start import NoProcessError, RunProcesses, run_processes

pytestmark = pytest.mark.long

KILLS = int(os.environ.get("EDGEPACK_TEST_KILLS", "6"))
JOBS = """
import pathlib, time
import dagster as dg

HERE = pathlib.Path(__file__).parent

@dg.op
def say(context) -> None:
    context.log.info("said by VERSION")

@dg.job
def says() -> None:
    say()

@dg.op
def fail() -> None:
    raise ValueError("no good")

@dg.job
def fails() -> None:
    fail()

@dg.op
def wait() -> None:
    (HERE / "waiting").write_text("")
    time.sleep(300)

@dg.job
def waits() -> None:
    wait()

defs = dg.Definitions(jobs=[says, fails, waits], executor=dg.in_process_executor)
"""


class Plant:
    """An instance with our run launcher, and a code location of light jobs that the daemon would load itself."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "light_jobs.py"
        self.file.write_text(JOBS)
        (folder / "dagster.yaml").write_text(
            "telemetry: {enabled: false}\n"
            "run_launcher: {module: edgepack_assets.run_launcher, class: WatchedRunLauncher}\n"
        )
        self.instance = dg.DagsterInstance.from_config(str(folder))
        pointer = FileCodePointer(str(self.file), "defs", str(folder))
        self.repository = RepositoryPythonOrigin(sys.executable, pointer, None, [], {})
        self.location = ManagedGrpcPythonEnvCodeLocationOrigin(
            LoadableTargetOrigin(python_file=str(self.file)), "light"
        )
        self.processes = run_processes(
            sys.executable, serialize_value(self.repository), serialize_value(self.instance.get_ref()), "light"
        )

    @property
    def launcher(self) -> WatchedRunLauncher:
        assert isinstance(self.instance.run_launcher, WatchedRunLauncher)
        return self.instance.run_launcher

    def launch(self, job: str) -> str:
        """Have our launcher start a run. Fails if it would go Dagster's own way."""
        made = self.new_run(job)
        assert self.launcher._start_in_kept_process(made)
        return made.run_id

    def new_run(self, job: str) -> DagsterRun:
        """A run that was taken from the queue and has not begun."""

        @dg.op(name={"says": "say", "fails": "fail", "waits": "wait"}[job])
        def some() -> None: ...

        @dg.job(name=job)
        def same() -> None:
            some()

        return self.instance.create_run_for_job(
            same, status=dg.DagsterRunStatus.STARTING, job_code_origin=JobPythonOrigin(job, self.repository),
            remote_job_origin=RemoteJobOrigin(RemoteRepositoryOrigin(self.location, "__repository__"), job),
        )  # fmt: skip

    def run(self, run_id: str) -> DagsterRun:
        found = self.instance.get_run_by_id(run_id)
        assert found is not None
        return found

    def end_of(self, run_id: str) -> str:
        until(lambda: self.run(run_id).is_finished)
        return self.run(run_id).status.value

    def pid_of(self, run_id: str) -> int:
        return int(self.run(run_id).tags[PROCESS_TAG].split(" ")[1])

    def until_idle(self, run_id: str) -> None:
        until(lambda: self.pid_of(run_id) in {process.pid for process in self.processes._idle})

    def messages(self, run_id: str) -> str:
        return "\n".join(entry.user_message or entry.message for entry in self.instance.all_logs(run_id))


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    made = Plant(tmp_path_factory.mktemp("plant"))
    yield made
    made.processes.close()
    made.instance.dispose()


@pytest.fixture
def plant(shared: Plant) -> Iterator[Plant]:
    yield shared
    shared.file.with_name("waiting").unlink(missing_ok=True)
    if shared.file.read_text() != JOBS:
        shared.file.write_text(JOBS)


def test_one_process_makes_run_after_run(plant: Plant) -> None:
    pids = set()
    for _ in range(3):
        run_id = plant.launch("says")
        assert plant.end_of(run_id) == "SUCCESS"
        pids.add(plant.pid_of(run_id))
        plant.until_idle(run_id)
    assert len(pids) == 1
    [adjusted] = [int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in pids]
    assert adjusted > int(Path("/proc/self/oom_score_adj").read_text()), "it ends before the daemon"
    said = plant.messages(run_id)
    for wanted in ("said by VERSION", "Started process for run", "Process for run exited"):
        assert wanted in said
    plant.processes.close()
    until(lambda: is_gone(*pids))


def test_after_a_failure_and_after_a_cancellation_the_process_ends(plant: Plant) -> None:
    failed = plant.launch("fails")
    assert plant.end_of(failed) == "FAILURE"
    until(lambda: is_gone(plant.pid_of(failed)))
    cancelled, other = plant.launch("waits"), plant.launch("says")
    assert plant.end_of(other) == "SUCCESS", "two runs at once have two processes"
    plant.until_idle(other)
    until(plant.file.with_name("waiting").exists)
    assert plant.launcher.check_run_worker_health(plant.run(cancelled)).status.value == "RUNNING"
    assert plant.launcher.terminate(cancelled)
    assert plant.end_of(cancelled) == "CANCELED"
    until(lambda: is_gone(plant.pid_of(cancelled)))
    last = plant.launch("says")
    assert plant.end_of(last) == "SUCCESS"
    assert len({plant.pid_of(run_id) for run_id in (failed, cancelled, last)}) == 3
    assert plant.pid_of(last) == plant.pid_of(other)


def test_what_was_edited_is_loaded_anew(plant: Plant) -> None:
    first = plant.launch("says")
    assert plant.end_of(first) == "SUCCESS"
    plant.until_idle(first)
    plant.file.write_text(JOBS.replace("VERSION", "another version"))
    second = plant.launch("says")
    assert plant.end_of(second) == "SUCCESS"
    assert "said by another version" in plant.messages(second)
    until(lambda: is_gone(plant.pid_of(first)))


def test_a_process_that_is_killed_at_any_moment_costs_its_run_alone(plant: Plant) -> None:
    chance = random.Random(19)  # noqa: S311 - no secret
    ends = []
    for _ in range(KILLS):
        run_id = plant.launch("says")
        time.sleep(chance.uniform(0, 0.4))
        os.kill(plant.pid_of(run_id), signal.SIGKILL)
        ends.append(plant.end_of(run_id))
        if ends[-1] == "FAILURE":
            assert "it was killed, or it crashed" in plant.messages(run_id)
    assert set(ends) <= {"SUCCESS", "FAILURE"}
    assert "FAILURE" in ends
    assert plant.end_of(plant.launch("says")) == "SUCCESS"


def test_a_run_of_a_dead_process_is_known_to_be_lost(plant: Plant) -> None:
    """By run monitoring, where the daemon that would have noticed is gone too; and it can be cancelled."""
    run_id = plant.launch("waits")
    plant.launcher._lost = lambda _: None  # type: ignore[method-assign]
    until(plant.file.with_name("waiting").exists)
    os.kill(plant.pid_of(run_id), signal.SIGKILL)
    until(lambda: is_gone(plant.pid_of(run_id)))
    assert plant.launcher.check_run_worker_health(plant.run(run_id)).status.value == "FAILED"
    assert plant.launcher.terminate(run_id)
    assert plant.end_of(run_id) == "CANCELED"
    del plant.launcher._lost


def test_the_process_that_forks_is_replaced(plant: Plant) -> None:
    first = plant.launch("says")
    assert plant.end_of(first) == "SUCCESS"
    parent = int(Path(f"/proc/{plant.pid_of(first)}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    runs = [plant.launch("says"), plant.launch("says"), plant.launch("says")]
    assert [plant.end_of(run_id) for run_id in runs] == ["SUCCESS"] * 3


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module", "did not start: it ended, with exit code 1"),
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
            "forks no more",
        ),
        ("open(__file__, 'a').write('# edited while it is loaded')", "forks no more"),
    ],
)
def test_definitions_that_cannot_be_served_so_are_left_to_dagster(plant: Plant, code: str, reason: str) -> None:
    plant.file.write_text(f"{code}\n{JOBS}")
    with pytest.raises(NoProcessError, match=reason):
        plant.processes.start("some-run", lambda _: None, lambda: None)


def test_no_run_begins_that_was_not_noted(plant: Plant) -> None:
    def note(pid: int) -> None:
        noted.append(pid)
        raise OSError("the database is full")

    noted: list[int] = []
    with pytest.raises(OSError, match="full"):
        plant.processes.start("some-run", note, lambda: None)
    until(lambda: is_gone(*noted))


def test_they_end_with_their_owner_after_the_run(plant: Plant, tmp_path: Path) -> None:
    script = tmp_path / "owner.py"
    script.write_text(
        textwrap.dedent("""
        import sys, time
        from edgepack_assets.defs.run_processes.start import RunProcesses
        processes = RunProcesses(*sys.argv[1:5])
        pids = []
        processes.start(sys.argv[5], pids.append, lambda: None)
        print(*pids, flush=True)
        time.sleep(300)
        """)
    )
    owner_of = plant.processes
    run_id = plant.instance.create_run_for_job(
        _says(), status=dg.DagsterRunStatus.STARTING, job_code_origin=JobPythonOrigin("says", plant.repository)
    ).run_id
    owner = subprocess.Popen(
        [sys.executable, script, owner_of.executable, owner_of.origin, owner_of.ref, owner_of.location, run_id],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert plant.end_of(run_id) == "SUCCESS"
    until(lambda: is_gone(pid) and is_gone(parent))


def _says() -> dg.JobDefinition:
    @dg.op
    def say() -> None: ...

    @dg.job
    def says() -> None:
        say()

    return says


def test_several_threads_may_start_runs(plant: Plant) -> None:
    runs: list[str] = []
    threads = [threading.Thread(target=lambda: runs.append(plant.launch("says"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [plant.end_of(run_id) for run_id in runs] == ["SUCCESS"] * 4


def test_a_run_that_two_daemons_take_from_the_queue_is_made_once(plant: Plant) -> None:
    """The one that comes second changes nothing, else the run would count as lost with the second one's process."""
    made = [plant.new_run("waits"), *(plant.new_run("says") for _ in range(4))]
    with ThreadPoolExecutor(2) as daemons:
        for run in made:
            list(daemons.map(lambda _: plant.launcher.launch_run(LaunchRunContext(run, None)), range(2)))  # noqa: B023
    until(plant.file.with_name("waiting").exists)
    pid = plant.pid_of(made[0].run_id)
    plant.launcher.launch_run(LaunchRunContext(plant.run(made[0].run_id), None))
    assert plant.pid_of(made[0].run_id) == pid
    assert plant.launcher.check_run_worker_health(plant.run(made[0].run_id)).status.value == "RUNNING"
    for run in made[1:]:
        assert plant.end_of(run.run_id) == "SUCCESS"
        plant.launcher.launch_run(LaunchRunContext(run, None))
    for run in made:
        assert plant.messages(run.run_id).count("Started process for run") == 1
        assert f"(pid: {plant.pid_of(run.run_id)})" in plant.messages(run.run_id)
    assert plant.launcher.terminate(made[0].run_id)
    assert plant.end_of(made[0].run_id) == "CANCELED"


def test_dagster_yaml_can_switch_them_off(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(
        "run_launcher: {module: edgepack_assets.run_launcher, class: WatchedRunLauncher, "
        "config: {keep_processes: false}}\n"
    )
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        launcher = instance.run_launcher
        assert isinstance(launcher, WatchedRunLauncher)
        assert not launcher._keeps_processes


def test_a_gone_server_needs_no_help(tmp_path: Path) -> None:
    """An executable that is no Python."""
    with pytest.raises(NoProcessError, match="did not start"):
        RunProcesses("/bin/false", "", "", "light").start("some-run", lambda _: None, lambda: None)
