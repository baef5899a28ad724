"""Whether what a process has loaded is still what is installed.

A process for each run has the code and the configuration of its moment. One that makes several must end when the files
change: an edited module, an upgraded distribution, a plug-in that was installed, another edgepack.yaml.
"""

from __future__ import annotations

import site
import sys
from collections.abc import Iterable
from pathlib import Path

LOOKS = 15.0
"""Seconds between two looks of an idle process at its files, and at memory."""


class LoadedCode:
    """The files that this process has loaded, as they were when `note` first saw them. `others`: files that belong to
    it and may be missing, such as the configuration."""

    def __init__(self, others: Iterable[Path] = ()) -> None:
        self._seen: dict[str, tuple[int, int, int] | None] = {}
        # Each installation renames something in the folder of distributions, even if no module of it is loaded.
        for path in (*others, *site.getsitepackages(), site.getusersitepackages()):
            self._seen[str(path)] = _state(str(path))
        self.note()

    def note(self) -> None:
        """Add what was loaded since the last call."""
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and file not in self._seen:
                self._seen[file] = _state(file)

    def has_changed(self) -> bool:
        """Whether one of the files is another one now."""
        return any(_state(file) != state for file, state in self._seen.items())


def _state(file: str) -> tuple[int, int, int] | None:
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
