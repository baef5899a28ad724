"""The interface between the packaging job and a use case.

A model type says how raw data becomes payload records, what of a registered model ships to the edge, what
its component declares, and how the answers are scored and shown. It never runs model code itself: functions
in its `child_tasks.py` and the files in its `component/` do, in a child process in the component's own
environment. Modules here must not import pandas, scikit-learn, matplotlib or simaticai at load time.
"""

from __future__ import annotations

import gzip
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from edgepack_assets.checks import CheckRow
from edgepack_assets.config.schema import ModelTypeSettings
from edgepack_assets.errors import ComponentError
from edgepack_assets.sandbox.untrusted_values import UntrustedReport

_UNANSWERED = b'"outputs": null}\n'
"""How most lines of a state identifier's results end: not worth parsing four times."""

Record = dict[str, Any]
"""One record as the inference server would pass it to `process_input`: variable name to value."""


@dataclass(frozen=True)
class Variable:
    """An input or output of the component: name, SDK type (Double, Integer, String, ...), description."""

    name: str
    type: str
    description: str = ""


@dataclass(frozen=True)
class Parameter:
    """A pipeline parameter that can be changed while the pipeline runs."""

    name: str
    type: str
    default: int | float | str | bool
    description: str = ""


@dataclass(frozen=True)
class ComponentSpec:
    """What the component declares to the server. `periodicity` is in milliseconds, None without timeshifting."""

    description: str
    inputs: tuple[Variable, ...]
    outputs: tuple[Variable, ...]
    metrics: tuple[Variable, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    periodicity: int | None = None


@dataclass(frozen=True)
class ModelSource:
    """What a registered model holds, found without executing any of it.

    `files`: path inside the component -> file to ship (the model and its own code). `model`: what the
    component must know to load it, shipped as model.json. `requirements`: PEP 508 lines. `python_version`:
    the `3.x` the model was saved with, or None where it does not say. `constraints`: PEP 508 lines that bound the
    packages which others need. `saved_versions`: distribution, or `python` -> the version that the model says it was
    saved with. `parts`: what of the model's files was passed over, as rows of config_package.is_fit.
    """

    files: Mapping[str, Path]
    model: Mapping[str, Any]
    requirements: tuple[str, ...]
    python_version: str | None
    constraints: tuple[str, ...] = ()
    saved_versions: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[CheckRow, ...] = ()


@dataclass
class PayloadWriter:
    """Streams payload records to disk: `records` is gzipped JSON lines, one record a line; `sources` likewise
    holds {"record", "file", "label"} for each record that has a source file. Never the whole payload in memory."""

    records: Path
    sources: Path
    count: int = 0
    sourced: int = 0
    preview: list[Record] = field(default_factory=list)
    _streams: list[Any] = field(default_factory=list)

    @contextmanager
    def open(self) -> Iterator[PayloadWriter]:
        """Open both files for the duration of the block."""
        with gzip_writer(self.records) as records, gzip_writer(self.sources) as sources:
            self._streams = [records, sources]
            yield self

    def add(self, record: Record, file: str | None = None, label: int | None = None) -> None:
        """Append one record."""
        self.add_line(json.dumps(record, allow_nan=False), file, label)

    def add_line(self, line: str, file: str | None = None, label: int | None = None) -> None:
        """Append one record that is JSON text already."""
        self._streams[0].write(line.encode() + b"\n")
        if len(self.preview) < 10:
            self.preview.append(json.loads(line))
        if file is not None:
            source = {"record": self.count, "file": file, "label": label}
            self._streams[1].write(json.dumps(source).encode() + b"\n")
            self.sourced += 1
        self.count += 1

    def add_lines(self, lines: list[str]) -> None:
        """Append many records that are JSON text already and have no source file."""
        if not lines:
            return
        self._streams[0].write(("\n".join(lines) + "\n").encode())
        for line in lines[: 10 - len(self.preview)]:
            self.preview.append(json.loads(line))
        self.count += len(lines)


@contextmanager
def gzip_writer(path: Path) -> Iterator[gzip.GzipFile]:
    """A gzip file without name and time, so that equal content gives equal bytes."""
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", compresslevel=1, mtime=0, fileobj=raw) as stream:
        yield stream


def read_lines(path: Path, but_not_ending_with: bytes | None = None, every: int = 1) -> Iterator[Any]:
    """The JSON values of a gzipped JSON lines file, one after the other, or of one line in `every`; lines with that
    end are passed over unread. Raises ComponentError on what is no JSON: results were written by a child that is not
    trusted."""
    with gzip.open(path, "rb") as stream:
        for number, line in enumerate(stream):
            if number % every or (but_not_ending_with is not None and line.endswith(but_not_ending_with)):
                continue
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ComponentError(f"{path.name}: line {number} is not JSON: {error!s:.200}") from None


@dataclass(frozen=True)
class Payload:
    """A finished payload, for scoring and pictures."""

    records: Path
    sources: Path
    count: int


@dataclass(frozen=True)
class Prepped:
    """Prepped data: a Parquet file with the column `record` (number of the record that completes the window)
    and one column per feature."""

    features: Path


@dataclass(frozen=True)
class Answer:
    """What the package answered to a record: its number and its outputs and metrics by name."""

    record: int
    outputs: Record


@dataclass(frozen=True)
class Results:
    """Validation results: gzipped JSON lines {"record": n, "outputs": {...} or null}, one per payload record."""

    path: Path

    def answers(self) -> Iterator[Answer]:
        """The records that were answered, in record order."""
        for entry in read_lines(self.path, but_not_ending_with=_UNANSWERED):
            if entry["outputs"] is not None:
                yield Answer(entry["record"], entry["outputs"])


@dataclass(frozen=True)
class Score:
    """Metrics of a package. `parts` are what must hold before any gate is looked at (e.g. as many answers as
    windows). `tables` maps a title to rows, `pictures` a title to PNG bytes."""

    metrics: Mapping[str, float]
    parts: tuple[CheckRow, ...]
    tables: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)


class Trial(ABC):
    """Something to try with the packaged model in the sandbox: `function` of child_tasks.py with `arguments` and the
    files `inputs`, and what its answer means."""

    function: ClassVar[str]
    arguments: Mapping[str, Any]
    inputs: Mapping[str, Path]

    @abstractmethod
    def rows(self, told: object) -> tuple[list[CheckRow], list[dict[str, Any]]]:
        """Rows of the check, which only warn, and a table. Raises ComponentError where `told` is not what the function
        returns."""


class ModelType(ABC):
    """A use case. `folder` holds component/ (ships to the edge) and child_tasks.py (runs in the child).

    child_tasks.py defines `inspect_model(arguments) -> dict`, where `prepares_data` also `prepare(arguments) -> dict`,
    and the functions of its trials. They run with the component's folder as working directory and first on sys.path,
    and return JSON.
    """

    name: ClassVar[str]
    metric_names: ClassVar[frozenset[str]]
    lower_is_better: ClassVar[frozenset[str]] = frozenset()
    """Those of `metric_names` that are worse the higher they are."""
    prepares_data: ClassVar[bool]
    inspection: ClassVar[type[UntrustedReport]]
    """The shape of what `inspect_model` tells."""
    host_imports: ClassVar[tuple[str, ...]]
    """Modules that payload, scoring and pictures import here, which a run may import ahead."""
    child_imports: ClassVar[Mapping[str, tuple[str, ...]]]
    """Distribution name -> modules that a child may import ahead of its job when the lock holds it."""

    @property
    def folder(self) -> Path:
        """The folder of this implementation."""
        return Path(__file__).parent / self.name

    @abstractmethod
    def write_payload(self, raw: Path, tags: Mapping[str, str], writer: PayloadWriter) -> dict[str, Any]:
        """Turn raw data (a file or folder) into payload records and return facts about them (JSON).

        Raises RawDataError naming the file, column and row that is wrong."""

    @abstractmethod
    def payload_rows(self, facts: Mapping[str, Any]) -> list[CheckRow]:
        """What must hold for the payload, from the facts of `write_payload` plus `records`, their number."""

    @abstractmethod
    def read_model(self, model: Path, entry: ModelTypeSettings) -> ModelSource:
        """Find out what of the registered model (a file or folder) ships. Executes none of it.

        Raises ModelError saying what the model lacks and what to do."""

    @abstractmethod
    def component_spec(self, inspection: Mapping[str, Any]) -> ComponentSpec:
        """What the component declares, given what `inspect_model` told."""

    def inspection_rows(self, inspection: Mapping[str, Any], entry: ModelTypeSettings) -> list[CheckRow]:
        """Rows of the config package's check on what inspecting the model told: what is only assumed, for example."""
        return []

    def trial(
        self, payload: Payload, results: Results, inspection: Mapping[str, Any], entry: ModelTypeSettings, work: Path
    ) -> Trial | None:
        """What to try on the packaged model beside what it answered; None where there is nothing to find out."""
        return None

    @abstractmethod
    def score(
        self, payload: Payload, results: Results, prepped: Prepped | None, inspection: Mapping[str, Any]
    ) -> Score:
        """The metrics of the package's answers."""

    @abstractmethod
    def prepped_picture(self, prepped: Prepped) -> bytes:
        """A PNG of the features; only called where `prepares_data`."""

    @abstractmethod
    def results_picture(self, payload: Payload, results: Results, inspection: Mapping[str, Any]) -> bytes:
        """A PNG of the answers."""
