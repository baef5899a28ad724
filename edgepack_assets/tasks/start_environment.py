"""The lock and the environment of a model version, made while Dagster is imported and the payload is made.

Where nothing is locked or built yet, that is most of what a run waits for. config_package finds both where they are
published, and checks them as it checks any that another run has made.
"""

from __future__ import annotations

from dataclasses import replace

from edgepack_assets.config.schema import EDGE_PYTHONS, ModelTypeSettings
from edgepack_assets.environments.interpreters import find_python
from edgepack_assets.environments.lock import Generation, generation_for
from edgepack_assets.errors import EdgepackError, EnvironmentBuildError, IndexUnreachableError, TransientError
from edgepack_assets.model_types.interface import ModelSource
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind
from edgepack_assets.tasks.context import MadeAhead, TaskContext


def start_environment_ahead(key: ModelKey, context: TaskContext) -> None:
    """Begin to make the lock and the environment, in a process beside this one. Raises OSError."""
    context.environment_ahead.start(
        key, lambda log: _make(key, replace(context, log=log, environments={})), context.packaging.output
    )


def _make(key: ModelKey, context: TaskContext) -> MadeAhead | None:
    """None where more than the model's files decides about the environment. Raises EdgepackError."""
    entry, implementation = context.entry(key), context.model_type(key)
    model = context.registry.get(Kind.MODEL, entry.model_name, key.version)
    with context.work_folder() as work:
        path = context.registry.view(model, work / "model")
        source = implementation.read_model(path, entry, f"reading {model}")
        if source.conversion is not None or source.packaged_requirements is not None:
            return None
        generation, lock_was_kept = lock_of_source(source, entry, context)
        environment = context.environment(generation.lock)
    return MadeAhead(generation.lock.digest, lock_was_kept, environment.kept)


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
