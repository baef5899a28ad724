"""The executor that does a run's work as one job on another machine.

To Dagster it is an executor as any other: it gets a plan of steps and yields their events. The six assets know nothing
of it. A model type whose `compute` is local, and a run whose configuration says so, is done in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from edgepack_assets.compute.base import JobService
from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import Settings
from edgepack_assets.defs.remote.remote_run import RemoteRun
from edgepack_assets.defs.remote.watch import Timing
from edgepack_assets.partitions import PARTITION_TAG, ModelKey

if TYPE_CHECKING:
    from dagster import DagsterEvent
    from dagster._core.execution.context.system import PlanOrchestrationContext
    from dagster._core.execution.plan.plan import ExecutionPlan
    from dagster._core.execution.retries import RetryMode

NAME = "remote"
MODULE = "edgepack_assets.remote_job"


def configured_service(settings: Settings, model_type: str) -> JobService | None:
    """The service that runs the jobs of a model type; None if its runs are done here."""
    if not settings.compute_of(model_type).is_remote:
        return None
    from edgepack_assets.compute.azure_ml import AzureMlJobs

    return AzureMlJobs(
        settings.compute_of(model_type), settings.compute_workspace_of(model_type), settings.plug_ins_of(model_type)
    )


@dataclass(frozen=True)
class Remote:
    """How jobs are run. Tests give another service, module and timing."""

    service: Callable[[Settings, str], JobService | None] = configured_service
    module: str = MODULE
    timing: Timing = field(default_factory=Timing)
    start_time_limit: float | None = None
    time_limit: float | None = None


def executor_for(settings: Settings, remote: Remote | None = None) -> dg.ExecutorDefinition:
    """The executor of the definitions: that of jobs if any model type has them, else Dagster's own in this process."""
    if remote is None and not any(settings.compute_of(name).is_remote for name in settings.model_types):
        # Steps are light: what is heavy runs in children. A process for each would cost seconds a step.
        return dg.in_process_executor
    return _remote_executor(settings.file, remote or Remote())


def _remote_executor(config_file: Path, remote: Remote) -> dg.ExecutorDefinition:
    of_this_process: Any = dg.in_process_executor.config_schema.as_field().config_type
    where = dg.Field(
        dg.Noneable(dg.Enum("Where", [dg.EnumValue("configured"), dg.EnumValue("local")])),
        is_required=False,
        default_value="configured",
        description="Where this run is done: as `compute` of edgepack.yaml says, or on this machine.",
    )

    @dg.executor(name=NAME, config_schema={**of_this_process.fields, "where": where})
    def remote_executor(context: dg.InitExecutorContext) -> RemoteExecutor:
        here = {name: value for name, value in context.executor_config.items() if name != "where"}
        is_local = context.executor_config.get("where") == "local"
        in_process = dg.in_process_executor.executor_creation_fn
        assert in_process is not None
        return RemoteExecutor(config_file, remote, in_process(context._replace(executor_config=here)), is_local)

    return remote_executor


class RemoteExecutor(dg.Executor):
    """See the module. `here` is the executor for runs that are done in this process."""

    def __init__(self, config_file: Path, remote: Remote, here: dg.Executor, is_local: bool) -> None:
        self._config_file = config_file
        self._remote = remote
        self._here = here
        self._is_local = is_local

    @property
    def retries(self) -> RetryMode:
        """Steps are retried where they run."""
        return self._here.retries

    @property
    def step_dependency_config(self) -> Any:
        """As in this process."""
        return self._here.step_dependency_config

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        """The events of all steps, as they happen."""
        partition = plan_context.dagster_run.tags.get(PARTITION_TAG)
        if self._is_local or partition is None:
            yield from self._here.execute(plan_context, execution_plan)
            return
        key = ModelKey.parse(partition)
        settings = load_settings(self._config_file)
        service = self._remote.service(settings, key.model_type)
        if service is None:
            yield from self._here.execute(plan_context, execution_plan)
            return
        compute = settings.compute_of(key.model_type)
        run = RemoteRun(
            plan_context, execution_plan, key, settings, service, self._remote.module, self._remote.timing,
            self._remote.start_time_limit or compute.start_time_limit, self._remote.time_limit or compute.time_limit,
        )  # fmt: skip
        yield from run.events()
