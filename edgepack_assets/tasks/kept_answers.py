"""What packages answered to a payload: each is run once, although several steps need its answers.

Those of a registered package are kept in the artefact store, for later runs too. The key is made of everything that the
answers depend on: the package, its locks and the payload's records. What was not used for long is garbage.

Those of the config package that is being made are remembered until Dagster's run ends: where config_package has
compared the very zip that ships with the package before, on this payload, validation_results takes what it gave. A run
of validation_results alone runs the package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from edgepack_assets.artefacts.artefact import Blob, canonical_json
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.environments.lock import Lock
from edgepack_assets.errors import CorruptError
from edgepack_assets.packaging.component_runs import PackageRun
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.payload_data import JSON_LINES

TIMES = "application/octet-stream"

KIND = "answers"
"""Kind of the store's documents that say what a package answered."""
_FORMAT = 1
_RESULTS = "results"


class _Answers(BaseModel):
    """The document: the files that a run gave."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    outputs: dict[str, Blob]


def answers_key(package_digest: str, locks: Sequence[str], records: Blob) -> str:
    """The key of what a package answers: its digest, the digests of its locks, and the records of the payload."""
    return hashlib.sha256(canonical_json([_FORMAT, package_digest, list(locks), records.digest])).hexdigest()


def kept_answers(key: str, store: ArtefactStore, log: Any) -> Path | None:
    """The results that are kept under `key`, verified; None if there are none, or no sound ones."""
    document = store.get_named(KIND, key)
    if document is None:
        return None
    try:
        return store.fetch(_Answers.model_validate(document).outputs[_RESULTS])
    except (ValidationError, KeyError, CorruptError) as error:
        log.warning(f"what was kept of a package's answers cannot be used, so it is run again: {error}")
        return None


def keep_answers(key: str, results: Path, store: ArtefactStore) -> None:
    """Keep the results of a run. What is there already stays."""
    answers = _Answers(outputs={_RESULTS: store.put_file(results, JSON_LINES)})
    store.put_named(KIND, key, answers.model_dump(mode="json"))


def remember_run(zip_digest: str, records: Blob, lock: Lock, run: PackageRun, context: TaskContext) -> None:
    """Remember what a config package of one component gave, until Dagster's run ends."""
    files = context.store.put_file(run.results, JSON_LINES), context.store.put_file(run.times, TIMES)
    context.answered[zip_digest, records.digest, lock.digest] = run, *files


def remembered_run(zip_digest: str, records: Blob, lock: Lock, context: TaskContext) -> PackageRun | None:
    """What `remember_run` was given for these, if it was and is still there."""
    known = context.answered.get((zip_digest, records.digest, lock.digest))
    if known is None:
        return None
    run, results, times = known
    try:
        return replace(run, results=context.store.fetch(results), times=context.store.fetch(times))
    except CorruptError as error:
        context.log.warning(f"what the package gave in config_package cannot be used, so it is run again: {error}")
        return None
