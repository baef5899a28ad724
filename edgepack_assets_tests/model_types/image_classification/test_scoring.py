"""The metrics: known values, whatever the order of the answers; what an answer that does not fit does."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sklearn.metrics import f1_score, precision_score, recall_score

from edgepack_assets.checks import all_pass
from edgepack_assets.errors import EdgepackError
from edgepack_assets.model_types.image_classification import MODEL_TYPE, confusion_matrix, scoring
from edgepack_assets.model_types.image_classification.contact_sheet import choose
from edgepack_assets.model_types.interface import Payload, Results, Score, gzip_writer

from .helpers import INSPECTION, labelled_payload, results


def _score(payload: Payload, given: Results, classes: int = 10) -> Score:
    return MODEL_TYPE.score(payload, given, None, {**INSPECTION, "output": {"classes": classes}})


def _failed(score: Score) -> list[str]:
    return [part.name for part in score.parts if not part.passed]


def test_the_known_example(tmp_path: Path) -> None:
    payload = labelled_payload(tmp_path, [0, 1, 0, 1])

    score = _score(payload, results(tmp_path, [(0, 0), (1, 0), (2, 0), (3, 0)]), classes=2)

    assert score.metrics == {
        "accuracy_validation": 0.5,
        "avg_precision_validation": 0.25,
        "avg_recall_validation": 0.5,
        "avg_f1_score_validation": pytest.approx(1 / 3),
    }
    assert score.metrics.keys() == MODEL_TYPE.metric_names
    assert all_pass(score.parts)


def test_averages_are_scikit_learn_s(tmp_path: Path) -> None:
    drawn = random.Random(3)  # noqa: S311 - a fixed order, no secret
    truth = [drawn.randrange(4) for _ in range(200)]
    predicted = [label if drawn.random() < 0.7 else drawn.randrange(6) for label in truth]

    score = _score(labelled_payload(tmp_path, truth), results(tmp_path, list(enumerate(predicted))))

    for name, measure in (("precision", precision_score), ("recall", recall_score), ("f1_score", f1_score)):
        wanted = measure(truth, predicted, average="macro", zero_division=0)
        assert score.metrics[f"avg_{name}_validation"] == pytest.approx(wanted)


def test_answers_are_matched_by_record_not_by_order(tmp_path: Path) -> None:
    truth = [0, 1, 2, 3, 3, 1, 0, 2]
    payload = labelled_payload(tmp_path, truth)
    answers = [(record, label if record % 3 else 1) for record, label in enumerate(truth) if record != 5]
    straight = _score(payload, results(tmp_path, answers))
    random.Random(1).shuffle(answers)  # noqa: S311 - a fixed order, no secret

    assert _score(payload, results(tmp_path, answers)).metrics == straight.metrics
    assert straight.metrics["accuracy_validation"] == 4 / 8


def test_labels_are_the_tags_numbers_not_the_order_of_class_names(tmp_path: Path) -> None:
    payload = labelled_payload(tmp_path, [7, 3], ["apple/0.png", "pear/0.png"])

    score = _score(payload, results(tmp_path, [(0, 7), (1, 3)]))

    assert score.metrics["accuracy_validation"] == 1
    assert [(row["class"], row["label"]) for row in score.tables["Per class"]] == [("pear", 3), ("apple", 7)]


def test_an_unanswered_record_is_wrong_and_counted_apart(tmp_path: Path) -> None:
    payload = labelled_payload(tmp_path, [0, 0, 1, 1])

    score = _score(payload, results(tmp_path, [(0, 0), (1, None), (2, 1), (3, 1)]), classes=2)

    assert score.metrics["accuracy_validation"] == 0.75
    assert score.metrics["avg_precision_validation"] == 1.0  # no phantom class, and no wrong answer
    assert score.metrics["avg_recall_validation"] == 0.75
    assert score.metrics["avg_f1_score_validation"] == pytest.approx((2 / 3 + 1) / 2)
    assert score.tables["Answers"] == [{"records": 4, "answered": 3, "unanswered": 1, "correct": 3, "wrong": 0}]
    assert score.tables["Unanswered"] == [{"record": 1, "file": "class-0/1.png"}]
    assert [row["label"] for row in score.tables["Per class"]] == [0, 1]
    assert "Worst mistakes" not in score.tables
    assert all_pass(score.parts)


def test_nothing_answered_is_nothing_right(tmp_path: Path) -> None:
    payload = labelled_payload(tmp_path, [0, 1])
    score = _score(payload, results(tmp_path, [(0, None), (1, None)]))
    assert set(score.metrics.values()) == {0.0}


def test_a_class_of_its_own_accord(tmp_path: Path) -> None:
    """An answer that no label has is a class with precision and recall 0, as scikit-learn counts it."""
    score = _score(labelled_payload(tmp_path, [0, 0]), results(tmp_path, [(0, 0), (1, 5)]))
    assert score.metrics["avg_recall_validation"] == 0.25
    assert score.tables["Per class"][1] == {
        "class": "", "label": 5, "support": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0
    }  # fmt: skip


def test_the_worst_mistakes_come_first(tmp_path: Path) -> None:
    payload = labelled_payload(tmp_path, [0, 0, 1])
    path = tmp_path / "results.gz"
    with gzip_writer(path) as stream:
        for record, probability in enumerate((0.4, 0.9, 0.7)):
            outputs = {"prediction": "1", "ic_probability": json.dumps({"value": probability})}
            stream.write(json.dumps({"record": record, "outputs": outputs}).encode() + b"\n")

    mistakes = _score(payload, Results(path)).tables["Worst mistakes"]

    assert [(row["record"], row["label"], row["answer"], row["probability"]) for row in mistakes] == [
        (1, 0, 1, 0.9),
        (0, 0, 1, 0.4),
    ]


@pytest.mark.parametrize("prediction", ["cat", "-1", "10", "1.0", "", " 1", "\uff11", "999999999999999999"])
def test_a_prediction_that_is_no_class_fails_and_counts_as_wrong(tmp_path: Path, prediction: str) -> None:
    payload = labelled_payload(tmp_path, [1, 1])
    score = _score(payload, results(tmp_path, [(0, 1), (1, prediction)]))
    assert _failed(score) == ["every prediction is a class"]
    assert repr(prediction) in next(part.found for part in score.parts if not part.passed)
    assert score.metrics["accuracy_validation"] == 0.5


@pytest.mark.parametrize("value", ['{"value": 1.5}', '{"value": true}', '{"value": NaN}', "0.5", "x", "[", None, 0.5])
def test_a_probability_that_is_none(tmp_path: Path, value: Any) -> None:
    payload = labelled_payload(tmp_path, [1])
    path = tmp_path / "results.gz"
    with gzip_writer(path) as stream:
        line = {"record": 0, "outputs": {"prediction": "1", "ic_probability": value}}
        stream.write(json.dumps(line).encode())
    assert _failed(_score(payload, Results(path))) == ["every probability is one"]


def test_an_answer_to_no_record(tmp_path: Path) -> None:
    payload = labelled_payload(tmp_path, [1])
    score = _score(payload, results(tmp_path, [(0, 1), (1, 1)]))
    assert _failed(score) == ["every answer belongs to a record"]
    assert score.metrics["accuracy_validation"] == 1


def test_two_answers_to_one_record(tmp_path: Path) -> None:
    payload = labelled_payload(tmp_path, [1])
    score = _score(payload, results(tmp_path, [(0, 0), (0, 1)]))
    assert _failed(score) == ["no record is answered twice"]


def test_a_record_without_a_label(tmp_path: Path) -> None:
    labelled = labelled_payload(tmp_path, [1, 1])
    payload = Payload(labelled.records, labelled.sources, 3)
    score = _score(payload, results(tmp_path, [(0, 1), (1, 1), (2, 1)]))
    assert _failed(score) == ["every record has a label"]


def test_no_labels_at_all(tmp_path: Path) -> None:
    payload = labelled_payload(tmp_path, [])
    with pytest.raises(EdgepackError, match="no record of the payload has a label"):
        _score(Payload(payload.records, payload.sources, 2), results(tmp_path, [(0, 1)]))


def test_a_label_beyond_the_model(tmp_path: Path) -> None:
    payload = labelled_payload(tmp_path, [0, 2], ["cat/0.png", "dog/0.png"])
    score = _score(payload, results(tmp_path, [(0, 0), (1, 0)]), classes=2)
    assert _failed(score) == ["every label is a class of the model"]
    failed = next(part for part in score.parts if not part.passed)
    assert "dog=2" in failed.found and "register the model of these classes" in failed.wanted


@pytest.mark.parametrize(("classes", "together"), [(3, True), (30, True), (31, False), (1024, False)])
def test_far_more_outputs_than_labels_are_warned_of(tmp_path: Path, classes: int, together: bool) -> None:
    payload = labelled_payload(tmp_path, [0, 2, 2])
    score = _score(payload, results(tmp_path, [(0, 0), (1, 2), (2, 2)]), classes)
    (row,) = [part for part in score.parts if "go together" in part.name]
    assert row.passed is together and row.warns
    assert row.found == f"{classes} scores, labels up to 2"
    assert all_pass(score.parts)


@pytest.mark.parametrize("classes", [3, 20, 1024])
def test_labels_of_all_classes_of_another_model_are_refused_unless_that_is_configured(
    tmp_path: Path, classes: int
) -> None:
    payload, answers = labelled_payload(tmp_path, [0, 1, 1]), results(tmp_path, [(0, 0), (1, 1), (2, 1)])
    score = _score(payload, answers, classes)
    assert _failed(score) == ["the model's classes and the labels go together"]
    (row,) = [part for part in score.parts if not part.passed]
    assert not row.warns and row.found == f"{classes} scores, labels 0 to 1"
    assert f"set output: {{classes: {classes}}} in edgepack.yaml" in row.wanted
    configured = {**INSPECTION, "output": {"classes": classes, "classes_are_configured": True}}
    assert _failed(MODEL_TYPE.score(payload, answers, None, configured)) == []


def test_one_class_of_a_thousand_may_be_all_that_is_tried(tmp_path: Path) -> None:
    payload = labelled_payload(tmp_path, [935])
    assert _failed(_score(payload, results(tmp_path, [(0, 935)]), 1001)) == []


def test_the_confusion_matrix_counts_each_image_once() -> None:
    found = confusion_matrix.tabulate([0, 0, 0, 3, 3, 3], [0, 3, -1, 3, 7, 3], -1)
    assert found.rows == [0, 3]
    assert found.columns == [0, 3, 7, -1]
    assert found.cells == [[1, 1, 0, 1], [0, 2, 1, 0]]


def test_of_many_classes_the_most_confused_are_shown() -> None:
    truth = [label for label in range(200) for _ in range(2)]
    predicted = [label if label % 8 else 1000 + number for number, label in enumerate(truth)]
    found = confusion_matrix.tabulate(truth, predicted, -1)
    assert {label for label in range(200) if label % 8 == 0} <= set(found.rows)
    assert len(found.rows) == 30 and len(found.columns) <= 40
    assert found.columns[-1] == confusion_matrix.OTHER
    assert [sum(row) for row in found.cells] == [2] * 30


def _size(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        assert image.format == "PNG"
        return image.size


@pytest.mark.parametrize("classes", [1, 2, 7, 50, 120])
def test_pictures_keep_a_legible_size(tmp_path: Path, classes: int) -> None:
    truth = [label for label in range(classes) for _ in range(2)]
    answers = [(i, None if i % 11 == 10 else (label + (i % 5 == 4)) % classes) for i, label in enumerate(truth)]
    payload, given = labelled_payload(tmp_path, truth), results(tmp_path, answers)

    width, height = _size(_score(payload, given, classes).pictures["Confusion matrix"])
    assert 300 < width < 2600 and 300 < height < 2600
    width, height = _size(MODEL_TYPE.results_picture(payload, given, INSPECTION))
    assert 900 < width <= 976 and 300 < height < 1400  # as wide as the dialog of the UI


def test_names_with_dollar_signs_are_drawn_as_they_are(tmp_path: Path) -> None:
    payload = labelled_payload(tmp_path, [0, 1], ["$\\foo$/$a_{$.png", "b$/c$x$.png"])
    given = results(tmp_path, [(0, 0), (1, 0)])
    _size(_score(payload, given).pictures["Confusion matrix"])
    _size(MODEL_TYPE.results_picture(payload, given, INSPECTION))


def _images(correct: list[bool]) -> list[scoring.Image]:
    return [scoring.Image(i, f"c/{i}.png", 0, 0 if right else 1, 0.5) for i, right in enumerate(correct)]


@pytest.mark.parametrize(
    ("correct", "shown", "wrong"),
    [
        ([True] * 100, 12, 0),
        ([True] * 90 + [False] * 10, 12, 4),
        ([False] * 2 + [True] * 90, 12, 2),
        ([False] * 100, 12, 12),
        ([False] * 50 + [True] * 3, 12, 9),
        ([True, False], 2, 1),
        ([], 0, 0),
    ],
)
def test_the_sheet_shows_some_wrong_ones(correct: list[bool], shown: int, wrong: int) -> None:
    chosen = choose(_images(correct))
    assert len(chosen) == len({image.record for image in chosen}) == shown
    assert sum(not image.correct for image in chosen) == wrong
    assert chosen == sorted(chosen, key=lambda image: image.record)


def test_the_sheet_is_drawn_evenly() -> None:
    records = [image.record for image in choose(_images([True] * 1200))]
    assert [record // 100 for record in records] == list(range(12))
