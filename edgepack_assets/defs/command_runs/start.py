"""A process that makes runs for a command, from its fork until it is ready for the first run.

Where a command has one run to make, its process is forked before Dagster is imported, a second of one processor. First
it starts what the run will wait for, as far as that is known: helpers (kept_helpers.py) of its own, so that they end
with it, whatever becomes of it. They work while this process imports. Nothing here imports Dagster.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack_assets.artefacts.store import open_store
from edgepack_assets.config.registry_settings import LocalRegistrySettings
from edgepack_assets.config.schema import Settings
from edgepack_assets.defs.command_runs.messages import PackageRequest, Refused, next_order, send
from edgepack_assets.defs.kept_helpers import Helpers, keeping_helpers
from edgepack_assets.defs.lean_dagster import import_lean
from edgepack_assets.errors import EdgepackError
from edgepack_assets.registry.base import Registry
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.start_child import start_child_ahead
from edgepack_assets.tasks.start_environment import start_environment_ahead

if TYPE_CHECKING:
    import dagster as dg

_LOG = logging.getLogger(__name__)

LoadDefinitions = Callable[["dg.LoggerDefinition"], "dg.Definitions"]
"""Gives the definitions with a console logger."""
StartHelpers = Callable[[Helpers], None]
"""Starts what a run will wait for. Whatever is wrong is no reason to fail there: the run meets it again."""


def serve(
    load: LoadDefinitions, start: StartHelpers, home: Path, connection: Connection, others: Sequence[Connection]
) -> None:
    """The forked process: a run for each order, until there is none left or the command is gone. `others` are the
    command's own ends of connections."""
    os.setsid()  # the command cancels its runs; Ctrl-C of the terminal must not reach them before
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    for other in others:
        other.close()
    order = next_order(connection)
    if order is None:
        return
    with keeping_helpers() as helpers:
        helpers.write_output_to(order.log)
        try:
            start(helpers)
            import_lean()
            from edgepack_assets.defs.command_runs.process import make_runs, progress_logger

            definitions = load(progress_logger)
        except EdgepackError as error:
            send(connection, Refused(error))
            return
        except KeyboardInterrupt:  # the command cancels it; there is no run yet
            return
        gc.freeze()  # what was loaded is no garbage
        gc.enable()
        try:
            make_runs(order, definitions, home, connection, helpers)
        except EdgepackError as error:
            send(connection, Refused(error))  # unless a run has begun: then the command shows the end of the log
            raise


def nothing_ahead(helpers: Helpers) -> None:
    """Start nothing."""


def helpers_for(request: PackageRequest, settings: Settings, registry: Registry) -> StartHelpers:
    """What is known to be waited for by a run of this request."""
    if "config_package" not in request.assets or settings.compute_of(request.key.model_type).is_remote:
        return nothing_ahead

    def start(helpers: Helpers) -> None:
        for begin in (partial(_begin_tasks, request, settings, registry, helpers), helpers.packaging.start):
            try:
                begin()
            except (EdgepackError, OSError) as error:
                _LOG.debug(f"not everything is started ahead for {request.key}: {error}")

    return start


def _begin_tasks(request: PackageRequest, settings: Settings, registry: Registry, helpers: Helpers) -> None:
    sandbox = helpers.sandbox(settings.runtime)
    with sandbox.quiet():
        context = TaskContext(
            settings, registry, open_store(settings), sandbox, helpers.packaging, _LOG, helpers.environments,
            environment_ahead=helpers.environment_ahead,
        )  # fmt: skip
        has_child = start_child_ahead(request.key, context)
    if not has_child and _is_local(settings):
        start_environment_ahead(request.key, context)


def _is_local(settings: Settings) -> bool:
    """Whether no connection to another machine is open here, which a fork must not use."""
    return isinstance(settings.registry, LocalRegistrySettings) and "://" not in settings.artefacts.root
