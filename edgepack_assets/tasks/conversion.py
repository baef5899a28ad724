"""Models that are converted before they ship: converting one for its config package, and comparing what the package
answers with what the model answers as it was registered.

The config package keeps the registered model's files, and the locks of the environments that its conversion used, so
that the comparison is with these very bytes by these very libraries.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict

from edgepack_assets.artefacts.artefact import Artefact, Blob
from edgepack_assets.environments.lock import Lock
from edgepack_assets.errors import StaleError
from edgepack_assets.model_types.interface import Compared, Comparison, ModelSource, Payload, Results
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import files_of
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.side_jobs import SideJobRunner

PART = "conversion"
_ORIGINAL = "original"
_FILE = "application/octet-stream"


class UsedLock(BaseModel):
    """A lock, and the requirements as they were asked for: the lock's own have one spelling."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    asked: tuple[str, ...]
    lock: Lock


class ConversionRecord(BaseModel):
    """The part `conversion` of a config package. `jobs` are the keys of what its side jobs gave, `folders` the names in
    the original that stand for folders."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    record: dict[str, Any]
    locks: list[UsedLock]
    jobs: list[str]
    folders: list[str]


@dataclass(frozen=True)
class Shipping:
    """What ships of a model, converted if need be. `parts` and `facts` belong into the config package's artefact,
    `metadata` into the UI."""

    source: ModelSource
    parts: Mapping[str, Blob] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str | int | float | bool] = field(default_factory=dict)


def convert_model(key: ModelKey, source: ModelSource, context: TaskContext, work: Path) -> Shipping:
    """What ships of `source`. Raises ModelError, EnvironmentBuildError, ComponentError, RawDataError."""
    if source.conversion is None:
        return Shipping(source)
    folder = _new_folder(work, "conversion")
    jobs = SideJobRunner(key, context, folder)
    converted = context.model_type(key).convert(source, jobs, folder)
    record = ConversionRecord(
        record=dict(converted.record),
        locks=[UsedLock(asked=asked, lock=lock) for asked, lock in jobs.used.items()],
        jobs=jobs.done,
        folders=sorted(name for name, path in converted.original.items() if path.is_dir()),
    )
    parts = {PART: context.store.put_json(record.model_dump(mode="json"))}
    for name, path in converted.original.items():
        for below, file in files_of(path):
            parts[f"{_ORIGINAL}/{name}/{below}"] = context.store.put_file(file, _FILE, is_final=True)
    facts = {"representative_data": jobs.representative} if jobs.representative else {}
    return Shipping(converted.source, parts, facts, {**converted.metadata, **_in_words(facts)})


def compare_answers(
    key: ModelKey, config_package: Artefact, context: TaskContext, work: Path, *,
    component: Path, payload: Payload, results: Results, inspection: Mapping[str, Any],
) -> Comparison:  # fmt: skip
    """Compare the package's `results` with the original's answers, where the model was converted; without rows where
    it was not. `component` is the packaged component's folder."""
    if PART not in config_package.parts:
        return Comparison((), ())
    document = ConversionRecord.model_validate(context.store.read_json(config_package.parts[PART]))
    folder = _new_folder(work, "comparison")
    jobs = SideJobRunner(key, context, folder, {used.asked: used.lock for used in document.locks})
    original = _restored(key, config_package, set(document.folders), context, folder)
    compared = Compared(document.record, original, component, payload, results, inspection)
    return context.model_type(key).compare(compared, context.entry(key), jobs, folder)


def _restored(
    key: ModelKey, config_package: Artefact, folders: set[str], context: TaskContext, work: Path
) -> dict[str, Path]:
    restored: dict[str, Path] = {}
    for part, blob in config_package.parts.items():
        top, _, below = part.partition("/")
        if top != _ORIGINAL:
            continue
        name, _, inner = below.partition("/")
        if not inner or ".." in PurePosixPath(inner).parts:
            raise StaleError(f"config_package of {key} has a part {part!r}: materialize it again")
        target = work / _ORIGINAL / name / inner
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(context.store.fetch(blob), target)
        restored[name] = work / _ORIGINAL / name if name in folders else target
    return restored


def _new_folder(work: Path, name: str) -> Path:
    folder = work / name
    folder.mkdir()
    return folder


def _in_words(facts: Mapping[str, Any]) -> dict[str, str]:
    raw = facts.get("representative_data")
    return {"representative_data": f"{raw['name']}:{raw['version']}"} if raw else {}
