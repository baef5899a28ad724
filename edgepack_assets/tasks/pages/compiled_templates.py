"""The templates of HTML pages, in templates/, compiled once in a process.

Jinja2 is imported only where a page is written. That and compiling are most of what a page takes.
"""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = Path(__file__).with_name("templates")


@cache
def templates() -> Environment:
    """Every value is escaped, and each that a template names must be there."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["data_uri"] = _data_uri
    return environment


def load_templates() -> None:
    """Compile all of them."""
    for name in templates().list_templates():
        templates().get_template(name)


def _data_uri(png: bytes | str) -> str:
    """Of bytes, or of what is base64 already."""
    text = png if isinstance(png, str) else base64.b64encode(png).decode()
    return f"data:image/png;base64,{text}"
