"""Whether what a process has loaded is still what is installed.

A process for each run has the code and the configuration of its moment. One that makes several must end when the files
change: an edited module, an upgraded distribution, a plug-in that was installed, another edgepack.yaml.
"""

from __future__ import annotations

import site
import sys
import time
from collections.abc import Iterable
from pathlib import Path

LOOKS = 15.0
"""Seconds between two looks of an idle process at its files, and at memory."""
_COARSE = 20_000_000
"""Nanoseconds by which the time of a change may lie before the clock's: file systems take that of the last tick."""


class LoadedCode:
    """The files that this process has loaded, as they were when they were loaded. `began`: when the first of them may
    have been, in nanoseconds since 1970. `others`: files that belong to it and may be missing, such as the
    configuration; to be noted before they are read."""

    def __init__(self, began: int, others: Iterable[Path] = ()) -> None:
        self._began = began
        self._seen: dict[str, tuple[int, int, int] | None] = {}
        self._changed_while_loaded = False
        # Each installation renames something in the folder of distributions, even if no module of it is loaded.
        self._note(map(str, (*others, *site.getsitepackages(), site.getusersitepackages())))

    def note(self, others: Iterable[Path] = ()) -> None:
        """Add what was loaded since the last call. A file that was changed since then counts as changed: nobody knows
        whether it was loaded before or after that."""
        files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
        began = time.time_ns()
        self._note([*map(str, others), *(file for file in files if isinstance(file, str))])
        self._began = began

    def _note(self, files: Iterable[str]) -> None:
        for file in files:
            if file not in self._seen:
                self._seen[file], changed = _state(file)
                # A time in the future, of a clock that went wrong, says nothing.
                self._changed_while_loaded |= self._began - _COARSE <= changed <= time.time_ns()

    def has_changed(self) -> bool:
        """Whether one of the files is another one than was loaded."""
        return self._changed_while_loaded or any(_state(file)[0] != state for file, state in self._seen.items())


def _state(file: str) -> tuple[tuple[int, int, int] | None, int]:
    """What tells a file from an edited or replaced one, and when that was done by the system's clock: `cp -p` and
    installers set the other time."""
    try:
        found = Path(file).stat()
    except OSError:
        return None, 0
    return (found.st_mtime_ns, found.st_size, found.st_ino), found.st_ctime_ns
