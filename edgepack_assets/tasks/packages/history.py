"""What the registry's versions of a package say of themselves: the model version each was made from, their metrics.

Tags are read as found: people and other tools write them too, so one that is missing or odd is no error here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypeVar

from edgepack_assets.partitions import is_version
from edgepack_assets.registry.base import DamagedVersion, RegisteredVersion
from edgepack_assets.tasks.packages.tags import (
    DATED_METRICS,
    MODEL_NAME,
    MODEL_VERSION,
    PAYLOAD_DIGEST,
    RAW_DATA,
    is_dated_metrics,
)

_Package = TypeVar("_Package", bound=RegisteredVersion | DamagedVersion)
"""A package, of which the tags are read and nothing else: those of a damaged one hold as long as they can be read."""


def model_version_of(package: RegisteredVersion | DamagedVersion, model_name: str) -> int | None:
    """The version of that model that a package was made from; None if it was made from another or doesn't say."""
    version = package.tags.get(MODEL_VERSION, "")
    return int(version) if package.tags.get(MODEL_NAME) == model_name and is_version(version) else None


def by_model_version(packages: Iterable[_Package], model_name: str) -> dict[int, _Package]:
    """The newest package of each version of a model: the order of packages says nothing about models."""
    newest: dict[int, _Package] = {}
    for package in sorted(packages, key=lambda each: each.number):
        if (version := model_version_of(package, model_name)) is not None:
            newest[version] = package
    return newest


def dated_metrics(package: RegisteredVersion | DamagedVersion) -> dict[str, dict[str, Any]]:
    """The dated metrics of a package, oldest first: tag -> {"metrics", "raw_data", "payload_digest", ...}."""
    dated = {}
    for tag, text in sorted(package.tags.items()):
        if is_dated_metrics(tag):
            try:
                datetime.strptime(tag, DATED_METRICS)
                entry = json.loads(text)
            except ValueError:
                continue
            if isinstance(entry, dict) and isinstance(entry.get("metrics"), dict):
                dated[tag] = entry
    return dated


def raw_data_of_package(package: RegisteredVersion) -> set[str]:
    """Every `name:version` of raw data that a package was validated on."""
    dated = (str(entry.get("raw_data")) for entry in dated_metrics(package).values())
    return {package.tags.get(RAW_DATA, ""), *dated}


def metric_of(package: RegisteredVersion | DamagedVersion, name: str, payload: str) -> tuple[float | None, str]:
    """A metric of a package, on the same payload if it was ever validated on that, and the raw data it is on."""
    if package.tags.get(PAYLOAD_DIGEST) != payload:
        for entry in reversed(dated_metrics(package).values()):
            value = as_number(entry["metrics"].get(name))
            if entry.get("payload_digest") == payload and value is not None:
                return value, str(entry.get("raw_data", "the same raw data"))
    return as_number(package.tags.get(name)), package.tags.get(RAW_DATA, "unknown raw data")


def as_number(value: object) -> float | None:
    """The finite number that the text of a tag is; None if it is none."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
