"""Which configuration, registry, artefact store and sandbox this deployment uses."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from edgepack_assets.artefacts.store import ArtefactStore, open_store
from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import Settings
from edgepack_assets.defs.instance import HOME_VARIABLE, other_home
from edgepack_assets.defs.kept_helpers import helpers_of_run
from edgepack_assets.defs.model_partitions import run_of
from edgepack_assets.defs.sqlite_engines import kept_open, share_engines
from edgepack_assets.errors import EdgepackError
from edgepack_assets.partitions import PARTITION_TAG, ModelKey
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.base import Registry
from edgepack_assets.tasks.ahead.built_package import BuiltAhead
from edgepack_assets.tasks.ahead.drawn_pictures import DrawnAhead
from edgepack_assets.tasks.ahead.kept_run import KeptRun
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.start_child import start_child_ahead


class EdgepackResource:
    """The configured deployment, opened once per run.

    No `dg.ConfigurableResource`: its fields can be set in the configuration of a run, and whoever may launch a run
    would choose the gates, the isolation and the registry with another edgepack.yaml. `config_file` is an absolute
    path.
    """

    def __init__(self, config_file: Path) -> None:
        self._config_file = config_file
        self._settings: Settings | None = None
        self._store: ArtefactStore | None = None
        self._registry: Registry | None = None
        self._helpers = helpers_of_run()
        self._environments = self._helpers.environments_of_run()
        self._kept_run = KeptRun()
        self._built_ahead = BuiltAhead()
        self._drawn_ahead = DrawnAhead()

    @property
    def config_file(self) -> Path:
        """The configuration file, absolute."""
        return self._config_file

    @property
    def settings(self) -> Settings:
        """The configuration as it is now, read once per run."""
        if self._settings is None:
            self._settings = load_settings(self._config_file)
        return self._settings

    @property
    def store(self) -> ArtefactStore:
        """The artefact store."""
        if self._store is None:
            self._store = open_store(self.settings)
        return self._store

    @property
    def registry(self) -> Registry:
        """The registry, signed in to once per run."""
        if self._registry is None:
            self._registry = open_registry(self.settings)
        return self._registry

    def task_context(self, log: Any) -> TaskContext:
        """What a task works with, logging to `log`."""
        sandbox = self._helpers.sandbox(self.settings.runtime)
        sandbox.log = log
        return TaskContext(
            self.settings,
            self.registry,
            self.store,
            sandbox,
            self._helpers.packaging,
            log,
            self._environments,
            self._kept_run,
            self._built_ahead,
            self._drawn_ahead,
            self._helpers.environment_ahead,
        )

    def begin(self, run: dg.DagsterRun) -> None:
        """Start what a run of a model version will wait for, if it is done here and makes the config package."""
        steps, partition = run.step_keys_to_execute or (), run.tags.get(PARTITION_TAG)
        self._built_ahead.is_wanted = "deployment_package" in steps
        if partition is None or "config_package" not in steps:
            return
        try:
            key = ModelKey.parse(partition)
            if not self.settings.compute_of(key.model_type).is_remote:
                start_child_ahead(key, self.task_context(logging.getLogger(__name__)))
                self._helpers.packaging.start()
        except (EdgepackError, OSError) as error:  # the first step that needs what is wrong says so to the user
            logging.getLogger(__name__).debug(f"nothing is started ahead for {partition}: {error}")

    def close(self) -> None:
        """End the child and the packaging worker, if any, unless this process keeps them for its next run."""
        with contextlib.ExitStack() as stack:  # each of them, whatever becomes of the others
            stack.callback(self._helpers.run_ended)
            stack.callback(self._close, self._kept_run.close)
            stack.callback(self._close, self._built_ahead.close, stop=self._helpers.packaging.interrupt)
            stack.callback(self._close, self._drawn_ahead.close)

    @staticmethod
    def _close(close: Callable[..., None], **named: Any) -> None:
        try:
            close(**named)
        except EdgepackError as error:  # what is left is removed by a later process
            logging.getLogger(__name__).warning(f"{error}")


def _tell_home(context: dg.InitResourceContext, config_file: Path) -> None:
    """Say where Dagster keeps this run, where that is not in the project. Whoever runs assets by Dagster's Python API
    has chosen an instance, and needs no variable for that."""
    is_chosen = HOME_VARIABLE not in os.environ and context.instance is not None and not context.instance.is_ephemeral
    if context.log is not None and not is_chosen and (said := other_home(config_file)) is not None:
        context.log.info(said)


@contextlib.contextmanager
def _process_of_run(run: dg.DagsterRun) -> Iterator[None]:
    """What makes a run faster in a process that does nothing else meanwhile."""
    # What was loaded before the run is no garbage: looking through all of Dagster again and again takes a tenth of a
    # run.
    gc.freeze()
    share_engines()
    with kept_open(), run_of(run.tags.get(PARTITION_TAG)):
        yield


def edgepack_resource(config_file: Path) -> dg.ResourceDefinition:
    """The resource `edgepack` for a configuration file. It takes no configuration from a run, and refuses any."""

    @dg.resource(config_schema={}, description=EdgepackResource.__doc__)
    def edgepack(context: dg.InitResourceContext) -> Iterator[EdgepackResource]:
        _tell_home(context, config_file)
        opened = EdgepackResource(config_file)
        with contextlib.ExitStack() as stack:
            stack.callback(opened.close)
            if context.run is not None:  # else a sensor's tick has it, in one of the code server's threads
                stack.enter_context(_process_of_run(context.run))
                opened.begin(context.run)
            yield opened

    return edgepack
