"""Dagster's default run launcher, which can also be asked whether a run's process is alive; dagster.yaml names it.

A run's process is watched by the code server that started it. If that is gone too (the machine was switched off, the
whole of `dagster dev` was killed), Dagster's own launcher leaves the run under way for ever, with one of the few
places of `max_concurrent_runs`. This one can be asked about it, so run monitoring marks the run as failed. A run whose
work is a job on another machine is not lost: a new process follows the job.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

from dagster import DagsterEventType, DagsterRun, DagsterRunStatus
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, ResumeRunContext, WorkerStatus
from dagster._core.origin import JobPythonOrigin
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult, ResumeRunArgs
from dagster._serdes import deserialize_value, serialize_value

from edgepack_assets.defs.remote.worker import WORKER_TAG, is_alive, is_followed, worker
from edgepack_assets.text_format import counted

LOST_AFTER = 3
"""How many times in a row nobody knows of a run before it is lost: a busy code server may be slow to answer."""
MOST = 3
"""How many times a new process follows a run's job."""
FOLLOWED = "The run's process is gone: a new one follows its job"
_ANSWER = 10


class WatchedRunLauncher(DefaultRunLauncher):
    """Starts a run through its code server, and asks that server whether it still has it."""

    def __init__(self, inst_data: Any = None) -> None:
        super().__init__(inst_data)
        self._unknown: Counter[str] = Counter()
        self._resumed: list[subprocess.Popen[bytes]] = []

    @property
    def supports_check_run_worker_health(self) -> bool:
        """It does."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process, or its code server, still has it. A run that neither tells of (of the command
        line) is taken to be under way: nobody here could know."""
        # One that has ended stays in the system's list until it is asked.
        self._resumed = [process for process in self._resumed if process.poll() is None]
        alive = is_alive(run)
        if alive is False:
            is_resumed = self._resume_by_ourselves(run)
            return CheckRunHealthResult(
                WorkerStatus.RUNNING if is_resumed else WorkerStatus.FAILED, "its process is gone"
            )
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        if alive or client is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        try:
            answer = deserialize_value(
                client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id), timeout=_ANSWER),
                CanCancelExecutionResult,
            )
            known = answer.can_cancel
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
        """Cancel a run. Who follows a job sees it by the run's status, where no code server can tell that process."""
        run = self._instance.get_run_by_id(run_id)
        sees_it = run is not None and not run.is_finished and is_followed(run)
        try:
            return bool(super().terminate(run_id)) or sees_it  # type: ignore[no-untyped-call]
        except DagsterUserCodeUnreachableError:
            if not sees_it:
                raise
            return True
