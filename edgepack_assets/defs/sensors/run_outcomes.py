"""How the runs of partitions stand, and why one failed: on the model, or because of infrastructure.

A run failed on the model if one of its steps failed in a way that would repeat itself: an EdgepackError that is no
TransientError and no NotFoundError, a check, or any other `dg.Failure`. Everything else is infrastructure: a run that
never started, whose process died, that was interrupted by a restart, or that ended in an error this project does not
raise on purpose. Since such a run is requested again a bounded number of times only, an unknown error is counted there.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg
from dagster import DagsterEventType, DagsterRunStatus

from edgepack_assets import errors
from edgepack_assets.new_models.run_requests import RunOutcome, SeenRun
from edgepack_assets.partitions import ModelKey

if TYPE_CHECKING:
    from dagster._core.execution.plan.objects import StepFailureData

TAGS = "edgepack/"
"""What the names of our run tags begin with."""

RUN_KEY_TAG = "dagster/run_key"
PARTITION_TAG = "dagster/partition"
_PACKAGE = dg.AssetKey("deployment_package")
_MOST_FAILED_STEPS = 20
_NOT_THE_MODELS = (errors.TransientError, errors.NotFoundError)
"""A registry that shows nothing (a share that is not mounted) cannot be told from one that has nothing; the sensor has
seen the version."""


def runs_of(instance: dg.DagsterInstance, job: str, model_type: str, versions: Sequence[int]) -> list[SeenRun]:
    """The runs of the partitions of these versions, whoever launched them. `job` is the one that packages."""
    keys = [str(ModelKey(model_type, version)) for version in versions]
    records = instance.get_run_records(dg.RunsFilter(tags={PARTITION_TAG: keys}))
    return [
        SeenRun(
            version=ModelKey.parse(record.dagster_run.tags[PARTITION_TAG]).version,
            run_key=record.dagster_run.tags.get(RUN_KEY_TAG),
            began=int(record.create_timestamp.timestamp() * 1000),
            over=int((record.end_time or record.create_timestamp.timestamp()) * 1000),
            ended=ended(instance, record.dagster_run),
            whole=_makes_the_package(record.dagster_run, job),
        )
        for record in records
    ]


def _makes_the_package(run: dg.DagsterRun, job: str) -> bool:
    # Launched from the UI a run names its steps even where it has all of them.
    if run.step_keys_to_execute is not None and _PACKAGE.to_python_identifier() not in run.step_keys_to_execute:
        return False
    return run.job_name == job if run.asset_selection is None else _PACKAGE in run.asset_selection


def ended(instance: dg.DagsterInstance, run: dg.DagsterRun) -> RunOutcome:
    """How a run stands, and whose fault it is if it failed."""
    if not run.is_finished:
        return RunOutcome.RUNNING
    if run.status is DagsterRunStatus.SUCCESS:
        return RunOutcome.SUCCEEDED
    if run.status is DagsterRunStatus.CANCELED:
        return RunOutcome.CANCELED
    failures = _step_failures(instance, run)
    if any(_told(failure, "error") == errors.ApprovalError.__name__ for failure in failures):
        return RunOutcome.UNAPPROVED
    return RunOutcome.MODEL_FAILURE if any(map(_would_repeat_itself, failures)) else RunOutcome.INFRASTRUCTURE_FAILURE


def _step_failures(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list["StepFailureData"]:
    page = instance.get_records_for_run(
        run.run_id, of_type=DagsterEventType.STEP_FAILURE, limit=_MOST_FAILED_STEPS, ascending=True
    )
    events = [record.event_log_entry.dagster_event for record in page.records]
    return [event.step_failure_data for event in events if event is not None]


def _told(failure: "StepFailureData", what: str) -> str:
    """What a failure of ours tells of itself (defs/failures.py): the name of its "error", whether it is "transient"."""
    told = failure.user_failure_data.metadata.get(what) if failure.user_failure_data is not None else None
    return str(told.value) if told is not None else ""


def _would_repeat_itself(failure: "StepFailureData") -> bool:
    if failure.user_failure_data is not None:
        # The transient one may be no error of ours: a connection that was reset, a full disk.
        return _told(failure, "transient") != str(True) and not _is_transient(_told(failure, "error"))
    error = failure.error
    names = set()
    while error is not None:
        names.add(error.cls_name)
        error = error.cause
    return any(
        name == "DagsterAssetCheckFailedError" or (_error_class(name) is not None and not _is_transient(name))
        for name in names
        if name is not None
    )


def _error_class(name: str) -> type[errors.EdgepackError] | None:
    found = getattr(errors, name, None)
    return found if isinstance(found, type) and issubclass(found, errors.EdgepackError) else None


def _is_transient(name: str) -> bool:
    found = _error_class(name)
    return found is not None and issubclass(found, _NOT_THE_MODELS)
