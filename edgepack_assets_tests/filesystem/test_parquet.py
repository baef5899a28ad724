"""Columns come back as they were written, and pandas stays out of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import hypothesis.extra.numpy as arrays
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack_assets.filesystem.parquet import read_columns, to_numpy, write_columns

NUMBERS = st.one_of(arrays.integer_dtypes(endianness="?"), arrays.floating_dtypes(endianness="?", sizes=(32, 64)))


@given(values=arrays.arrays(NUMBERS, st.integers(0, 40)), step=st.integers(1, 3))
def test_numbers_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, values: np.ndarray, step: int
) -> None:
    path = tmp_path_factory.mktemp("columns") / "some.parquet"
    write_columns(path, {"all": values[::step], "first": values[::step]})
    found = read_columns(path)
    assert list(found) == ["all", "first"]
    for column in found.values():
        np.testing.assert_array_equal(column, values[::step])
        assert column.dtype == values.dtype.newbyteorder("=")


@given(
    values=st.lists(st.none() | st.floats(width=32) | st.integers(-(2**50), 2**50).map(float)),
    start=st.integers(0, 5),
)
def test_a_null_is_nan_wherever_a_column_is_cut(values: list[float | None], start: int) -> None:
    column = pa.array(values, pa.float64()).slice(start)
    np.testing.assert_array_equal(to_numpy(column), np.array(values, float)[start:])


@given(
    values=st.lists(st.booleans(), max_size=40).map(lambda found: np.array(found, bool))
    | st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=20).map(
        lambda found: np.array(found, np.str_)
    )
)
def test_booleans_and_texts_come_back(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("columns") / "some.parquet"
    write_columns(path, {"some": values})
    np.testing.assert_array_equal(read_columns(path)["some"], values)
    assert read_columns(path)["some"].dtype.kind == values.dtype.kind


@pytest.mark.parametrize("values", [np.array([b"bytes"]), np.zeros((2, 2)), np.zeros(2, complex)])
def test_what_is_no_column_of_numbers_booleans_or_texts_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    with pytest.raises(TypeError, match=re.escape(str(values.dtype))):
        write_columns(tmp_path / "some.parquet", {"odd": values})
    assert not (tmp_path / "some.parquet").exists()


def test_pandas_is_not_imported(tmp_path: Path) -> None:
    code = (
        "import sys, numpy\n"
        "from pathlib import Path; from edgepack_assets.filesystem.parquet import *\n"
        "write_columns(Path('x'), {'x': numpy.arange(3.0)}); read_columns(Path('x'))\n"
        "assert not {'pandas'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
