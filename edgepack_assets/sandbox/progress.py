"""How far long work is: a line every ten seconds, with rate and remaining time.

Standard library only, because the child uses it too. Child tasks of a model type import it as `edgepack_progress`."""

import time
from collections.abc import Callable

EVERY = 10.0
"""Seconds between two lines; shorter work says nothing."""


class Progress:
    """Tells by `tell` how many of `total` are done; `unit` names them, in the plural. Without `total` the line has no
    share and no remaining time."""

    def __init__(
        self,
        tell: Callable[[str], object],
        unit: str,
        total: "int | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self._tell = tell
        self._unit = unit
        self._clock = clock
        self._began = clock()
        self._next = self._began + EVERY

    def at(self, done: int, more: str = "") -> None:
        """Say that `done` are done, if it is time for a line. `more` is put at its end."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + EVERY
        rate = done / (now - self._began)
        parts = [f"{done:,} {self._unit}", f"{rate:,.0f} a second" if rate >= 10 else f"{rate:.1f} a second"]
        if self.total:
            share = min(done / self.total, 1)
            parts[0] = f"{done:,} of {self.total:,} {self._unit} ({share:.0%})"
            if rate > 0:
                parts.append(f"{_time(max(self.total - done, 0) / rate)} left")
        self._tell(", ".join([*parts, *([more] if more else [])]))


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
