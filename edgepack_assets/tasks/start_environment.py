"""The lock and the environment of a model version, made while Dagster is imported and the payload is made.

Where nothing is locked or built yet, that is most of what a run waits for. config_package finds both where they are
published, and checks them as it checks any that another run has made.
"""

from __future__ import annotations

from dataclasses import replace

from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind
from edgepack_assets.tasks.component_environment import lock_of_source
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
