"""What the registry's versions of a package say of themselves: the model version each was made from, their metrics.

Tags are read as found: people and other tools write them too, so one that is missing or odd is no error here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.config.gate_settings import STAGES
from edgepack_assets.partitions import ModelKey, is_version
from edgepack_assets.registry.base import DamagedVersion, Kind, RegisteredVersion, damaged_in_words, refuse_unread
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.gates.compare import Reference
from edgepack_assets.tasks.packages.stages import moves
from edgepack_assets.tasks.packages.tags import (
    ARCHIVED,
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


def references(metrics: Artefact, key: ModelKey, context: TaskContext) -> dict[str, Reference]:
    """What each gate with a reference is compared with, as the registry has it at this moment."""
    entry = context.entry(key)
    wanted = {name: gate.reference for name, gate in entry.gates.items() if gate.reference is not None}
    if not wanted:
        return {}
    listed: list[RegisteredVersion | DamagedVersion] = []
    packages: dict[int, RegisteredVersion | DamagedVersion] = {}
    offered: dict[int, RegisteredVersion | DamagedVersion] = {}
    unreadable = ""
    if any(reference != "training" for reference in wanted.values()):
        name = entry.registered_package_name
        sound, damaged = context.registry.versions_and_damaged(Kind.MODEL, name)
        refuse_unread(damaged)
        listed = [*sound, *damaged]
        packages = by_model_version(listed, entry.model_name)
        offered = by_model_version([each for each in listed if ARCHIVED not in each.tags], entry.model_name)
        if unknown := [each for each in damaged if not each.tags_are_known]:
            unreadable = f" ({damaged_in_words(unknown)})"
            context.log.warning(f"gates of {key} have no reference in a package that cannot be read{unreadable}")
    model = None
    if "training" in wanted.values():
        model = context.registry.get(Kind.MODEL, entry.model_name, key.version)
    payload = metrics.made_from["payload_data"]
    by_metric = {}
    for name, reference in wanted.items():
        if reference in STAGES:
            compared = _stage_reference(name, str(reference), listed, payload)
            by_metric[name] = replace(compared, source=compared.source + unreadable)
        elif reference == "training":
            assert model is not None
            value = _number(model.tags.get(name))
            where = f"training, in the tags of {model}"
            by_metric[name] = Reference(
                where if value is not None else f"{model} has no tag {name} with a number", value
            )
        else:
            compared = _package_reference(
                name, reference, key, offered if reference == "previous" else packages, payload
            )
            # A package that cannot be read may be the one to compare with: that is not the same as none.
            nothing_yet = compared.nothing_yet and not (unreadable and reference == "previous")
            by_metric[name] = replace(compared, source=compared.source + unreadable, nothing_yet=nothing_yet)
    return by_metric


def _package_reference(
    name: str,
    reference: int | str,
    key: ModelKey,
    packages: Mapping[int, RegisteredVersion | DamagedVersion],
    payload: str,
) -> Reference:
    if reference == "previous":
        lower = [version for version in packages if version < key.version]
        if not lower:
            return Reference(f"none: no package of a lower model version than {key.version}", None, nothing_yet=True)
        version = max(lower)
    else:
        version = int(reference)
        if version not in packages:
            if version == key.version:
                return Reference(f"none: model version {version} is the reference itself", None, nothing_yet=True)
            return Reference(f"no package of model version {version} is registered: package it first", None)
    package = packages[version]
    value, where = metric_of(package, name, payload)
    source = f"{package} of model version {version}, on {where}"
    source = source if value is not None else f"{package} of model version {version} has no {name}"
    return Reference(source, value, package=package)


def _stage_reference(
    name: str, stage: str, packages: Sequence[RegisteredVersion | DamagedVersion], payload: str
) -> Reference:
    at_work = [move for move in moves(packages) if move.stage == stage]
    if not at_work:
        return Reference(f"no package of this model is in {stage}: edgepack package promote", None)
    package = at_work[-1].package
    value, where = metric_of(package, name, payload)
    source = f"{package}, in {at_work[-1]}, on {where}"
    return Reference(source if value is not None else f"{package} has no {name}", value, package=package)


def metric_of(package: RegisteredVersion | DamagedVersion, name: str, payload: str) -> tuple[float | None, str]:
    """A metric of a package, on the same payload if it was ever validated on that, and the raw data it is on."""
    if package.tags.get(PAYLOAD_DIGEST) != payload:
        for entry in reversed(dated_metrics(package).values()):
            value = _number(entry["metrics"].get(name))
            if entry.get("payload_digest") == payload and value is not None:
                return value, str(entry.get("raw_data", "the same raw data"))
    return _number(package.tags.get(name)), package.tags.get(RAW_DATA, "unknown raw data")


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
