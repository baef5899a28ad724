"""From a Parquet recording to payload records: exactly the configured channels, one record a row, in row order.

Which files a folder's recording consists of, and in which order, is part_files.py's; what else its rows say, the time
and the true state of each, is row_notes.py's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepack_assets.checks import CheckRow
from edgepack_assets.errors import RawDataError
from edgepack_assets.filesystem.parquet import to_numpy
from edgepack_assets.model_types.interface import PayloadWriter
from edgepack_assets.model_types.state_identifier.part_files import ORDER, recording_files
from edgepack_assets.model_types.state_identifier.row_notes import Clock, Labels
from edgepack_assets.model_types.state_identifier.settings import StateIdentifierSettings

_BATCH = 65_536


def write_payload(raw: Path, writer: PayloadWriter, settings: StateIdentifierSettings | None = None) -> dict[str, Any]:
    """Stream the rows of `raw` (a Parquet file, or a folder with one or with its part files) into `writer`; facts
    about them.

    A missing value (null or NaN) stays one (JSON null). Raises RawDataError naming file, column and row.
    """
    settings = settings or StateIdentifierSettings()
    paths = recording_files(raw)
    recording = _Recording(settings)
    for path in paths:
        recording.check(path)
    writer.expect(recording.rows)
    for path in paths:
        _write_rows(path, writer, recording)
    if writer.count == 0:
        raise RawDataError(f"{paths[0].name}: the recording has no rows")
    some = {name: recording.missing[name] < writer.count for name in settings.channels}
    return {
        "columns": list(settings.channels),
        "ignored_columns": recording.ignored,
        "missing_values": recording.missing,
        "smallest": {name: float(value) if some[name] else None for name, value in recording.low.items()},
        "largest": {name: float(value) if some[name] else None for name, value in recording.high.items()},
        **({"files": [path.name for path in paths], "file_order": ORDER} if len(paths) > 1 else {}),
        **(recording.clock.facts() if recording.clock else {}),
        **(recording.labels.facts() if recording.labels else {}),
    }


@dataclass
class _Recording:
    """What the files hold, as far as they are read."""

    settings: StateIdentifierSettings
    missing: dict[str, int] = field(init=False)
    low: dict[str, float] = field(init=False)
    high: dict[str, float] = field(init=False)
    ignored: list[str] = field(default_factory=list)
    rows: int = 0
    """Rows of the files that were checked."""
    first: tuple[str, dict[str, str]] | None = None
    """Name of the first file, and what its columns hold."""
    clock: Clock | None = None
    labels: Labels | None = None

    def __post_init__(self) -> None:
        settings = self.settings
        self.missing = dict.fromkeys(settings.channels, 0)
        self.low = dict.fromkeys(settings.channels, float("inf"))
        self.high = dict.fromkeys(settings.channels, float("-inf"))
        if settings.timestamp_column is not None:
            self.clock = Clock(settings.timestamp_column, settings.sampling_period_ms)
        if settings.label_column is not None:
            self.labels = Labels(settings.label_column)

    @property
    def columns(self) -> list[str]:
        """Every column that is read."""
        notes = [each.column for each in (self.clock, self.labels) if each]
        return [*self.settings.channels, *notes]

    def check(self, path: Path) -> None:
        """Hold a file's columns to what is needed, and to those of the files before it. Raises RawDataError."""
        with _opened(path) as file:
            schema = file.schema_arrow
            _check_schema(schema, path, self.settings.channels, self.columns)
            types = {name: str(schema.field(name).type) for name in self.columns}
            self.ignored += [name for name in schema.names if name not in self.columns and name not in self.ignored]
            self.rows += file.metadata.num_rows
        if self.first is None:
            self.first = (path.name, types)
        # a part file without any label says nothing of their type
        differing = [name for name in self.columns if "null" not in (types[name], self.first[1][name])]
        differing = [name for name in differing if types[name] != self.first[1][name]]
        if differing:
            first = ", ".join(f"{name} {self.first[1][name]}" for name in differing)
            ours = ", ".join(f"{name} {types[name]}" for name in differing)
            raise RawDataError(
                f"{self.first[0]} and {path.name} are part files of one recording, but their columns differ: {first} "
                f"in the one, {ours} in the other. Write all of them with the same types"
            )


def _write_rows(path: Path, writer: PayloadWriter, recording: _Recording) -> None:
    import numpy as np

    before, channels = writer.count, recording.settings.channels
    line = "{" + ", ".join(f"{json.dumps(name)}: %s" for name in channels) + "}"
    with _opened(path) as file:
        for batch in file.iter_batches(_BATCH, columns=recording.columns):
            columns, row = [], writer.count - before
            for name in channels:
                values = to_numpy(_as_doubles(batch.column(name)))
                if (infinite := np.flatnonzero(np.isinf(values))).size:
                    raise RawDataError(f"{path.name}: column {name} is infinite in row {row + int(infinite[0])}")
                present = values[~np.isnan(values)]
                recording.missing[name] += len(values) - len(present)
                if len(present):
                    recording.low[name] = min(recording.low[name], present.min())
                    recording.high[name] = max(recording.high[name], present.max())
                texts = list(map(repr, values.tolist()))
                if len(present) < len(values):
                    texts = ["null" if text == "nan" else text for text in texts]
                columns.append(texts)
            if recording.clock:
                recording.clock.read(batch.column(recording.clock.column), path.name, row)
            labels = (
                recording.labels.read(batch.column(recording.labels.column), path.name, row)
                if recording.labels
                else None
            )
            writer.add_lines(list(map(line.__mod__, zip(*columns, strict=True))), labels)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise RawDataError(f"{path.name}: not a readable Parquet file: {error}") from error


def _as_doubles(column: Any) -> Any:
    """The column's numbers as the nearest doubles."""
    import pyarrow as pa

    if pa.types.is_decimal(column.type):
        # Arrow's own way multiplies by a power of ten, which rounds a second time; its way from text rounds once.
        column = column.cast(pa.string())
    return column.cast(pa.float64(), safe=False)


def payload_rows(facts: Mapping[str, Any]) -> list[CheckRow]:
    """The rows of payload_data.is_sound."""
    missing, columns = facts["missing_values"], facts["columns"]
    rows = [
        CheckRow("records", facts["records"] > 0, str(facts["records"]), "at least 1"),
        CheckRow("columns", list(missing) == columns, ", ".join(columns), ", ".join(missing)),
        *(
            CheckRow(f"{name} holds values", missing[name] < facts["records"],
                 f"{facts['records'] - missing[name]} of {facts['records']} rows", "at least 1 row")
            for name in columns
        ),
    ]  # fmt: skip
    if "labelled" in facts:
        labels = facts["labels"]
        rows.append(
            CheckRow("labelled rows", facts["labelled"] > 0, f"{facts['labelled']} of {facts['records']} rows", "some")
        )
        rows.append(CheckRow("labels", len(labels) > 1, str(len(labels)), "at least 2 different ones", warns=True))
    return rows


def _check_schema(schema: Any, path: Path, channels: tuple[str, ...], columns: list[str]) -> None:
    import pyarrow as pa

    for name in columns:
        count = schema.names.count(name)
        if count != 1:
            raise RawDataError(
                f"{path.name}: column {name} {'is missing' if not count else 'stands twice'}; the columns are: "
                f"{', '.join(schema.names) or 'none'}"
            )
        kind = schema.field(name).type
        if name in channels and not (
            pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        ):
            raise RawDataError(f"{path.name}: column {name} holds {kind}, not numbers")
