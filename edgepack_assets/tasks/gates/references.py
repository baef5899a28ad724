"""What each gate with a reference is compared with: a package of the registry, or the model's training.

Tags are read as packages/history.py reads them. How values are compared is in compare.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.config.gate_settings import STAGES
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import DamagedVersion, Kind, RegisteredVersion, damaged_in_words, refuse_unread
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.gates.compare import Reference
from edgepack_assets.tasks.packages.history import as_number, by_model_version, metric_of
from edgepack_assets.tasks.packages.stages import moves
from edgepack_assets.tasks.packages.tags import ARCHIVED


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
            value = as_number(model.tags.get(name))
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
