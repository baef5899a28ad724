"""Columns of Parquet files as numpy arrays, without pandas: pyarrow's own ways (to_numpy, pa.table, pa.scalar, the
dataset module) import it where it is installed, which takes a quarter of a second that a run has better uses for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def read_columns(path: Path) -> dict[str, NDArray[Any]]:
    """The columns of a Parquet file, by name in the file's order, as `to_numpy` gives them."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        table = file.read()
    return {name: to_numpy(table[name].combine_chunks()) for name in table.column_names}


def write_columns(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays of one length as the columns of a Parquet file. Raises TypeError on what are no numbers,
    booleans or texts in one dimension."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_arrays([_to_arrow(values) for values in columns.values()], names=list(columns)), path)


def to_numpy(column: Any) -> NDArray[Any]:
    """The values of an Arrow array, read-only; numbers as float64 with NaN for nulls where there are any."""
    import numpy as np
    import pyarrow as pa

    values: NDArray[Any]
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        values = np.array(column.to_pylist(), dtype=np.str_)
    elif pa.types.is_boolean(column.type):
        values = np.from_dlpack(column.cast(pa.uint8())).astype(bool)
    elif column.null_count:
        floats = column.cast(pa.float64(), safe=False)
        present = np.from_dlpack(floats.is_valid().cast(pa.uint8())).astype(bool)
        values = np.where(
            present, np.frombuffer(floats.buffers()[1], np.float64, len(floats), floats.offset * 8), np.nan
        )
    else:
        values = np.from_dlpack(column)
    values.flags.writeable = False
    return values


def _to_arrow(values: NDArray[Any]) -> Any:
    import numpy as np
    import pyarrow as pa

    if values.ndim != 1 or values.dtype.kind not in "biufU":
        raise TypeError(f"{values.ndim} dimensions of {values.dtype}, not one of numbers, booleans or text")
    if values.dtype.kind == "b":
        packed = np.packbits(values, bitorder="little")
        return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(packed)])
    if values.dtype.kind == "U":
        texts = [text.encode() for text in values.tolist()]
        ends = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))]
        return pa.Array.from_buffers(pa.large_string(), len(texts), buffers)
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    return pa.Array.from_buffers(pa.from_numpy_dtype(native.dtype), len(native), [None, pa.py_buffer(native)])
