"""Versions in a registry: a model's is a whole number from 1 up; a data asset's may be any text in Azure ML.

A version that is written as a whole number is an int everywhere. Any other ("2024-06-01", "1.0", "007") is text and
stays as it is written. So `read_version(str(version)) == version` for every version.
"""

from __future__ import annotations

from edgepack_assets.partitions import is_version

Version = int | str

_LONGEST = 255


def read_version(text: str) -> Version:
    """The version that `text` names."""
    return int(text) if is_version(text) else text


def is_version_text(text: str) -> bool:
    """Whether `text` may be the version of a data asset: it fits into one line and one part of a URL."""
    is_line = 0 < len(text) <= _LONGEST and text == text.strip() and text.isprintable()
    return is_line and text not in (".", "..") and not set(text) & set("/\\")
