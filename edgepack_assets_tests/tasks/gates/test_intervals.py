"""Intervals of metrics: they cover what they should, and say where records are too few."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, precision_recall_fscore_support

from edgepack_assets.model_types.samples import Samples, StoredSamples, as_json
from edgepack_assets.tasks.gates.intervals import differences, intervals, worst_slices
from edgepack_assets.tasks.gates.resampling import Difference, Interval

MACRO = {"precision": "precision", "recall": "recall", "f1": "f1"}


def classified(truth: np.ndarray, predicted: np.ndarray, **more: object) -> Samples:
    right = (truth == predicted).astype(float)
    return Samples(range(len(truth)), {"accuracy": right}, truth, predicted, MACRO, **more)  # type: ignore[arg-type]


def answers(random: np.random.Generator, truth: np.ndarray, right: float) -> np.ndarray:
    return np.where(random.random(len(truth)) < right, truth, (truth + 1) % 5)


def interval(found: object) -> Interval:
    assert isinstance(found, Interval), found
    return found


def difference(found: object) -> Difference:
    assert isinstance(found, Difference), found
    return found


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 4)), min_size=1, max_size=60))
def test_averages_over_classes_are_those_of_scikit_learn_and_lie_in_their_interval(
    pairs: list[tuple[int, int]],
) -> None:
    truth, predicted = np.array(pairs).T
    labels = sorted({*truth.tolist(), *predicted.tolist()} - {-1})
    expected = precision_recall_fscore_support(truth, predicted, labels=labels, average="macro", zero_division=0)
    found = intervals(classified(truth, predicted), 0.9)
    for name, value in zip(MACRO, expected, strict=False):
        of = interval(found[name])
        assert of.value == pytest.approx(value)
        assert 0 <= of.low <= of.high <= 1


@pytest.mark.parametrize("metric", ["accuracy", "f1"])
def test_an_interval_covers_the_truth_as_often_as_it_says(metric: str) -> None:
    random, held = np.random.default_rng(1), 0
    for _ in range(200):
        truth = np.arange(300) % 5
        found = interval(intervals(classified(truth, answers(random, truth, 0.9)), 0.95)[metric])
        held += found.low <= 0.9 <= found.high
    assert held >= 180  # 190 are expected


def test_windows_that_follow_each_other_say_less_than_as_many_independent_ones() -> None:
    random, held = np.random.default_rng(2), {True: 0, False: 0}
    for _ in range(100):
        values = np.repeat(random.normal(size=60), 20) + random.normal(size=1200)
        for follow in held:
            found = intervals(Samples(range(1200), {"m": values}, follow_each_other=follow), 0.95)["m"]
            held[follow] += isinstance(found, Interval) and found.low <= 0 <= found.high
    assert held[True] >= 85 > held[False]


def test_shares_of_windows_too() -> None:
    random, held = np.random.default_rng(3), 0
    for _ in range(100):
        values = np.repeat(random.random(60) < 0.8, 20).astype(float)
        found = interval(intervals(Samples(range(1200), {"m": values}, follow_each_other=True, overlap=2), 0.95)["m"])
        held += found.low <= 0.8 <= found.high
    assert held >= 88


def test_what_was_always_right_is_not_certain() -> None:
    truth = np.arange(40) % 5
    found = intervals(classified(truth, truth), 0.95)
    assert all(interval(of).low < 0.95 and interval(of).high == 1 for of in found.values())
    same = differences(classified(truth, truth), classified(truth, truth), 0.95)
    assert all(difference(of).interval.low < -0.05 < 0.05 < difference(of).interval.high for of in same.values())


@pytest.mark.parametrize("metric", ["accuracy", "f1"])
def test_a_difference_is_seen_on_the_same_records_that_two_intervals_do_not_show(metric: str) -> None:
    random = np.random.default_rng(4)
    truth = np.arange(1000) % 5
    before = answers(random, truth, 0.9)
    now = before.copy()
    worse = np.flatnonzero(before == truth)[::80]
    now[worse] = (truth[worse] + 1) % 5
    alone = [interval(intervals(classified(truth, each), 0.95)[metric]) for each in (before, now)]
    assert alone[1].high > alone[0].value
    found = difference(differences(classified(truth, before), classified(truth, now), 0.95)[metric])
    assert found.interval.high < 0
    assert (list(found.worse), list(found.better)) == (worse.tolist(), [])


def test_records_are_paired_by_number_and_other_ones_are_not_compared() -> None:
    truth = np.arange(100) % 5
    before, now = classified(truth, truth), classified(truth, truth)
    later = Samples(**{**vars(now), "records": range(90, 190)})
    assert "only 10 records" in str(differences(before, later, 0.95)["accuracy"])
    relabelled = Samples(**{**vars(before), "truth": (truth + 1) % 5})
    assert "another truth" in str(differences(relabelled, now, 0.95)["f1"])
    shifted = Samples(**{**vars(now), "records": range(20, 120), "values": {"accuracy": np.zeros(100)}, "macro": {}})
    assert difference(differences(before, shifted, 0.95)["accuracy"]).worse == list(range(20, 100))


def test_the_same_records_give_the_same_interval() -> None:
    values = np.random.default_rng(5).normal(size=500)
    samples = Samples(range(500), {"m": values}, follow_each_other=True)
    assert intervals(samples, 0.95) == intervals(StoredSamples.model_validate(as_json(samples)).samples(), 0.95)


def test_a_recording_of_few_long_stretches_has_no_interval() -> None:
    random, told = np.random.default_rng(8), 0
    for _ in range(40):
        values = np.repeat(random.normal(size=4), 50)  # the machine changes three times
        told += isinstance(intervals(Samples(range(200), {"m": values}, follow_each_other=True), 0.95)["m"], str)
    assert told >= 36


@pytest.mark.parametrize("count", [0, 1, 9])
def test_few_windows_have_no_interval(count: int) -> None:
    found = intervals(Samples(range(count), {"m": np.linspace(0.1, 0.7, count)}, follow_each_other=True), 0.95)["m"]
    assert isinstance(found, str)


def test_the_worst_part_is_clearly_worse_only_beyond_chance() -> None:
    random, truth = np.random.default_rng(6), np.arange(2000) % 5
    folders = [f"camera {number % 10}" for number in range(2000)]
    alarms = 0
    for _ in range(50):
        (row,) = worst_slices(classified(truth, answers(random, truth, 0.9), slices={"folder": folders}), 0.95)
        alarms += row["clearly worse"]
    assert alarms <= 5
    predicted = answers(random, truth, 0.95)
    predicted[3::10] = (truth[3::10] + 1) % 5
    (row,) = worst_slices(classified(truth, predicted, slices={"folder": folders, "class": ["one"] * 2000}), 0.95)
    assert (row["by"], row["slice"], row["clearly worse"]) == ("folder", "camera 3", True)


def labelled(random: np.random.Generator, right: float, blocks: int = 60, each: int = 10) -> Samples:
    """Windows of a machine that stays in a state for some of them; most states are numbered otherwise than labels."""
    truth = np.repeat(random.integers(0, 3, blocks), each)
    states = np.where(random.random(len(truth)) < right, (truth + 1) % 3, truth)
    return Samples(range(len(truth)), {}, truth, states, {"ari": "adjusted_rand"}, follow_each_other=True)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), min_size=12, max_size=60))
def test_the_adjusted_rand_index_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    truth, states = np.array(pairs).T
    found = intervals(Samples(range(len(truth)), {}, truth, states, {"ari": "adjusted_rand"}), 0.9)["ari"]
    assert interval(found).value == pytest.approx(adjusted_rand_score(truth, states))
    assert interval(found).low <= interval(found).high <= 1


def test_the_adjusted_rand_index_is_as_sure_as_stretches_are_many() -> None:
    random = np.random.default_rng(3)
    many = labelled(random, 0.9, 2000, 5)
    expected = adjusted_rand_score(many.truth, many.predicted)
    held, told = 0, 0
    for seed in range(100):
        found = intervals(labelled(np.random.default_rng(seed), 0.9), 0.9)["ari"]
        if isinstance(found, Interval):  # by chance neighbouring stretches may be alike
            told += 1
            held += found.low <= expected <= found.high
    assert told >= 85 and held >= 0.8 * told  # 90 in 100 are expected
    sure = interval(intervals(labelled(random, 1.0), 0.9)["ari"])
    assert sure.value == 1 and 0.8 < sure.low < 1

    before = labelled(np.random.default_rng(9), 1.0)
    states = np.where(random.random(600) < 0.1, before.truth, before.predicted)
    worse = Samples(before.records, {}, before.truth, states, before.macro, follow_each_other=True)
    assert difference(differences(before, worse, 0.95)["ari"]).interval.high < 0
    same = difference(differences(before, before, 0.95)["ari"]).interval
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_what_follows_from_a_mean_has_its_interval() -> None:
    values = np.random.default_rng(4).normal(-2, 1, 300)
    bic = {"bic": ("ll", -600.0, 50.0)}
    before = Samples(range(300), {"ll": values}, scaled=bic)
    now = Samples(range(300), {"ll": values + 0.1}, scaled={"bic": ("ll", -600.0, 57.0)})
    assert StoredSamples.model_validate(as_json(now)).samples().scaled == now.scaled
    found = intervals(before, 0.95)
    ll, of = interval(found["ll"]), interval(found["bic"])
    assert (of.value, of.low, of.high) == (50 - 600 * ll.value, 50 - 600 * ll.high, 50 - 600 * ll.low)
    assert difference(differences(before, now, 0.95)["bic"]).interval.value == pytest.approx(-60 + 7)
    other = Samples(range(300), {"ll": values}, scaled={"bic": ("ll", -598.0, 57.0)})
    assert differences(before, other, 0.95)["bic"] == "it is of another number of records"
