"""Every remote call: an overall time limit that nothing can outlast, bounded retries, Retry-After.

The SDK's own retries are switched off: they know neither our limit nor which requests may be repeated."""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar

from edgepack_assets.errors import TransientError
from edgepack_assets.registry.azure_ml.faults import Place, explain, where

_T = TypeVar("_T")
_P = TypeVar("_P", bound=Place)
_log = logging.getLogger(__name__)

ATTEMPTS = 5
DEFAULT_LIMIT = 120.0
"""Seconds for one call to a place whose limit nobody can set: artefacts in Azure beside a local registry."""
_LONGEST_PAUSE = 20.0


class Remote(Generic[_P]):
    """Calls to one workspace, registry or container, none longer than its `time_limit` (seconds)."""

    def __init__(self, settings: _P) -> None:
        self.settings = settings
        self.limit = settings.time_limit or DEFAULT_LIMIT
        self._named = "" if settings.time_limit is None else ", registry.time_limit"
        self.patience = min(60.0, max(1.0, self.limit / 4))
        """Seconds to wait for one connection or for the next byte: a stalled one is left and tried again."""

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments for every client of the SDK."""
        return {"retry_total": 0, "connection_timeout": self.patience, "read_timeout": self.patience}

    def call(self, doing: str, function: Callable[[], _T], attempts: int = ATTEMPTS) -> _T:
        """The function's result. `doing` starts the error message: "listing the versions of press".

        Raises what `faults.explain` makes of an error, TransientError after the last attempt or the limit."""
        end = time.monotonic() + self.limit
        for attempt in range(1, attempts + 1):
            try:
                return self._within(end - time.monotonic(), function)
            except Exception as error:  # noqa: BLE001 - every one is explained and raised
                if isinstance(error, _TimeUpError):
                    raise TransientError(
                        f"{doing} ({where(self.settings)}): no answer within {self.limit:g} s{self._named}; "
                        "check network, proxy and firewall"
                    ) from None
                told = explain(error, doing, self.settings)
                pause = _pause(error, attempt)
                if not isinstance(told, TransientError) or attempt == attempts:
                    raise told from None
                if time.monotonic() + pause > end:
                    raise TransientError(
                        f"{told} (waiting {pause:.0f} s more would pass the limit of {self.limit:g} s{self._named})"
                    ) from None
                _log.info("%s; trying again in %.1f s", told, pause)
            time.sleep(pause)
        raise AssertionError("a loop of attempts ends by returning or raising")

    def _within(self, seconds: float, function: Callable[[], _T]) -> _T:
        # A socket's timeout is for one read: an answer that trickles in outlasts it. So the call has a thread of its
        # own, which is left alone when the time is up.
        box: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                box.put((function(), None))
            except BaseException as error:  # noqa: BLE001 - it is raised again by the caller's thread
                box.put((None, error))

        threading.Thread(target=run, name="azure-call", daemon=True).start()
        try:
            value, error = box.get(timeout=max(0.01, seconds))
        except queue.Empty:
            raise _TimeUpError from None
        if error is not None:
            raise error
        result: _T = value
        return result


class _TimeUpError(Exception):
    """The overall limit has passed."""


def _pause(error: BaseException, attempt: int) -> float:
    """Seconds to wait: what the answer asks for, else longer each time, never in step with other processes."""
    asked = retry_after(getattr(getattr(error, "response", None), "headers", None) or {})
    if asked is not None:
        return asked
    longest: float = min(_LONGEST_PAUSE, 0.5 * 2 ** (attempt - 1))
    return random.uniform(0.5, 1) * longest  # noqa: S311 - no secret


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait; None if it asks for nothing."""
    for name in ("x-ms-retry-after-ms", "retry-after-ms"):
        value = headers.get(name)
        if value and value.isdigit():
            return int(value) / 1000
    value = headers.get("Retry-After")
    if not value:
        return None
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
