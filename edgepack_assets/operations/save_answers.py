"""Answers of a package as a CSV, JSON or Parquet file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgepack_assets.filesystem.atomic_files import writing

FORMATS = (".csv", ".json", ".parquet")


def save_answers(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write rows of JSON values, in the format that the file's ending names; whole or not at all. An output that is a
    list or an object stands as JSON text in CSV and Parquet. Raises EdgepackError."""
    with writing(file) as stream:
        if file.suffix.lower() == ".json":
            stream.write(json.dumps(list(rows), indent=1, ensure_ascii=False).encode())
        elif file.suffix.lower() == ".csv":
            text = io.StringIO(newline="")
            table = csv.DictWriter(text, _columns(rows))
            table.writeheader()
            table.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
            stream.write(text.getvalue().encode())
        else:
            _write_parquet(rows, stream)


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row)) or ["record"]


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value


def _write_parquet(rows: Sequence[Mapping[str, Any]], stream: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = _columns(rows)
    arrays = []
    for name in names:
        values = [_cell(row.get(name)) for row in rows]
        kinds = {type(value) for value in values if value is not None}
        if len(kinds) > 1 and not kinds <= {int, float}:  # a NaN among numbers came as text, say
            values = [None if value is None else str(value) for value in values]
        elif kinds == {int, float}:
            values = [None if value is None else float(value) for value in values]
        arrays.append(pa.array(values))
    pq.write_table(pa.Table.from_arrays(arrays, names=names), stream)
