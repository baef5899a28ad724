"""Reading records and results."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepack_assets.errors import ComponentError
from edgepack_assets.model_types import records
from edgepack_assets.model_types.records import Payload, Results, read_lines

VALUES = st.lists(st.one_of(st.integers(-5, 10**9), st.text(max_size=20), st.none()), max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=VALUES, block=st.integers(1, 40), every=st.integers(1, 4), ended=st.booleans())
def test_each_line_is_read_wherever_a_block_ends(
    tmp_path: Path, values: list[object], block: int, every: int, ended: bool
) -> None:
    file = tmp_path / "lines.gz"
    text = "\n".join(map(json.dumps, values)) + ("\n" if ended and values else "")
    file.write_bytes(gzip.compress(text.encode()))
    with mock.patch.object(records, "_BUFFER", block):
        assert list(read_lines(file, every=every)) == values[::every]
        assert list(read_lines(file, but_not_ending_with=b"7")) == [
            value for value in values if not json.dumps(value).endswith("7")
        ]


@pytest.mark.parametrize(("text", "line"), [("1\n\n2\n", 1), ("1\n{", 1), ("\n", 0), ("1\n2\n" + "[" * 10**6, 2)])
def test_a_line_that_is_no_json_is_named(tmp_path: Path, text: str, line: int) -> None:
    file = tmp_path / "lines.gz"
    file.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(ComponentError, match=rf"^lines\.gz: line {line} is not JSON"):
        list(read_lines(file))


def test_answers_are_the_records_that_were_answered(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl.gz"
    lines = [
        f'{{"record": {number}, "outputs": {"null" if number % 3 else json.dumps({"s": number})}}}'
        for number in range(9)
    ]
    file.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    assert [(answer.record, answer.outputs) for answer in Results(file).answers()] == [
        (number, {"s": number}) for number in (0, 3, 6)
    ]


def _results(file: Path, answers: list[object]) -> Results:
    lines = (json.dumps({"record": number, "outputs": answer}) + "\n" for number, answer in enumerate(answers))
    file.write_bytes(gzip.compress("".join(lines).encode()))
    return Results(file)


def test_answers_that_are_read_again_are_those_of_the_file_as_it_is(tmp_path: Path) -> None:
    results = _results(tmp_path / "results.gz", [None, {"s": [1]}, None, {"s": [2]}])
    first, _ = results.answers()
    first.outputs["s"].append("changed by who read it")
    assert [answer.outputs for answer in results.answers()] == [{"s": [1]}, {"s": [2]}]
    _results(results.path, [None, {"s": [1]}, {"s": [3]}, None])
    assert [(answer.record, answer.outputs["s"]) for answer in results.answers()] == [(1, [1]), (2, [3])]


@pytest.mark.parametrize("room", [0, 30, 60, 1 << 20])
def test_answers_are_all_read_however_many_of_them_are_kept(tmp_path: Path, room: int) -> None:
    answers: list[object] = [{"s": number} if number % 3 else None for number in range(9)]
    results = _results(tmp_path / "results.gz", answers)
    with mock.patch.object(records, "_MOST_KEPT", room), mock.patch.object(records, "_kept", {}) as kept:
        assert next(results.answers()).record == 1  # whoever stops leaves nothing half read
        for _ in range(3):
            assert [answer.outputs for answer in results.answers()] == [each for each in answers if each]
        assert len(kept) == (room == 1 << 20)
        for number in range(6):
            list(_results(tmp_path / "others.gz", [{"s": number}]).answers())
        assert len(kept) <= 4


def test_results_that_are_damaged_are_refused_each_time(tmp_path: Path) -> None:
    file = tmp_path / "results.gz"
    file.write_bytes(gzip.compress(b'{"record": 0, "outputs": {"s": 1}}\n{"record": 1, "outputs": {\n'))
    for _ in range(2):
        with pytest.raises(ComponentError, match=r"^results\.gz: line 1 is not JSON"):
            list(Results(file).answers())


def test_a_file_whose_digest_is_known_is_not_hashed_again(tmp_path: Path) -> None:
    written = _results(tmp_path / "results.gz", [None, {"s": 1}])
    known = Results(written.path, written.digest())
    payload = Payload(tmp_path / "records.gz", tmp_path / "sources.gz", 0, "known")
    with mock.patch.object(records, "file_digest", side_effect=AssertionError):
        assert [[answer.outputs for answer in known.answers()] for _ in range(2)] == [[{"s": 1}]] * 2
        assert payload.digest() == "known"
