"""The registry as sensors use it: kept open from tick to tick, with a deadline, and with a timer for outages.

What follows from an answer, or from none, is decided in each sensor.
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

from edgepack_assets.config.schema import Settings
from edgepack_assets.deadlines import DeadlineError, call_within
from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.base import Kind, Registry

TICK = 40.0
"""Seconds for all calls of one tick. Dagster ends a tick after 60 s and reports a failure."""

_T = TypeVar("_T")

_hanging: dict[tuple[Path, str], threading.Thread] = {}
"""(configuration, caller) -> a call that missed its deadline: while it hangs, no other call is made."""

_silent_since: dict[str, float | None] = {}
"""What this process knows of the rows of `OutageTimer`."""

_registries: dict[tuple[Path, str], tuple[object, Registry]] = {}
"""(configuration, caller) -> (settings of the registry, the registry): opening one may need a sign-in."""


class BoundedRegistry:
    """The registry, kept open from tick to tick. Whatever a client library raises becomes an EdgepackError. A call that
    has no answer at `end` (on the clock of time.monotonic, by default TICK from now) raises a TransientError. While one
    hangs, its caller makes no other. Callers with the same `opened_by` use one registry together. `newest`: what
    `Registry.newest_versions` has told, so that nothing is asked for the newest version of a model."""

    def __init__(
        self,
        settings: Settings,
        caller: str,
        end: float | None = None,
        opened_by: str | None = None,
        newest: Mapping[str, int] | None = None,
    ) -> None:
        self._settings = settings
        self._key = settings.file, caller
        self._opened_key = settings.file, opened_by or caller
        self._newest = newest
        self.calls = 0
        self._end = time.monotonic() + TICK if end is None else end

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.call(lambda registry: getattr(registry, name)(*arguments))

    def newest_version(self, kind: Kind, name: str) -> int | None:
        """See registry/base.py."""
        if self._newest is not None and kind is Kind.MODEL:
            return self._newest.get(name)
        return self.call(lambda registry: registry.newest_version(kind, name))

    def call(self, function: Callable[[Registry], _T]) -> _T:
        """The result of a function that uses the registry."""
        hanging = _hanging.get(self._key)
        if hanging is not None and hanging.is_alive():
            raise TransientError("a call of an earlier tick has no answer yet")
        if time.monotonic() > self._end:
            raise TransientError("no time was left in this tick to ask the registry")
        began = time.monotonic()
        self.calls += 1
        try:
            return call_within(self._end - began, lambda: function(self._opened()), "asking-the-registry")
        except DeadlineError as error:
            _hanging[self._key] = error.thread
            _registries.pop(self._opened_key, None)
            raise TransientError(f"no answer within {time.monotonic() - began:.0f} s") from None
        except EdgepackError:
            raise
        except Exception as error:
            _registries.pop(self._opened_key, None)  # an expired session must not stay
            raise TransientError(f"{type(error).__name__}: {error}") from error

    def _opened(self) -> Registry:
        kept = _registries.get(self._opened_key)
        if kept is None or kept[0] != self._settings.registry:
            kept = _registries[self._opened_key] = self._settings.registry, open_registry(self._settings)
        return kept[1]


def hanging_calls(settings: Settings) -> int:
    """How many calls of the registry of this configuration missed their deadline and still hang."""
    for key in [key for key, thread in _hanging.items() if not thread.is_alive()]:
        del _hanging[key]
    return sum(file == settings.file for file, _ in _hanging)


class OutageTimer:
    """Measures how long `caller` has had no answer, which `words` say.

    The time is in a row of the instance. A tick without an answer must not change the cursor, and a process may be too
    short-lived: a daemon that starts the code location itself does so anew every minute."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        settings: Settings,
        caller: str,
        words: str = "no good answer from the registry",
    ) -> None:
        self._rows, self._words, self._longest = instance.daemon_cursor_storage, words, settings.sensors.failure_after
        self._key = f"edgepack/silent_since/{settings.file}/{caller}"

    def stop(self) -> None:
        """Record that there was an answer."""
        if self._since() is not None:
            self._rows.set_cursor_values({self._key: ""})
            _silent_since[self._key] = None

    def failure_after(self, error: EdgepackError) -> EdgepackError | None:
        """Record that there was no answer. The error with which the tick must fail once that has lasted for
        `sensors.failure_after`, else None."""
        since = self._since()
        if since is None:
            since = _silent_since[self._key] = time.time()
            self._rows.set_cursor_values({self._key: str(since)})
        silent = time.time() - since
        if silent < self._longest:
            return None
        return EdgepackError(f"{self._words} for {silent:.0f} s (sensors.failure_after): {error}")

    def _since(self) -> float | None:
        if self._key not in _silent_since:
            row = self._rows.get_cursor_values({self._key}).get(self._key)
            _silent_since[self._key] = float(row) if row else None
        return _silent_since[self._key]
