"""What tasks work with: settings, registry, artefact store, sandbox, packaging worker and a log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.schema import ModelTypeSettings, Settings
from edgepack_assets.environments.environment import Environment, environment_for
from edgepack_assets.environments.lock import Lock, read_lock
from edgepack_assets.filesystem.temp_folders import scratch_folder
from edgepack_assets.model_types import Plugin, model_type_of
from edgepack_assets.model_types.interface import Results
from edgepack_assets.packaging.worker import PackagingWorker
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Registry
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets.tasks.ahead.built_package import BuiltAhead
from edgepack_assets.tasks.ahead.drawn_pictures import DrawnAhead
from edgepack_assets.tasks.ahead.kept_run import KeptRun
from edgepack_assets.tasks.ahead.work_beside import WorkBeside
from edgepack_assets.text_format import counted

CONTENTS = "contents"
"""Of the observations of a config package: see kept_contents."""
SERVER_LOCK = "server_lock"
"""The part of a config package with the lock that stands for the server's GPU runtime."""


@dataclass(frozen=True)
class MadeAhead:
    """What of a model's environment was made ahead of its step (start_environment.py): the digest of the lock, and
    whether that and the environment were kept from before."""

    lock: str
    lock_was_kept: bool
    environment_was_kept: bool


@dataclass
class TaskContext:
    """Everything a task may use. `log` has info and warning."""

    settings: Settings
    registry: Registry
    store: ArtefactStore
    sandbox: Sandbox
    packaging: PackagingWorker
    log: Any
    environments: dict[str, Environment] = field(default_factory=dict)
    kept_run: KeptRun = field(default_factory=KeptRun)
    built_ahead: BuiltAhead = field(default_factory=BuiltAhead)
    drawn_ahead: DrawnAhead = field(default_factory=DrawnAhead)
    environment_ahead: WorkBeside[MadeAhead | None] = field(default_factory=WorkBeside)

    def entry(self, key: ModelKey) -> ModelTypeSettings:
        """The configuration of the key's model type. Raises ConfigError."""
        return self.settings.model_type(key.model_type)

    def model_type(self, key: ModelKey) -> Plugin:
        """The implementation that the key's model type uses. Raises PluginError."""
        return model_type_of(self.entry(key))

    @contextlib.contextmanager
    def work_folder(self) -> Iterator[Path]:
        """A folder that is gone afterwards."""
        with scratch_folder() as folder:
            yield folder

    def lock_of(self, config_package: Artefact) -> Lock:
        """The lock that a config package was made with."""
        return read_lock(config_package.parts["lock"], self.store)

    def results_of(self, validation_results: Artefact) -> Results:
        """What a package answered, as a local file."""
        blob = validation_results.parts["results"]
        return Results(self.store.fetch(blob), blob.digest)

    def kept_contents(self, config_package: Artefact) -> Mapping[str, str] | None:
        """The contents that its deployment package must have, if they were kept when the config package was made: what
        a large model's digest is need not be found out again. What is built must have them, so they prove nothing."""
        blob = config_package.observations.get(CONTENTS)
        if blob is None or not self.store.has(blob.digest):
            return None
        kept: Mapping[str, str] = self.store.read_json(blob)
        return kept

    def server_of(self, config_package: Artefact) -> Environment | None:
        """The environment that stands for the server's GPU runtime, in which the GPU component of a config package of
        several was inspected; None where it has one component."""
        part = config_package.parts.get(SERVER_LOCK)
        return None if part is None else self.environment(read_lock(part, self.store))

    def environment(self, lock: Lock) -> Environment:
        """The kept environment of a lock, built if need be, and checked once in a run."""
        if lock.digest in self.environments:
            return self.environments[lock.digest]
        environment = environment_for(lock, self.store, self.settings.runtime, self.log.info)
        self.environments[lock.digest] = environment
        if environment.note:
            self.log.warning(f"the environment {environment.folder.name} was not used as it stood: {environment.note}")
        if not environment.kept:
            self.log.info(
                f"built the environment {environment.folder.name} of {counted(len(lock.packages), 'package')}"
            )
        return environment

    def child_imports(self, key: ModelKey, lock: Lock) -> list[str]:
        """Modules that a child of this model type imports ahead, as far as its lock holds them."""
        wanted = self.model_type(key).child_imports
        return [module for name, modules in wanted.items() if name in lock.names for module in modules]
