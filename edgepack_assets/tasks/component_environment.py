"""The lock and the environment of a component, and of what stands for the server's GPU runtime."""

from __future__ import annotations

from dataclasses import dataclass, replace

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edgepack_assets.config.schema import EDGE_PYTHONS, ModelTypeSettings
from edgepack_assets.environments.environment import Environment
from edgepack_assets.environments.interpreters import find_python
from edgepack_assets.environments.lock import Generation, Lock, generation_for
from edgepack_assets.errors import EdgepackError, EnvironmentBuildError, IndexUnreachableError, TransientError
from edgepack_assets.model_types.interface import ModelSource
from edgepack_assets.partitions import ModelKey
from edgepack_assets.tasks.context import TaskContext


@dataclass(frozen=True)
class ComponentEnvironment:
    """`generation` is the lock that a component ships with, and `environment` is that of the lock `inspected`, in which
    the model is looked at: the component's own, or what stands for the server's GPU runtime."""

    generation: Generation
    lock_was_kept: bool
    inspected: Lock
    environment: Environment

    @property
    def lock(self) -> Lock:
        """The lock that the component ships with."""
        return self.generation.lock


def component_environment(
    key: ModelKey, source: ModelSource, entry: ModelTypeSettings, context: TaskContext
) -> ComponentEnvironment:
    """The kept lock and environment, or new ones. They count as kept only if this run has not made them itself ahead of
    this step. Raises EdgepackError."""
    ahead = context.environment_ahead.take(key, context.log)
    generation, lock_was_kept = lock_of_source(source, entry, context)
    inspected = generation.lock
    if source.packaged_requirements is not None:
        inspected = _server_lock(source, inspected.python, context)
    environment = context.environment(inspected)
    if ahead is not None and ahead.lock == generation.lock.digest:
        lock_was_kept = lock_was_kept and ahead.lock_was_kept
        environment = replace(environment, kept=environment.kept and ahead.environment_was_kept)
    return ComponentEnvironment(generation, lock_was_kept, inspected, environment)


def lock_of_source(source: ModelSource, entry: ModelTypeSettings, context: TaskContext) -> tuple[Generation, bool]:
    """The lock of the component, and whether it was kept from before. Raises EdgepackError."""
    settings, wanted = context.settings.runtime, entry.python_version or source.python_version
    requirements = source.requirements if source.packaged_requirements is None else source.packaged_requirements

    def lock(version: str | None) -> tuple[Generation, bool]:
        python, _ = find_python(version, settings.pythons)
        return generation_for(requirements, python, context.store, settings, source.constraints, tell=context.log.info)

    try:
        return lock(wanted)
    except IndexUnreachableError:
        raise
    except EnvironmentBuildError as error:
        if wanted is not None or source.pinned_with not in EDGE_PYTHONS:
            raise
        try:
            found = lock(source.pinned_with)
        except TransientError:
            raise
        except EdgepackError:
            raise error from None
        context.log.warning(
            f"taking Python {source.pinned_with}, which the model was saved with: the usual one has not all of the "
            "versions that it names"
        )
        return found


def _server_lock(source: ModelSource, python: str, context: TaskContext) -> Lock:
    """The lock that stands for the server's GPU runtime. Raises EnvironmentBuildError saying that it is that one."""
    pinned = {canonicalize_name(Requirement(line).name) for line in source.requirements if "==" in line}
    # what the model was saved with says nothing of the server's own runtime
    bounds = tuple(line for line in source.constraints if canonicalize_name(Requirement(line).name) not in pinned)
    try:
        generation, _ = generation_for(
            source.requirements, python, context.store, context.settings.runtime, bounds, tell=context.log.info
        )
    except EnvironmentBuildError as error:
        raise EnvironmentBuildError(f"what stands for the server's GPU runtime cannot be locked: {error}") from error
    return generation.lock
