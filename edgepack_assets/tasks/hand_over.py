"""Telling a calling pipeline which package it got: a file of JSON, or of KEY=VALUE lines."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgepack_assets.errors import ConfigError
from edgepack_assets.files import writing

OUTPUT_VARIABLE = "EDGEPACK_OUTPUT_FILE"


def output_file(configured: str | None) -> Path | None:
    """Where to write, or None: the run's configuration, else $EDGEPACK_OUTPUT_FILE.

    An older file there is removed, so that a run that fails leaves none. Raises ConfigError if no file can be
    written there: that must be known before anything is registered."""
    named = (configured or "").strip() or os.environ.get(OUTPUT_VARIABLE, "").strip()
    if not named:
        return None
    path, said = Path(named).expanduser().absolute(), "output_file" if configured else OUTPUT_VARIABLE
    if path.is_dir() or named.endswith(os.sep):
        raise ConfigError(f"{said}: {named} is a folder: name a file in it, such as {path / 'package.json'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.try")
        aside.touch()
        aside.unlink()
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{said}: {path} cannot be written: {error.strerror or error}; nothing was registered. "
            "Name a file in a folder that this process may write to"
        ) from None
    return path


def write_hand_over(path: Path, told: Mapping[str, Any], metrics: Mapping[str, float | None]) -> None:
    """Write `told` (text, numbers, booleans) and the metrics whole or not at all. Raises EdgepackError.

    JSON, with the metrics under `metrics`; KEY=VALUE lines with `metric_<name>` if the name ends in .env."""
    if path.name.endswith(".env"):
        flat = {**told, **{f"metric_{name}": value for name, value in metrics.items() if value is not None}}
        text = "".join(f"{key}={_plain(value)}\n" for key, value in flat.items())
    else:
        text = json.dumps({**told, "metrics": dict(metrics)}, indent=2) + "\n"
    with writing(path) as stream:
        stream.write(text.encode())


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
