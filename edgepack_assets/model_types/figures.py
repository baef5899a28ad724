"""How pictures for the UI are drawn: matplotlib without a display, returned as PNG bytes.

Names of classes, files and features come from users and models. Whatever they hold, they are drawn as they are read:
`name_text` for each of them, and `png` for all text of a figure.
"""

from __future__ import annotations

import io
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STATE_COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5")
"""Qualitative colours that stay apart on the UI's light and dark ground."""

WIDTH = 8.7
"""Inches: as wide as the UI's dialog is in a window of 1280 pixels. What lies further right is cut off there."""


def new_figure(width: float, height: float) -> Figure:
    """A figure of that size in inches; `Figure` itself, not pyplot, so nothing global is touched."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def name_text(name: str, length: int) -> str:
    """A name in one line of at most so many characters: its beginning and its end, as names of one series differ at
    either. What cannot be drawn, such as control characters and the halves of a file name that is not UTF-8, becomes
    a mark."""
    if len(name) > 4 * length:  # names have no limit, and only the ends are looked at
        name = f"{name[: 2 * length]}{name[-2 * length :]}"
    text = "".join("\N{REPLACEMENT CHARACTER}" if _is_undrawable(character) else character for character in name)
    text = " ".join(text.split())
    if len(text) <= length:
        return text
    tail = length // 2
    return f"{text[: length - tail - 1]}…{text[-tail:]}"


def _is_undrawable(character: str) -> bool:
    return not character.isspace() and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn")


def png(figure: Figure) -> bytes:
    """The figure as PNG, 110 dots an inch. Dollar signs in its text are no mathematics."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
    buffer = io.BytesIO()
    figure.dpi = 110
    # `savefig` draws twice: for the layout, and then once more.
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()
