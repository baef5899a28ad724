"""Requests and answers as plain values, and the errors of Azure's services in their own shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True)
class Request:
    """One request; header names are lower case."""

    method: str
    host: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        return {k.lower(): v[-1] for k, v in parse_qs(urlsplit(self.target).query, keep_blank_values=True).items()}

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"null")

    @property
    def url(self) -> str:
        return f"https://{self.host}{self.target}"

    def __str__(self) -> str:
        return f"{self.method} {self.host}{self.target}"


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def answer(status: int, value: Any, **headers: str) -> Response:
    """A JSON answer; `retry_after="1"` becomes the header Retry-After."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Response(status, json.dumps(value).encode(), {"Content-Type": "application/json; charset=utf-8", **named})


def arm_error(status: int, code: str, message: str, inner: str = "", **headers: str) -> Response:
    """An error as Azure Resource Manager tells it, or with `inner`, the code below the code, as Azure ML does."""
    more: dict[str, Any] = {}
    if inner:
        told = {"ComponentName": "managementfrontend", "InnerError": {"code": inner, "innerError": None}}
        more["additionalInfo"] = [{"type": kind, "info": {"value": value}} for kind, value in told.items()]
    return answer(status, {"error": {"code": code, "message": message, "details": [], **more}}, **headers)


def blob_error(status: int, code: str, message: str, **headers: str) -> Response:
    """An error as blob storage tells it."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    text = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Response(status, text.encode(), {"Content-Type": "application/xml", "x-ms-error-code": code, **named})
