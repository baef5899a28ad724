"""Telling a calling pipeline which package it got: a file of JSON, or of KEY=VALUE lines."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import IO, Any

from edgepack_assets.config.schema import Settings
from edgepack_assets.tasks.output_files import OutputFile, allowed_file, operators_file

OUTPUT_VARIABLE = "EDGEPACK_OUTPUT_FILE"

KEYS = frozenset(
    {"package_name", "package_version", "package_id", "content_digest", "digest", "model_type", "model_name"}
    | {"model_version", "registered_before"}
)
"""What every hand-over holds beside the metrics."""
_LONGEST = 1 << 20
"""Bytes of a hand-over, far more than any has."""


def output_file(configured: str | None, settings: Settings) -> OutputFile | None:
    """Where to write, or None: the run's configuration, else $EDGEPACK_OUTPUT_FILE.

    An older hand-over there is removed, so that a run that fails leaves none. Raises ConfigError if the file may not
    or cannot be written: that must be known before anything is registered."""
    if named := (configured or "").strip():
        file = allowed_file("output_file", named, settings)
        file.prepare(is_hand_over, remove=True)
        return file
    if named := os.environ.get(OUTPUT_VARIABLE, "").strip():
        file = operators_file(OUTPUT_VARIABLE, named)
        file.prepare(is_hand_over_or_empty, remove=True)
        return file
    return None


def write_hand_over(file: OutputFile, package: Mapping[str, Any], metrics: Mapping[str, float | None]) -> None:
    """Write `package` (text, numbers, booleans) and the metrics whole or not at all. Raises EdgepackError.

    JSON, with the metrics under `metrics`; KEY=VALUE lines with `metric_<name>` if the name ends in .env."""
    assert package.keys() == KEYS
    if file.name.endswith(".env"):
        flat = {**package, **{f"metric_{name}": value for name, value in metrics.items() if value is not None}}
        text = "".join(f"{key}={_plain(value)}\n" for key, value in flat.items())
    else:
        text = json.dumps({**package, "metrics": dict(metrics)}, indent=2) + "\n"
    file.write(is_hand_over, lambda stream: stream.write(text.encode()))


def is_hand_over(stream: IO[bytes]) -> bool:
    """Whether a file is what `write_hand_over` writes, of whatever run."""
    data = stream.read(_LONGEST + 1)
    if len(data) > _LONGEST:
        return False
    try:
        text = data.decode()
        names = set(json.loads(text)) if text.startswith("{") else _names_of_lines(text)
    except (ValueError, RecursionError):
        return False
    return names >= KEYS and all(name in KEYS or name == "metrics" or name.startswith("metric_") for name in names)


def is_hand_over_or_empty(stream: IO[bytes]) -> bool:
    """The same, or an empty file, such as `mktemp` makes."""
    return os.fstat(stream.fileno()).st_size == 0 or is_hand_over(stream)


def _names_of_lines(text: str) -> set[str]:
    parts = [line.partition("=") for line in text.splitlines()]
    return {name for name, _, _ in parts} if all(equals for _, equals, _ in parts) else set()


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
