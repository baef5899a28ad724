"""The helper processes of a run: the packaging worker, and the sandbox's child, which has imported an environment's
libraries.

They end with the run. In a process that makes several runs, one after the other, `keeping_helpers` keeps them for the
next one: importing is most of what they do. What ran model code serves nobody else: the child forks a process for each
job, and is kept only where the sandbox vouches for it (Sandbox.release).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments.environment import Environment
from edgepack_assets.packaging.worker import PackagingWorker
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets.tasks.ahead.work_beside import WorkBeside
from edgepack_assets.tasks.context import MadeAhead

MOST_RUNS = 25
"""Of one process. Its memory grows a little with each."""


class Helpers:
    """A packaging worker and a sandbox, each started when it is first used. What is made ahead of its step
    (command_runs/start.py) is of one run."""

    def __init__(self) -> None:
        self.packaging = PackagingWorker()
        self.environments: dict[str, Environment] = {}
        self.environment_ahead: WorkBeside[MadeAhead | None] = WorkBeside()
        self._sandbox: tuple[RuntimeSettings, Sandbox] | None = None

    def sandbox(self, settings: RuntimeSettings) -> Sandbox:
        """The sandbox with these settings: edgepack.yaml may have changed since the last run."""
        if self._sandbox is not None and self._sandbox[0] != settings:
            self._close_sandbox()
        if self._sandbox is None:
            self._sandbox = settings, Sandbox(settings)
        return self._sandbox[1]

    def environments_of_run(self) -> dict[str, Environment]:
        """The environments that were looked over for the run that begins, by the digest of their lock."""
        environments, self.environments = self.environments, {}
        return environments

    def write_output_to(self, log: Path) -> None:
        """Where a worker that was started for an earlier run prints to from here on."""
        self.packaging.output = log

    def run_ended(self) -> None:
        """End what must not serve another run."""
        self.environment_ahead.close()
        if _kept is not self:
            self.close()
        elif self._sandbox is not None:
            _, sandbox = self._sandbox
            sandbox.release()
            sandbox.log = logging.getLogger(__name__)  # that of the run is over

    def close(self) -> None:
        """End all of them."""
        self.environment_ahead.close()
        self.packaging.close()
        self._close_sandbox()

    def _close_sandbox(self) -> None:
        if self._sandbox is not None:
            _, sandbox = self._sandbox
            self._sandbox = None
            sandbox.close()


_kept: Helpers | None = None


def helpers_of_run() -> Helpers:
    """Those that this process keeps, or new ones. To be told of the end of the run (`run_ended`)."""
    return Helpers() if _kept is None else _kept


@contextmanager
def keeping_helpers() -> Iterator[Helpers]:
    """Keep helpers from one run of this process to the next. One run at a time."""
    global _kept  # noqa: PLW0603 - Dagster makes the resources of a run; nothing can be handed to them
    _kept = Helpers()
    try:
        yield _kept
    finally:
        _kept.close()
        _kept = None
