"""From Parquet to payload records, hostile files one defect at a time."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack_assets.errors import RawDataError
from edgepack_assets.evidence import all_pass
from edgepack_assets.model_types.base import PayloadWriter
from edgepack_assets.model_types.state_identifier import payload


def written(path: Path, folder: Path) -> tuple[dict, list[dict]]:
    writer = PayloadWriter(folder / "records", folder / "sources")
    with writer.open():
        facts = payload.write_payload(path, writer)
    with gzip.open(writer.records, "rt") as stream:
        return {**facts, "records": writer.count}, [json.loads(line) for line in stream]


def frame(**columns) -> pd.DataFrame:
    return pd.DataFrame({"ph1": [1.0, 2.0], "ph2": [3.0, 4.0], "ph3": [5.0, 6.0], **columns})


@settings(max_examples=30, deadline=None)
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
    assert all_pass(payload.payload_parts(facts))


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


def test_a_column_without_a_value_does_not_pass_the_check(tmp_path):
    frame(ph2=[np.nan, np.nan]).to_parquet(tmp_path / "raw.parquet")
    facts, _ = written(tmp_path / "raw.parquet", tmp_path)
    assert [part.name for part in payload.payload_parts(facts) if not part.passed] == ["ph2 holds values"]


def test_what_systems_leave_is_no_recording(tmp_path):
    raw = tmp_path / "raw"
    for junk in ("._rows.parquet", "__MACOSX/rows.parquet", ".ipynb_checkpoints/rows-checkpoint.parquet", ".DS_Store"):
        (raw / junk).parent.mkdir(parents=True, exist_ok=True)
        (raw / junk).write_bytes(b"\0\5\26\7")
    frame().to_parquet(raw / "rows.parquet")
    facts, _ = written(raw, tmp_path)
    assert facts["records"] == 2
