"""Runs that a command starts, in processes that it forks (start.py).

`edgepack package` and the quickstart materialize with it. A process makes one run after the other, as long as each
succeeds: what it has imported, and its helpers (kept_helpers.py), serve them all. A run, its
events and its materializations are on the Dagster instance in use, so the UI shows them like those of any other launch.
What the model's code, the SDK and Dagster print goes to a log file for each partition; the command gets a line for each
asset.

For several runs the command loads the definitions, once. For a single one it imports no Dagster, unless it has to end
the run: its process loads them.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack_assets.defs.asset_names import ASSETS
from edgepack_assets.defs.command_runs.display import RunDisplay, RunState
from edgepack_assets.defs.command_runs.messages import (
    FAILED,
    Order,
    PackageRequest,
    PackageResult,
    Refused,
    Said,
    Taken,
)
from edgepack_assets.defs.command_runs.start import LoadDefinitions, StartHelpers, nothing_ahead, serve
from edgepack_assets.defs.instance import opened
from edgepack_assets.defs.kept_helpers import MOST_RUNS
from edgepack_assets.defs.lean_dagster import import_lean
from edgepack_assets.defs.log_capture import captured_lines
from edgepack_assets.new_models.run_requests import RunOutcome
from edgepack_assets.partitions import ModelKey

if TYPE_CHECKING:
    import dagster as dg

__all__ = [
    "PackageRequest",
    "PackageResult",
    "assets_from",
    "failures_in_words",
    "is_materialized",
    "run_requests",
]

PATIENCE = 10.0
"""Seconds after which a step that still runs is reported; twice as many each time."""
_POLL_SECONDS = 1.0
_GRACE = 60.0
"""Seconds in which an interrupted run may end by itself."""
_LAST_LINES = 15
_FORK = multiprocessing.get_context("fork")


def run_requests(
    requests: Iterable[PackageRequest], load: LoadDefinitions, home: Path, display: RunDisplay, *, parallel: int = 2,
    start: StartHelpers = nothing_ahead,
) -> list[PackageResult]:  # fmt: skip
    """Materialize each request, at most `parallel` at once, and show how far it is.

    `load` is called once: here, or for a single request in its process, after `start`. `home` is the folder of the
    Dagster instance, which gets the partition keys that it lacks. Whatever ends a process early is the result of its
    request alone. Raises the EdgepackError of `load`, InfrastructureError if the Dagster instance cannot be used, and
    KeyboardInterrupt after all runs have ended."""
    waiting = list(reversed(list(requests)))
    is_alone = len(waiting) == 1
    if not is_alone:
        load = _loaded(load)
    order = [request.key for request in reversed(waiting)]
    running: list[_Run] = []
    idle: list[_Runner] = []
    runners: list[_Runner] = []
    results: dict[ModelKey, PackageResult] = {}
    # A closed terminal and a service that is stopped cancel the runs, as Ctrl-C does.
    earlier = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                runner = (
                    idle.pop()
                    if idle
                    else _Runner(load, start if is_alone else None, home, [run.runner for run in running])
                )
                runners.append(runner)
                running.append(_Run(waiting.pop(), runner, home))
            wait([run.runner.connection for run in running], timeout=_POLL_SECONDS)
            for line in [line for run in running for line in run.news(display.states is None)]:
                display.line(line)
            if display.states is not None:
                display.states([run.state for run in running if not run.is_lost])
            for run in [run for run in running if run.has_ended]:
                running.remove(run)
                if run.result is None:
                    waiting.append(run.request)
                else:
                    results[run.result.key] = run.result
                _let_go(run, idle if waiting else None)
    except KeyboardInterrupt:
        _cancel(running)
        raise
    finally:
        _stop_all(running, idle, runners)
        for number, handler in earlier.items():
            signal.signal(number, handler)
    return [results[key] for key in order]


def _loaded(load: LoadDefinitions) -> LoadDefinitions:
    """What gives each process the definitions that this one has loaded."""
    import_lean()
    from edgepack_assets.defs.command_runs.process import progress_logger

    definitions = load(progress_logger)
    gc.freeze()
    gc.enable()
    return lambda _: definitions


def _let_go(run: _Run, idle: list[_Runner] | None) -> None:
    """Keep the process of a run that has ended, if there is more to do and it is sound; else end it."""
    if idle is not None and run.runner_is_usable:
        idle.append(run.runner)
    else:
        run.runner.end()


def _stop_all(running: Sequence[_Run], idle: Sequence[_Runner], runners: Sequence[_Runner]) -> None:
    try:
        for run in running:
            run.stop()
        for runner in idle:
            runner.end()
    finally:
        # Another signal may come in between; `timeout` sends two. A process that still has a connection waits for
        # ever, and Python waits for the process.
        for runner in runners:
            runner.connection.close()


def _cancel(running: Sequence[_Run]) -> None:
    for run in running:
        run.cancel()
    deadline = time.monotonic() + _GRACE
    while any(run.news() or not run.has_ended for run in running) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS / 10)


class _Runner:
    """A process that makes one run after the other. `runs`: how many it was given. `is_alone`: it has the only run of
    the command, and loads the definitions itself."""

    def __init__(
        self, load: LoadDefinitions, start: StartHelpers | None, home: Path, others: Sequence[_Runner]
    ) -> None:
        self.connection, theirs = _FORK.Pipe()
        self.runs = 0
        self.is_alone = start is not None
        # The fork has copies of this side's ends: open there, they would hide that the command is gone.
        ours = [self.connection, *(other.connection for other in others)]
        self.process = _FORK.Process(target=serve, args=(load, start or nothing_ahead, home, theirs, ours))
        # What is still in a buffer here would be written by the fork as well.
        sys.stdout.flush()
        sys.stderr.flush()
        self.process.start()
        theirs.close()

    def give(self, order: Order) -> None:
        """Have it run this next. If the process is gone, its connection tells."""
        self.runs += 1
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(order)

    def end(self) -> None:
        """Have it end by itself once it has nothing to do."""
        if not self.connection.closed:
            with suppress(BrokenPipeError, ConnectionResetError):
                self.connection.send(None)
            self.process.join()
            self.connection.close()


class _Run:
    """The run of one request, and what its process has sent so far. `is_lost`: the process was gone before it began."""

    def __init__(self, request: PackageRequest, runner: _Runner, home: Path) -> None:
        self.request = request
        self.runner = runner
        self._home = home
        self._run_id = str(uuid.uuid4())
        self._log = home / "package_logs" / f"{request.key.path}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.write_bytes(b"")
        self._began = False
        self._step: str | None = None
        self._step_began = 0.0
        self._patience = PATIENCE
        self._said: str | None = None
        self._done = 0
        self.result: PackageResult | None = None
        self.is_lost = False
        runner.give(Order(request, self._run_id, self._log))

    @property
    def has_ended(self) -> bool:
        """Whether there is a result, or will be none."""
        return self.result is not None or self.is_lost

    @property
    def runner_is_usable(self) -> bool:
        """Whether the process may make another run. After a failure nobody knows what is left in it."""
        return self.result is not None and self.result.succeeded and self.runner.runs < MOST_RUNS

    @property
    def state(self) -> RunState:
        """How far the run is."""
        ended = self.result is not None
        return RunState(self.request.key, self._done, len(self.request.assets), self._step, self._said, ended)

    def cancel(self) -> None:
        """Interrupt the run. Dagster would call one failed that is interrupted without having been told."""
        _end(self._run_id, self._home, lambda instance, run: instance.report_run_canceling(run))
        if self.runner.process.pid is not None and self.runner.process.is_alive():
            os.kill(self.runner.process.pid, signal.SIGINT)

    def stop(self) -> None:
        """End the process if it still runs, so that it does not outlive the command, and have its run ended too."""
        if self.result is not None:
            self.runner.end()
            return
        if self.runner.process.is_alive():
            self.cancel()
        self.runner.connection.close()  # first: a process whose run has ended would wait for the next one
        self.runner.process.join(_GRACE)
        if self.runner.process.is_alive():
            self.runner.process.kill()
            self.runner.process.join()
        if not self.is_lost:
            _end(self._run_id, self._home, lambda instance, run: instance.report_run_canceled(run))

    def news(self, slow: bool = False) -> list[str]:
        """What happened since the last call: a line per asset that is done or has failed, and if `slow` for one that
        takes long."""
        lines = []
        while not self.has_ended and self.runner.connection.poll():
            try:
                message = self.runner.connection.recv()
            except (EOFError, OSError):
                self.runner.process.join()
                # It ended while it had nothing to do, so another one can do this.
                self.is_lost = not self._began and self.runner.runs > 1
                self.result = None if self.is_lost else self._died()
                break
            if isinstance(message, Taken):
                self._began = True
            elif isinstance(message, Refused):
                if self.runner.is_alone and not self._began:
                    raise message.error
            elif isinstance(message, PackageResult):
                self.result = message
            elif isinstance(message, Said):
                self._said = message.text
            elif message.took is None:
                self._step, self._step_began, self._patience = message.step, time.monotonic(), PATIENCE
                self._said = None
            else:
                self._step = self._said = None
                self._done += message.took != FAILED
                lines.append(self._line(message.step, message.took))
        if slow and self._step is not None and time.monotonic() - self._step_began > self._patience:
            said = f": {self._said}" * bool(self._said)
            lines.append(self._line(self._step, f"{self._patience:.0f} s so far{said}"))
            self._patience *= 2
        return lines

    def _line(self, step: str, took: str) -> str:
        return f"{self.request.key!s:28} {step:20} {took:>8}"

    def _died(self) -> PackageResult:
        code = self.runner.process.exitcode or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        _end(self._run_id, self._home, lambda instance, run: instance.report_run_failed(run, f"The process {how}."))
        with opened(self._home) as instance:
            last = captured_lines(instance, self._run_id)[-_LAST_LINES:]
        if last:  # the process had no time to pass all of it on
            with self._log.open("a", encoding="utf-8") as log:
                log.write("\n".join((f"The process {how}. The last lines that were captured:", *last, "")))
        else:
            last = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
        return PackageResult(
            self.request.key, RunOutcome.INFRASTRUCTURE_FAILURE, self._run_id, (f"its process {how}", *last), {},
            self._log,
        )  # fmt: skip


def _end(run_id: str, home: Path, report: Callable[[dg.DagsterInstance, dg.DagsterRun], object]) -> None:
    """Report the end of a run whose process could not: it would count as under way for ever."""
    import_lean()
    with opened(home) as instance:
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            report(instance, run)


def assets_from(name: str) -> tuple[str, ...]:
    """An asset of the job and what is made from it, in order. Raises ValueError if there is no such asset."""
    if name not in ASSETS:
        raise ValueError(name)
    import_lean()
    import dagster as dg

    from edgepack_assets.defs.assets import ALL_ASSETS

    assets = [asset for asset in ALL_ASSETS if isinstance(asset, dg.AssetsDefinition)]
    below = dg.AssetSelection.assets(name).downstream().resolve(assets)
    return tuple(asset for asset in ASSETS if dg.AssetKey(asset) in below)


def is_materialized(asset: str, key: ModelKey, home: Path) -> bool:
    """Whether the Dagster instance in `home` has a materialization of this asset and partition."""
    import dagster as dg

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
