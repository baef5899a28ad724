"""What a plug-in writes and reads: payload records, the package's answers, prepared data. Streams, never the whole."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepack_assets.errors import ComponentError, PluginError
from edgepack_assets.filesystem.atomic_files import file_digest
from edgepack_assets.sandbox.progress import Progress
from edgepack_assets.sandbox.value_types import from_json, to_json

_UNANSWERED = b'"outputs": null}'
"""How most lines of a state identifier's results end: not worth parsing four times."""

_BUFFER = 1 << 16
_MOST_KEPT = 1 << 22
"""Bytes of the lines with answers of one file of results that are kept in memory."""
_kept: dict[str, list[tuple[int, bytes]]] = {}
"""sha256 of a file of results -> number and text of its lines with answers. A run reads the answers of two packages
some ten times, and finding the few lines of a state identifier that answer takes as long as all the rest."""
_FILES_KEPT = 4

Record = dict[str, Any]
"""One record as the inference server would pass it to `process_input`: variable name to value. In a value of type
Binary, Object or ImageSet it may hold bytes."""

Label = str | int | float | bool
"""What is known of a record, such as the class of its image or whether it belongs to an event."""


@dataclass
class PayloadWriter:
    """Streams payload records to disk: `records` is gzipped JSON lines, one record a line; `sources` likewise
    holds {"record", "file", "label"} for each record that has a source file or a label. Never the whole payload in
    memory."""

    records: Path
    sources: Path
    count: int = 0
    sourced: int = 0
    preview: list[Record] = field(default_factory=list)
    tell: Callable[[str], object] = lambda _: None
    """Gets a line about how far it is, every ten seconds."""
    _progress: Progress | None = None
    _streams: list[Any] = field(default_factory=list)

    @contextmanager
    def open(self) -> Iterator[PayloadWriter]:
        """Open both files for the duration of the block."""
        with gzip_writer(self.records) as records, gzip_writer(self.sources) as sources:
            self._streams = [records, sources]
            self._progress = Progress(self.tell, "records")
            yield self

    def expect(self, count: int) -> None:
        """Say how many records there will be, if that is known before: messages then tell the remaining time."""
        if self._progress is not None:
            self._progress.total = count

    def add(self, record: Record, file: str | None = None, label: Label | None = None) -> None:
        """Append one record. Raises PluginError if it holds something else than JSON and bytes, or if the label is
        no text, number or boolean."""
        if not isinstance(record, dict) or not all(isinstance(name, str) for name in record):
            raise PluginError(f"record {self.count} is {record!r:.200}, not a dict with names of inputs as keys")
        try:
            line = to_json(record)
        except (TypeError, ValueError, RecursionError) as error:
            raise PluginError(f"record {self.count} is not JSON: {error}; it is {record!r:.200}") from None
        if label is not None and not isinstance(label, Label):
            raise PluginError(f"the label of record {self.count} is {label!r:.200}, not text, a number or a boolean")
        self._streams[0].write(line.encode() + b"\n")
        if len(self.preview) < 10:
            self.preview.append(from_json(line))
        if file is not None or label is not None:
            source = {"record": self.count, "file": file, "label": label}
            try:
                self._streams[1].write(json.dumps(source, allow_nan=False).encode() + b"\n")
            except (TypeError, ValueError) as error:
                raise PluginError(f"file and label of record {self.count} are not JSON: {error}") from None
            self.sourced += 1
        self._count(1)

    def add_lines(self, lines: list[str], labels: Sequence[Label | None] | None = None) -> None:
        """Append many records that are JSON text already, in one line each, without a source file. This is for
        recordings of millions of records: only the first ones are looked at here, and all of them when the component
        gets them. `labels` has one for each record, None where it is not known."""
        if not lines:
            return
        if labels is not None and len(labels) != len(lines):
            raise PluginError(f"{len(labels)} labels for {len(lines)} records from record {self.count} on")
        text = "\n".join(lines) + "\n"
        if text.count("\n") != len(lines):
            raise PluginError(f"records {self.count} to {self.count + len(lines) - 1} are not one line each")
        self._streams[0].write(text.encode())
        self._add_labels(labels or ())
        for line in lines[: 10 - len(self.preview)]:
            try:
                self.preview.append(from_json(line))
            except ValueError as error:
                raise PluginError(
                    f"record {self.count} or one after it is not JSON: {error}; it is {line!r:.200}"
                ) from None
        self._count(len(lines))

    def _count(self, more: int) -> None:
        self.count += more
        if self._progress is not None:
            self._progress.at(self.count)

    def _add_labels(self, labels: Sequence[Label | None]) -> None:
        texts: dict[tuple[type, Label], str] = {}
        lines = []
        for number, label in enumerate(labels, self.count):
            if label is None:
                continue
            kind = (type(label), label)  # True and 1 are equal
            if kind not in texts:
                if not isinstance(label, Label):
                    raise PluginError(
                        f"the label of record {number} is {label!r:.200}, not text, a number or a boolean"
                    )
                texts[kind] = json.dumps(label, allow_nan=False)
            lines.append(f'{{"record": {number}, "file": null, "label": {texts[kind]}}}\n')
        self._streams[1].write("".join(lines).encode())
        self.sourced += len(lines)


@contextmanager
def gzip_writer(path: Path) -> Iterator[gzip.GzipFile]:
    """A gzip file without name and time, so that equal content gives equal bytes."""
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", compresslevel=1, mtime=0, fileobj=raw) as stream:
        yield stream


def copy_records(records: Path, wanted: Collection[int], target: Path) -> None:
    """Write the records of these numbers into the file `target`, in their order."""
    with gzip.open(records, "rb") as lines, gzip_writer(target) as copy:
        copy.writelines(
            line for number, line in enumerate(itertools.islice(lines, max(wanted, default=-1) + 1)) if number in wanted
        )


def read_lines(path: Path, but_not_ending_with: bytes | None = None, every: int = 1) -> Iterator[Any]:
    """The JSON values of a gzipped JSON lines file, one after the other, or of one line in `every`; lines with that
    end are passed over unread. Raises ComponentError on what is no JSON: results were written by a child that is not
    trusted."""
    for number, line in _wanted_lines(path, but_not_ending_with, every):
        yield _value(path, number, line)


def _wanted_lines(path: Path, but_not_ending_with: bytes | None, every: int) -> Iterator[tuple[int, bytes]]:
    first = 0
    for lines in _blocks_of_lines(path):
        skipped = -first % every
        for number, line in zip(range(first + skipped, first + len(lines), every), lines[skipped::every], strict=True):
            if but_not_ending_with is None or not line.endswith(but_not_ending_with):
                yield number, line
        first += len(lines)


def _value(path: Path, number: int, line: bytes) -> Any:
    try:
        return from_json(line)
    except (ValueError, RecursionError) as error:
        raise ComponentError(f"{path.name}: line {number} is not JSON: {error!s:.200}") from None


def _blocks_of_lines(path: Path) -> Iterator[list[bytes]]:
    """The lines of a gzipped file without their ends. To split a block takes less time than to read each line of it,
    and most lines of results are passed over."""
    begun: list[bytes] = []  # pieces of a line that goes on
    with gzip.open(path, "rb") as unpacked:
        while block := unpacked.read(_BUFFER):
            first, *lines = block.split(b"\n")
            begun.append(first)
            if lines:
                last = lines.pop()
                yield [b"".join(begun), *lines]
                begun = [last]
    if any(begun):
        yield [b"".join(begun)]


@dataclass(frozen=True)
class Payload:
    """A finished payload, for scoring and pictures."""

    records: Path
    sources: Path
    count: int
    known_digest: str = field(default="", compare=False)
    """sha256 of `records`, where whoever opened them knows it."""

    def digest(self) -> str:
        """sha256 of `records`."""
        return self.known_digest or file_digest(self.records)

    def has_labels(self) -> bool:
        """Whether any record has a label."""
        return any(source["label"] is not None for source in read_lines(self.sources))

    def labels(self) -> dict[int, Label]:
        """Record -> its label, of the records that have one."""
        by_record = {source["record"]: source["label"] for source in read_lines(self.sources)}
        return {record: label for record, label in by_record.items() if label is not None}


@dataclass(frozen=True)
class Prepped:
    """Prepared data: the Parquet file of the columns that the plug-in's preparation gave."""

    file: Path


@dataclass(frozen=True)
class Answer:
    """What the package answered to a record: its number and its outputs and metrics by name."""

    record: int
    outputs: Record


@dataclass(frozen=True)
class Results:
    """Validation results: gzipped JSON lines {"record": n, "outputs": {...} or null}, one per payload record."""

    path: Path
    known_digest: str = field(default="", compare=False)
    """sha256 of the file, where whoever opened it knows it."""

    def digest(self) -> str:
        """sha256 of the file."""
        return self.known_digest or file_digest(self.path)

    def answers(self) -> Iterator[Answer]:
        """The records that were answered, in record order."""
        for number, line in _answered_lines(self):
            entry = _value(self.path, number, line)
            if entry["outputs"] is not None:
                yield Answer(entry["record"], entry["outputs"])


def _answered_lines(results: Results) -> Iterator[tuple[int, bytes]]:
    """Number and text of the lines that do not say that a record is unanswered. They are kept as text: whoever reads
    them gets values of their own."""
    digest = results.digest()
    if (known := _kept.get(digest)) is not None:
        yield from known
        return
    lines: list[tuple[int, bytes]] = []
    room = _MOST_KEPT
    for number, line in _wanted_lines(results.path, _UNANSWERED, 1):
        room -= len(line)
        if room >= 0:
            lines.append((number, line))
        else:
            lines.clear()
        yield number, line
    if room >= 0:
        _kept[digest] = lines
        while len(_kept) > _FILES_KEPT:
            _kept.pop(next(iter(_kept)), None)
