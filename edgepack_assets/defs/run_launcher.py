"""Dagster's default run launcher, which also keeps processes for its runs, and can be asked whether a run's process is
alive; dagster.yaml names it.

A process that makes a run imports what it needs once more: half of its work. Here a process makes one run after the
other (run_processes/), where the daemon has loaded the code location itself. Runs of a code server that was started
elsewhere have a process of their own each, as Dagster's default is.

Two daemons on one instance may both find a run in the queue. The first one starts it; the second one leaves it alone.

A run's process is watched by the code server or the daemon that started it. If that is gone too (the machine was
switched off, the whole of `dagster dev` was killed), Dagster's own launcher leaves the run under way for ever, with one
of the few places of `max_concurrent_runs`. This one can be asked about it, so run monitoring marks the run as failed. A
run whose work is a job on another machine is not lost: a new process follows the job.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster import DagsterEventType, DagsterRun, DagsterRunStatus, Field
from dagster._config.config_schema import UserConfigSchema
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import (
    CheckRunHealthResult,
    DefaultRunLauncher,
    LaunchRunContext,
    ResumeRunContext,
    WorkerStatus,
)
from dagster._core.origin import JobPythonOrigin
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult, ResumeRunArgs
from dagster._serdes import ConfigurableClassData, deserialize_value, serialize_value

from edgepack_assets.defs.instance import locked
from edgepack_assets.defs.remote.worker import PROCESS_TAG, WORKER_TAG, is_alive, is_followed, is_in_process, worker
from edgepack_assets.defs.run_processes.start import NoProcessError, run_processes
from edgepack_assets.text_format import counted

LOST_AFTER = 3
"""How many times in a row nobody knows of a run before it is lost: a busy code server may be slow to answer."""
MOST = 3
"""How many times a new process follows a run's job."""
FOLLOWED = "The run's process is gone: a new one follows its job"
_ANSWER = 10
_TO_BE_STARTED = (DagsterRunStatus.NOT_STARTED, DagsterRunStatus.QUEUED, DagsterRunStatus.STARTING)


class _StartedElsewhereError(Exception):
    """Another daemon has started a run, or it has ended."""


class WatchedRunLauncher(DefaultRunLauncher):
    """Starts runs in processes that serve several, or through their code server, and knows whether they are alive.

    Configuration in dagster.yaml: `keep_processes: false` gives each run a process of its own."""

    def __init__(self, inst_data: ConfigurableClassData | None = None, keep_processes: bool = True) -> None:
        super().__init__(inst_data)
        self._keeps_processes = keep_processes
        self._unknown: Counter[str] = Counter()
        self._resumed: list[subprocess.Popen[bytes]] = []

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """What dagster.yaml may set."""
        said = "Whether a process makes several runs, one after the other, where the daemon loads the code location."
        return {"keep_processes": Field(bool, is_required=False, default_value=True, description=said)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> WatchedRunLauncher:
        """As dagster.yaml configures it."""
        return cls(inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Have a kept process make the run, or else a new one, as Dagster does it. Nothing, if another daemon has
        started it."""
        run = context.dagster_run
        try:
            if not self._start_in_kept_process(run):
                with self._still_to_be_started(run.run_id):
                    # A re-execution has the tags of its parent; they name another run and are no harm.
                    super().launch_run(context)
        except _StartedElsewhereError:
            logging.getLogger(__name__).warning(f"run {run.run_id} is left to the daemon that has started it")

    @contextmanager
    def _still_to_be_started(self, run_id: str) -> Iterator[None]:
        """Nobody else starts a run of this instance meanwhile. Raises _StartedElsewhereError if one has started this.

        Dagster looks whether a run is in its queue, and then takes it out: two daemons may both do that."""
        with locked(Path(self._instance.root_directory)):
            run = self._instance.get_run_by_id(run_id)
            if run is None or run.status not in _TO_BE_STARTED or is_alive(run, PROCESS_TAG) or self._is_served(run_id):
                raise _StartedElsewhereError(run_id)
            yield

    def _start_in_kept_process(self, run: DagsterRun) -> bool:
        location = run.remote_job_origin and run.remote_job_origin.repository_origin.code_location_origin
        if not isinstance(location, ManagedGrpcPythonEnvCodeLocationOrigin) or run.job_code_origin is None:
            return False
        if not self._keeps_processes or sys.platform != "linux":
            return False
        repository = run.job_code_origin.repository_origin
        processes = run_processes(
            repository.executable_path, serialize_value(repository), serialize_value(self._instance.get_ref()),
            location.location_name,
        )  # fmt: skip

        def note(pid: int) -> None:
            with self._still_to_be_started(run.run_id):
                self._instance.add_run_tags(run.run_id, {PROCESS_TAG: worker(run.run_id, pid)})

        try:
            processes.start(run.run_id, note, lambda: self._lost(run.run_id))
        except NoProcessError as error:
            logging.getLogger(__name__).warning(f"run {run.run_id} has a process of its own: {error}")
            self._instance.add_run_tags(run.run_id, {PROCESS_TAG: ""})
            return False
        return True

    def _lost(self, run_id: str) -> None:
        """The process that made a run has ended before the run did: somebody killed it."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or self._resume_by_ourselves(run):
            return
        if run.status is DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(run)
        else:
            self._instance.report_run_failed(run, "The run's process has ended: it was killed, or it crashed.")

    @property
    def supports_check_run_worker_health(self) -> bool:
        """It does."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process, or its code server, still has it. A run that neither tells of (of the command
        line) is taken to be under way: nobody here could know."""
        # One that has ended stays in the system's list until it is asked.
        self._resumed = [process for process in self._resumed if process.poll() is None]
        alive = is_alive(run, WORKER_TAG if is_followed(run) else PROCESS_TAG)
        if alive is False:
            is_resumed = self._resume_by_ourselves(run)
            return CheckRunHealthResult(
                WorkerStatus.RUNNING if is_resumed else WorkerStatus.FAILED, "its process is gone"
            )
        if alive:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        try:
            known = self._knows(run.run_id) is not False
            why = "the code server that started it does not know it any more"
        except DagsterUserCodeUnreachableError:
            known, why = False, "the code server that started it is gone, and its process with it"
        if known:
            del self._unknown[run.run_id]
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        self._unknown[run.run_id] += 1
        if self._unknown[run.run_id] < LOST_AFTER:
            return CheckRunHealthResult(
                WorkerStatus.RUNNING, f"asked {counted(self._unknown[run.run_id], 'time')}: {why}"
            )
        del self._unknown[run.run_id]
        return CheckRunHealthResult(WorkerStatus.FAILED, why)

    def _knows(self, run_id: str) -> bool | None:
        """Whether the code server that started a run still has it; None if none did. Raises
        DagsterUserCodeUnreachableError."""
        client = self._get_grpc_client_for_termination(run_id)  # type: ignore[no-untyped-call]
        if client is None:
            return None
        request = CanCancelExecutionRequest(run_id=run_id)
        answer = deserialize_value(client.can_cancel_execution(request, timeout=_ANSWER), CanCancelExecutionResult)
        return answer.can_cancel

    def _is_served(self, run_id: str) -> bool:
        try:
            return bool(self._knows(run_id))
        except DagsterUserCodeUnreachableError:
            return False

    @property
    def supports_resume_run(self) -> bool:
        """Of runs whose work is a job on another machine, which goes on without this one. Elsewhere than on Linux
        nobody could tell whether the new process is alive, and would start one more."""
        return sys.platform == "linux"

    def resume_run(self, context: ResumeRunContext) -> None:
        """Have a new process follow the run's job. A run whose work was done here is marked as failed."""
        run = context.dagster_run
        if is_followed(run) and run.job_code_origin is not None:
            self._follow(run, run.job_code_origin)
        else:
            self._instance.report_run_failed(run, "The run's process is gone, and its work with it.")

    def _resume_by_ourselves(self, run: DagsterRun) -> bool:
        """Have a new process follow the job of a run, where Dagster resumes none (`max_resume_run_attempts`, which is 0
        by default, changes what becomes of other runs too). False if that is no use."""
        if not is_followed(run):
            return False
        origin, now = run.job_code_origin, self._instance.get_run_by_id(run.run_id)
        if now is None or now.status is not DagsterRunStatus.STARTED:  # it has ended just now, and its process with it
            return False
        if origin is None or not self.supports_resume_run or self._instance.run_monitoring_max_resume_run_attempts:
            return False
        events = self._instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)
        if sum(event.dagster_event is not None and event.dagster_event.message == FOLLOWED for event in events) >= MOST:
            return False
        self._instance.report_engine_event(FOLLOWED, run)
        self._follow(run, origin)
        return True

    def _follow(self, run: DagsterRun, origin: JobPythonOrigin) -> None:
        arguments = ResumeRunArgs(job_origin=origin, run_id=run.run_id, instance_ref=self._instance.get_ref())
        # Dagster's own form of this command needs `dagster` on the daemon's PATH.
        command = [origin.executable_path, "-m", "dagster", "api", "resume_run", serialize_value(arguments)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self._resumed.append(process)
        self._instance.add_run_tags(run.run_id, {WORKER_TAG: worker(run.run_id, process.pid)})

    def terminate(self, run_id: str) -> bool:
        """Cancel a run. Who follows a job, and a process that makes several runs, see it by the run's status: no code
        server can tell them."""
        run = self._instance.get_run_by_id(run_id)
        sees_it = run is not None and not run.is_finished and is_followed(run)
        if run is not None and not run.is_finished and is_in_process(run):
            self._instance.report_run_canceling(run)
            if is_alive(run, PROCESS_TAG) is False and not sees_it:
                self._instance.report_run_canceled(run)
            return True
        try:
            return bool(super().terminate(run_id)) or sees_it  # type: ignore[no-untyped-call]
        except DagsterUserCodeUnreachableError:
            if not sees_it:
                raise
            return True
