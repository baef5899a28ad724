"""The deployment package, built while validation results are shown and scored.

What it holds and how it is stamped is known by then; whether it may be registered is not. deployment_package takes it
if it is still the very package that it would build, and proves it as it proves any other. If the gates do not hold it
is thrown away. An error here is none of the run's: deployment_package builds the package itself and meets it again.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack_assets.filesystem.atomic_files import disk_errors
from edgepack_assets.filesystem.temp_folders import Scratch


@dataclass(frozen=True)
class BuiltPackage:
    """A stamped package and its contents (`stamp.contents`), read from its bytes."""

    path: Path
    contents: Mapping[str, str]


Build = Callable[[Path], BuiltPackage]
"""Builds a package in a folder. Raises EdgepackError."""


class BuiltAhead:
    """At most one package, which a thread builds. `is_wanted`: whether the run goes on to a deployment package."""

    def __init__(self) -> None:
        self.is_wanted = False
        self._turn: int | None = None
        self._was_allowed = False
        self._scratch: Scratch | None = None
        self._thread: threading.Thread | None = None
        self._inputs: Hashable = None
        self._built: BuiltPackage | None = None
        self._error: Exception | None = None

    def may_start(self, turns: Path) -> bool:
        """Whether it may start: once in a run, whose turn it is."""
        if not self.is_wanted or self._was_allowed:  # a step that is tried again
            return False
        self._was_allowed = self.has_turn(turns)
        return self._was_allowed

    def has_turn(self, turns: Path) -> bool:
        """Whether this run is the one that may work ahead, of those that share the folder `turns`, until it ends. Two
        would build the same number, and where several go on no processor is idle."""
        if self._turn is not None:
            return True
        descriptor = None
        try:
            descriptor = os.open(turns, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another run's, or none that can be locked: a network share, say
            if descriptor is not None:
                os.close(descriptor)
            return False
        self._turn = descriptor
        return True

    def start(self, inputs: Hashable, build: Build) -> None:
        """Begin to build. `inputs` are all that decides about the package's bytes. Raises EdgepackError if the disk
        does not let it."""
        scratch = self._scratch = Scratch()
        self._inputs = inputs

        def work() -> None:
            try:
                self._built = build(scratch.path)
            except Exception as error:  # noqa: BLE001 - told by `take`, and met again by the step that needs the package
                self._error = error

        self._thread = threading.Thread(target=work, name="build ahead")
        self._thread.start()

    def take(self, inputs: Hashable, log: Any) -> BuiltPackage | None:
        """The package, if it was built from just these inputs; waits for it. Else None, and `log` gets why it failed.
        It may be taken once."""
        if self._thread is None or inputs != self._inputs:
            return None
        self._thread.join()
        built, self._built = self._built, None
        self._inputs = None
        if self._error is not None:
            log.info(f"the package that was built ahead failed, it is built again: {self._error}")
        return built

    def close(self, stop: Callable[[], None]) -> None:
        """Remove the files. If it still builds, `stop` is called, which makes the build fail. Raises EdgepackError if
        something cannot be removed."""
        thread, self._thread = self._thread, None
        if thread is not None:
            if thread.is_alive():
                stop()
            thread.join()
        self._built = self._inputs = None
        self._was_allowed = False
        turn, self._turn = self._turn, None
        if turn is not None:
            os.close(turn)
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            with disk_errors(scratch.path, "removed"):
                scratch.remove()
