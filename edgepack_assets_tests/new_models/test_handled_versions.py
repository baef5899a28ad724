"""The record of handled versions, and its text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack_assets.errors import EdgepackError
from edgepack_assets.new_models.handled_versions import KEPT_ONE_BY_ONE, Ranges, VersionRecord

NUMBERS = st.integers(1, 30)


@given(st.lists(st.tuples(st.booleans(), NUMBERS)))
def test_ranges_are_a_set(steps: list[tuple[bool, int]]) -> None:
    ranges, expected = Ranges(), set()
    for adds, number in steps:
        if adds:
            ranges.add(number)
            expected.add(number)
        else:
            ranges.discard(number)
            expected.discard(number)
    for found in (ranges, Ranges.parse(str(ranges)), Ranges(expected)):
        assert list(found) == sorted(expected)
        assert len(found) == len(expected)
        assert str(found) == str(ranges)
        assert all((number in found) == (number in expected) for number in range(32))
    assert str(ranges).count(",") + 1 == max(1, sum(number - 1 not in expected for number in expected))


@pytest.mark.parametrize("text", ["x", "3-1", "1-4,2", "5,1", "1-2-3", "1,,x"])
def test_text_that_is_no_ranges_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Ranges.parse(text)


def test_thousands_of_versions_fit_a_cursor_and_are_told_apart() -> None:
    record = VersionRecord()
    for number in range(1, 5001):
        record.add(number, 1_000 * number)
    text = json.dumps(record.as_json())
    assert len(text) < 40 * KEPT_ONE_BY_ONE
    again = VersionRecord.from_json(json.loads(text))
    assert json.loads(json.dumps(again.as_json())) == json.loads(text)
    for number in (1, 2500, 4800, 4801, 5000):
        assert (number, 1_000 * number) in again
        assert (number, 5_000_001) not in again  # deleted and registered again
        assert again.has_number(number)
    assert not again.has_number(5001)
    again.add(2500, 6_000_000)
    assert (2500, 6_000_000) in again
    assert (2500, 2_500_000) not in again


@pytest.mark.parametrize("value", [{}, {"recent": [], "older": "", "older_until": 0}, {"recent": {"x": 1}, "older": "",
                                   "older_until": 0}, {"recent": {}, "older": "4-1", "older_until": 0}])  # fmt: skip
def test_what_is_no_record_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(EdgepackError, match="no record of handled versions"):
        VersionRecord.from_json(value)
