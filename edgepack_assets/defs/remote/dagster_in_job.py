"""What a job needs of Dagster that is no public interface: the run in a throw-away instance, its events given away.

The other side is in dagster_internals.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster import DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._utils.interrupts import setup_interrupt_handlers
from dagster_shared.error import SerializableErrorInfo
from dagster_shared.serdes import deserialize_value, serialize_value

from edgepack_assets.defs.remote.dagster_internals import RUNLESS
from edgepack_assets.partitions import PARTITIONS_NAME


@dataclass
class InnerResult:
    """How a run in a job ended. `reason`, of one that failed before any step did: why."""

    success: bool
    reason: str | None = None


def run_in_job(definitions: dg.Definitions, request: Any, send: Callable[[str], None]) -> InnerResult:
    """Run the assets of a `RunRequest` in a throw-away instance, and send each event, serialized."""
    setup_interrupt_handlers()
    reasons: list[str] = []
    is_running = False

    def listen(entry: EventLogEntry, *_: object) -> None:
        nonlocal is_running
        event = entry.dagster_event
        if event is not None and event.event_type is DagsterEventType.RUN_START:
            is_running = True
        if event is not None and event.event_type is DagsterEventType.RUN_FAILURE:
            error = event.job_failure_data.error
            reasons.append(_innermost(error) or event.message or "")
        # What is planned before the run starts, the other side has planned itself.
        if is_running or entry.run_id == RUNLESS:
            send(serialize_value(entry))

    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(PARTITIONS_NAME, [request.partition])
        for text in request.history:
            instance.report_runless_asset_event(deserialize_value(text, (dg.AssetMaterialization, dg.AssetObservation)))
        for run_id in (request.run_id, RUNLESS):
            instance.add_event_listener(run_id, listen)
        job = definitions.resolve_job_def(request.dagster_job)
        result = job.execute_in_process(
            run_config=dict(request.run_config), instance=instance, partition_key=request.partition,
            asset_selection=[dg.AssetKey.from_user_string(asset) for asset in request.assets],
            run_id=request.run_id, tags=dict(request.tags), raise_on_error=False,
        )  # fmt: skip
        return InnerResult(result.success, reasons[-1] if reasons else None)


def _innermost(error: SerializableErrorInfo | None) -> str:
    while error is not None and error.cause is not None:
        error = error.cause
    return "" if error is None else error.message.strip()
