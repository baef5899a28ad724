"""What registered packages answered to a payload, kept in the artefact store: each is run once, although several steps
and later runs need its answers.

The key is made of everything that the answers depend on: the package, its locks and the payload's records. What was not
used for long is garbage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from edgepack_assets.artefacts.artefact import Blob, canonical_json
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.errors import CorruptError
from edgepack_assets.model_types.interface import Results
from edgepack_assets.tasks.payload_data import JSON_LINES

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


def kept_answers(key: str, store: ArtefactStore, log: Any) -> Results | None:
    """The results that are kept under `key`, verified; None if there are none, or no sound ones."""
    document = store.get_named(KIND, key)
    if document is None:
        return None
    try:
        blob = _Answers.model_validate(document).outputs[_RESULTS]
        return Results(store.fetch(blob), blob.digest)
    except (ValidationError, KeyError, CorruptError) as error:
        log.warning(f"what was kept of a package's answers cannot be used, so it is run again: {error}")
        return None


def keep_answers(key: str, results: Path, store: ArtefactStore) -> None:
    """Keep the results of a run. What is there already stays."""
    answers = _Answers(outputs={_RESULTS: store.put_file(results, JSON_LINES)})
    store.put_named(KIND, key, answers.model_dump(mode="json"))
