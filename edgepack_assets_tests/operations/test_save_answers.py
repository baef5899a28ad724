"""Answers as files: each format gives back what was answered."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from edgepack_assets.errors import EdgepackError
from edgepack_assets.operations.save_answers import FORMATS, save_answers

ROWS: list[dict[str, Any]] = [
    {"record": 0, "file": "größe,1.png", "prediction": 3, "scores": [0.5, 1], "name": 'a"b\nc'},
    {"record": 7, "file": "", "prediction": 4, "scores": [], "p": "nan"},
    {"record": 9, "file": "", "prediction": 4, "scores": None, "p": 0.25},
]


def test_json_holds_the_rows(tmp_path: Path) -> None:
    save_answers(ROWS, tmp_path / "a.JSON")
    assert json.loads((tmp_path / "a.JSON").read_text()) == ROWS


def test_csv_has_a_column_for_each_output(tmp_path: Path) -> None:
    save_answers(ROWS, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["record", "file", "prediction", "scores", "name", "p"]
    assert (rows[0]["file"], rows[0]["scores"], rows[0]["name"]) == ("größe,1.png", "[0.5, 1]", 'a"b\nc')
    assert [row["p"] for row in rows] == ["", "nan", "0.25"]


def test_parquet_has_typed_columns(tmp_path: Path) -> None:
    save_answers(ROWS, tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet").to_pydict()
    assert table["prediction"] == [3, 4, 4]
    assert table["scores"] == ["[0.5, 1]", "[]", None]
    assert table["p"] == [None, "nan", "0.25"]


@pytest.mark.parametrize("ending", FORMATS)
def test_no_answer_is_a_file_too_and_a_file_is_replaced_whole(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"a{ending}"
    save_answers(ROWS, file)
    save_answers([], file)
    assert file.is_file()
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(EdgepackError, match="cannot be written"):
        save_answers(ROWS, file / "below")
