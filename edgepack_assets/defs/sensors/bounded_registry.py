"""Asking the registry from a sensor: kept from tick to tick, and for how long it has given no good answer.

What is made of an answer, and of none, is each sensor's own.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from edgepack_assets.config.schema import Settings
from edgepack_assets.deadlines import DeadlineError, call_within
from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.base import Registry

TICK = 40.0
"""Seconds for all questions of one tick. Dagster gives a tick 60, and takes one that is longer for a failure."""

_T = TypeVar("_T")

_hanging: dict[tuple[Path, str], threading.Thread] = {}
"""(configuration, who asks) -> a question that got no answer in time: while it hangs nothing else is asked."""

_silent_since: dict[tuple[Path, str], float] = {}
"""(configuration, who asks) -> since when the registry gives no good answer. In memory, because a tick that got none
must leave the cursor alone; a restart of the code location begins to count anew."""

_registries: dict[tuple[Path, str], tuple[object, Registry]] = {}
"""(configuration, who asks) -> (settings of the registry, the registry): opening one may cost a sign-in."""


class BoundedRegistry:
    """The registry, kept from tick to tick. Whatever a client library raises comes out as an EdgepackError, and what
    has no answer by `end` (on the clock of time.monotonic, TICK from here by default) as a TransientError."""

    def __init__(self, settings: Settings, asking: str, end: float | None = None) -> None:
        self._settings = settings
        self._of = settings.file, asking
        self._end = time.monotonic() + TICK if end is None else end

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.within(lambda registry: getattr(registry, name)(*arguments))

    def within(self, question: Callable[[Registry], _T]) -> _T:
        """The answer to anything that may ask the registry."""
        hanging = _hanging.get(self._of)
        if hanging is not None and hanging.is_alive():
            raise TransientError("a question of an earlier look has no answer yet")
        if time.monotonic() > self._end:
            raise TransientError("there was no time left to ask")
        began = time.monotonic()
        try:
            return call_within(self._end - began, lambda: question(self._opened()), "asking-the-registry")
        except DeadlineError as error:
            _hanging[self._of] = error.thread
            _registries.pop(self._of, None)
            raise TransientError(f"no answer within {time.monotonic() - began:.0f} s") from None
        except EdgepackError:
            raise
        except Exception as error:
            _registries.pop(self._of, None)  # an expired session must not stay
            raise TransientError(f"{type(error).__name__}: {error}") from error

    def _opened(self) -> Registry:
        kept = _registries.get(self._of)
        if kept is None or kept[0] != self._settings.registry:
            kept = _registries[self._of] = self._settings.registry, open_registry(self._settings)
        return kept[1]


class OutageTimer:
    """How long a registry has been silent for one who asks, as long as its code location runs."""

    def __init__(self, settings: Settings, asking: str) -> None:
        self._of, self._longest = (settings.file, asking), settings.sensors.failure_after

    def ends(self) -> None:
        """A good answer came."""
        _silent_since.pop(self._of, None)

    def lasts(self, error: EdgepackError) -> EdgepackError | None:
        """No good answer came: None, or the tick's failure if that lasts for `sensors.failure_after`."""
        silent = time.time() - _silent_since.setdefault(self._of, time.time())
        if silent < self._longest:
            return None
        return EdgepackError(f"no good answer from the registry for {silent:.0f} s (sensors.failure_after): {error}")
