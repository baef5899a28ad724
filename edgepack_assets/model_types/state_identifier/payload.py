"""From a Parquet recording to payload records: exactly ph1, ph2 and ph3, one record a row, in row order."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgepack_assets.columns import to_numpy
from edgepack_assets.errors import RawDataError
from edgepack_assets.evidence import Part
from edgepack_assets.model_columns import PHASES
from edgepack_assets.model_types.base import PayloadWriter
from edgepack_assets.registry.base import files_of

COLUMNS = PHASES
_BATCH = 65_536


def write_payload(raw: Path, writer: PayloadWriter) -> dict[str, Any]:
    """Stream the rows of `raw` (a Parquet file, or a folder with one) into `writer`; facts about them.

    A missing value (null or NaN) stays one (JSON null). Raises RawDataError naming file, column and row.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = _parquet_file(raw)
    try:
        with pq.ParquetFile(path) as file:
            _check_schema(file.schema_arrow, path)
            missing = dict.fromkeys(COLUMNS, 0)
            low, high = dict.fromkeys(COLUMNS, float("inf")), dict.fromkeys(COLUMNS, float("-inf"))
            for batch in file.iter_batches(_BATCH, columns=list(COLUMNS)):
                columns = []
                for name in COLUMNS:
                    values = to_numpy(batch.column(name).cast(pa.float64(), safe=False))
                    if (infinite := np.flatnonzero(np.isinf(values))).size:
                        row = writer.count + int(infinite[0])
                        raise RawDataError(f"{path.name}: column {name} is infinite in row {row}")
                    present = values[~np.isnan(values)]
                    missing[name] += len(values) - len(present)
                    if len(present):
                        low[name], high[name] = min(low[name], present.min()), max(high[name], present.max())
                    columns.append(["null" if text == "nan" else text for text in map(repr, values.tolist())])
                writer.add_lines([f'{{"ph1": {a}, "ph2": {b}, "ph3": {c}}}' for a, b, c in zip(*columns, strict=True)])
            ignored = [name for name in file.schema_arrow.names if name not in COLUMNS]
    except (pa.ArrowException, OSError) as error:
        raise RawDataError(f"{path.name}: not a readable Parquet file: {error}") from error
    if writer.count == 0:
        raise RawDataError(f"{path.name}: the recording has no rows")
    return {
        "columns": list(COLUMNS),
        "ignored_columns": ignored,
        "missing_values": missing,
        "smallest": {name: float(value) if missing[name] < writer.count else None for name, value in low.items()},
        "largest": {name: float(value) if missing[name] < writer.count else None for name, value in high.items()},
    }


def payload_parts(facts: Mapping[str, Any]) -> list[Part]:
    """The rows of payload_data.is_sound."""
    missing = facts["missing_values"]
    return [
        Part("records", facts["records"] > 0, str(facts["records"]), "at least 1"),
        Part("columns", facts["columns"] == list(COLUMNS), ", ".join(facts["columns"]), ", ".join(COLUMNS)),
        *(
            Part(f"{name} holds values", missing[name] < facts["records"],
                 f"{facts['records'] - missing[name]} of {facts['records']} rows", "at least 1 row")
            for name in COLUMNS
        ),
    ]  # fmt: skip


def _parquet_file(raw: Path) -> Path:
    if raw.is_file():
        return raw
    found = [path for _, path in files_of(raw) if path.suffix.lower() in (".parquet", ".pq")]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise RawDataError(f"the raw data folder must hold one Parquet file, it holds {len(found)} ({names})")
    return found[0]


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
