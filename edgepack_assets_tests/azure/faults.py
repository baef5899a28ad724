"""What goes wrong on demand: a rule names requests, how many of them, and what happens to each."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edgepack_assets_tests.azure.http import Request, Response, arm_error, blob_error


class Reset(Exception):
    """The connection breaks without an answer."""


@dataclass(frozen=True)
class Exchange:
    """A request and the way to its true answer, which a fault may take or leave."""

    request: Request
    answer: Callable[[], Response]


Act = Callable[[Exchange], Response]


@dataclass
class Fault:
    """`act` happens to the next `times` requests whose "METHOD host/path" the pattern is found in, after
    `after` of them went well."""

    pattern: str
    act: Act
    times: int = 1
    after: int = 0
    hits: list[str] = field(default_factory=list)


class Faults:
    """The rules in force. Give the fixture's `clear` at the end of every test."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Fault] = []

    def add(self, pattern: str, act: Act, times: int = 1, after: int = 0) -> Fault:
        fault = Fault(pattern, act, times, after)
        with self._lock:
            self._rules.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()

    def take(self, request: Request) -> Fault | None:
        """The fault that meets this request, if any."""
        text = str(request)
        with self._lock:
            for fault in self._rules:
                if len(fault.hits) < fault.times and re.search(fault.pattern, text):
                    if fault.after:
                        fault.after -= 1
                        continue
                    fault.hits.append(text)
                    return fault
        return None


def status(code: int, error: str = "UserError", message: str = "injected", **headers: str) -> Act:
    """An error status, told as the service that is asked tells it."""

    def act(exchange: Exchange) -> Response:
        make = blob_error if ".blob." in exchange.request.host else arm_error
        return make(code, error, message, **headers)

    return act


PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in to the plant's network</title></head><body>...</body></html>"


def page(code: int = 200, content_type: str = "text/html; charset=utf-8") -> Act:
    """An HTML page of a proxy, gateway or captive portal in place of the service's answer."""
    return lambda exchange: Response(code, PAGE, {"Content-Type": content_type})


def reset(exchange: Exchange) -> Response:
    """The connection breaks before anything is done."""
    raise Reset


def lost_answer(exchange: Exchange) -> Response:
    """What is asked is done, and the connection breaks before the answer."""
    exchange.answer()
    raise Reset


def stall(seconds: float, released: threading.Event) -> Act:
    """No byte for `seconds`, or until the event; then the connection breaks."""

    def act(exchange: Exchange) -> Response:
        released.wait(seconds)
        raise Reset

    return act


def changed(change: Callable[[bytes], bytes]) -> Act:
    """The true answer with another body: truncated, swapped."""

    def act(exchange: Exchange) -> Response:
        true = exchange.answer()
        return Response(true.status, change(true.body), {k: v for k, v in true.headers.items() if _kept(k)})

    return act


def empty_list(exchange: Exchange) -> Response:
    """A list without its items."""

    def emptied(body: bytes) -> bytes:
        value: dict[str, Any] = json.loads(body)
        return json.dumps({**value, "value": [], "nextLink": None}).encode()

    return changed(emptied)(exchange)


def cut(keep: int) -> Act:
    """The true headers, `keep` bytes of the body, then the connection breaks."""

    def act(exchange: Exchange) -> Response:
        true = exchange.answer()
        return Response(true.status, true.body[:keep], {**true.headers, "Content-Length": str(len(true.body))})

    return act


def _kept(header: str) -> bool:
    return header.lower() not in ("content-length", "content-md5", "x-ms-content-crc64")
