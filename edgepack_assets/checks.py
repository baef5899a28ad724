"""The rows of an asset check: what was asserted, whether it holds, what was found and what was wanted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class CheckRow:
    """One row of a check's table.

    `reference` is what was compared with, in words, and `margin` the room left to what was wanted (negative: how much
    is missing), both for gates only. A row that `warns` does not fail its check when it does not hold."""

    name: str
    passed: bool
    found: str
    wanted: str
    reference: str = ""
    margin: str = ""
    warns: bool = False


def all_pass(rows: Iterable[CheckRow]) -> bool:
    """Whether every row holds that does more than warn; a check without rows asserts nothing, so it does not pass."""
    rows = list(rows)
    return bool(rows) and all(row.passed or row.warns for row in rows)


def in_words(rows: Iterable[CheckRow]) -> str:
    """The rows that do not hold, in one line."""
    return "; ".join(
        ("warning: " if row.warns else "")
        + f"{row.name}: {row.found}, wanted {row.wanted}"
        + (f" [{row.reference}]" if row.reference else "")
        for row in rows
        if not row.passed
    )
