"""The sensor of failed runs: sends a message about each to a webhook, in order.

It is no `run_failure_sensor`, which goes on to the next failure even if the message could not be sent. Here the cursor
is the last failure that the webhook accepted, so those that it misses while it is down are sent later. A message may
come twice (the sensor is killed after posting, before its tick is saved); the run id in it shows that. A failure that
could not be sent within KEPT is given up, and the tick says so.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import DagsterEventType, EventLogRecord, RunStatusChangeRecordsFilter

from edgepack_assets.config.schema import Settings
from edgepack_assets.defs.sensors.bounded_registry import OutageTimer
from edgepack_assets.defs.sensors.kept_settings import settings_of
from edgepack_assets.defs.sensors.run_outcomes import TAGS, outcome_of
from edgepack_assets.defs.sensors.webhook import RefusedError, bounded, host_of, post_json
from edgepack_assets.errors import EdgepackError, PartitionKeyError, TransientError
from edgepack_assets.masking import without_secrets
from edgepack_assets.new_models.run_requests import RunOutcome
from edgepack_assets.partitions import PARTITION_TAG, ModelKey
from edgepack_assets.text_format import counted

NAME = "run_failures"
KEPT = 24 * 3600
"""Seconds for which a failure is kept while the webhook is down."""
BATCH = 20
"""Messages of one tick."""
TICK = 25.0
"""Seconds after which a tick sends no further message; Dagster ends a tick after 60 s."""
LONGEST, LINES = 700, 6
"""Characters and lines of a reason."""
_PAGE = 100
_OURS = ("package_model", "__ASSET_JOB")
_MOST_EVENTS = 20


def failure_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor `run_failures`; on if a webhook is configured."""
    on = settings.sensors.webhook is not None

    @dg.sensor(
        name=NAME,
        minimum_interval_seconds=settings.sensor_interval,
        default_status=dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED,
        description="Sends the webhook a message about each failed run: model version, asset, reason, and a link. "
        + ("" if on else "Off, since sensors.webhook is not configured."),
        tags={"edgepack": "failures"},
    )
    def run_failures(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return dg.SkipReason(_tick(context, settings.file))

    return run_failures


def _tick(context: dg.SensorEvaluationContext, config_file: Path) -> str:
    """Send the failures since the last tick; returns a text for the tick. Raises EdgepackError if the webhook has been
    down for long."""
    settings = settings_of(config_file)
    address, now = settings.sensors.webhook, time.time()
    last = _newest(context.instance) if context.cursor is None else _position(context.cursor)
    context.update_cursor(str(last))
    if address is None:
        return "no webhook is configured: sensors.webhook"
    host, began = host_of(address.get_secret_value()), time.monotonic()
    messages: list[str] = []
    sent = too_old = 0
    outage: EdgepackError | None = None
    for record in _failures(context.instance, last):
        if sent == BATCH or time.monotonic() - began > TICK:
            messages.append("more are sent in the next tick")
            break
        if now - record.timestamp > KEPT:
            too_old += 1
        elif (run := context.instance.get_run_by_id(record.run_id)) is not None and _is_ours(run, context):
            name = f"{run.tags.get(PARTITION_TAG, 'a run')} (run {run.run_id[:8]})"
            try:
                post_json(address.get_secret_value(), message(context.instance, run, record, settings))
                sent += 1
            except RefusedError as error:
                messages.append(f"{name} is given up: {error}")
            except TransientError as error:
                messages.append(f"{name} and later failures are sent later: {error}")
                outage = error
                break
        context.update_cursor(str(record.storage_id))
    if too_old:
        messages.append(f"{counted(too_old, 'failed run')} not sent within {KEPT // 3600} h, and given up")
    nothing = [] if messages else ["no run has failed since the last tick"]
    summary = [f"sent {counted(sent, 'failed run')} to {host}"] if sent else nothing
    timer = OutageTimer(context.instance, settings, NAME, "the webhook has accepted nothing")
    if sent or outage is None:
        timer.stop()
    if outage is not None:
        failure = timer.failure_after(EdgepackError("; ".join(messages)))
        # Raising would lose the cursor, and messages that were sent would be sent again.
        if failure is not None and not sent:
            raise failure from outage
    return "; ".join([*summary, *messages])


def _position(cursor: str) -> int:
    try:
        return int(cursor)
    except ValueError:
        raise EdgepackError(
            f"the cursor of {NAME} was changed to {cursor[:50]!r}: clear it in the UI, then runs that fail from that "
            "time on are sent"
        ) from None


def _newest(instance: dg.DagsterInstance) -> int:
    newest = instance.fetch_run_status_changes(DagsterEventType.RUN_FAILURE, limit=1).records
    return newest[0].storage_id if newest else 0


def _failures(instance: dg.DagsterInstance, after: int) -> Iterator[EventLogRecord]:
    while True:
        page = instance.fetch_run_status_changes(
            RunStatusChangeRecordsFilter(DagsterEventType.RUN_FAILURE, after_storage_id=after), _PAGE, ascending=True
        ).records
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1].storage_id


def _is_ours(run: dg.DagsterRun, context: dg.SensorEvaluationContext) -> bool:
    if not run.job_name.startswith(_OURS):
        return False
    # One instance may serve several code locations. A run of the command line names none.
    mine, its = context.code_location_origin, run.remote_job_origin
    return mine is None or its is None or its.location_name == mine.location_name


def message(
    instance: dg.DagsterInstance, run: dg.DagsterRun, record: EventLogRecord, settings: Settings
) -> dict[str, Any]:
    """The message about a failed run. `text` is a summary, which chat programs show."""
    partition, tags = run.tags.get(PARTITION_TAG, ""), run.tags
    model_type, model, version = _model(partition, settings)
    assets, reason = _reason(instance, run, record)
    reason = bounded(without_secrets(reason), LONGEST, LINES) or "unknown: see the run's events"
    url = f"{settings.sensors.ui_url.rstrip('/')}/runs/{run.run_id}" if settings.sensors.ui_url else None
    where = f" at {', '.join(assets)}" if assets else ""
    return {
        "event": "run_failed",
        "text": f"Packaging {partition or 'a model'} failed{where}: {reason}" + (f"\n{url}" if url else ""),
        "model": model,
        "version": version,
        "model_type": model_type,
        "partition": partition or None,
        "assets": assets,
        "reason": reason,
        "fault": "infrastructure" if outcome_of(instance, run) is RunOutcome.INFRASTRUCTURE_FAILURE else "model",
        "attempt": int(tags.get(f"{TAGS}attempt", "1")),
        "run_id": run.run_id,
        "environment": tags.get(f"{TAGS}environment") or settings.run.environment,
        "failed_at": int(record.timestamp),
        "url": url,
    }


def _model(partition: str, settings: Settings) -> tuple[str | None, str | None, int | None]:
    """(model type, model name, version) of a partition; None for what is not known."""
    try:
        key = ModelKey.parse(partition)
    except PartitionKeyError:
        return None, None, None
    entry = settings.model_types.get(key.model_type)
    return key.model_type, entry.model_name if entry else None, key.version


def _reason(instance: dg.DagsterInstance, run: dg.DagsterRun, record: EventLogRecord) -> tuple[list[str], str]:
    """(assets that failed, reason): the messages of the steps, else those of the run."""
    assets, reasons = [], []
    for event in _events(instance, run, DagsterEventType.STEP_FAILURE):
        assets.append(str(event.step_key).replace("__", "/"))
        reasons.append(_failure_message(event.step_failure_data))
    if not reasons:
        event = record.event_log_entry.dagster_event
        data = event.job_failure_data if event is not None else None
        error = data.error if data is not None else None
        reasons = [str(error.message) if error is not None else "", (event.message if event is not None else "") or ""]
        reasons += [event.message or "" for event in _events(instance, run, DagsterEventType.ENGINE_EVENT)[-1:]]
    return assets, "\n".join(dict.fromkeys(filter(None, (text.strip() for text in reasons))))


def _failure_message(failure: Any) -> str:
    if failure.user_failure_data is not None:
        return str(failure.user_failure_data.description or failure.user_failure_data.label)
    error = failure.error
    while error is not None and error.cause is not None:
        error = error.cause
    return "" if error is None else str(error.message)


def _events(instance: dg.DagsterInstance, run: dg.DagsterRun, kind: DagsterEventType) -> list[Any]:
    page = instance.get_records_for_run(run.run_id, of_type=kind, limit=_MOST_EVENTS, ascending=True)
    events = [record.event_log_entry.dagster_event for record in page.records]
    return [event for event in events if event is not None]
