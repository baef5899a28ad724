"""Dagster's default run launcher, which can also be asked whether a run's process is alive; dagster.yaml names it.

A run's process is watched by the code server that started it. If that is gone too (the machine was switched off, the
whole of `dagster dev` was killed), Dagster's own launcher leaves the run under way for ever, with one of the few
places of `max_concurrent_runs`. This one can be asked about it, so run monitoring marks the run as failed.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from dagster import DagsterRun
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value

from edgepack_assets.text_format import counted

LOST_AFTER = 3
"""How many times in a row nobody knows of a run before it is lost: a busy code server may be slow to answer."""
_ANSWER = 10


class WatchedRunLauncher(DefaultRunLauncher):
    """Starts a run through its code server, and asks that server whether it still has it."""

    def __init__(self, inst_data: Any = None) -> None:
        super().__init__(inst_data)
        self._unknown: Counter[str] = Counter()

    @property
    def supports_check_run_worker_health(self) -> bool:
        """It does."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run's code server still has it. A run that no server started (of the command line) is taken
        to be under way: nobody here could know."""
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        if client is None:
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
