"""Every key of edgepack.yaml as the JSON schema has it, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

PLACEHOLDERS = {"model_types": "<name>", "gates": "<metric>"}
"""What stands for the key, which users choose, in a mapping of sections."""


def keys(schema: dict[str, Any], at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(dotted key, its schema), of sections their keys only."""
    for choice in schema.get("anyOf", [schema]):
        for name, value in choice.get("properties", {}).items():
            below = list(keys(value, f"{at}{name}."))
            yield from below
            if not below or any("properties" not in each for each in value.get("anyOf", []) if "enum" in each):
                yield f"{at}{name}", value
        inner = choice.get("additionalProperties")
        if isinstance(inner, dict):
            yield from keys(inner, f"{at}{PLACEHOLDERS.get(at.split('.')[-2], '<key>')}.")
