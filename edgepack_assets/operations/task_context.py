"""What tasks work with, for commands that run them without Dagster."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from edgepack_assets.artefacts.store import open_store
from edgepack_assets.config.schema import Settings
from edgepack_assets.packaging.worker import PackagingWorker
from edgepack_assets.registry.base import Registry
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets.tasks.context import TaskContext


@contextmanager
def task_context(settings: Settings, registry: Registry, log: logging.Logger) -> Iterator[TaskContext]:
    """The configured artefact store and a sandbox, whose child is ended after the block."""
    packaging = PackagingWorker()
    try:
        with Sandbox(settings.runtime, log) as sandbox:
            yield TaskContext(settings, registry, open_store(settings), sandbox, packaging, log)
    finally:
        packaging.close()
