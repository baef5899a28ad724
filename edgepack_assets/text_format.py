"""Sizes, ages, values and tables as a person reads them: one way for the command line, the UI and messages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def format_size(count: float) -> str:
    """Bytes in units of 1000, as disks, package indexes and Azure show them."""
    for unit in ("B", "kB", "MB", "GB"):
        shown = f"{count:.0f}" if unit == "B" else f"{count:.1f}"
        if float(shown) < 1000:
            return f"{shown} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def format_age(seconds: float) -> str:
    """A time span in whole seconds, minutes, hours or days, the largest unit of which there are two."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def format_latency(seconds: float) -> str:
    """How long one record takes, in microseconds or milliseconds, with three digits."""
    return f"{seconds * 1e6:.3g} µs" if abs(seconds) < 1e-4 else f"{seconds * 1e3:.3g} ms"


def plain(value: Any) -> Any:
    """A value as JSON has it: what JSON does not know (bytes, NaN) becomes text."""
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return f"{value!r:.100}"


def counted(number: int, noun: str) -> str:
    """`1 partition`, `2 partitions`. The noun is one whose plural has an s, or es after s or ch."""
    plural = f"{noun}es" if noun.endswith(("s", "ch")) else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def format_table(rows: Iterable[Sequence[str]], *, underlined: bool = False) -> str:
    """Columns as wide as their longest cell, two spaces apart. The first row holds the heads, `underlined` or not.

    A cell is one line, whatever a tag or a file's name holds: what would move the cursor is shown as an escape."""
    lines = [[_one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if underlined:
        lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _one_line(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)


def shortened(text: str, width: int) -> str:
    """`text`, cut to `width` characters with an ellipsis at its end if it is longer."""
    return text if len(text) <= width else f"{text[: width - 1]}…"
