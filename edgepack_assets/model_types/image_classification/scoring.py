"""The metrics of the answers: each answer is matched to its record's label by the record's number."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from edgepack_assets.checks import CheckRow
from edgepack_assets.errors import EdgepackError
from edgepack_assets.model_types.image_classification import confusion_matrix
from edgepack_assets.model_types.interface import Payload, Results, Samples, Score, read_lines
from edgepack_assets.text_format import counted

METRICS = (
    "accuracy_validation",
    "avg_precision_validation",
    "avg_recall_validation",
    "avg_f1_score_validation",
)

NO_ANSWER = -1
"""What an unanswered record is predicted as: a label that no class has."""

_LISTED = 20
_MANY, _MANY_TIMES = 20, 10
"""A model has far more outputs than classes from so many on, and so many times the highest label."""


@dataclass(frozen=True)
class Image:
    """A labelled record: its number, source file, true label, and what was answered (NO_ANSWER and None where
    nothing was, or nothing that can be read)."""

    record: int
    file: str
    truth: int
    prediction: int
    probability: float | None

    @property
    def correct(self) -> bool:
        """Whether the answer is the label."""
        return self.prediction == self.truth

    @property
    def class_name(self) -> str:
        """The class folder that the image lies in."""
        return self.file.partition("/")[0]


@dataclass(frozen=True)
class Scored:
    """All images with their answers, and what did not fit: records without a label, answers without a record,
    answers to a record that has one already, and answers that cannot be read."""

    images: list[Image]
    unlabelled: list[int]
    strangers: list[int]
    repeated: list[int]
    unreadable: list[str]
    improbable: list[str]

    @property
    def names(self) -> dict[int, str]:
        """Label to the name of its class folder; of several folders, all."""
        folders: dict[int, set[str]] = {}
        for image in self.images:
            folders.setdefault(image.truth, set()).add(image.class_name)
        return {label: ", ".join(sorted(names)) for label, names in sorted(folders.items())}


def match(payload: Payload, results: Results, classes: int | None = None) -> Scored:
    """Join the answers to the payload's labelled records. `classes`: how many the model distinguishes."""
    sources = {source["record"]: source for source in read_lines(payload.sources)}
    answers: dict[int, tuple[int, float | None]] = {}
    scored = Scored([], [], [], [], [], [])
    for answer in results.answers():
        if not 0 <= answer.record < payload.count:
            scored.strangers.append(answer.record)
            continue
        if answer.record in answers:
            scored.repeated.append(answer.record)
            continue
        prediction = read_prediction(answer.outputs.get("prediction"), classes)
        if prediction is None:
            scored.unreadable.append(f"record {answer.record}: {answer.outputs.get('prediction')!r:.60}")
        probability = read_probability(answer.outputs.get("ic_probability"))
        if probability is None:
            scored.improbable.append(f"record {answer.record}: {answer.outputs.get('ic_probability')!r:.60}")
        answers[answer.record] = (NO_ANSWER if prediction is None else prediction, probability)
    for record in range(payload.count):
        source = sources.get(record)
        if source is None or source["label"] is None:
            scored.unlabelled.append(record)
            continue
        prediction, probability = answers.get(record, (NO_ANSWER, None))
        scored.images.append(Image(record, source["file"], source["label"], prediction, probability))
    return scored


def score(payload: Payload, results: Results, inspection: Mapping[str, Any]) -> Score:
    """Accuracy and macro averages (scikit-learn) over the classes that occur as a label or as an answer.

    An unanswered record is a wrong one: it lowers accuracy and its class's recall (and so F1), but is no answer
    for any class, so it leaves precision alone and adds no class of its own to the averages.
    """
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    classes = int(inspection["output"]["classes"])
    scored = match(payload, results, classes)
    if not scored.images:
        raise EdgepackError("no record of the payload has a label, so nothing can be scored; materialize payload_data")
    truth = [image.truth for image in scored.images]
    predicted = [image.prediction for image in scored.images]
    labels = sorted({*truth, *predicted} - {NO_ANSWER})
    per_class = precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0)
    precision, recall, f1, support = (column.tolist() for column in per_class)
    averages = precision_recall_fscore_support(truth, predicted, labels=labels, average="macro", zero_division=0)
    values = [accuracy_score(truth, predicted), *averages[:3]]
    names = scored.names
    rows = zip(labels, support, precision, recall, f1, strict=True)
    tables = {
        "Answers": [_counts(payload, scored)],
        "Per class": [
            {
                "class": names.get(label, ""),
                "label": label,
                "support": int(images),
                "precision": p,
                "recall": r,
                "f1": f,
            }
            for label, images, p, r, f in rows
        ],
    }
    if mistakes := _mistakes(scored):
        tables["Worst mistakes"] = mistakes
    if unanswered := [image for image in scored.images if image.prediction == NO_ANSWER]:
        tables["Unanswered"] = [{"record": image.record, "file": image.file} for image in unanswered[:_LISTED]]
    return Score(
        metrics={name: float(value) for name, value in zip(METRICS, values, strict=True)},
        parts=tuple(_rows(payload, scored, inspection["output"])),
        tables=tables,
        pictures={"Confusion matrix": confusion_matrix.draw(truth, predicted, names, NO_ANSWER)},
        samples=_samples(scored.images),
    )


def _samples(images: Sequence[Image]) -> Samples:
    """Each image by itself. Several pictures of one part are alike, and say less than as many others."""
    return Samples(
        records=[image.record for image in images],
        values={METRICS[0]: [float(image.correct) for image in images]},
        truth=[image.truth for image in images],
        predicted=[image.prediction for image in images],
        macro={METRICS[1]: "precision", METRICS[2]: "recall", METRICS[3]: "f1"},
        slices=_slices(images),
    )


def _slices(images: Sequence[Image]) -> dict[str, list[str]]:
    """By class, and by folder where these are others than the classes'."""
    classes = [image.class_name for image in images]
    folders = [str(PurePosixPath(image.file).parent) for image in images]
    return {"class": classes, **({"folder": folders} if folders != classes else {})}


def _counts(payload: Payload, scored: Scored) -> dict[str, Any]:
    unanswered = sum(image.prediction == NO_ANSWER for image in scored.images)
    correct = sum(image.correct for image in scored.images)
    return {
        "records": payload.count,
        "answered": len(scored.images) - unanswered,
        "unanswered": unanswered,
        "correct": correct,
        "wrong": len(scored.images) - unanswered - correct,
    }


def _mistakes(scored: Scored) -> list[dict[str, Any]]:
    """The wrong answers that the model was surest of."""
    wrong = [image for image in scored.images if not image.correct and image.prediction != NO_ANSWER]
    wrong.sort(key=lambda image: (-(image.probability or 0.0), image.record))
    names = scored.names
    return [
        {
            "record": image.record,
            "file": image.file,
            "label": image.truth,
            "answer": image.prediction,
            "answered class": names.get(image.prediction, ""),
            "probability": image.probability if image.probability is not None else "",
        }
        for image in wrong[:_LISTED]
    ]


def _rows(payload: Payload, scored: Scored, output: Mapping[str, Any]) -> list[CheckRow]:
    classes = int(output["classes"])
    beyond = sorted(f"{name}={label}" for label, name in scored.names.items() if label >= classes)
    whole = f"whole numbers from 0 to {classes - 1}"
    return [
        _none(
            "every record has a label",
            scored.unlabelled,
            f"{counted(payload.count, 'record')} with a label",
            "without a label",
        ),
        _none(
            "every label is a class of the model",
            beyond,
            f"labels from 0 to {classes - 1}, as the model tells {counted(classes, 'class')} apart: register the model "
            "of these classes, or correct the tags of the raw data",
            "beyond the model",
        ),
        _number_of_classes_row(sorted(scored.names), classes, bool(output.get("classes_are_configured"))),
        _none("every answer belongs to a record", scored.strangers, "numbers of payload records", "unknown"),
        _none("no record is answered twice", scored.repeated, "one answer a record at most", "answered again"),
        _none("every prediction is a class", scored.unreadable, whole, "not so"),
        _none("every probability is one", scored.improbable, '{"value": p} with p from 0 to 1', "not so"),
    ]


def _number_of_classes_row(labels: Sequence[int], classes: int, is_configured: bool) -> CheckRow:
    """Labels 0, 1, 2 ... without a gap are those of all classes of a model. Others may be a part of them."""
    highest = max(labels, default=0)
    are_all = len(labels) == highest + 1 > 1
    is_right = is_configured or classes <= (highest + 1 if are_all else max(_MANY, _MANY_TIMES * (highest + 1)))
    return CheckRow(
        "the model's classes and the labels go together",
        is_right,
        f"{classes} scores, labels " + (f"0 to {highest}" if are_all else f"up to {highest}"),
        "a score for each label; more are features (an embedding), or classes of another model: register the model of "
        f"these classes, or, if images of some are not there, set output: {{classes: {classes}}} in edgepack.yaml",
        warns=not are_all,
    )


def _none(name: str, offenders: list[Any], wanted: str, subject: str) -> CheckRow:
    listed = "; ".join(map(str, offenders[:5])) + ("; ..." if len(offenders) > 5 else "")
    return CheckRow(name, not offenders, f"{len(offenders)} {subject}: {listed}" if offenders else "all", wanted)


def read_prediction(value: object, classes: int | None) -> int | None:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,9}", value):
        return None
    label = int(value)
    return label if classes is None or label < classes else None


def read_probability(value: object) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return None  # reported as a failed part
    probability = document.get("value") if isinstance(document, dict) else None
    if isinstance(probability, bool) or not isinstance(probability, (int, float)) or not 0 <= probability <= 1:
        return None
    return float(probability)
