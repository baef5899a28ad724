"""How the answers of a converted model are judged against the original's."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack_assets.errors import ComponentError
from edgepack_assets.model_types.image_classification.keras_comparison import (
    ANSWER,
    NO_ANSWER,
    NOT_FINITE,
    Answer,
    compare,
    judge,
    limits,
)
from edgepack_assets.model_types.interface import Compared, Payload, SideJob, SideResult
from edgepack_assets.model_types.keras_models.settings import DEFAULTS, ConversionSettings
from edgepack_assets_tests.model_types.image_classification.helpers import (
    entry,
    labelled_payload,
    load_inference,
    load_keras_child_tasks,
    results,
)

ALLOWED = ConversionSettings(to="float", tolerance=0.1, max_changed=0.25)
FOUR = [Answer(0, 0.9), Answer(1, 0.8), Answer(2, 0.7), Answer(0, 0.6)]


def kept(originals: list[Answer], packaged: Mapping[int, Answer], allowed: ConversionSettings = ALLOWED) -> Any:
    return judge(originals, packaged, allowed).rows[0]


def test_both_sides_write_answers_alike() -> None:
    child = load_keras_child_tasks()
    assert (child.ANSWER.format, child.NO_ANSWER, child.NOT_FINITE) == (ANSWER.format, NO_ANSWER, NOT_FINITE)


def test_equal_answers_pass_with_nothing_allowed() -> None:
    strict = ConversionSettings(tolerance=0, max_changed=0)
    comparison = judge(FOUR, dict(enumerate(FOUR)), strict)
    assert all(row.passed for row in comparison.rows)
    assert comparison.table == ()


@pytest.mark.parametrize(
    ("record", "answer", "words"),
    [
        (1, Answer(2, 0.8), "2 (0.8000)"),
        (1, Answer(1, 0.69), "1 (0.6900)"),
        (1, None, "no answer"),
        (3, Answer(0, 0.71), "0 (0.7100)"),
    ],
)
def test_an_answer_is_changed_by_its_class_its_probability_or_by_being_none(
    record: int, answer: Answer | None, words: str
) -> None:
    packaged = {number: found for number, found in enumerate(FOUR) if number != record}
    packaged |= {} if answer is None else {record: answer}
    row = kept(FOUR, packaged)
    assert row.passed  # one of four is allowed
    assert "1 of 4 answers changed (25.00%)" in row.found
    assert f"records {record}" in row.found
    assert [each["converted"] for each in judge(FOUR, packaged, ALLOWED).table] == [words]
    assert not kept(FOUR, packaged, ConversionSettings(tolerance=0.1, max_changed=0.24)).passed


def test_a_converted_model_that_gives_no_numbers_fails() -> None:
    assert not kept(FOUR, {}).passed


def test_an_original_that_gives_no_numbers_fails_even_if_both_do() -> None:
    comparison = judge([Answer(NOT_FINITE, 0.0)] * 4, {}, ALLOWED)
    assert [row.passed for row in comparison.rows] == [True, False]
    assert comparison.rows[1].found == "4 of 4 are not"


def test_records_without_an_image_are_unanswered_on_both_sides() -> None:
    originals = [Answer(NO_ANSWER, 0.0), *FOUR]
    assert kept(originals, {number + 1: found for number, found in enumerate(FOUR)}).passed
    assert "1 of 5" in kept(originals, dict(enumerate(FOUR[:1])) | {n + 1: f for n, f in enumerate(FOUR)}).found


def test_an_empty_payload_proves_nothing() -> None:
    assert not kept([], {}).passed


def test_a_model_that_says_the_same_of_every_image_warns() -> None:
    row = judge([Answer(3, 0.001)] * 5, dict.fromkeys(range(5), Answer(3, 0.001)), ALLOWED).rows[-1]
    assert (row.passed, row.warns) == (False, True)


_ANSWERS = st.builds(Answer, st.integers(0, 4), st.floats(0, 1))


@given(st.lists(st.tuples(_ANSWERS, st.none() | _ANSWERS), min_size=1, max_size=30), st.floats(0, 1), st.floats(0, 1))
def test_more_tolerance_never_fails_what_less_passes(
    pairs: list[tuple[Answer, Answer | None]], tolerance: float, changed: float
) -> None:
    originals = [original for original, _ in pairs]
    packaged = {number: found for number, (_, found) in enumerate(pairs) if found is not None}
    narrow = ConversionSettings(tolerance=tolerance, max_changed=changed)
    wide = ConversionSettings(tolerance=min(1.0, tolerance + 0.1), max_changed=min(1.0, changed + 0.1))
    assert kept(originals, packaged, wide).passed or not kept(originals, packaged, narrow).passed
    everything = ConversionSettings(tolerance=1, max_changed=1)
    assert kept(originals, packaged, everything).passed


@pytest.mark.parametrize("to", list(DEFAULTS))
def test_the_option_that_was_used_decides_what_is_allowed_and_configuration_overrides_it(to: str) -> None:
    defaults = limits({"to": to}, entry(settings={"conversion": "float16"}))
    assert (defaults.most_difference, defaults.most_changed) == (DEFAULTS[to].tolerance, DEFAULTS[to].changed)
    given_ = limits({"to": to}, entry(settings={"conversion": {"tolerance": 0.5, "max_changed": 0}}))
    assert (given_.most_difference, given_.most_changed) == (0.5, 0)


class Original:
    """Side jobs that give these answers of the original."""

    def __init__(self, folder: Path, answers: bytes) -> None:
        self.file = folder / "answers"
        self.file.write_bytes(answers)
        self.jobs: list[SideJob] = []

    def versions(self, requirements: tuple[str, ...]) -> Mapping[str, str]:
        raise AssertionError(requirements)

    def payload(self) -> Payload:
        raise AssertionError

    def run(self, what: str, job: SideJob) -> SideResult:
        self.jobs.append(job)
        return SideResult({"records": 3}, {"answers": self.file}, kept=False)


def compared(folder: Path, answers: list[tuple[int, Any]]) -> Compared:
    (folder / "component").mkdir()
    (folder / "component" / "inference.py").write_text("x = 1\n")
    (folder / "component" / "model.tflite").write_bytes(b"x")
    return Compared(
        {"requirements": ["tensorflow-cpu"], "arguments": {"kind": "keras", "keras": 3}, "to": "float"},
        {"model": folder / "component" / "model.tflite"},
        folder / "component",
        labelled_payload(folder / "payload", [0, 1, 2]),
        results(folder, answers, 0.9),
        {"component": {"scores": "probabilities", "input": {"range": [0, 255]}}, "output": {"classes": 3}},
    )


def packed(*answers: tuple[int, float]) -> bytes:
    return b"".join(ANSWER.pack(*each) for each in answers)


def test_each_record_is_compared_with_its_own_answer(tmp_path: Path) -> None:
    jobs = Original(tmp_path, packed((0, 0.9), (NO_ANSWER, 0.0), (2, 0.9)))
    comparison = compare(compared(tmp_path, [(0, 0), (1, None), (2, 1)]), entry(), jobs, tmp_path)
    assert comparison.table == ({"record": 2, "original": "2 (0.9000)", "converted": "1 (0.9000)"},)
    assert not comparison.rows[0].passed
    (job,) = jobs.jobs
    assert job.arguments == {"kind": "keras", "keras": 3, "input": {"range": [0, 255]}, "scores": "probabilities"}
    assert set(job.inputs) == {"model", "records"}
    assert sorted(path.name for path in job.folder.iterdir()) == ["inference.py"]


@pytest.mark.parametrize(
    "answers",
    [
        b"",
        packed((0, 0.9), (1, 0.9)),
        packed((0, 0.9), (1, 0.9), (2, 0.9), (2, 0.9)),
        packed((0, 0.9), (1, 0.9), (3, 0.9)),
        packed((0, 0.9), (1, 0.9), (-3, 0.9)),
        packed((0, 0.9), (1, 0.9), (2, math.nan)),
        packed((0, 0.9), (1, 0.9), (2, 1.5)),
    ],
)
def test_answers_that_cannot_be_the_original_s_are_refused(tmp_path: Path, answers: bytes) -> None:
    with pytest.raises(ComponentError, match="the original model"):
        compare(compared(tmp_path, [(0, 0)]), entry(), Original(tmp_path, answers), tmp_path)


def test_the_child_s_answers_are_those_of_the_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """answer_original with a model of one layer in place of TensorFlow's: which tensor it is shown, and what of."""
    child = load_keras_child_tasks()
    monkeypatch.setitem(sys.modules, "inference", load_inference())

    class Brightness:
        name, shape, dtype, batch = "input", (None, 4, 4, 3), "float32", 2

        def __init__(self, arguments: Mapping[str, Any]) -> None:
            pass

        def answer(self, batch: Any) -> Any:
            mean = batch.mean(axis=(1, 2, 3))
            return np.stack([mean, 1 - mean], axis=1) if mean[0] < 0.99 else np.full((len(batch), 2), np.nan)

    monkeypatch.setattr(child, "Original", Brightness)
    payload = labelled_payload(tmp_path, [0, 1, 0])
    child.answer_original(
        {"records": str(payload.records), "answers": str(tmp_path / "a"), "input": {}, "scores": "probabilities"}
    )
    found = list(ANSWER.iter_unpack((tmp_path / "a").read_bytes()))
    assert len(found) == 3
    assert all(label in (0, 1) and 0.5 <= probability <= 1 for label, probability in found)
    # the same in another range: scores beyond 1 are logits, read as such
    child.answer_original({"records": str(payload.records), "answers": str(tmp_path / "b"),
                           "input": {"range": [0, 255]}, "scores": "logits"})  # fmt: skip
    assert {label for label, _ in ANSWER.iter_unpack((tmp_path / "b").read_bytes())} == {NOT_FINITE}
