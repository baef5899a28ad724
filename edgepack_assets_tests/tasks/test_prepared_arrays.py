"""Arrays and counts that a child returns as prepared data: held to the payload before memory is taken for them."""

from __future__ import annotations

import io
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from edgepack_assets.errors import ComponentError
from edgepack_assets.filesystem.parquet import read_columns, write_columns
from edgepack_assets.model_types import model_type
from edgepack_assets.model_types.state_identifier.preparation import WindowReport
from edgepack_assets.tasks import prepped_data
from edgepack_assets.tasks.prepped_data import _load

RECORDS, SIZE, STEP = 50, 10, 5
WINDOWS = 9
INSPECTION = {"window_size": SIZE, "window_step": STEP, "features": 3, "feature_names": ["a", "b", "c"], "clusters": 3}
TOLD = WindowReport(windows=WINDOWS, features=3, unfilled=1)


def _to_parquet(folder: Path, inspection: dict, records: int, report: WindowReport) -> Path:
    """What prepare_data does with what the child left."""
    plugin, path = model_type("state_identifier"), folder / "prepared.parquet"
    types = plugin.prepared_arrays("preparing", report, inspection, records)
    found = {name: _load(folder / f"{name}.npy", expected) for name, expected in types.items()}
    write_columns(path, plugin.prepared("the prepared data", report, found, inspection, records).columns)
    return path


def _check_counts(what: str, report: WindowReport, inspection: dict, records: int) -> None:
    model_type("state_identifier").prepared_arrays(what, report, inspection, records)


def arrays() -> tuple[np.ndarray, np.ndarray]:
    features = np.arange(WINDOWS * 3, dtype=np.float64).reshape(WINDOWS, 3)
    predictions = np.array([0, 1, 2, -1, 0, 1, 2, 0, 1])
    return features, np.column_stack([np.arange(WINDOWS) * STEP + SIZE - 1, predictions])


def save(folder: Path, features: np.ndarray | None = None, windows: np.ndarray | None = None) -> None:
    good = arrays()
    np.save(folder / "features.npy", good[0] if features is None else features, allow_pickle=True)
    np.save(folder / "windows.npy", good[1] if windows is None else windows, allow_pickle=True)


def with_header(path: Path, shape: str, kind: str = "<f8", size: int | None = None) -> None:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    stream = io.BytesIO()
    stream.write(b"\x93NUMPY\x01\x00")
    text = header.encode() + b" " * (63 - (10 + len(header)) % 64) + b"\n"
    stream.write(len(text).to_bytes(2, "little") + text)
    path.write_bytes(stream.getvalue())
    if size is not None:
        os.truncate(path, size)


@pytest.mark.parametrize("order", ["C", "F"])
def test_what_was_saved_is_read(tmp_path: Path, order: str) -> None:
    features, windows = arrays()
    save(tmp_path, np.asarray(features, order=order), np.asarray(windows, order=order))
    columns = read_columns(_to_parquet(tmp_path, INSPECTION, RECORDS, TOLD))
    assert list(columns) == ["record", "model_prediction", "a", "b", "c"]
    np.testing.assert_array_equal(np.column_stack([columns[name] for name in "abc"]), features)
    np.testing.assert_array_equal(columns["record"], windows[:, 0])


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"windows": WINDOWS + 1}, "have 9 windows of 10, 5 apart"),
        ({"windows": WINDOWS - 1}, "have 9 windows"),
        ({"windows": 10**12}, "have 9 windows"),
        ({"unfilled": WINDOWS + 1}, "unfilled"),
        ({"features": 4}, "4 features; the inspection found 3"),
    ],
)
def test_counts_are_those_of_the_payload(told: dict[str, int], words: str) -> None:
    _check_counts("preparing", TOLD, INSPECTION, RECORDS)
    with pytest.raises(ComponentError, match=words):
        _check_counts("preparing", TOLD.model_copy(update=told), INSPECTION, RECORDS)


def test_a_sparse_file_costs_what_it_claims_and_is_refused_by_that(tmp_path: Path) -> None:
    save(tmp_path)
    with_header(tmp_path / "features.npy", "(9, 3)", size=3 << 29)
    assert (tmp_path / "features.npy").stat().st_blocks * 512 < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(ComponentError, match=r"1610612736 bytes"):
            _to_parquet(tmp_path, INSPECTION, RECORDS, TOLD)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_more_than_this_process_holds_is_refused_before_the_file_is_opened(tmp_path: Path) -> None:
    many = {**INSPECTION, "feature_names": [f"f{i}" for i in range(100_000)], "window_size": 1, "window_step": 1}
    with pytest.raises(ComponentError, match="at most"):
        _to_parquet(tmp_path, many, 10_000, WindowReport(windows=10_000, features=100_000, unfilled=0))


@pytest.mark.parametrize(
    ("shape", "kind", "size"),
    [("(9, 3)", "<f8", 9 * 24), ("(9, 3)", "<f8", None), ("(10**9, 3)", "<f8", None), ("(9, 30000000)", "<f8", 344),
     ("(9,)", "<f8", 344), ("(9, 3)", "<f4", 344), ("(9, 3)", ">f8", 344), ("(9, 3)", "|O", 344),
     ("(" * 1000, "<f8", 2000), ("(9, -3)", "<f8", 344), ("(9, 3)", "<f8", 352), ("(9, 3)", "<f8", 336)],
)  # fmt: skip
def test_a_header_that_claims_something_else_is_refused(
    tmp_path: Path, shape: str, kind: str, size: int | None
) -> None:
    save(tmp_path)
    with_header(tmp_path / "features.npy", shape, kind, size)
    with pytest.raises(ComponentError, match=r"features\.npy"):
        _to_parquet(tmp_path, INSPECTION, RECORDS, TOLD)


def test_the_header_made_here_is_a_good_one(tmp_path: Path) -> None:
    save(tmp_path)
    with_header(tmp_path / "features.npy", "(9, 3)", size=128 + 9 * 24)
    _to_parquet(tmp_path, INSPECTION, RECORDS, TOLD)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x03\x00", b"PK\x03\x04" * 100, b"\x80\x04\x95" * 100])
def test_what_is_no_array_is_refused(tmp_path: Path, content: bytes) -> None:
    save(tmp_path)
    (tmp_path / "windows.npy").write_bytes(content)
    with pytest.raises(ComponentError, match=r"windows\.npy is no array"):
        _to_parquet(tmp_path, INSPECTION, RECORDS, TOLD)


@pytest.mark.parametrize(
    ("row", "column", "value", "words"),
    [(0, 0, -1, "rise"), (8, 0, RECORDS, "rise"), (4, 0, 24, "rise"), (2, 1, 3, "states from 0 to 2"),
     (2, 1, -2, "states"), (3, 1, 0, "without a prediction")],
)  # fmt: skip
def test_records_and_states_are_held_to_payload_and_model(
    tmp_path: Path, row: int, column: int, value: int, words: str
) -> None:
    _, windows = arrays()
    windows[row, column] = value
    save(tmp_path, windows=windows)
    with pytest.raises(ComponentError, match=words):
        _to_parquet(tmp_path, INSPECTION, RECORDS, TOLD)


def test_the_limit_is_one_that_this_machine_can_hold() -> None:
    assert prepped_data._ARRAY_LIMIT <= 2 << 30
