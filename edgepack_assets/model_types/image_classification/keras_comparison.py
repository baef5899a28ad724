"""How far the package of a converted model answers as the original does, record by record."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgepack_assets.checks import CheckRow
from edgepack_assets.config.schema import ModelTypeSettings
from edgepack_assets.errors import ComponentError
from edgepack_assets.model_types.image_classification.keras_conversion import side_job
from edgepack_assets.model_types.image_classification.scoring import read_prediction, read_probability
from edgepack_assets.model_types.interface import Compared, Comparison, SideJobs
from edgepack_assets.model_types.keras_models.settings import ConversionSettings

ANSWER = struct.Struct("<if")
NO_ANSWER, NOT_FINITE = -1, -2
"""As in keras_models/child_tasks.py, which this process must not import: it needs numpy and TensorFlow."""
_LISTED = 20
_CONSTANT = 1e-5
"""Probabilities that differ by less say the same of every image."""


@dataclass(frozen=True)
class Answer:
    """The class of a record and its probability. Without an answer the class is negative, as above."""

    label: int
    probability: float

    @property
    def words(self) -> str:
        """As the table shows it."""
        if self.label < 0:
            return "scores that are no numbers" if self.label == NOT_FINITE else "no answer"
        return f"{self.label} ({self.probability:.4f})"


def compare(compared: Compared, entry: ModelTypeSettings, jobs: SideJobs, work: Path) -> Comparison:
    """Let the original answer the payload, and compare."""
    record = compared.record
    known: Mapping[str, Any] = compared.inspection["component"]
    job = side_job(
        compared.component,
        work,
        tuple(record["requirements"]),
        {**compared.original, "records": compared.payload.records},
    )
    result = jobs.run(
        "answering the payload with the model as it was registered",
        replace(
            job, function="answer_original", outputs=("answers",),
            arguments={**record["arguments"], "input": known["input"], "scores": known["scores"]},
        ),
    )  # fmt: skip
    originals = _read(result.outputs["answers"], compared.payload.count, int(compared.inspection["output"]["classes"]))
    return judge(originals, _packaged(compared), limits(record, entry))


def limits(record: Mapping[str, Any], entry: ModelTypeSettings) -> ConversionSettings:
    """What today's configuration allows for the conversion that was made."""
    configured = entry.settings.conversion or ConversionSettings()
    return ConversionSettings(to=record["to"], tolerance=configured.tolerance, max_changed=configured.max_changed)


def judge(originals: list[Answer], packaged: Mapping[int, Answer], allowed: ConversionSettings) -> Comparison:
    """Rows and table. An answer is changed where it has another class, or a probability beyond the tolerance, or where
    one of the two has none."""
    none = Answer(NO_ANSWER, 0.0)
    changed: list[int] = []
    other_class, largest = 0, 0.0
    for number, original in enumerate(originals):
        answer = packaged.get(number, none)
        if original.label < 0 and answer.label < 0:
            continue
        difference = abs(original.probability - answer.probability)
        if original.label != answer.label:
            other_class += 1
        else:
            largest = max(largest, difference)
        if original.label != answer.label or difference > allowed.most_difference:
            changed.append(number)
    share = len(changed) / max(1, len(originals))
    which = f": records {', '.join(map(str, changed[:_LISTED]))}{' ...' if len(changed) > _LISTED else ''}"
    rows = [
        CheckRow(
            f"the conversion to {allowed.to} keeps the original model's answers",
            bool(originals) and share <= allowed.most_changed,
            f"{len(changed)} of {len(originals)} answers changed ({share:.2%}), {other_class} to another class; the "
            f"probability of the same class differs by at most {largest:.3g}{which if changed else ''}",
            f"at most {allowed.most_changed:.2%} changed: another class, or a probability that differs by more than "
            f"{allowed.most_difference:g}",
        )
    ]
    broken = sum(original.label == NOT_FINITE for original in originals)
    answered = [original for original in originals if original.label >= 0]
    rows.append(
        CheckRow(
            "the original model's scores are finite numbers",
            broken == 0,
            f"{broken} of {len(originals)} are not",
            "all",
        )
    )
    if len(answered) > 1:
        spread = max(a.probability for a in answered) - min(a.probability for a in answered)
        constant = len({a.label for a in answered}) == 1 and spread < _CONSTANT
        rows.append(
            CheckRow(
                "the original model tells images apart", not constant,
                f"class {answered[0].label} for all {len(answered)}" if constant else "its answers differ",
                "answers that differ; else comparing them says nothing", warns=True,
            )
        )  # fmt: skip
    table = tuple(
        {"record": number, "original": originals[number].words, "converted": packaged.get(number, none).words}
        for number in changed[:_LISTED]
    )
    return Comparison(tuple(rows), table)


def _packaged(compared: Compared) -> dict[int, Answer]:
    classes = int(compared.inspection["output"]["classes"])
    answers = {}
    for answer in compared.results.answers():
        label = read_prediction(answer.outputs.get("prediction"), classes)
        probability = read_probability(answer.outputs.get("ic_probability"))
        if label is not None and probability is not None:
            answers[answer.record] = Answer(label, probability)
    return answers


def _read(file: Path, count: int, classes: int) -> list[Answer]:
    """The original's answers. The child that wrote them is not trusted."""
    size = file.stat().st_size
    if size != count * ANSWER.size:
        raise ComponentError(f"the original model gave {size} bytes of answers, not {ANSWER.size} for each of {count}")
    return list(_answers(file, classes))


def _answers(file: Path, classes: int) -> Iterator[Answer]:
    for number, (label, probability) in enumerate(ANSWER.iter_unpack(file.read_bytes())):
        if not NOT_FINITE <= label < classes or not 0 <= probability <= 1:
            raise ComponentError(
                f"the original model's answer to record {number} is class {label} with a probability of {probability}"
            )
        yield Answer(label, probability)
