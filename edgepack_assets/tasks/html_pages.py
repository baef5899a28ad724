"""Self-contained HTML pages: no script, nothing from the network, every value escaped. The templates are in templates/.

Jinja2 is imported only where a page is written.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgepack_assets import __version__
from edgepack_assets.tasks.comparison import Comparison


def comparison_page(comparison: Comparison) -> bytes:
    """What differs between two packages."""
    return render(
        "comparison", title=f"{comparison.before.name} and {comparison.now.name} compared", comparison=comparison
    )


def render(template: str, **values: Any) -> bytes:
    """The page of a template, as UTF-8. Text that is no text, as halves of characters in a file's name, is marked."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["data_uri"] = _data_uri
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M}Z"
    page = environment.get_template(f"{template}.html.j2").render(version=__version__, at=now, **values)
    return page.encode("utf-8", "replace")


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
