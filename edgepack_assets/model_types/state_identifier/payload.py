"""From a Parquet recording to payload records: exactly ph1, ph2 and ph3, one record a row, in row order.

Which files a folder's recording consists of, and in which order, is part_files.py's."""

from __future__ import annotations

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
from edgepack_assets.model_types.state_identifier.settings import PHASES

COLUMNS = PHASES
_BATCH = 65_536


def write_payload(raw: Path, writer: PayloadWriter) -> dict[str, Any]:
    """Stream the rows of `raw` (a Parquet file, or a folder with one or with its part files) into `writer`; facts
    about them.

    A missing value (null or NaN) stays one (JSON null). Raises RawDataError naming file, column and row.
    """
    paths = recording_files(raw)
    seen = _Seen()
    for path in paths:
        seen.check(path)
        _write_rows(path, writer, seen)
    if writer.count == 0:
        raise RawDataError(f"{paths[0].name}: the recording has no rows")
    some = {name: seen.missing[name] < writer.count for name in COLUMNS}
    return {
        "columns": list(COLUMNS),
        "ignored_columns": seen.ignored,
        "missing_values": seen.missing,
        "smallest": {name: float(value) if some[name] else None for name, value in seen.low.items()},
        "largest": {name: float(value) if some[name] else None for name, value in seen.high.items()},
        **({"files": [path.name for path in paths], "file_order": ORDER} if len(paths) > 1 else {}),
    }


@dataclass
class _Seen:
    """What the files hold, as far as they are read."""

    missing: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COLUMNS, 0))
    low: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COLUMNS, float("inf")))
    high: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COLUMNS, float("-inf")))
    ignored: list[str] = field(default_factory=list)
    first: tuple[str, dict[str, str]] | None = None
    """Name of the first file, and what its columns hold."""

    def check(self, path: Path) -> None:
        """Hold a file's columns to what is needed, and to those of the files before it. Raises RawDataError."""
        with _opened(path) as file:
            schema = file.schema_arrow
            _check_schema(schema, path)
            types = {name: str(schema.field(name).type) for name in COLUMNS}
            self.ignored += [name for name in schema.names if name not in COLUMNS and name not in self.ignored]
        if self.first is None:
            self.first = (path.name, types)
        differing = [name for name in COLUMNS if types[name] != self.first[1][name]]
        if differing:
            first = ", ".join(f"{name} {self.first[1][name]}" for name in differing)
            ours = ", ".join(f"{name} {types[name]}" for name in differing)
            raise RawDataError(
                f"{self.first[0]} and {path.name} are part files of one recording, but their columns differ: {first} "
                f"in the one, {ours} in the other. Write all of them with the same types"
            )


def _write_rows(path: Path, writer: PayloadWriter, seen: _Seen) -> None:
    import numpy as np

    before = writer.count
    with _opened(path) as file:
        for batch in file.iter_batches(_BATCH, columns=list(COLUMNS)):
            columns = []
            for name in COLUMNS:
                values = to_numpy(_as_doubles(batch.column(name)))
                if (infinite := np.flatnonzero(np.isinf(values))).size:
                    row = writer.count - before + int(infinite[0])
                    raise RawDataError(f"{path.name}: column {name} is infinite in row {row}")
                present = values[~np.isnan(values)]
                seen.missing[name] += len(values) - len(present)
                if len(present):
                    seen.low[name] = min(seen.low[name], present.min())
                    seen.high[name] = max(seen.high[name], present.max())
                columns.append(["null" if text == "nan" else text for text in map(repr, values.tolist())])
            writer.add_lines([f'{{"ph1": {a}, "ph2": {b}, "ph3": {c}}}' for a, b, c in zip(*columns, strict=True)])


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
    missing = facts["missing_values"]
    return [
        CheckRow("records", facts["records"] > 0, str(facts["records"]), "at least 1"),
        CheckRow("columns", facts["columns"] == list(COLUMNS), ", ".join(facts["columns"]), ", ".join(COLUMNS)),
        *(
            CheckRow(f"{name} holds values", missing[name] < facts["records"],
                 f"{facts['records'] - missing[name]} of {facts['records']} rows", "at least 1 row")
            for name in COLUMNS
        ),
    ]  # fmt: skip


def _check_schema(schema: Any, path: Path) -> None:
    import pyarrow as pa

    for name in COLUMNS:
        count = schema.names.count(name)
        if count != 1:
            raise RawDataError(
                f"{path.name}: column {name} {'is missing' if not count else 'stands twice'}; the columns are: "
                f"{', '.join(schema.names) or 'none'}"
            )
        kind = schema.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            raise RawDataError(f"{path.name}: column {name} holds {kind}, not numbers")
