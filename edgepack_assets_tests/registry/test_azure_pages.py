"""A page of a proxy is told from an answer of Azure's, whatever it says that it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edgepack_assets.azure.answers import PageError, refuse_pages

PAGES = [
    b"<html>", b" \r\n<!DOCTYPE HTML PUBLIC '-//W3C//DTD HTML 4.01//EN'>", b"\xef\xbb\xbf<!doctype html>",
    b"<?xml version='1.0'?>\n<!DOCTYPE html PUBLIC '-//W3C//DTD XHTML 1.0'>", b"<!-- blocked -->\n<!-- id 7 --><html>",
    b"<head><title>Sign in</title>", b"<body>Blocked",
]  # fmt: skip
ANSWERS = [
    b"",
    b"{}",
    b'"<html>"',
    b"<?xml version='1.0'?><Error><Code>Busy</Code></Error>",
    b"<headers/>",
    b"<!-- --> x",
]


def answer(body: bytes, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = SimpleNamespace(url="https://host.example/a")
    return SimpleNamespace(
        http_response=SimpleNamespace(status_code=200, headers=named, body=lambda: body, request=request)
    )


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/xml", ""])
@pytest.mark.parametrize("body", PAGES)
def test_a_page_is_refused_whatever_it_says_that_it_is(body: bytes, kind: str) -> None:
    with pytest.raises(PageError, match=r"an HTML page with status 200 from host\.example"):
        refuse_pages(answer(body, Content_Type=kind))
    refuse_pages(answer(body, Content_Type=kind, x_ms_version="2021-08-06"))


@pytest.mark.parametrize("body", ANSWERS)
def test_an_answer_is_no_page(body: bytes) -> None:
    refuse_pages(answer(body, Content_Type="application/json"))
