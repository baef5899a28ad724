"""Self-contained HTML pages: no script, nothing from the network, every value escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from edgepack_assets import __version__
from edgepack_assets.errors import EdgepackError
from edgepack_assets.tasks.pages.compiled_templates import templates
from edgepack_assets.text_format import plain


def render(template: str, **values: Any) -> bytes:
    """The page of a template, as UTF-8. Text that is no text, as halves of characters in a file's name, is marked.

    Raises EdgepackError if the values are not what the template shows."""
    from jinja2 import TemplateError

    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M}Z"
    try:
        page = templates().get_template(f"{template}.html.j2").render(version=__version__, at=now, **values)
    except TemplateError as error:
        raise EdgepackError(f"the page {template!r} cannot be written: {error}") from error
    return page.encode("utf-8", "replace")


def as_shown(value: Any) -> Any:
    """A value as JSON, with numpy's numbers as numbers, and floats to six digits; what JSON does not know as text."""
    if isinstance(value, Mapping):
        return {str(name): as_shown(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_shown(each) for each in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.6g}")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return plain(value)
