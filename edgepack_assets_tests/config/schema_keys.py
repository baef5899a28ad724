"""Every key of edgepack.yaml as the JSON schema has it, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgepack_assets.config.json_schema import VARIABLE

PLACEHOLDERS = {"model_types": "<name>", "gates": "<metric>", "worst": "<part>"}
"""What stands for the key, which users choose, in a mapping of sections."""


def keys(schema: dict[str, Any], at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(dotted key, its schema) of every key, those of sections included."""
    for choice in choices(schema):
        for name, value in choice.get("properties", {}).items():
            yield f"{at}{name}", value
            yield from keys(value, f"{at}{name}.")
        inner = choice.get("additionalProperties")
        if isinstance(inner, dict):
            yield from keys(inner, f"{at}{PLACEHOLDERS.get(schema.get('title', ''), '<key>')}.")


def choices(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The alternatives of a schema."""
    found: list[dict[str, Any]] = schema.get("anyOf", [schema])
    return found


def is_a_value(schema: dict[str, Any]) -> bool:
    """Whether a key may have a value of its own, and is more than the name of a section."""
    kinds = [choice for choice in choices(schema) if choice != VARIABLE and choice.get("type") != "null"]
    return any(not any(True for _ in keys(choice)) for choice in kinds)
