"""The outcome of the runs of partitions: whether one failed on the model, or because of infrastructure.

A run failed on the model if one of its steps failed in a way that would repeat itself: with an EdgepackError that is
none of those below, with a check, or with any other `dg.Failure`. Everything else is infrastructure: the run never
started, its process died, a restart interrupted it, or it ended with an error that this project does not raise on
purpose. Such a run is requested again a bounded number of times, so an unknown error may count as one of them.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg
from dagster import DagsterEventType, DagsterRunStatus

from edgepack_assets import errors
from edgepack_assets.new_models.run_requests import RunOutcome, SeenRun
from edgepack_assets.partitions import PARTITION_TAG, ModelKey

if TYPE_CHECKING:
    from dagster._core.execution.plan.objects import StepFailureData

TAGS = "edgepack/"
"""What the names of our run tags begin with."""

RUN_KEY_TAG = "dagster/run_key"
_PACKAGE = dg.AssetKey("deployment_package")
_MOST_FAILED_STEPS = 20
_NOT_OF_THE_MODEL = (errors.TransientError, errors.InfrastructureError, errors.NotFoundError, errors.OvertakenError)
"""NotFoundError as well: the sensor has seen the version, so the registry has probably become empty for another reason,
such as a share that is not mounted. OvertakenError as well: the next run knows the package that came in between."""


def runs_of(instance: dg.DagsterInstance, job: str, model_type: str, versions: Sequence[int]) -> list[SeenRun]:
    """The runs of the partitions of these versions, whoever launched them. `job` is the one that packages."""
    keys = [str(ModelKey(model_type, version)) for version in versions]
    records = instance.get_run_records(dg.RunsFilter(tags={PARTITION_TAG: keys}))
    return [
        SeenRun(
            version=ModelKey.parse(record.dagster_run.tags[PARTITION_TAG]).version,
            run_key=record.dagster_run.tags.get(RUN_KEY_TAG),
            created=int(record.create_timestamp.timestamp() * 1000),
            finished=int((record.end_time or record.create_timestamp.timestamp()) * 1000),
            outcome=outcome_of(instance, record.dagster_run),
            makes_package=_makes_package(record.dagster_run, job),
        )
        for record in records
    ]


def _makes_package(run: dg.DagsterRun, job: str) -> bool:
    # Launched from the UI a run names its steps even where it has all of them.
    if run.step_keys_to_execute is not None and _PACKAGE.to_python_identifier() not in run.step_keys_to_execute:
        return False
    return run.job_name == job if run.asset_selection is None else _PACKAGE in run.asset_selection


def outcome_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> RunOutcome:
    """The outcome of a run; of a failed one, with its kind of cause."""
    if not run.is_finished:
        return RunOutcome.RUNNING
    if run.status is DagsterRunStatus.SUCCESS:
        return RunOutcome.SUCCEEDED
    if run.status is DagsterRunStatus.CANCELED:
        return RunOutcome.CANCELED
    failures = _step_failures(instance, run)
    if any(_metadata_text(failure, "error") == errors.ApprovalError.__name__ for failure in failures):
        return RunOutcome.UNAPPROVED
    return RunOutcome.MODEL_FAILURE if any(map(_would_repeat_itself, failures)) else RunOutcome.INFRASTRUCTURE_FAILURE


def _step_failures(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list["StepFailureData"]:
    page = instance.get_records_for_run(
        run.run_id, of_type=DagsterEventType.STEP_FAILURE, limit=_MOST_FAILED_STEPS, ascending=True
    )
    events = [record.event_log_entry.dagster_event for record in page.records]
    return [event.step_failure_data for event in events if event is not None]


def _metadata_text(failure: "StepFailureData", key: str) -> str:
    """A value in the metadata of a failure of ours (defs/failures.py): "error" is its class, "transient" a bool."""
    value = failure.user_failure_data.metadata.get(key) if failure.user_failure_data is not None else None
    return str(value.value) if value is not None else ""


def _would_repeat_itself(failure: "StepFailureData") -> bool:
    if failure.user_failure_data is not None:
        # A transient error need not be one of ours: a connection that was reset, a full disk.
        is_transient = _metadata_text(failure, "transient") == str(True)
        return not is_transient and not _is_transient(_metadata_text(failure, "error"))
    error = failure.error
    names = set()
    while error is not None:
        names.add(error.cls_name)
        error = error.cause
    return any(
        name == "DagsterAssetCheckFailedError" or (error_class(name) is not None and not _is_transient(name))
        for name in names
        if name is not None
    )


def error_class(name: str) -> type[errors.EdgepackError] | None:
    """The error of this project that has this name; None if it is none of them."""
    value = getattr(errors, name, None)
    return value if isinstance(value, type) and issubclass(value, errors.EdgepackError) else None


def _is_transient(name: str) -> bool:
    found = error_class(name)
    return found is not None and issubclass(found, _NOT_OF_THE_MODEL)
