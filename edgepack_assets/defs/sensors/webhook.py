"""Posting a JSON message to a configured address, in bounded time.

What is sent, and when, is the caller's. A webhook's address is a secret as a whole, since many have their key in the
path: only its scheme and host are ever named. It gets no credentials but those in its address.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from edgepack_assets.deadlines import DeadlineError, call_within
from edgepack_assets.errors import EdgepackError, TransientError

CONNECT, ANSWER = 5.0, 10.0
"""Seconds for the connection, and for the answer after it."""
_WHOLE = CONNECT + ANSWER + 1
"""Seconds for all of it: an answer that drips in byte by byte never runs into the limits above."""

_NOT_THIS_MESSAGE = frozenset({400, 413, 415, 422})
"""Answers that say the message is at fault: it would be refused for ever."""


class RefusedError(EdgepackError):
    """The webhook takes no message like this one; it would refuse it again."""


def post_json(address: str, message: Mapping[str, Any]) -> None:
    """Post a message once. Takes at most about 16 s. Redirects are not followed.

    Raises RefusedError if this message is refused, TransientError for everything else than a 2xx answer."""
    try:
        call_within(_WHOLE, lambda: _post(address, message), "webhook-post")
    except DeadlineError:
        raise TransientError(f"{host_of(address)}: no whole answer within {_WHOLE:.0f} s") from None


def _post(address: str, message: Mapping[str, Any]) -> None:
    import requests
    from requests.auth import AuthBase, HTTPBasicAuth
    from requests.utils import get_auth_from_url

    class NoCredentials(AuthBase):
        """Keeps requests from looking up ~/.netrc; proxies and certificates still come from the environment."""

        def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
            return request

    host = host_of(address)
    user, password = get_auth_from_url(address)
    auth = HTTPBasicAuth(user, password) if user or password else NoCredentials()
    try:
        # The body of the answer is never read: it may be endless.
        with requests.post(
            address, json=dict(message), timeout=(CONNECT, ANSWER), allow_redirects=False, stream=True, auth=auth
        ) as answer:
            status = answer.status_code
    except requests.ConnectTimeout:
        raise TransientError(f"{host}: no connection within {CONNECT:.0f} s") from None
    except requests.Timeout:
        raise TransientError(f"{host}: no answer within {ANSWER:.0f} s") from None
    except Exception as error:  # noqa: BLE001 - its text holds the address, and nothing else may show it
        raise TransientError(f"{host}: {_kind(error)}") from None
    if 200 <= status < 300:
        return
    if status in _NOT_THIS_MESSAGE:
        raise RefusedError(f"{host} refuses the message with {status}")
    hint = ": redirects are not followed, set the address that it leads to" if 300 <= status < 400 else ""
    raise TransientError(f"{host} answers {status}{hint}")


def _kind(error: BaseException) -> str:
    """What went wrong, by the errors' own names and the system's words, from the outermost to the innermost."""
    inner: BaseException = error
    while (cause := getattr(inner, "reason", None) or inner.__cause__ or inner.__context__) is not None:
        if not isinstance(cause, BaseException) or cause is inner:
            break
        inner = cause
    words = f": {os.strerror(inner.errno)}" if isinstance(inner, OSError) and inner.errno else ""
    name = type(error).__name__ if inner is error else f"{type(error).__name__} ({type(inner).__name__})"
    return name + words


def host_of(address: str) -> str:
    """Scheme, host and port of an address: what may be shown of it."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def bounded(text: str, longest: int, lines: int) -> str:
    """The beginning of a text: printable, so many lines and characters at most."""
    kept = ["".join(c if c.isprintable() else " " for c in line).rstrip() for line in text.splitlines()]
    shown = "\n".join([line for line in kept if line][:lines])
    return shown if len(shown) <= longest else shown[: longest - 3].rstrip() + "..."
