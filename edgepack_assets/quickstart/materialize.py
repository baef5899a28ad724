"""Materializes partitions with `dagster asset materialize`, and reports progress with a line per asset.

Each partition has its own process, as a person would start it. So its run, events and materializations are on the
instance in use, and the UI shows them. Dagster's own log goes to a file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack_assets.config.loader import CONFIG_VARIABLE
from edgepack_assets.defs.instance import HOME_VARIABLE, opened
from edgepack_assets.errors import EdgepackError
from edgepack_assets.partitions import ModelKey

if TYPE_CHECKING:
    from dagster import DagsterEvent, DagsterInstance, EventLogEntry

MODULE = "edgepack_assets.definitions"
POLL_SECONDS = 0.3
PATIENCE = 10.0
"""Seconds after which a step that still runs is reported; twice as many each time."""


class PartitionRun:
    """One partition that is being materialized, followed through the instance's event log."""

    def __init__(self, key: ModelKey, log: Path, environment: Mapping[str, str]) -> None:
        self.key = key
        self.log = log
        self._failures: dict[str | None, str] = {}
        self._step: str | None = None
        self._step_began = 0.0
        self._patience = PATIENCE
        self._began = datetime.now(UTC)
        self._run_id: str | None = None
        self._cursor: str | None = None
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "dagster", "asset", "materialize"]
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [*command, "-m", MODULE, "--select", "*", "--partition", str(key)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=dict(environment),
            )

    def ended(self) -> bool:
        """Whether the process has ended. Its last events are in the event log by then."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """End the process if it still runs, so that it does not outlive the quickstart."""
        if not self.ended():
            self._process.terminate()
            self._process.wait()

    def news(self, instance: DagsterInstance) -> list[str]:
        """What happened since the last call: a line per asset that is done, has failed or takes long."""
        if self._run_id is None:
            self._run_id = self._find_run(instance)
        if self._run_id is None:
            return []
        page = instance.get_records_for_run(self._run_id, cursor=self._cursor)
        self._cursor = page.cursor
        lines = [line for record in page.records if (line := self._line(record.event_log_entry)) is not None]
        if self._step is not None and time.time() - self._step_began > self._patience:
            lines.append(self._progress_line(self._step, f"{self._patience:.0f} s so far"))
            self._patience *= 2
        return lines

    def fault(self) -> str | None:
        """Why a materialization failed, and where its log is; None if it succeeded."""
        if self._process.returncode == 0:
            return None
        reasons = list(self._failures.values()) or _last_lines(self.log)
        return "\n".join([f"{self.key} was not packaged:", *reasons, f"The whole log: {self.log}"])

    def _find_run(self, instance: DagsterInstance) -> str | None:
        from dagster import RunsFilter

        wanted = RunsFilter(tags={"dagster/partition": str(self.key)}, created_after=self._began)
        found = instance.get_run_records(wanted, limit=1)
        return found[0].dagster_run.run_id if found else None

    def _line(self, entry: EventLogEntry) -> str | None:
        event = entry.dagster_event
        if event is None:
            return None
        if (why := _failure(event)) is not None:
            # A check that failed says more than the failure of its step, which only counts such checks.
            self._failures.setdefault(event.step_key, why)
        if event.is_step_start:
            self._step, self._step_began, self._patience = event.step_key, entry.timestamp, PATIENCE
        if not (event.is_step_success or event.is_step_failure):
            return None
        self._step = None
        took = f"{event.step_success_data.duration_ms / 1000:.1f} s" if event.is_step_success else "failed"
        return self._progress_line(event.step_key, took)

    def _progress_line(self, step: str | None, took: str) -> str:
        return f"{self.key!s:28} {step:20} {took:>8}"


def _failure(event: DagsterEvent) -> str | None:
    """Why a step failed or which check of it does not hold, if the event is of that kind."""
    from dagster import DagsterEventType

    if event.event_type == DagsterEventType.ASSET_CHECK_EVALUATION:
        check = event.asset_check_evaluation_data
        reason = f"{check.check_name} does not hold: {check.description}"
        return None if check.passed else f"{event.step_key}: {reason}"
    if not event.is_step_failure:
        return None
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return data.user_failure_data.description
    return f"{event.step_key}: {data.error.message if data.error else 'failed'}".strip()


def materialize(keys: Iterable[ModelKey], home: Path, config: Path, report: Callable[[str], None]) -> None:
    """Materialize all assets of these partitions in parallel, on the Dagster instance in `home` and with
    the configuration file `config`. Logs are kept in `home`. Raises EdgepackError when all have ended."""
    environment = {**os.environ, HOME_VARIABLE: str(home), CONFIG_VARIABLE: str(config)}
    runs = [PartitionRun(key, home / "quickstart" / f"{key.path}.log", environment) for key in keys]
    try:
        with opened(home) as instance:
            waiting = list(runs)
            while waiting:
                ended = [run for run in waiting if run.ended()]
                for run in waiting:
                    for line in run.news(instance):
                        report(line)
                waiting = [run for run in waiting if run not in ended]
                time.sleep(POLL_SECONDS if waiting else 0)
    finally:
        for run in runs:
            run.stop()
    if faults := [fault for run in runs if (fault := run.fault()) is not None]:
        raise EdgepackError("\n\n".join(faults))


def is_materialized(asset: str, key: ModelKey, home: Path) -> bool:
    """Whether the Dagster instance in `home` has a materialization of this asset and partition."""
    from dagster import AssetKey, AssetRecordsFilter

    with opened(home) as instance:
        wanted = AssetRecordsFilter(asset_key=AssetKey(asset), asset_partitions=[str(key)])
        return bool(instance.fetch_materializations(wanted, limit=1).records)


def _last_lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
