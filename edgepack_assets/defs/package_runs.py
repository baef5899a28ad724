"""Runs that a command starts: a process for each partition, forked from one that has loaded the definitions.

`edgepack package` and the quickstart materialize with it. A run, its events and its materializations are on the
Dagster instance in use, so the UI shows them like those of any other launch. What the model's code, the SDK and Dagster
print goes to a log file for each partition; the command gets a line for each asset.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import dagster as dg

from edgepack_assets.defs.instance import opened
from edgepack_assets.defs.jobs import ASSETS, JOB
from edgepack_assets.defs.remote.dagster_internals import execute_run_of
from edgepack_assets.defs.remote.executor import NAME as REMOTE_EXECUTOR
from edgepack_assets.defs.sensors.run_outcomes import outcome_of
from edgepack_assets.new_models.run_requests import RunOutcome
from edgepack_assets.partitions import ModelKey

PATIENCE = 10.0
"""Seconds after which a step that still runs is reported; twice as many each time."""
_POLL_SECONDS = 1.0
_GRACE = 60.0
"""Seconds in which an interrupted run may end by itself."""
_LAST_LINES = 15
_FORK = multiprocessing.get_context("fork")

Report = Callable[[str], None]
LoadDefinitions = Callable[[dg.LoggerDefinition], dg.Definitions]


@dataclass(frozen=True)
class PackageRequest:
    """A partition to be materialized: all assets of the job, or some, with a run configuration."""

    key: ModelKey
    assets: tuple[str, ...] = ASSETS
    run_config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PackageResult:
    """What became of a request. `reasons` say why it failed, a sentence each; `package` is the metadata of the
    materialized deployment package (name, version, location, tags and more), empty if there is none."""

    key: ModelKey
    outcome: RunOutcome
    run_id: str
    reasons: tuple[str, ...]
    package: Mapping[str, Any]
    log: Path

    @property
    def succeeded(self) -> bool:
        """Whether every asset was materialized and every blocking check held."""
        return self.outcome is RunOutcome.SUCCEEDED


def run_requests(
    requests: Iterable[PackageRequest], load: LoadDefinitions, home: Path, report: Report, *, parallel: int = 2
) -> list[PackageResult]:
    """Materialize each request in a process of its own, at most `parallel` at once, and report a line for each asset.

    `load` gives the definitions with a console logger; it is called once, here. `home` is the folder of the Dagster
    instance; its partition keys must have been added. Whatever ends a process early is the result of its request
    alone. Raises what `load` raises, and KeyboardInterrupt after all runs have ended."""
    definitions = load(_progress_logger)
    gc.freeze()
    gc.enable()
    waiting = list(reversed(list(requests)))
    running: list[_Process] = []
    results: dict[ModelKey, PackageResult] = {}
    order = [request.key for request in reversed(waiting)]
    # A closed terminal and a service that is stopped cancel the runs, as Ctrl-C does.
    earlier = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                running.append(_Process(waiting.pop(), definitions, home))
            wait([process.connection for process in running], timeout=_POLL_SECONDS)
            for process in running:
                for line in process.news():
                    report(line)
            for process in [process for process in running if process.result is not None]:
                running.remove(process)
                assert process.result is not None
                results[process.result.key] = process.result
    except KeyboardInterrupt:
        for process in running:
            process.cancel()
        deadline = time.monotonic() + _GRACE
        while any(process.news() or process.result is None for process in running) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS / 10)
        raise
    finally:
        for process in running:
            process.stop()
        for number, handler in earlier.items():
            signal.signal(number, handler)
    return [results[key] for key in order]


class _Process:
    """The process of one request, and what it has sent so far."""

    def __init__(self, request: PackageRequest, definitions: dg.Definitions, home: Path) -> None:
        self._request = request
        self._home = home
        self._run_id = str(uuid.uuid4())
        self._log = home / "package_logs" / f"{request.key.path}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._step: str | None = None
        self._step_began = 0.0
        self._patience = PATIENCE
        self.result: PackageResult | None = None
        self.connection, sending = _FORK.Pipe(duplex=False)
        self._process = _FORK.Process(
            target=_execute, args=(request, self._run_id, definitions, home, self._log, sending)
        )
        # What is still in a buffer here would be written by the fork as well.
        sys.stdout.flush()
        sys.stderr.flush()
        self._process.start()
        sending.close()

    def cancel(self) -> None:
        """Interrupt the run. Dagster would call one failed that is interrupted without having been told."""
        _end(self._run_id, self._home, lambda instance, run: instance.report_run_canceling(run))
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, signal.SIGINT)

    def stop(self) -> None:
        """End the process if it still runs, so that it does not outlive the command, and have its run ended too."""
        if self._process.is_alive():
            self._process.terminate()
        self._process.join()
        self.connection.close()
        if self.result is None:
            _end(self._run_id, self._home, lambda instance, run: instance.report_run_canceled(run))

    def news(self) -> list[str]:
        """What happened since the last call: a line per asset that is done, has failed or takes long."""
        lines = []
        while self.result is None and self.connection.poll():
            try:
                message = self.connection.recv()
            except (EOFError, OSError):
                self._process.join()
                self.result = self._died()
                break
            if isinstance(message, PackageResult):
                self.result = message
                self._process.join()
            elif message.took is None:
                self._step, self._step_began, self._patience = message.step, time.monotonic(), PATIENCE
            else:
                self._step = None
                lines.append(self._line(message.step, message.took))
        if self._step is not None and time.monotonic() - self._step_began > self._patience:
            lines.append(self._line(self._step, f"{self._patience:.0f} s so far"))
            self._patience *= 2
        return lines

    def _line(self, step: str, took: str) -> str:
        return f"{self._request.key!s:28} {step:20} {took:>8}"

    def _died(self) -> PackageResult:
        code = self._process.exitcode or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        _end(self._run_id, self._home, lambda instance, run: instance.report_run_failed(run, f"The process {how}."))
        last = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
        return PackageResult(
            self._request.key, RunOutcome.INFRASTRUCTURE_FAILURE, self._run_id, (f"its process {how}", *last), {},
            self._log,
        )  # fmt: skip


def _end(run_id: str, home: Path, report: Callable[[dg.DagsterInstance, dg.DagsterRun], object]) -> None:
    """Report the end of a run whose process could not: it would count as under way for ever."""
    with opened(home) as instance:
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            report(instance, run)


@dataclass(frozen=True)
class _StepNews:
    """A step that began (`took` is None), or ended: how long it took, or `failed`."""

    step: str
    took: str | None


def _execute(  # noqa: PLR0917 - what one process is given
    request: PackageRequest, run_id: str, definitions: dg.Definitions, home: Path, log: Path, connection: Connection
) -> None:
    """The forked process: one run, from its creation to its end."""
    os.setsid()  # the command cancels its runs; Ctrl-C of the terminal must not reach them before
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    with _output_to(log), opened(home) as instance:
        handler = _Progress(connection)
        _FORWARDED.append(handler)
        try:
            config = {**request.run_config, "loggers": {"console": {"config": {"log_level": "DEBUG"}}}}
            run = _run(definitions.resolve_job_def(JOB), instance, request, config, run_id)
        finally:
            _FORWARDED.remove(handler)
        outcome = outcome_of(instance, run)
        connection.send(PackageResult(request.key, outcome, run_id, tuple(handler.reasons), handler.package, log))


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


_progress_logger = dg.LoggerDefinition(
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
        event = getattr(record, "dagster_meta", {}).get("dagster_event")
        if not isinstance(event, dg.DagsterEvent) or event.step_key is None:
            return
        if event.is_step_materialization and event.asset_key == dg.AssetKey("deployment_package"):
            metadata = event.step_materialization_data.materialization.metadata
            self.package = {name: value.value for name, value in metadata.items()}
        if event.is_step_failure:
            self.reasons.append(_reason(event))
        if event.is_step_start:
            self._send(_StepNews(event.step_key, None))
        elif event.is_step_success:
            self._send(_StepNews(event.step_key, f"{event.step_success_data.duration_ms / 1000:.1f} s"))
        elif event.is_step_failure:
            self._send(_StepNews(event.step_key, "failed"))

    def _send(self, news: _StepNews) -> None:
        with suppress(BrokenPipeError):  # the command was killed; the run goes on
            self._connection.send(news)


def _reason(event: dg.DagsterEvent) -> str:
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return data.user_failure_data.description
    return f"{event.step_key}: {data.error.message if data.error else 'failed'}".strip()


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Have everything that this process and its children print end in a file."""
    with log.open("w", encoding="utf-8", errors="backslashreplace", buffering=1) as stream, open(os.devnull) as nothing:  # noqa: PTH123 - a device
        os.dup2(nothing.fileno(), 0)
        for number in (1, 2):
            os.dup2(stream.fileno(), number)
        sys.stdout = sys.stderr = stream
        yield


def assets_from(name: str) -> tuple[str, ...]:
    """An asset of the job and what is made from it, in order. Raises ValueError if there is no such asset."""
    from edgepack_assets.defs.assets import ALL_ASSETS

    if name not in ASSETS:
        raise ValueError(name)
    assets = [asset for asset in ALL_ASSETS if isinstance(asset, dg.AssetsDefinition)]
    below = dg.AssetSelection.assets(name).downstream().resolve(assets)
    return tuple(asset for asset in ASSETS if dg.AssetKey(asset) in below)


def is_materialized(asset: str, key: ModelKey, home: Path) -> bool:
    """Whether the Dagster instance in `home` has a materialization of this asset and partition."""
    with opened(home) as instance:
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[str(key)])
        return bool(instance.fetch_materializations(wanted, limit=1).records)


def failures_in_words(results: Sequence[PackageResult]) -> str:
    """Why requests failed, each with where its whole log is."""
    return "\n\n".join(
        "\n".join([f"{each.key} was not packaged:", *each.reasons, f"The whole log: {each.log}"])
        for each in results
        if not each.succeeded
    )
