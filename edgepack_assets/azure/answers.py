"""Recognizes answers over HTTP that are not Azure's own: a page of a proxy, or a request to wait."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

_PAGE = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]{0,200}\?>\s*)?(<!--.{0,2000}?-->\s*)*<(!doctype html|html|head|body)\b",
    re.IGNORECASE | re.DOTALL,
)
"""The beginning of a page, with what may stand before its first element."""


class PageError(Exception):
    """An HTML page came where Azure answers in JSON, XML or bytes: a proxy, gateway or sign-in page answered."""

    def __init__(self, http: Any) -> None:
        super().__init__(f"an HTML page with status {http.status_code} from {urlsplit(http.request.url).netloc}")
        self.response = http

    @staticmethod
    def in_words_of(error: BaseException) -> str | None:
        """What a PageError says that `error` is or repeats: azure-identity keeps of a cause its text alone."""
        match = re.search(r"an HTML page with status \d+ from [\w.:-]+", str(getattr(error, "message", "") or error))
        return match[0].rstrip(".:") if match else None


def refuse_pages(response: Any) -> None:
    """Raise PageError if an answer is an HTML page. A hook for every pipeline of the SDK (`raw_response_hook`).

    Azure's services answer in JSON (control plane, sign-in) or XML (storage). A blob may be a page itself, but
    storage says then that it is storage: each of its answers has an x-ms-version or x-ms-request-id."""
    http = response.http_response
    headers = {str(name).lower(): str(value) for name, value in http.headers.items()}
    if "x-ms-version" in headers or "x-ms-request-id" in headers:
        return
    # What it says that it is, counts for a page; else what it is: a proxy may say text/plain, or JSON.
    if "html" in headers.get("content-type", "").lower() or _PAGE.match(_start(http)):
        raise PageError(http)


def _start(http: Any) -> bytes:
    # Of a body that is read in pieces nothing is taken away: whoever reads it finds out.
    try:
        body = http.body()
    except Exception:  # noqa: BLE001 - not read yet, in the words of each transport
        return b""
    return bytes(body[:4000]) if body else b""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait; None if it asks for nothing."""
    for name in ("x-ms-retry-after-ms", "retry-after-ms"):
        if (milliseconds := _number(headers.get(name))) is not None:
            return milliseconds / 1000
    value = headers.get("Retry-After")
    if value is None:
        return None
    if (seconds := _number(value)) is not None:
        return seconds
    try:
        until = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
