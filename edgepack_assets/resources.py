"""Which configuration, registry, artefact store and sandbox this deployment uses."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from edgepack_assets.artefact_store import ArtefactStore, open_store
from edgepack_assets.config import load_settings
from edgepack_assets.packaging.worker import PackagingWorker
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.base import Registry
from edgepack_assets.runtime.environments import Environment
from edgepack_assets.runtime.sandbox import Sandbox
from edgepack_assets.settings import Settings
from edgepack_assets.tasks.tools import Tools


class EdgepackResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The configured deployment, opened once per run. `config_file` is an absolute path to edgepack.yaml."""

    config_file: str
    _settings: Settings | None = PrivateAttr(default=None)
    _store: ArtefactStore | None = PrivateAttr(default=None)
    _registry: Registry | None = PrivateAttr(default=None)
    _environments: dict[str, Environment] = PrivateAttr(default_factory=dict)
    _sandbox: Sandbox | None = PrivateAttr(default=None)
    _packaging: PackagingWorker = PrivateAttr(default_factory=PackagingWorker)

    @property
    def settings(self) -> Settings:
        """The configuration as it is now, read once per run."""
        if self._settings is None:
            self._settings = load_settings(Path(self.config_file))
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

    def tools(self, log: Any) -> Tools:
        """What a task works with, logging to `log`."""
        if self._sandbox is None:
            self._sandbox = Sandbox(self.settings.runtime)
        self._sandbox.log = log
        return Tools(self.settings, self.registry, self.store, self._sandbox, self._packaging, log, self._environments)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[EdgepackResource]:
        """End the child and the packaging worker, if any, when the run is over."""
        # What was loaded before the run is no garbage: looking through all of Dagster again and again takes a tenth of
        # a run.
        gc.freeze()
        try:
            yield self
        finally:
            self._packaging.close()
            if self._sandbox is not None:
                self._sandbox.close()
                self._sandbox = None
