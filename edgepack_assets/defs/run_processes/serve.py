"""What a forked process does: one run after the other, until one does not succeed or nothing comes.

What it has imported and its helpers (kept_helpers.py) serve all of its runs. An order is a run id. The process answers
`READY`, and begins when it is told `GO`: in between the daemon notes which process has the run, so that a run is never
begun twice, and never looked for in vain.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import EngineEventData
from dagster._grpc.impl import core_execute_run
from dagster._utils.hosted_user_process import recon_job_from_origin
from dagster._utils.interrupts import capture_interrupts

from edgepack_assets.defs.kept_helpers import MOST_RUNS, keeping_helpers
from edgepack_assets.defs.run_processes.loaded_code import LOOKS
from edgepack_assets.defs.run_processes.memory import memory_is_short
from edgepack_assets.defs.run_processes.messages import ENDED, GO, READY
from edgepack_assets.defs.sqlite_engines import kept_open, share_engines

if TYPE_CHECKING:
    from dagster._core.instance.ref import InstanceRef

    from edgepack_assets.defs.run_processes.loaded_code import LoadedCode

IDLE = 120.0
"""Seconds without a run after which a process ends: it and its helpers keep 450 to 620 MB."""
_CANCELLED = 2.0
"""Seconds between two looks whether the run is to be cancelled."""
_END = (DagsterRunStatus.CANCELING, DagsterRunStatus.CANCELED)


def serve(connection: Connection, ref: InstanceRef, code: LoadedCode) -> None:
    """Make the runs that come over `connection`, until it is closed or the process should not make another one."""
    share_engines()
    with ExitStack() as stack, keeping_helpers(), suppress(KeyboardInterrupt):  # Ctrl-C of the terminal
        instance: DagsterInstance | None = None
        for _ in range(MOST_RUNS):
            run_id = _next_run(connection, code)
            if run_id is None:
                return
            code.note()  # what is imported from here on is as it is from here on
            if instance is None:
                stack.enter_context(kept_open())
                instance = stack.enter_context(DagsterInstance.from_ref(ref))
            succeeded = _execute(run_id, instance)
            code.note()
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.send(ENDED)
            if not succeeded:
                return  # nobody knows what is left in this process


def _next_run(connection: Connection, code: LoadedCode) -> str | None:
    """The next run, which was told to begin. None if there is none for this process."""
    began = time.monotonic()
    try:
        while not connection.poll(LOOKS):
            if time.monotonic() - began > IDLE or memory_is_short() or code.has_changed():
                return None
        run_id: str = connection.recv()
        if code.has_changed():
            return None
        connection.send(READY)
        return run_id if connection.recv() == GO else None
    except (EOFError, ConnectionResetError, BrokenPipeError):
        return None


def _execute(run_id: str, instance: DagsterInstance) -> bool:
    """Make a run as Dagster's own process for one does. Whether it succeeded and nobody wanted it to end."""
    run = instance.get_run_by_id(run_id)
    if run is None or run.job_code_origin is None:  # it was deleted meanwhile
        return False
    number = os.getpid()
    with capture_interrupts(), _Cancellation(run_id, instance) as cancellation:
        instance.report_engine_event(f"Started process for run (pid: {number}).", run,
                                     EngineEventData.in_process(number))  # fmt: skip
        try:
            for _ in core_execute_run(recon_job_from_origin(run.job_code_origin), run, instance, False):
                pass
        except (Exception, KeyboardInterrupt, DagsterExecutionInterruptedError):
            logging.getLogger(__name__).debug("core_execute_run has told the run of it", exc_info=True)
        instance.report_engine_event(f"Process for run exited (pid: {number}).", run)
    ended = instance.get_run_by_id(run_id)
    return ended is not None and ended.status is DagsterRunStatus.SUCCESS and not cancellation.interrupted


class _Cancellation:
    """Interrupts this process while its run is to be cancelled, which another process, perhaps in another container,
    has written into the instance."""

    def __init__(self, run_id: str, instance: DagsterInstance) -> None:
        self._run_id, self._instance = run_id, instance
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.interrupted = False

    def __enter__(self) -> _Cancellation:
        threading.Thread(target=self._look, name="cancellation", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._over.set()

    def _look(self) -> None:
        while not self._over.wait(_CANCELLED):
            run = self._read()
            with self._lock:
                if run is not None and run.status in _END and not self._over.is_set():
                    self.interrupted = True
                    os.kill(os.getpid(), signal.SIGINT)
                    return

    def _read(self) -> DagsterRun | None:
        try:
            return self._instance.get_run_by_id(self._run_id)
        except Exception as error:  # noqa: BLE001 - each storage raises its own; the next look may succeed
            logging.getLogger(__name__).debug(f"the run's status cannot be read: {error}")
            return None
