"""How much worse than its reference a metric may be, and how that is written in edgepack.yaml."""

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
