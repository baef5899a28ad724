"""Short names of classes and files in pictures, and the margins of a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgepack_assets.model_types.figures import name_text, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def airy_figure(width: float, height: float) -> Figure:
    """A figure whose content keeps off its edges."""
    figure = new_figure(width, height)
    figure.set_layout_engine("constrained", w_pad=0.13, h_pad=0.13)
    return figure


def class_label(label: int, names: Mapping[int, str], length: int = 24) -> str:
    """A class by its name and number, or by its number alone where it has no name."""
    name = names.get(label, str(label))
    return name if name == str(label) else f"{name_text(name, length)} ({label})"
