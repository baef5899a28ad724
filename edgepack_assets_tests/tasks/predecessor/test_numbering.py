"""Matching the states and classes of two packages: laws of it, and what is no clear match."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from edgepack_assets.errors import ComponentError
from edgepack_assets.model_types.interface import Results
from edgepack_assets.tasks.predecessor.numbering import (
    Category,
    Contingency,
    _assigned,
    contingency,
    contingency_table,
    match_numbers,
    moved_classes,
)


def results(file: Path, answers: Sequence[Any], output: str = "prediction") -> Results:
    """One line for each record; None where it has no answer."""
    lines = [
        json.dumps({"record": i, "outputs": None if answer is None else {output: answer}})
        for i, answer in enumerate(answers)
    ]
    file.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    return Results(file)


def pairs(before: Sequence[Category], now: Sequence[Category]) -> Contingency:
    counts: dict[tuple[Category, Category], int] = {}
    for pair in zip(before, now, strict=True):
        counts[pair] = counts.get(pair, 0) + 1
    return Contingency(counts)


@st.composite
def retrained(draw: st.DrawFn) -> tuple[list[int], list[int], dict[int, int], int]:
    """Answers before, answers of a model that numbers the states anew and differs in a few records, its numbers, and in
    how many records it differs."""
    states = draw(st.integers(2, 12))
    each = draw(st.lists(st.integers(10, 40), min_size=states, max_size=states))
    anew = draw(st.permutations(range(states)))
    before = [state for state, count in enumerate(each) for _ in range(count)]
    now = [anew[state] for state in before]
    differing = draw(st.integers(0, min(len(before) // 10, 4)))  # fewer than half of any state
    for at in draw(st.permutations(range(len(before))))[:differing]:
        now[at] = (now[at] + 1) % states
    return before, now, {number: state for state, number in enumerate(anew)}, differing


@given(retrained())
def test_a_new_numbering_is_found_and_undone_exactly(case: tuple[list[int], list[int], dict[int, int], int]) -> None:
    before, now, numbers, differing = case
    states = range(len(numbers))
    match = match_numbers(pairs(before, now), states, states, 0.9)
    assert match.unclear == ""
    assert match.before == numbers
    assert (match.agreeing, match.records) == (len(before) - differing, len(before))
    # once it is undone, nothing is left to change
    shipped = [match.before[state] for state in now]
    again = match_numbers(pairs(before, shipped), states, states, 0.9)
    assert again.unclear == "" and again.moved == {}


@given(st.permutations(range(5)), st.integers(0, 4))
def test_a_state_that_the_payload_does_not_show_keeps_the_numbers_one_to_one(anew: list[int], hidden: int) -> None:
    before = [state for state in range(5) if state != hidden for _ in range(9)]
    match = match_numbers(pairs(before, [anew[state] for state in before]), range(5), range(5), 0.9)
    assert match.before == {number: state for state, number in enumerate(anew)}  # by elimination
    assert match.unproven == (hidden,)


SIX = [0] * 20 + [1] * 20 + [2] * 20


@pytest.mark.parametrize(
    ("before", "now", "states", "why"),
    [
        (SIX, [0] * 20 + [1] * 20 + [2] * 10 + [3] * 10, (3, 4), "4 states, and 3 before"),
        (SIX, [0] * 40 + [1] * 20, (3, 2), "2 states, and 3 before"),
        (SIX, [0, 1, 2] * 20, (3, 3), "records agree at best, fewer than 0.9"),
        # one record in five is otherwise
        (SIX, [0] * 20 + [1] * 20 + [2] * 8 + [1] * 12, (3, 3), "48 of 60 records agree at best, fewer than 0.9"),
        # a rare state dissolves, which the share of all records does not show
        ([0] * 300 + [1] * 300 + [2] * 6, [0] * 300 + [1] * 300 + [1] * 4 + [2] * 2, (3, 3), "most records of state 2"),
        ([0] * 50, [1] * 50, (3, 3), "the payload shows state 0 alone"),
        ([], [], (3, 3), "no record is answered by both"),
    ],
)
def test_what_is_no_clear_match(before: list[int], now: list[int], states: tuple[int, int], why: str) -> None:
    old, new = map(range, states)
    assert why in match_numbers(pairs(before, now), old, new, 0.9).unclear


def test_texts_are_no_numbers() -> None:
    found = pairs(SIX, [str(state) for state in SIX])
    assert match_numbers(found, (), (), 0.9).unclear == "answers are text now, and number before"


def test_answers_are_joined_by_record(tmp_path: Path) -> None:
    before = results(tmp_path / "before", [None, 0, None, 1, None, 2, 0, None])
    now = results(tmp_path / "now", [None, 0, 5, 2, None, None, 0, None, 1])
    found = contingency(before, now, "prediction")
    assert found.counts == {(0, 0): 2, (1, 2): 1}
    assert (found.records, found.only_before, found.only_now) == (3, 1, 2)
    assert contingency_table(found) == [
        {"before": "0", "now 0": 2, "now 2": 0}, {"before": "1", "now 0": 0, "now 2": 1},
    ]  # fmt: skip


def test_packages_that_answer_other_records_are_not_compared(tmp_path: Path) -> None:
    before, now = [0, None] * 20 + [0, 1], [None, 0] * 20 + [0, 1]
    found = contingency(results(tmp_path / "b", before), results(tmp_path / "n", now), "prediction")
    assert "only 2 records are answered by both" in match_numbers(found, (), (), 0.9).unclear


@pytest.mark.parametrize("answer", [True, 1.5, {"a": 1}, [0]])
def test_what_is_no_category_is_refused(tmp_path: Path, answer: object) -> None:
    with pytest.raises(ComponentError, match="record 1 has no prediction that is a number or a text"):
        contingency(results(tmp_path / "b", [0, 0]), results(tmp_path / "n", [0, answer]), "prediction")


def test_numbers_that_are_no_categories_are_refused(tmp_path: Path) -> None:
    many = results(tmp_path / "many", list(range(1001)))
    with pytest.raises(ComponentError, match="more than 1000 different answers"):
        contingency(many, many, "prediction")


@st.composite
def better_classifier(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Of a classifier that is right in most records before and now, with errors of its own each time."""
    truth = [str(label) for label in range(draw(st.integers(2, 8))) for _ in range(20)]
    answers = []
    for _ in range(2):
        wrong = set(draw(st.lists(st.integers(0, len(truth) - 1), max_size=9)))
        answers.append([str((int(label) + 1) % 8) if i in wrong else label for i, label in enumerate(truth)])
    return answers[0], answers[1]


@given(better_classifier())
def test_other_answers_alone_move_no_class(case: tuple[list[str], list[str]]) -> None:
    assert moved_classes(pairs(*case)) == {}


@pytest.mark.parametrize(
    ("anew", "moved"),
    [
        ({"0": "1", "1": "0"}, {"1": "0", "0": "1"}),
        # a class was added in the middle: all behind it moved on
        ({"1": "2", "2": "3"}, {"2": "1", "3": "2"}),
    ],
)
def test_classes_that_moved_are_found(anew: Mapping[str, str], moved: Mapping[str, str]) -> None:
    before = [str(label) for label in range(3) for _ in range(20)]
    assert moved_classes(pairs(before, [anew.get(label, label) for label in before])) == moved


@given(
    st.integers(1, 4).flatmap(
        lambda width: st.lists(st.lists(st.integers(0, 5), min_size=width, max_size=width), min_size=1, max_size=4)
    )
)
def test_the_assignment_is_one_of_the_greatest_sum(weights: list[list[int]]) -> None:
    table = np.array(weights, dtype=np.float64)
    found = list(_assigned(table))
    best = table[linear_sum_assignment(table, maximize=True)].sum()
    assert len(found) == min(table.shape) == len({row for row, _ in found}) == len({column for _, column in found})
    assert sum(table[row, column] for row, column in found) == best
