"""From the registry's raw data to payload records."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import IO, Any

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.checks import CheckRow
from edgepack_assets.errors import RawDataError
from edgepack_assets.filesystem.atomic_files import is_leftover, is_lfs_pointer
from edgepack_assets.model_types.interface import Payload, PayloadWriter, Record
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind, damaged_above, damaged_in_words, files_of, resolve
from edgepack_assets.tasks.ahead import background_imports
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.failed_checks import failed_rows
from edgepack_assets.tasks.output_files import IsOurs, OutputFile
from edgepack_assets.text_format import format_size

JSON_LINES = "application/x-ndjson+gzip"


@dataclass(frozen=True)
class PayloadReport:
    """What a person sees of a payload."""

    rows: list[CheckRow]
    preview: list[Record]


def copies_in(store: ArtefactStore) -> IsOurs:
    """Whether a file is a copy of what the artefact store holds, and may be replaced by another copy."""

    def is_a_copy(stream: IO[bytes]) -> bool:
        return store.has(hashlib.file_digest(stream, "sha256").hexdigest())  # type: ignore[arg-type]

    return is_a_copy


def make_payload(
    key: ModelKey, context: TaskContext, copy_to: OutputFile | None = None
) -> tuple[Artefact, PayloadReport]:
    """Download the configured raw data and turn it into records, each with its number.

    "latest" is resolved here, once, and pinned in the facts. `copy_to` gets the records too, if given; only a file
    whose bytes are in the artefact store, as those of an earlier copy are, is replaced.
    Raises RawDataError, NotFoundError, CorruptError, ConfigError.
    """
    is_a_copy = copies_in(context.store)
    if copy_to is not None:
        copy_to.prepare(is_a_copy)
    entry, implementation = context.entry(key), context.model_type(key)
    raw = resolve(context.registry, Kind.DATA, entry.raw_data.name, entry.raw_data.version).resolve()
    context.log.info(f"raw data {raw}, {format_size(raw.size)}")
    if entry.raw_data.version == "latest" and (damaged := damaged_above(context.registry, raw)):
        context.log.warning(f"{raw} is the latest raw data that can be read: {damaged_in_words(damaged)}")
    with context.work_folder() as work:
        path = context.registry.download(raw, work / "raw")
        _refuse_pointers(path, str(raw))
        writer = PayloadWriter(
            work / "records", work / "sources", tell=lambda line: context.log.info(f"making the payload: {line}")
        )
        background_imports.finish()
        with writer.open():
            written = implementation.write_payload(path, raw.tags, writer, entry)
        facts = {
            **written,
            "records": writer.count,
            "sourced": writer.sourced,
            "raw_data": {"name": raw.name, "version": raw.version, "digest": raw.digest},
        }
        rows = implementation.payload_rows(facts)
        artefact = Artefact(
            asset="payload_data",
            partition=str(key),
            parts={
                "records": context.store.put_file(writer.records, JSON_LINES),
                "sources": context.store.put_file(writer.sources, JSON_LINES),
            },
            facts={**facts, **failed_rows(rows)},
            made_from={"raw_data": raw.digest},
        )
        if copy_to is not None:
            with writer.records.open("rb") as source:
                copy_to.write(is_a_copy, partial(shutil.copyfileobj, source))
    return artefact, PayloadReport(rows, writer.preview)


def _refuse_pointers(path: Path, raw: str) -> None:
    for name, file in files_of(path):
        if not is_leftover(PurePath(name)) and is_lfs_pointer(file):
            raise RawDataError(
                f"{raw}: {name} is a Git LFS pointer, not the file itself; run `git lfs pull` where it was cloned, and "
                "add the data again"
            )


def open_payload(artefact: Artefact, context: TaskContext) -> Payload:
    """The payload of an artefact as local files."""
    fetch, records = context.store.fetch, artefact.parts["records"]
    return Payload(fetch(records), fetch(artefact.parts["sources"]), artefact.facts["records"], records.digest)


def raw_data_of(artefact: Artefact) -> Mapping[str, Any]:
    """Name, version and digest of the raw data that a payload was made from."""
    raw: Mapping[str, Any] = artefact.facts["raw_data"]
    return raw
