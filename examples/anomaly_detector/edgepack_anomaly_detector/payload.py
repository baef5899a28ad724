"""From a Parquet file to payload records: the named columns, one record a row; the event column is the label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgepack_assets.model_types.interface import PayloadWriter, RawDataError


def write_payload(raw: Path, writer: PayloadWriter, columns: Sequence[str], event_column: str) -> dict[str, Any]:
    """Write the records. A missing value stays one. Raises RawDataError naming file, column and row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = _parquet_file(raw)
    events = 0
    try:
        with pq.ParquetFile(file) as table:
            _check_columns(file.name, table.schema_arrow, columns, event_column)
            for batch in table.iter_batches(columns=[*columns, event_column]):
                values = [batch.column(name).cast(pa.float64(), safe=False).to_pylist() for name in columns]
                for event, *row in zip(batch.column(event_column).to_pylist(), *values, strict=True):
                    if event is None:
                        raise RawDataError(f"{file.name}: column {event_column} has no value in row {writer.count}")
                    writer.add({n: _number(v, n, file, writer) for n, v in zip(columns, row, strict=True)}, label=event)
                    events += event
    except (pa.ArrowException, OSError) as error:
        raise RawDataError(f"{file.name}: not a readable Parquet file: {error}") from error
    return {"columns": list(columns), "events": events}


def _number(value: float | None, column: str, file: Path, writer: PayloadWriter) -> float | None:
    if value is None or math.isnan(value):
        return None
    if math.isinf(value):
        raise RawDataError(f"{file.name}: column {column} is infinite in row {writer.count}")
    return value


def _parquet_file(raw: Path) -> Path:
    found = [raw] if raw.is_file() else sorted(raw.glob("*.parquet"))
    if len(found) != 1:
        raise RawDataError(f"{raw.name}: holds {len(found)} Parquet files; register one")
    return found[0]


def _check_columns(file: str, schema: Any, columns: Sequence[str], event_column: str) -> None:
    import pyarrow as pa

    for name in [*columns, event_column]:
        if schema.names.count(name) != 1:
            raise RawDataError(
                f"{file}: column {name} is missing or stands twice; the columns are: {', '.join(schema.names)}. Name "
                "others under `settings` of the model type in edgepack.yaml"
            )
        kind = schema.field(name).type
        if name == event_column and not pa.types.is_boolean(kind):
            raise RawDataError(f"{file}: column {name} holds {kind}; events are Booleans")
        if name != event_column and not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise RawDataError(f"{file}: column {name} holds {kind}, not numbers")
