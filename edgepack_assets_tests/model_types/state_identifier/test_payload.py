"""From Parquet to payload records, hostile files one defect at a time."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack_assets.checks import all_pass
from edgepack_assets.errors import RawDataError
from edgepack_assets.model_types.interface import PayloadWriter
from edgepack_assets.model_types.state_identifier import payload


def written(path: Path, folder: Path) -> tuple[dict, list[dict]]:
    writer = PayloadWriter(folder / "records", folder / "sources")
    with writer.open():
        facts = payload.write_payload(path, writer)
    with gzip.open(writer.records, "rt") as stream:
        return {**facts, "records": writer.count}, [json.loads(line) for line in stream]


def frame(**columns) -> pd.DataFrame:
    return pd.DataFrame({"ph1": [1.0, 2.0], "ph2": [3.0, 4.0], "ph3": [5.0, 6.0], **columns})


@settings(max_examples=30)
@given(
    values=st.lists(
        st.tuples(*[st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=False)) for _ in range(3)]),
        min_size=1, max_size=50,
    )
)  # fmt: skip
def test_a_record_per_row_in_order_bit_for_bit_and_missing_stays_missing(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("payload")
    table = pa.table({f"ph{i + 1}": pa.array([row[i] for row in values], pa.float64()) for i in range(3)})
    pq.write_table(table, folder / "raw.parquet", row_group_size=7)
    facts, records = written(folder / "raw.parquet", folder)
    expected = [[None if v is None or np.isnan(v) else v for v in row] for row in values]
    assert [[r["ph1"], r["ph2"], r["ph3"]] for r in records] == expected
    assert facts["records"] == len(values)
    assert facts["missing_values"]["ph2"] == sum(row[1] is None for row in expected)


def test_other_columns_are_ignored_and_integers_are_taken(tmp_path):
    frame(DateTime=pd.date_range("2024", periods=2), ph2=[7, 8]).to_parquet(tmp_path / "raw.parquet")
    facts, records = written(tmp_path / "raw.parquet", tmp_path)
    assert records == [{"ph1": 1.0, "ph2": 7.0, "ph3": 5.0}, {"ph1": 2.0, "ph2": 8.0, "ph3": 6.0}]
    assert facts["ignored_columns"] == ["DateTime"]
    assert all_pass(payload.payload_rows(facts))


def test_equal_data_gives_equal_bytes(tmp_path):
    frame().to_parquet(tmp_path / "raw.parquet")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        written(tmp_path / "raw.parquet", tmp_path / name)
    assert (tmp_path / "a/records").read_bytes() == (tmp_path / "b/records").read_bytes()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"ph2": ["a", "b"]}, r"raw\.parquet: column ph2 holds .*string.*not numbers"),
        ({"ph2": [True, False]}, r"column ph2 holds bool, not numbers"),
        ({"ph2": [None, None]}, r"column ph2 holds null, not numbers"),
        ({"ph3": [1.0, float("inf")]}, r"column ph3 is infinite in row 1"),
    ],
)
def test_a_column_that_holds_no_numbers_is_named(tmp_path, columns, message):
    frame(**columns).to_parquet(tmp_path / "raw.parquet")
    with pytest.raises(RawDataError, match=message):
        written(tmp_path / "raw.parquet", tmp_path)


def test_a_missing_column_is_named(tmp_path):
    frame().drop(columns="ph2").to_parquet(tmp_path / "raw.parquet")
    with pytest.raises(RawDataError, match="column ph2 is missing; the columns are: ph1, ph3"):
        written(tmp_path / "raw.parquet", tmp_path)


def test_an_empty_a_corrupt_and_a_truncated_file_are_named(tmp_path):
    frame().iloc[:0].to_parquet(tmp_path / "empty.parquet")
    (tmp_path / "corrupt.parquet").write_bytes(b"PAR1 nothing of the kind PAR1")
    frame().to_parquet(tmp_path / "whole.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:-20])
    for name, message in [("empty", "no rows"), ("corrupt", "not a readable Parquet"), ("cut", "not a readable")]:
        with pytest.raises(RawDataError, match=rf"{name}\.parquet.*{message}"):
            written(tmp_path / f"{name}.parquet", tmp_path)


def test_a_folder_must_hold_one_recording(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/notes.txt").write_text("x")
    with pytest.raises(RawDataError, match="holds 0"):
        written(tmp_path / "raw", tmp_path)
    for name in ("a", "b"):
        frame().to_parquet(tmp_path / f"raw/{name}.parquet")
    with pytest.raises(RawDataError, match=r"holds 2 \(a.parquet, b.parquet\)"):
        written(tmp_path / "raw", tmp_path)
    (tmp_path / "raw/b.parquet").unlink()
    assert len(written(tmp_path / "raw", tmp_path)[1]) == 2


def _decimals() -> Iterator[pa.DataType]:
    """The kinds of decimals that this version of pyarrow writes into a Parquet file."""
    for kind in (pa.decimal32(9, 2), pa.decimal64(18, 7), pa.decimal128(38, 20), pa.decimal256(76, 30)):
        with contextlib.suppress(pa.ArrowNotImplementedError):
            pq.write_table(pa.table({"a": pa.array([None], kind)}), io.BytesIO())
            yield kind


@settings(max_examples=60)
@given(
    kind=st.sampled_from(list(_decimals())),
    digits=st.lists(st.one_of(st.none(), st.integers(-(10**75), 10**75)), min_size=1, max_size=30),
)
def test_a_decimal_becomes_the_nearest_double(tmp_path_factory, kind, digits):
    folder = tmp_path_factory.mktemp("decimals")
    limit = 10**kind.precision
    values = [
        None if n is None else Decimal((n < 0, tuple(map(int, str(abs(n) % limit))), -kind.scale)) for n in digits
    ]
    column = pa.array(values, kind)
    pq.write_table(pa.table({"ph1": column, "ph2": column, "ph3": column}), folder / "raw.parquet")
    _, records = written(folder / "raw.parquet", folder)
    assert [record["ph2"] for record in records] == [None if value is None else float(value) for value in values]


def test_a_columns_place_in_the_file_does_not_matter(tmp_path):
    frame(x=[0.0, 0.0])[["ph3", "x", "ph1", "ph2"]].to_parquet(tmp_path / "raw.parquet")
    _, records = written(tmp_path / "raw.parquet", tmp_path)
    assert records == [{"ph1": 1.0, "ph2": 3.0, "ph3": 5.0}, {"ph1": 2.0, "ph2": 4.0, "ph3": 6.0}]


UUID, OTHER = "3f2a8c1e-9b7d-4e6f-8a5b-1c2d3e4f5a6b", "0b1c2d3e-4f5a-4b7c-8d9e-aabbccddeeff"
LAYOUTS = {
    "spark": ([f"part-{n:05}-{UUID}-c000.snappy.parquet" for n in range(12)],
              ["_SUCCESS", "._SUCCESS.crc", f".part-00000-{UUID}-c000.snappy.parquet.crc"]),
    "dask": ([f"part.{n}.parquet" for n in range(12)], ["_metadata", "_common_metadata"]),
    "polars": ([f"{n:08x}.parquet" for n in range(12)], []),
    "pyarrow": ([f"{UUID.replace('-', '')}-{n}.parquet" for n in range(12)], []),
    "duckdb": ([f"data_{n}.parquet" for n in range(12)], [".DS_Store", "._data_0.parquet"]),
    "uncommitted": ([f"part-{n:05}.parquet" for n in range(3)], ["_temporary/0/part-00003.parquet", "_SUCCESS"]),
    "checkpoints": (["day1.parquet", "day2.parquet"], [".ipynb_checkpoints/day1-checkpoint.parquet", "notes.txt"]),
    "one": ([f"part-00000-{UUID}-c000.parquet"], ["_SUCCESS", "__MACOSX/._part-00000.parquet"]),
    "one below": (["inner/part-00000.parquet"], ["inner/_SUCCESS"]),
    "two below": (["inner/part-0.parquet", "inner/part-1.parquet"], ["inner/_SUCCESS"]),
    "only hidden": (["_recording.parquet"], []),
}  # fmt: skip


def parts(folder, names, beside=()):
    """A part file for each name, the rows of part i having ph1 = i; some of them empty. Written in another order."""
    for number, name in sorted(enumerate(names), key=lambda pair: pair[1], reverse=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = 0 if number % 5 == 4 else 3
        table = pa.table({"ph1": np.full(rows, float(number)), "ph2": np.ones(rows), "ph3": np.arange(rows) * 1.0})
        pq.write_table(table, path)
    for name in beside:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"not Parquet")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_part_files_are_read_in_the_order_of_their_numbers(tmp_path, layout):
    names, beside = LAYOUTS[layout]
    parts(tmp_path / "raw", names, beside)
    facts, records = written(tmp_path / "raw", tmp_path)
    expected = [float(number) for number in range(len(names)) if number % 5 != 4 for _ in range(3)]
    assert [record["ph1"] for record in records] == expected
    assert [record["ph3"] for record in records] == [0.0, 1.0, 2.0] * (len(expected) // 3)
    if len(names) > 1:
        assert facts["files"] == [Path(name).name for name in names]
        assert "part.2 before part.10" in facts["file_order"]
    else:
        assert "files" not in facts  # the payload of one file has the facts that it always had


@pytest.mark.parametrize(
    ("names", "beside", "message"),
    [
        (["recording.parquet", "recording (1).parquet"], [], "differ in more than a number"),
        (["train_1.parquet", "test_2.parquet"], [], "differ in more than a number"),
        ([f"part-00000-{UUID}.parquet", f"part-00001-{OTHER}.parquet"], [], "several writers"),
        ([f"{UUID}.parquet", f"{OTHER}.parquet"], [], "several writers"),
        (["part-1.parquet", "part-01.parquet"], [], "same number"),
        (["rec_31.12.2023.parquet", "rec_01.01.2024.parquet"], [], "year stands last"),
        (["12-31-2023.parquet", "01-01-2024.parquet"], [], "year stands last"),
        (["day=1/part-0.parquet", "day=2/part-0.parquet"], ["_SUCCESS"], "in partitions"),
        (["a/part-0.parquet", "b/part-1.parquet"], [], "several folders"),
        (["part-0.parquet", "part-1.parquet"], ["_delta_log/00000.json"], "a Delta table"),
        (["part-0.parquet"], [".hoodie/hoodie.properties"], "a Hudi table"),
        (["data/part-0.parquet"], ["metadata/v1.metadata.json"], "an Iceberg table"),
        ([], ["._recording.parquet", "_SUCCESS"], "holds 0"),
    ],
)
def test_a_folder_whose_order_of_rows_is_not_certain_is_refused_with_advice(tmp_path, names, beside, message):
    parts(tmp_path / "raw", names, beside)
    with pytest.raises(RawDataError, match=message) as raised:
        written(tmp_path / "raw", tmp_path)
    assert not names or "as one file" in str(raised.value)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"ph2": pa.array([1, 2])}, r"part\.0\.parquet and part\.1\.parquet.*ph2 double.*ph2 int64"),
        ({"ph2": pa.array(["a", "b"])}, r"part\.1\.parquet: column ph2 holds string"),
        ({}, r"part\.1\.parquet: column ph2 is missing"),
    ],
)
def test_part_files_whose_needed_columns_differ_are_refused_by_name(tmp_path, second, message):
    values = pa.array([1.0, 2.0])
    pq.write_table(pa.table({"ph1": values, "ph2": values, "ph3": values}), tmp_path / "part.0.parquet")
    pq.write_table(pa.table({"ph1": values, **second, "ph3": values, "other": values}), tmp_path / "part.1.parquet")
    with pytest.raises(RawDataError, match=message):
        written(tmp_path, tmp_path)


def test_a_defect_in_a_part_file_is_told_by_its_own_row(tmp_path):
    for number, values in enumerate(([1.0, 2.0], [3.0, float("inf")])):
        column = pa.array(values)
        pq.write_table(pa.table({"ph1": column, "ph2": column, "ph3": column}), tmp_path / f"part.{number}.parquet")
    with pytest.raises(RawDataError, match=r"part\.1\.parquet: column ph1 is infinite in row 1"):
        written(tmp_path, tmp_path)


def test_a_column_without_a_value_does_not_pass_the_check(tmp_path):
    frame(ph2=[np.nan, np.nan]).to_parquet(tmp_path / "raw.parquet")
    facts, _ = written(tmp_path / "raw.parquet", tmp_path)
    assert [part.name for part in payload.payload_rows(facts) if not part.passed] == ["ph2 holds values"]


def test_what_systems_leave_is_no_recording(tmp_path):
    raw = tmp_path / "raw"
    for junk in ("._rows.parquet", "__MACOSX/rows.parquet", ".ipynb_checkpoints/rows-checkpoint.parquet", ".DS_Store"):
        (raw / junk).parent.mkdir(parents=True, exist_ok=True)
        (raw / junk).write_bytes(b"\0\5\26\7")
    frame().to_parquet(raw / "rows.parquet")
    facts, _ = written(raw, tmp_path)
    assert facts["records"] == 2
