"""Running a stamped package before it is registered: it must answer as was validated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.environments.environment import Environment
from edgepack_assets.environments.lock import Lock
from edgepack_assets.errors import PackageError
from edgepack_assets.model_types.interface import read_lines
from edgepack_assets.packaging.stamp import PACKAGES
from edgepack_assets.partitions import ModelKey
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.package_run import run_package
from edgepack_assets.tasks.payload_data import open_payload

ANSWERS_TO_COMPARE = 2
TOLERANCE = 1e-9
"""Relative difference allowed between floats of two runs of the same bytes on the same machine."""


def execute(  # noqa: PLR0917 - what is run, and what it is held to
    key: ModelKey, package: Path, digests: Mapping[str, str], payload_data: Artefact, validation_results: Artefact,
    lock: Lock, context: TaskContext, server: Environment | None = None,
) -> None:  # fmt: skip
    """Run a stamped package over the payload's first records, until it gave two answers, or over the whole payload if
    it has fewer or the configuration says so. The outputs must be those that were validated. `digests` are those
    of its files, as `stamp.contents` read them; `server` is the environment of its GPU component.

    Raises PackageError naming the record that differs, TaskFailedError or ComponentError."""
    payload = open_payload(payload_data, context)
    enough = None if context.entry(key).run_whole_payload else ANSWERS_TO_COMPARE
    wheels: dict[str, dict[str, str]] = {}
    for name, digest in digests.items():
        inside, between, wheel = name.partition(f"/{PACKAGES}/")
        if between:
            wheels.setdefault(inside, {})[wheel] = digest
    with context.work_folder() as work:
        run, _ = run_package(
            f"running {package.name} of {key}", package, context.environment(lock), payload, key, work, context,
            server=server, wheels=wheels, until_answers=enough,
        )  # fmt: skip
        validated = context.results_of(validation_results)
        answered = _compare(package.name, run.results, validated.path, run.records)
    if run.records != payload.count and (enough is None or answered < enough):
        raise PackageError(f"{package.name} stopped after {run.records} of {payload.count} records")
    if answered == 0:
        raise PackageError(f"{package.name} answered none of {run.records} records")
    context.log.info(f"{package.name} was run over {run.records} records: outputs equal the validated ones")


def _compare(name: str, run: Path, validated: Path, records: int) -> int:
    """How many answers the run gave, each the validated one."""
    answered = 0
    theirs = read_lines(validated)
    for number, ours in zip_longest(range(records), read_lines(run)):
        entry = next(theirs, None)
        if not equal(ours, entry):
            raise PackageError(
                f"{name} answers record {number} with {_outputs(ours)}, but was validated with {_outputs(entry)}"
            )
        answered += ours["outputs"] is not None
    return answered


def _outputs(entry: Any) -> object:
    return entry["outputs"] if isinstance(entry, dict) and "outputs" in entry else "nothing"


def equal(ours: Any, theirs: Any) -> bool:
    """Whether two JSON values are the same: text, integers, true and null exactly, floats within TOLERANCE."""
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(equal(ours[name], theirs[name]) for name in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(equal, ours, theirs))
    if isinstance(ours, float):
        return math.isclose(ours, theirs, rel_tol=TOLERANCE)
    return bool(ours == theirs)
