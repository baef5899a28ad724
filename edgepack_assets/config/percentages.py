"""Numbers of a gate that may be written as a percentage: how much worse than its reference a metric may be, and at
which confidence that must hold."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """How much worse than its reference a metric may be: an amount, or a share of the reference's value."""

    amount: float
    relative: bool = False

    def of(self, reference: float) -> float:
        """The amount for a reference of that value."""
        return self.amount * abs(reference) if self.relative else self.amount

    def __str__(self) -> str:
        return f"{self.amount * 100:g}%" if self.relative else f"{self.amount:g}"


def read_tolerance(value: object) -> Tolerance:
    """A number, or a share such as 5%. Raises ValueError."""
    text = str(value).strip()
    share = text.endswith("%")
    try:
        amount = math.nan if isinstance(value, bool) else float(text.removesuffix("%"))
    except ValueError:
        amount = math.nan
    if not 0 <= amount < math.inf:
        raise ValueError("a tolerance is a number from 0 up, or a share of the reference's value such as 5%")
    return Tolerance(amount / 100 if share else amount, share)


_LOWEST, _HIGHEST = 0.5, 0.999


def read_confidence(value: object) -> float | None:
    """A probability such as 95% or 0.95; None for none. Raises ValueError."""
    if value is None:
        return None
    text = str(value).strip()
    try:
        found = math.nan if isinstance(value, bool) else float(text.removesuffix("%"))
    except ValueError:
        found = math.nan
    found = round(found / 100, 12) if text.endswith("%") else found
    if not _LOWEST <= found <= _HIGHEST:
        raise ValueError("a confidence is from 50% to 99.9%, written 95% or 0.95")
    return found
