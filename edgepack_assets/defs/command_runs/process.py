"""Making runs for a command, one after the other, in a process that start.py has made ready.

What it has imported, and its helpers (kept_helpers.py), serve all of its runs; each run has an instance, a resource and
a log of its own.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import dagster as dg

from edgepack_assets.defs.asset_names import JOB
from edgepack_assets.defs.command_runs.messages import (
    FAILED,
    Order,
    PackageRequest,
    PackageResult,
    Said,
    StepNews,
    Taken,
    next_order,
    send,
)
from edgepack_assets.defs.instance import add_keys, opened
from edgepack_assets.defs.kept_helpers import Helpers
from edgepack_assets.defs.lean_dagster import run_file
from edgepack_assets.defs.remote.dagster_internals import execute_run_of
from edgepack_assets.defs.remote.executor import NAME as REMOTE_EXECUTOR
from edgepack_assets.defs.sensors.run_outcomes import outcome_of
from edgepack_assets.sandbox.child_output import newest_line


def make_runs(first: Order, definitions: dg.Definitions, home: Path, connection: Connection, helpers: Helpers) -> None:
    """A run for each order, until there is none left or the command is gone. Raises InfrastructureError if the Dagster
    instance in `home` cannot be used."""
    order: Order | None = first
    instance: dg.DagsterInstance | None = None
    with ExitStack() as stack:
        while order is not None:
            write_output_to(order.log)
            helpers.write_output_to(order.log)
            if instance is None:
                instance = stack.enter_context(opened(home))  # here, so that what it prints is in the log
            add_keys(instance, [order.request.key])
            if not send(connection, Taken()):
                return  # A command that is gone by now wants no run. One that is killed later has its run finished.
            send(connection, _execute(order, definitions, instance, connection))
            order = next_order(connection)


def _execute(
    order: Order, definitions: dg.Definitions, instance: dg.DagsterInstance, connection: Connection
) -> PackageResult:
    """One run, from its creation to its end."""
    request = order.request
    handler = _Progress(connection)
    _FORWARDED.append(handler)
    try:
        config = {**request.run_config, "loggers": {"console": {"config": {"log_level": "DEBUG"}}}}
        with run_file(instance, order.run_id):
            run = _run(definitions.resolve_job_def(JOB), instance, request, config, order.run_id)
    finally:
        _FORWARDED.remove(handler)
    outcome = outcome_of(instance, run)
    return PackageResult(request.key, outcome, order.run_id, tuple(handler.reasons), handler.package, order.log)


def _run(
    job: dg.JobDefinition, instance: dg.DagsterInstance, request: PackageRequest, config: Mapping[str, Any], run_id: str
) -> dg.DagsterRun:
    if job.executor_def.name == REMOTE_EXECUTOR:
        return execute_run_of(job, instance, request.key, request.assets, config, run_id)
    assets = [dg.AssetKey(name) for name in request.assets]
    result = job.execute_in_process(
        run_config=dict(config), instance=instance, partition_key=str(request.key), asset_selection=assets,
        raise_on_error=False, run_id=run_id,
    )  # fmt: skip
    return result.dagster_run


_FORWARDED: list[logging.Handler] = []
"""What the console logger of this process also hands its records to."""


def _open_logger(context: dg.InitLoggerContext) -> logging.Logger:
    logger = logging.Logger(str(context.logger_config["name"]), logging.DEBUG)
    written = logging.StreamHandler(sys.stdout)
    written.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for handler in (written, *_FORWARDED):
        logger.addHandler(handler)
    return logger


progress_logger = dg.LoggerDefinition(
    _open_logger, dg.colored_console_logger.config_schema, dg.colored_console_logger.description
)
"""Configured like Dagster's own, so that a run can be launched again from the UI."""


class _Progress(logging.Handler):
    """Sends the beginning and the end of each step, and keeps why steps failed and what was registered."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self.reasons: list[str] = []
        self.package: dict[str, Any] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Look at the record's event, if it has one."""
        logged = getattr(record, "dagster_meta", {})
        event = logged.get("dagster_event")
        if event is None and record.levelno == logging.INFO and (text := newest_line(logged.get("orig_message") or "")):
            send(self._connection, Said(text))
        if not isinstance(event, dg.DagsterEvent) or event.step_key is None:
            return
        if event.is_step_materialization and event.asset_key == dg.AssetKey("deployment_package"):
            metadata = event.step_materialization_data.materialization.metadata
            self.package = {name: value.value for name, value in metadata.items()}
        if event.is_step_failure:
            self.reasons.append(_reason(event))
        if event.is_step_start:
            send(self._connection, StepNews(event.step_key, None))
        elif event.is_step_success:
            send(self._connection, StepNews(event.step_key, f"{event.step_success_data.duration_ms / 1000:.1f} s"))
        elif event.is_step_failure:
            send(self._connection, StepNews(event.step_key, FAILED))


def _reason(event: dg.DagsterEvent) -> str:
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return data.user_failure_data.description
    return f"{event.step_key}: {data.error.message if data.error else 'failed'}".strip()


def write_output_to(log: Path) -> None:
    """Have everything that this process and its children print from here on end in a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("ab") as file, open(os.devnull) as nothing:  # noqa: PTH123 - a device
        os.dup2(nothing.fileno(), 0)
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    if sys.stdout is not sys.stderr:  # the first time
        # It writes to whatever the descriptor stands for, so that who keeps it writes to the log of the run.
        stream = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
        sys.stdout = sys.stderr = stream
