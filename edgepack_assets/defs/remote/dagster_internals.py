"""Everything of Dagster that the remote run needs and that is no public interface: one place to look after an update.

`RunHere` stores what a job tells in the instance in use, as if the steps had run here. The job's side is
dagster_in_job.py. docs/design/remote-runs.md says why it is done so.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster import AssetRecordsFilter, DagsterEventType
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import DagsterEvent, EngineEventData, StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.api import execute_run
from dagster._core.execution.plan.objects import ErrorSource, StepFailureData, UserFailureData
from dagster._core.log_manager import (
    LOG_RECORD_METADATA_ATTR,
    construct_log_record_message,
    construct_log_record_metadata,
)
from dagster._utils.interrupts import check_captured_interrupt, pop_captured_interrupt
from dagster_shared.check import CheckError
from dagster_shared.error import SerializableErrorInfo
from dagster_shared.record import copy
from dagster_shared.serdes import deserialize_value, serialize_value
from dagster_shared.serdes.errors import DeserializationError

from edgepack_assets.defs.assets.input_versions import RAW_DATA, REGISTERED_MODEL, input_tags
from edgepack_assets.defs.remote.worker import is_alive
from edgepack_assets.errors import RemoteJobError
from edgepack_assets.partitions import PARTITION_TAG, ModelKey

if TYPE_CHECKING:
    from dagster._core.execution.context.system import PlanOrchestrationContext
    from dagster._core.execution.plan.plan import ExecutionPlan

_EXTERNAL = (RAW_DATA, REGISTERED_MODEL)
_VERSION, _POINTER = "dagster/input_data_version/", "dagster/input_event_pointer/"
_DATA_VERSION, _NO_POINTER = "dagster/data_version", "NULL"
_KEPT_TAGS = ("dagster/backfill",)
"""Dagster's own tags of the run that a materialization shows."""
RUNLESS = ""
"""The run id of events that belong to no run."""
_MOST_BEFORE = 50
"""Earlier events of an asset's partition that are looked at."""
_SKEW = 10.0
"""Seconds by which the job's clock may differ before its times are moved."""
_FORWARDED = {
    DagsterEventType[name]
    for name in (
        "STEP_OUTPUT", "STEP_INPUT", "STEP_FAILURE", "STEP_START", "STEP_SUCCESS", "STEP_SKIPPED",
        "STEP_UP_FOR_RETRY", "STEP_RESTARTED", "STEP_EXPECTATION_RESULT", "RESOURCE_INIT_STARTED",
        "RESOURCE_INIT_SUCCESS", "RESOURCE_INIT_FAILURE", "ASSET_MATERIALIZATION", "ASSET_MATERIALIZATION_PLANNED",
        "ASSET_OBSERVATION", "ASSET_CHECK_EVALUATION", "LOADED_INPUT", "HANDLED_OUTPUT", "OBJECT_STORE_OPERATION",
        "ASSET_STORE_OPERATION", "HOOK_COMPLETED", "HOOK_ERRORED", "HOOK_SKIPPED",
    )
}  # fmt: skip
"""What is told of steps and assets. What is told of the run as a whole, this side tells itself."""
_AFTER_THE_END = {DagsterEventType.HOOK_COMPLETED, DagsterEventType.HOOK_ERRORED, DagsterEventType.HOOK_SKIPPED}
"""What may be told of a step that is over."""

InterruptedRunError = DagsterExecutionInterruptedError


def is_interrupted(take: bool = False) -> bool:
    """Whether somebody wants the run to end; with `take` it is not said again."""
    return pop_captured_interrupt() if take else check_captured_interrupt()


class RunHere:
    """The run on this side: which steps it has, and what is known of them."""

    def __init__(self, context: PlanOrchestrationContext, plan: ExecutionPlan, key: ModelKey) -> None:
        self._context = context
        self._plan = plan
        self._key = key
        self._instance = context.instance
        self.run = context.dagster_run
        self.is_resumed = context.resume_from_failure
        self.steps = tuple(plan.step_keys_to_execute)
        self.started: set[str] = set()
        self.over: set[str] = set()
        self.failed: set[str] = set()
        self._taken: set[bytes] = set()
        self._skew = 0.0
        self._observed = {asset: self._newest_observation(asset) for asset in _EXTERNAL}
        self._stored_before, self._last_time = self._stored() if self.is_resumed else (0, time.time())
        self._asked, self._is_over = time.monotonic(), False

    # what the job is told ---------------------------------------------------------------------------------------

    def request_fields(self) -> dict[str, Any]:
        """The fields of a `RunRequest` that Dagster knows."""
        selected = [step.replace("__", "/") for step in self.steps]
        tags = {name: value for name, value in self.run.tags.items()
                if not name.startswith("dagster/") or name in _KEPT_TAGS}  # fmt: skip
        config = {key: value for key, value in self.run.run_config.items() if key not in ("execution", "loggers")}
        if isinstance(ops := config.get("ops"), Mapping):
            config["ops"] = {name: value for name, value in ops.items() if name in self.steps}
        return {
            "run_id": self.run.run_id, "dagster_job": self.run.job_name, "assets": tuple(selected),
            "partition": str(self._key), "run_config": config, "tags": tags, "history": self._history(selected),
        }  # fmt: skip

    def _history(self, selected: Sequence[str]) -> tuple[str, ...]:
        """The newest materializations of what the selected assets are made from, and the newest observation of each
        version: what the job has not seen, it would observe anew."""
        layer = self._context.job.get_definition().asset_layer
        parents = {
            parent for asset in selected for parent in layer.get(dg.AssetKey.from_user_string(asset)).parent_keys
        }
        found: list[Any] = []
        for asset in sorted(parents, key=str):
            wanted = AssetRecordsFilter(asset, asset_partitions=[str(self._key)])
            if asset in _EXTERNAL:
                records = self._instance.fetch_observations(wanted, limit=_MOST_BEFORE).records
                of_versions: dict[str | None, Any] = {}
                for record in records:
                    of_versions.setdefault(_version_of(record.asset_observation), record.asset_observation)
                found += reversed(of_versions.values())
            elif asset.to_user_string() not in selected:
                records = self._instance.fetch_materializations(wanted, limit=1).records
                found += [record.asset_materialization for record in records]
        return tuple(serialize_value(event) for event in found if event is not None)

    # what the job tells -----------------------------------------------------------------------------------------

    def set_clock(self, sent: float) -> None:
        """Take the job's clock from the first message, if it differs too much to be the message's way. What is read
        only after this process took the run over may have been sent long before."""
        difference = time.time() - sent
        if abs(difference) > _SKEW and not self.is_resumed:
            self._skew = difference

    def take(self, serialized: str) -> DagsterEvent | None:
        """Store an event of the job, and return it if it is one for Dagster to act on. Raises RemoteJobError if it is
        none."""
        entry = self._read(serialized)
        if entry is None:
            return None
        event = entry.dagster_event
        if self._stored_before:
            self._stored_before -= 1
            return event
        if event is not None:
            event = self._rewritten(event)
        entry = entry._replace(dagster_event=event, timestamp=self._time(entry.timestamp))
        self._instance.handle_new_event(entry)
        self._show(entry)
        return event

    def _read(self, serialized: str) -> EventLogEntry | None:
        """The event, if it is one that the run has and that was not told before."""
        if (digest := hashlib.sha256(serialized.encode()).digest()) in self._taken:
            return None  # with its time and all it says
        self._taken.add(digest)
        try:
            entry = deserialize_value(serialized, EventLogEntry)
        except (ValueError, TypeError, KeyError, CheckError, DeserializationError) as error:
            raise RemoteJobError(f"an event of the job cannot be read ({type(error).__name__})") from error
        event = entry.dagster_event
        if event is not None and entry.run_id == RUNLESS:
            self._take_observation(event)
        if entry.run_id != self.run.run_id or not self._is_kept(entry):
            return None
        if event is not None:
            self._track(event)
        return entry

    def _is_kept(self, entry: EventLogEntry) -> bool:
        event = entry.dagster_event
        if event is None:
            level = self._instance.python_log_level
            return level is None or int(entry.level) >= logging.getLevelNamesMapping()[level.upper()]
        # A step that was failed here: the job, which is being cancelled, tells of an end of its own.
        is_late = event.step_key in self.over and event.event_type not in _AFTER_THE_END
        return event.event_type in _FORWARDED and not is_late

    def _track(self, event: DagsterEvent) -> None:
        if event.step_key is None:
            return
        if event.is_step_start:
            self.started.add(event.step_key)
        elif event.is_step_failure:
            self.failed.add(event.step_key)
            self.over.add(event.step_key)
        elif event.is_step_success or event.event_type is DagsterEventType.STEP_SKIPPED:
            self.over.add(event.step_key)

    def _time(self, told: float) -> float:
        self._last_time = min(max(told + self._skew, self._last_time), time.time())
        return self._last_time

    def _stored(self) -> tuple[int, float]:
        """How many events of the job were stored before this process was started to go on with the run, and the time
        of the last."""
        entries = self._instance.all_logs(self.run.run_id)
        events = [entry.dagster_event for entry in entries]
        types = [None if event is None else event.event_type for event in events]
        if DagsterEventType.RUN_START not in types:
            return 0, time.time()
        begin = types.index(DagsterEventType.RUN_START)
        of_job = [entry for entry, kind in zip(entries[begin:], types[begin:], strict=True)
                  if kind is None or kind in _FORWARDED]  # fmt: skip
        return len(of_job), max(entry.timestamp for entry in (*of_job, entries[begin]))

    def _rewritten(self, event: DagsterEvent) -> DagsterEvent:
        """With ids of events of this instance in place of those of the job's."""
        if event.is_step_materialization:
            data = event.step_materialization_data
            made = data.materialization._replace(tags=self._tags(data.materialization.tags or {}))
            return event._replace(event_specific_data=StepMaterializationData(made, data.asset_lineage))
        if event.event_type is DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            wanted = AssetRecordsFilter(check.asset_key, asset_partitions=[str(self._key)])
            records = self._instance.fetch_materializations(wanted, limit=1).records
            target = [
                AssetCheckEvaluationTargetMaterializationData(
                    run_id=each.run_id, storage_id=each.storage_id, timestamp=each.timestamp
                )
                for each in records
            ]
            known = target[0] if check.target_materialization_data is not None and target else None
            return event._replace(event_specific_data=copy(check, target_materialization_data=known))
        return event

    def _tags(self, told: Mapping[str, str]) -> dict[str, str]:
        tags = dict(told)
        for name, pointer in told.items():
            if not name.startswith(_POINTER) or pointer == _NO_POINTER:
                continue
            asset = dg.AssetKey.from_user_string(name.removeprefix(_POINTER))
            used = told.get(f"{_VERSION}{name.removeprefix(_POINTER)}", "")
            if asset in _EXTERNAL:
                tags |= input_tags(self._instance, asset, self._key, used)
                self._observed[asset] = self._newest_observation(asset)
            else:
                tags[name] = self._materialization_with(asset, used)
        return tags

    def _materialization_with(self, asset: dg.AssetKey, version_hash: str) -> str:
        """The storage id of the materialization that a step used: of a partition, Dagster keeps its version's hash.

        As Dagster does, the newest of any partition stands for the newest of this one."""
        wanted = AssetRecordsFilter(asset, asset_partitions=[str(self._key)])
        for number, record in enumerate(self._instance.fetch_materializations(wanted, limit=_MOST_BEFORE).records):
            version = _version_of(record.asset_materialization) or ""
            if hashlib.sha256(version.encode()).hexdigest() == version_hash or version == version_hash:
                newest = self._instance.fetch_materializations(asset, limit=1).records[0]
                return str(record.storage_id if number else newest.storage_id)
        return _NO_POINTER

    def _take_observation(self, event: DagsterEvent) -> None:
        """What the job saw in the registry. What was observed here since it began is at least as new, and stays."""
        if event.event_type is not DagsterEventType.ASSET_OBSERVATION:
            return
        seen = event.asset_observation_data.asset_observation
        asset = seen.asset_key
        if asset not in _EXTERNAL or seen.partition != str(self._key):
            return
        newest = self._newest_observation(asset)
        if newest != self._observed[asset] or newest[1] == (seen.tags or {}).get(_DATA_VERSION):
            return
        self._instance.report_runless_asset_event(seen)
        self._observed[asset] = self._newest_observation(asset)

    def _newest_observation(self, asset: dg.AssetKey) -> tuple[int, str | None]:
        wanted = AssetRecordsFilter(asset, asset_partitions=[str(self._key)])
        for record in self._instance.fetch_observations(wanted, limit=1).records:
            return record.storage_id, _version_of(record.asset_observation)
        return 0, None

    def _show(self, entry: EventLogEntry) -> None:
        """Hand the entry to the run's loggers, such as that of the console. It is stored already."""
        handler = self._context.log._dagster_handler
        event = entry.dagster_event
        tags = {"step_key": entry.step_key, "op_name": entry.step_key} if entry.step_key else {}
        of_step = handler.with_tags(**tags)
        message = (event.message if event is not None else None) or entry.user_message
        shown = construct_log_record_metadata(of_step.metadata, message, event, None)
        text = construct_log_record_message(shown)
        for logger in of_step._loggers:
            logger.log(int(entry.level), text, extra={LOG_RECORD_METADATA_ATTR: shown})

    # what is told here --------------------------------------------------------------------------------------------

    def note(self, message: str, metadata: Mapping[str, Any] | None = None, error: str | None = None) -> DagsterEvent:
        """An event of the run itself, for its page."""
        shown = None if error is None else SerializableErrorInfo(f"{error}\n", [], None)
        return DagsterEvent.engine_event(self._context, message, EngineEventData(metadata or {}, error=shown))

    def fail(self, step: str, sentence: str, error: str, transient: bool) -> DagsterEvent:
        """The failure of a step for a reason that lies in the job. `error` is a class of errors.py."""
        metadata = {"error": dg.MetadataValue.text(error)} | (
            {"transient": dg.MetadataValue.bool(True)} if transient else {}
        )
        data = StepFailureData(  # type: ignore[no-untyped-call]
            error=SerializableErrorInfo(f"{sentence}\n", [], error),
            user_failure_data=UserFailureData("intentional-failure", sentence, metadata),  # type: ignore[no-untyped-call]
            error_source=ErrorSource.UNEXPECTED_ERROR,
        )
        self.over.add(step)
        self.failed.add(step)
        failed: Any = self._plan.get_step_by_key(step)
        return DagsterEvent.step_failure_event(self._context.for_step(failed), data)

    @contextlib.contextmanager
    def captured_logs(self) -> Iterator[DagsterEvent]:
        """Keep what is printed in the block as the log of all steps; the event that says so."""
        manager = self._instance.compute_log_manager
        key = manager.build_log_key_for_run(self.run.run_id, f"remote_{len(self.steps)}")
        with manager.capture_logs(key) as captured:
            yield DagsterEvent.capture_logs(self._context, list(self.steps), key, captured)

    def will_resume(self) -> bool:
        """Whether another process will go on with the run: this one is interrupted, and nobody cancelled the run."""
        run = self._instance.get_run_by_id(self.run.run_id)
        is_cancelled = run is None or run.status is dg.DagsterRunStatus.CANCELING or run.is_finished
        return not is_cancelled and self._instance.run_will_resume(self.run.run_id)

    def add_tags(self, tags: Mapping[str, str]) -> None:
        """Add tags to the run."""
        self._instance.add_run_tags(self.run.run_id, dict(tags))

    def is_ended_elsewhere(self, seconds: float) -> bool:
        """Whether somebody cancelled the run, or it was ended, though no signal of that came to this process. The
        instance is asked every `seconds`, and believed the second time: a signal may be on its way."""
        if time.monotonic() - self._asked < seconds:
            return False
        self._asked = time.monotonic()
        run = self._instance.get_run_by_id(self.run.run_id)
        is_over = run is None or run.is_finished or run.status is dg.DagsterRunStatus.CANCELING
        was_over, self._is_over = self._is_over, is_over
        return is_over and was_over

    def takes_place_of(self, run_id: str) -> bool:
        """Whether another run of this partition has ended, or its process is gone, which is told then."""
        other = self._instance.get_run_by_id(run_id) if run_id != self.run.run_id else None
        if other is None or other.tags.get(PARTITION_TAG) != str(self._key):
            return False
        if not other.is_finished and is_alive(other) is False:
            self._instance.report_run_failed(other, "The run's process is gone, and another run takes its place.")
            return True
        return other.is_finished


def _version_of(event: Any) -> str | None:
    """The data version of a materialization or observation."""
    return (event.tags or {}).get(_DATA_VERSION) if event is not None else None


def execute_run_of(  # noqa: PLR0917 - what makes a run
    job: dg.JobDefinition, instance: dg.DagsterInstance, key: ModelKey, assets: Sequence[str],
    run_config: Mapping[str, Any], run_id: str,
) -> dg.DagsterRun:  # fmt: skip
    """Run some assets of a job's partition with the job's own executor, which `execute_in_process` ignores."""
    selection = frozenset(dg.AssetKey.from_user_string(asset) for asset in assets)
    whole = InMemoryJob(job)
    part = whole.get_subset(asset_selection=selection).get_definition()
    tags = {**part.run_tags, **part.get_tags_for_partition_key(str(key), selected_asset_keys=selection)}
    run = instance.create_run_for_job(
        job_def=part, run_config=run_config, tags=tags, run_id=run_id, asset_selection=selection
    )
    execute_run(whole, run, instance)
    ended = instance.get_run_by_id(run_id)
    assert ended is not None
    return ended
