"""Sizes, ages, values and tables as a person reads them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack_assets.text_format import counted, format_age, format_latency, format_size, format_table, plain

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_999, "1.0 MB"),
     (2_200_000_000, "2.2 GB"), (5 * 10**15, "5000.0 TB")],
)  # fmt: skip
def test_a_size(count: int, text: str) -> None:
    assert format_size(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(6.5e-7, "0.65 µs"), (9.94e-5, "99.4 µs"), (0.0123456, "12.3 ms")])
def test_a_latency(seconds: float, text: str) -> None:
    assert format_latency(seconds) == text


@settings(deadline=None)
@given(st.integers(0, 10**15))
def test_a_size_is_right_to_the_last_digit_shown(count: int) -> None:
    number, unit = format_size(count).split()
    step = UNITS[unit] * (0 if unit == "B" else 0.1)
    assert abs(float(number) * UNITS[unit] - count) <= step / 2 * 1.001
    assert unit == "TB" or float(number) < 1000
    assert unit == "B" or float(number) >= 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172_799, "47 h"),
     (172_800, "2 d")],
)  # fmt: skip
def test_an_age(seconds: float, text: str) -> None:
    assert format_age(seconds) == text


def test_a_table_has_no_trailing_spaces_and_its_columns_line_up() -> None:
    assert format_table([("NAME", "SIZE", "TAGS"), ("a", "1.0 kB", ""), ("longer", "2 B", "x")]) == (
        "NAME    SIZE    TAGS\na       1.0 kB\nlonger  2 B     x"
    )
    assert not format_table([])


def test_the_heads_of_a_table_can_be_underlined() -> None:
    assert format_table([("A", ""), ("longer", "x")], underlined=True) == "A\n------  -\nlonger  x"


def test_a_cell_is_one_line_without_what_moves_the_cursor() -> None:
    table = format_table([("TAG", "VALUE"), ("größe", "a\nb\x1b[31m\u202ec"), ("x", "")])
    assert table == "TAG    VALUE\ngröße  a b\\x1b[31m\\u202ec\nx"


def test_a_count_has_the_number_of_its_noun() -> None:
    assert [counted(number, "partition") for number in (0, 1, 2)] == ["0 partitions", "1 partition", "2 partitions"]
    assert [counted(2, noun) for noun in ("class", "batch", "data asset")] == [
        "2 classes",
        "2 batches",
        "2 data assets",
    ]


def test_no_message_of_a_command_or_a_sensor_has_a_plural_of_its_own() -> None:
    """A number of things is written with `counted`, as there may be one. Constants are more than one."""
    package = Path(__file__).parents[1] / "edgepack_assets"
    things = (
        "assets answers attempts checks environments files folders images jobs keys lines locks messages models nodes "
        "packages partitions records registrations rows runs sensors states tags times types versions windows"
    )
    plural = re.compile(
        rf"""\{{(?!_?[A-Z_]+[:}}])[^{{}}]*\}} (?:[a-z-]+ )?(?:{"|".join(things.split())})\b|['"]s['"] \*"""
    )
    allowed = ("locks have keys that begin", "{host} answers", "{part} files", "names files that", "samples.")
    found = [
        f"{file.name}: {line.strip()}"
        for room in ("cli", "operations", "defs", "new_models", "quickstart", "registry", "environments")
        for file in (package / room).rglob("*.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if plural.search(line) and not any(text in line for text in allowed)
    ]
    assert found == []


def test_values_become_json() -> None:
    value = {"a": [float("nan"), b"x", 1], "b": {"c": (True, None)}}
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {"a": ["nan", "b'x'", 1], "b": {"c": [True, None]}}
