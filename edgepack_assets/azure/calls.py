"""Every remote call: an overall time limit that nothing can outlast, retries until then, Retry-After.

The SDK's own retries are switched off: they know neither our limit nor which requests may be repeated."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from edgepack_assets.azure.answers import refuse_pages, retry_after
from edgepack_assets.azure.errors import AccessError, Place, explain, where
from edgepack_assets.deadlines import DeadlineError, call_within
from edgepack_assets.errors import TransientError

_T = TypeVar("_T")
_P = TypeVar("_P", bound=Place)
_log = logging.getLogger(__name__)

DEFAULT_LIMIT = 120.0
"""Seconds for one call to a place whose limit nobody can set: artefacts in Azure beside a local registry."""
_LONGEST_PAUSE = 20.0
_LAST_ATTEMPT = 0.95
"""Share of the limit after which no further attempt begins."""

now = time.monotonic
sleep = time.sleep
"""All waiting is done by these two, so that a test can move the clock."""


class Backoff:
    """The pauses between the attempts at one thing, longer each time, until `limit` seconds have passed."""

    def __init__(self, limit: float, longest: float | None = None) -> None:
        self.limit = limit
        self.end = now() + limit
        self._last = now() + limit * _LAST_ATTEMPT
        self._longest = longest
        self._attempts = 0

    def pause(self, asked: float | None = None) -> float | None:
        """Seconds to wait before the next attempt, `asked` if the answer says so; None if the limit ends before."""
        self._attempts += 1
        left = self._last - now()
        if asked is not None:
            return asked if asked <= left else None
        longest = min(self._longest or _LONGEST_PAUSE, 0.5 * 2 ** min(self._attempts - 1, 20))
        # Never in step with other processes.
        return min(random.uniform(0.5, 1) * longest, left) if left > 0 else None  # noqa: S311 - no secret

    def wait(self, asked: float | None = None) -> bool:
        """Wait until the next attempt is due; False, at once, if the limit ends before."""
        pause = self.pause(asked)
        if pause is not None:
            sleep(pause)
        return pause is not None


class Remote(Generic[_P]):
    """Calls to one workspace, registry or container, none longer than its `time_limit`, or `limit` (seconds)."""

    def __init__(self, settings: _P, limit: float | None = None) -> None:
        self.settings = settings
        self.limit = limit or settings.time_limit or DEFAULT_LIMIT
        self.named = "" if limit is not None or settings.time_limit is None else ", registry.time_limit"
        self.patience = min(60.0, max(1.0, self.limit / 4))
        """Seconds to wait for one connection or for the next byte: a stalled one is left and tried again."""

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments for every client of the SDK."""
        return {
            "retry_total": 0,
            "connection_timeout": self.patience,
            "read_timeout": self.patience,
            "raw_response_hook": refuse_pages,
        }

    def call(self, doing: str, function: Callable[[], _T], once: bool = False) -> _T:
        """The function's result. `doing` starts the error message: "listing the versions of press".

        Raises what `errors.explain` makes of an error: a TransientError when the limit has passed, or with `once`
        after the first attempt; its `wait` is what the answer asks to wait. A token that is not accepted may have
        expired on the way, and Azure did nothing then, so that is tried a second time, even with `once`."""
        backoff = Backoff(self.limit)
        tokens_refused = 0
        while True:
            try:
                return call_within(backoff.end - now(), function, "azure-call")
            except DeadlineError:
                raise TransientError(
                    f"{doing} ({where(self.settings)}): no answer within {self.limit:g} s{self.named}; "
                    "check network, proxy and firewall"
                ) from None
            except Exception as error:  # noqa: BLE001 - every one is explained and raised
                explained = explain(error, doing, self.settings)
                asked = retry_after(getattr(getattr(error, "response", None), "headers", None) or {})
                if isinstance(explained, AccessError) and explained.is_token and not tokens_refused:
                    tokens_refused += 1
                    _log.info("%s; trying it once more", explained)
                    continue
                if not isinstance(explained, TransientError):
                    raise explained from None
                explained.wait = asked
                if once:
                    raise explained from None
                pause = backoff.pause(asked)
                if pause is None:
                    passed = "tried for" if asked is None else f"waiting {asked:.0f} s more would pass the limit of"
                    raise TransientError(f"{explained} ({passed} {self.limit:g} s{self.named})") from None
                _log.info("%s; trying again in %.1f s", explained, pause)
            sleep(pause)


def quiet_logs() -> None:
    """Keep out of the log what the SDK says of every request, unless somebody has asked for it."""
    for name in ("azure.core", "azure.identity", "azure.storage", "msal"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.ERROR)  # what matters of it is in the errors we raise
