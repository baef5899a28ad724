"""Starting the sandbox's child at the beginning of a run, before it is known which environment the model needs.

Nearly always it is the one of the model version before, and importing its libraries takes as long as reading the raw
data. Where it is another one the child has run nothing, and config_package starts one of its own.
"""

from __future__ import annotations

from edgepack_assets.environments.environment import kept_environment
from edgepack_assets.environments.lock import read_lock
from edgepack_assets.errors import EdgepackError
from edgepack_assets.partitions import ModelKey
from edgepack_assets.tasks.context import SERVER_LOCK, TaskContext


def start_child_ahead(key: ModelKey, context: TaskContext) -> bool:
    """Start a child in the environment of the config package that this model version had, or the version before, if
    that environment is still kept: whether it is.

    Whatever is wrong is no reason to fail here: the step that needs the child meets it again, and says so."""
    for version in (key.version, key.version - 1):
        try:
            before = context.store.load("config_package", str(ModelKey(key.model_type, version)))
            written = before.parts.get(SERVER_LOCK) or before.parts.get("lock")
            if written is None:
                continue
            lock = read_lock(written, context.store)
            environment = context.environments.get(lock.digest) or kept_environment(lock, context.settings.runtime)
            if environment is not None:
                context.environments[lock.digest] = environment
                context.sandbox.prepare(environment, context.child_imports(key, lock))
                return True
        except EdgepackError as error:
            context.log.debug(f"no child is started ahead in the environment of version {version}: {error}")
    return False
