"""The component that ships to the edge, against the model's own batch predictions."""

from __future__ import annotations

import functools
import json
import logging
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgepack_assets.model_types.state_identifier as package
from edgepack_assets_tests.model_types.state_identifier import models


def records_of(rows):
    return [{f"ph{i + 1}": None if np.isnan(v) else float(v) for i, v in enumerate(row)} for row in rows]


def answers_of(component, rows):
    """{record number: prediction}."""
    answers = ((n, component.process(record)) for n, record in enumerate(records_of(rows)))
    return {n: answer["prediction"] for n, answer in answers if answer is not None}


def batch_of(model, rows):
    """{record number that completes the window: prediction}, for the windows whose features are finite."""
    windowing = model.named_steps["preprocessing"].named_steps["windowing"]
    features = model.named_steps["preprocessing"].transform(rows)
    return {
        i * windowing.window_step + windowing.window_size - 1: int(
            model.named_steps["clustering"].predict(row[None])[0]
        )
        for i, row in enumerate(features)
        if np.isfinite(row).all()
    }


MODELS = [(size, step, how) for size, step in [(1, 1), (6, 6), (6, 2), (4, 7), (5, 1)] for how in ("ffill", 0.0)]


@functools.cache
def fitted(size, step, how):
    """The model, fitted when a test first asks for it."""
    return models.fitted(size, step, how)


@settings(max_examples=150)
@given(
    key=st.sampled_from(sorted(MODELS, key=str)),
    levels=st.lists(st.floats(10, 5000), min_size=40, max_size=40),
    holes=st.sets(st.tuples(st.integers(0, 39), st.integers(0, 2)), max_size=60),
)
@pytest.mark.long
def test_answers_equal_batch_predictions_wherever_values_are_missing(inference, key, levels, holes):
    model = fitted(*key)
    rows = np.outer(levels, [1.0, 1.1, 0.9])
    for row, column in holes:
        rows[row, column] = np.nan
    assert answers_of(inference.StateIdentifier(model, {}), rows) == batch_of(model, rows)


def test_features_keep_their_floating_type_which_the_clustering_was_fitted_on(inference):
    model = models.fitted(6, 6)
    single = models.Single()
    model.named_steps["preprocessing"].steps.append(("single", single))
    model.named_steps["clustering"].fit(model.named_steps["preprocessing"].transform(models.recording(400)))
    assert model.named_steps["clustering"].cluster_centers_.dtype == np.float32
    rows = models.recording(60, seed=3)
    assert answers_of(inference.StateIdentifier(model, {}), rows) == batch_of(model, rows)


def test_a_window_that_nothing_can_fill_gets_no_answer_and_a_log_line(inference, caplog):
    model = fitted(6, 6, "ffill")
    rows = models.recording(24)
    rows[:3, 1] = np.nan
    with caplog.at_level(logging.WARNING):
        answers = answers_of(inference.StateIdentifier(model, {}), rows)
    assert sorted(answers) == [11, 17, 23]
    assert "nothing before them" in caplog.text


@pytest.mark.parametrize(
    "bad",
    [{"ph1": 1.0, "ph2": 2.0}, {"ph1": "12", "ph2": 1.0, "ph3": 1.0}, {"ph1": True, "ph2": 1.0, "ph3": 1.0},
     {"ph1": float("inf"), "ph2": 1.0, "ph3": 1.0}, {"ph1": 10**400, "ph2": 1.0, "ph3": 1.0},
     {"ph1": [1.0], "ph2": 1.0, "ph3": 1.0}, {}],
)  # fmt: skip
def test_a_bad_record_is_refused_with_a_log_line_and_does_not_poison_the_window(inference, caplog, bad):
    model, rows = fitted(6, 6, "ffill"), models.recording(12)
    component, answers = inference.StateIdentifier(model, {}), []
    for n, record in enumerate(records_of(rows)):
        if n in (2, 9):
            assert component.process(bad) is None
        answers.append(component.process(record))
    assert [n for n, answer in enumerate(answers) if answer] == [5, 11]
    assert {n: a["prediction"] for n, a in enumerate(answers) if a} == batch_of(model, rows)
    assert caplog.text.count("record refused") == 2


def test_step_size_changes_while_running(inference):
    model = fitted(6, 6, "ffill")
    component, answered = inference.StateIdentifier(model, {}), []
    component.update_parameters({"step_size": 6})
    for n, record in enumerate(records_of(models.recording(60))):
        if n == 14:
            component.update_parameters({"step_size": 2})  # the last answer came at 11, so this record is due
        if n == 20:
            component.update_parameters({"step_size": 10})
        if component.process(record) is not None:
            answered.append(n)
    assert answered == [5, 11, 14, 16, 18, 28, 38, 48, 58]


@pytest.mark.parametrize("step", [0, -1, 2.5, "3", True, None])
def test_a_step_size_that_is_none_stays_as_it_was(inference, caplog, step):
    component = inference.StateIdentifier(fitted(6, 6, "ffill"), {})
    component.update_parameters({"step_size": step})
    assert component.step_size == 6
    assert "refused" in caplog.text


def test_the_answer_holds_exactly_what_the_package_declares(inference):
    model, rows = fitted(6, 6, "ffill"), models.recording(6)
    rows[2, 0] = np.nan
    component = inference.StateIdentifier(model, {})
    answer = [component.process(record) for record in records_of(rows)][-1]
    spec = package.MODEL_TYPE.component_spec(
        {"window_size": 6, "window_step": 6, "inertia": 1.0, "component": {"input": "array"}}
    )
    assert answer.keys() == {v.name for v in (*spec.outputs, *spec.metrics)}
    assert answer["inertia"] == model.named_steps["clustering"].inertia_
    assert json.loads(answer["model_input_min"]) == {"value": np.nanmin(rows)}
    assert json.loads(answer["model_input_mean"])["value"] == pytest.approx(np.nanmean(rows))


def test_a_record_costs_the_same_after_many(inference):
    # A buffer that grows or is copied per record would make the second half cost a multiple of the first.
    component = inference.StateIdentifier(models.fitted(500, 10_000), {})
    record = {"ph1": 1.0, "ph2": 2.0, "ph3": 3.0}

    def feed(count):
        started = time.process_time()
        for _ in range(count):
            component.process(record)
        return time.process_time() - started

    feed(20_000)
    early = min(feed(20_000) for _ in range(3))
    feed(200_000)
    assert min(feed(20_000) for _ in range(3)) < 3 * early
    assert len(component._rows) == 501


class TestInspection:
    """inspect_model refuses what could not run on the edge as it was trained."""

    def online(self, child_tasks, model, size, step):
        component = child_tasks.child_columns.input_of(model, {}, size, step)
        return child_tasks._online_equals_batch(model, component, size, step)

    @pytest.mark.parametrize("how", ["bfill", "interpolate"])
    @pytest.mark.parametrize(("size", "step"), [(6, 6), (30, 10), (4, 9)])
    def test_filling_that_looks_ahead_is_refused_with_that_reason(self, child_tasks, how, size, step):
        with pytest.raises(ValueError, match="looks ahead"):
            self.online(child_tasks, models.fitted(size, step, how), size, step)

    @pytest.mark.parametrize("how", ["ffill", 0.0, -1.5])
    @pytest.mark.parametrize(("size", "step"), [(1, 1), (6, 6), (30, 10), (4, 9)])
    def test_causal_filling_is_taken(self, child_tasks, how, size, step):
        assert self.online(child_tasks, models.fitted(size, step, how), size, step)

    def test_a_step_that_needs_more_of_the_past_is_refused(self, child_tasks):
        model = models.fitted(6, 6, extra=(models.Smooth(9),))
        with pytest.raises(ValueError, match="more than a window"):
            self.online(child_tasks, model, 6, 6)

    def test_a_step_that_needs_the_record_before_is_taken(self, child_tasks):
        assert self.online(child_tasks, models.fitted(6, 3, extra=(models.Difference(),)), 6, 3)

    def test_a_model_that_fills_nothing_is_taken_and_said_to(self, child_tasks):
        assert not self.online(child_tasks, models.fitted(6, 6, None), 6, 6)
