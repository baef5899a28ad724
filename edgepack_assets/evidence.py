"""The parts of an asset check: what was asserted, whether it holds, what was found and what was wanted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One row of a check's table."""

    name: str
    passed: bool
    found: str
    wanted: str


def all_pass(parts: Iterable[Part]) -> bool:
    """Whether every part holds; a check without parts asserts nothing, so it does not pass."""
    rows = list(parts)
    return bool(rows) and all(part.passed for part in rows)
