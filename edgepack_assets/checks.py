"""The parts of an asset check: what was asserted, whether it holds, what was found and what was wanted."""

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


def all_pass(parts: Iterable[CheckRow]) -> bool:
    """Whether every part holds that does more than warn; a check without parts asserts nothing, so it does not pass."""
    rows = list(parts)
    return bool(rows) and all(part.passed or part.warns for part in rows)


def in_words(parts: Iterable[CheckRow]) -> str:
    """The parts that do not hold, in one line."""
    return "; ".join(
        ("warning: " if part.warns else "")
        + f"{part.name}: {part.found}, wanted {part.wanted}"
        + (f" [{part.reference}]" if part.reference else "")
        for part in parts
        if not part.passed
    )
