"""How runs are told apart: whose fault a failure is, and which run makes the package."""

import errno
from collections.abc import Iterator

import dagster as dg
import pytest

from edgepack_assets.defs import failures
from edgepack_assets.defs.assets.declare import MODELS, user_errors
from edgepack_assets.defs.sensors.run_outcomes import runs_of
from edgepack_assets.errors import (
    ApprovalError,
    EnvironmentBuildError,
    IndexUnreachableError,
    ModelError,
    NotFoundError,
    TransientError,
)
from edgepack_assets.new_models.run_requests import RunOutcome, SeenRun


@dg.asset(partitions_def=MODELS, check_specs=[dg.AssetCheckSpec("pass_gates", asset="metrics", blocking=True)])
def metrics(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    if context.partition_key == "press:2":
        raise KeyboardInterrupt  # as a restart of the code location does
    passed = context.partition_key == "press:3"
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=passed, check_name="pass_gates")])


@dg.asset(partitions_def=MODELS, deps=[metrics])
def deployment_package() -> None: ...


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        made.add_dynamic_partitions("models", ["press:1", "press:2", "press:3"])
        yield made


def only_run(instance: dg.DagsterInstance, version: int) -> SeenRun:
    [run] = runs_of(instance, "package_model", "press", [version])
    assert run.version == version
    return run


@pytest.mark.parametrize(
    ("version", "ended"),
    [(1, RunOutcome.MODEL_FAILURE), (2, RunOutcome.INFRASTRUCTURE_FAILURE), (3, RunOutcome.SUCCEEDED)],
)
def test_a_failed_check_is_the_models_fault_and_an_interruption_is_not(
    instance: dg.DagsterInstance, version: int, ended: RunOutcome
) -> None:
    dg.materialize([metrics, deployment_package], instance=instance, partition_key=f"press:{version}",
                   raise_on_error=False)  # fmt: skip
    assert only_run(instance, version).outcome is ended


@pytest.mark.parametrize(
    ("error", "ended", "tries"),
    [
        (TransientError("the registry is busy"), RunOutcome.INFRASTRUCTURE_FAILURE, 3),
        (IndexUnreachableError("the index is down"), RunOutcome.INFRASTRUCTURE_FAILURE, 3),
        (OSError(errno.ENOSPC, "No space left on device"), RunOutcome.INFRASTRUCTURE_FAILURE, 3),
        (ConnectionResetError("reset"), RunOutcome.INFRASTRUCTURE_FAILURE, 3),
        (OSError(errno.EACCES, "Permission denied"), RunOutcome.INFRASTRUCTURE_FAILURE, 1),  # not foreseen
        (NotFoundError("no version 1"), RunOutcome.INFRASTRUCTURE_FAILURE, 1),
        (EnvironmentBuildError("no such requirement"), RunOutcome.MODEL_FAILURE, 1),
        (ModelError("no preprocessing"), RunOutcome.MODEL_FAILURE, 1),
        (ApprovalError("taken back"), RunOutcome.UNAPPROVED, 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_only_what_may_pass_is_tried_again_and_then_it_is_the_infrastructures_fault(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, error: Exception, ended: RunOutcome, tries: int
) -> None:
    monkeypatch.setattr(failures, "RETRIES", 2)
    monkeypatch.setattr(failures, "DELAY", 0)
    tried = []

    @dg.asset(partitions_def=MODELS, name="deployment_package")
    def breaks(context: dg.AssetExecutionContext) -> None:
        with user_errors(context):
            tried.append(context.retry_number)
            raise error

    dg.materialize([breaks], instance=instance, partition_key="press:1", raise_on_error=False)
    assert tried == list(range(tries))
    assert only_run(instance, 1).outcome is ended


def test_only_a_run_that_reaches_the_package_counts_as_one(instance: dg.DagsterInstance) -> None:
    job = dg.define_asset_job("package_model", selection=[metrics, deployment_package], partitions_def=MODELS)
    defs = dg.Definitions([metrics, deployment_package], jobs=[job])
    whole = []
    for selection in (None, ["metrics"], ["metrics", "deployment_package"]):
        run = instance.create_run_for_job(
            defs.resolve_job_def("package_model"),
            asset_selection=selection and frozenset(dg.AssetKey(name) for name in selection),
            tags={"dagster/partition": "press:3"},
        )
        whole.append(only_run(instance, 3).makes_package)
        instance.delete_run(run.run_id)
    assert whole == [True, False, True]
