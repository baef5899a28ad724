"""Gates on the worst part of the records: no average hides a class that went wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.config.gate_settings import GateSettings
from edgepack_assets.model_types.samples import Samples
from edgepack_assets.partitions import ModelKey
from edgepack_assets.tasks.gates.certainty import SAMPLES
from edgepack_assets.tasks.gates.intervals import slices_of
from edgepack_assets.tasks.metrics import gate_rows, open_metrics
from edgepack_assets_tests.tasks.gates.test_certainty import ACCURACY, TRUTH, Images, wrong


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(tmp_path)


def of_class(label: str, count: int) -> list[str]:
    """Answers of which so many to images of this class are wrong, and no others."""
    found, left = [], count
    for truth in TRUTH:
        is_wrong = truth == label and left > 0
        left -= is_wrong
        found.append(str((int(truth) + is_wrong) % 3))
    return found


@pytest.mark.parametrize(
    ("answers", "gate", "passed", "warns", "told"),
    [
        # 100 images of each class
        (of_class("1", 30), {"worst": {"class": {"min": 0.8}}}, False, False, "0.7 of 100 records; 2 of 3 hold"),
        (wrong(30), {"worst": {"class": {"min": 0.8}}}, True, False, "0.9 of 100 records; 3 of 3 hold"),
        (of_class("1", 30), {"min": 0.8, "worst": {"class": {"min": 0.6, "max": 1.5}}}, True, False, "0.7 of 100"),
    ],
)
def test_without_a_confidence_the_worst_part_decides(  # noqa: PLR0917 - a row of the table
    images: Images, answers: list[str], gate: dict[str, Any], passed: bool, warns: bool, told: str
) -> None:
    row = images.gate(1, answers, confidence=None, **gate)
    assert (row.passed, row.warns, row.name) == (passed, warns, f"gate on {ACCURACY} in the worst class")
    assert told in row.found


@pytest.mark.parametrize(
    ("answers", "worst", "passed", "warns", "told"),
    [
        (of_class("1", 40), {"min": 0.8}, False, False, "0.6 (98.3333%: 0.4"),
        (of_class("1", 20), {"min": 0.8}, False, False, "too few samples to tell"),
        (of_class("1", 20), {"min": 0.8, "too_few": "warn"}, False, True, "too few samples to tell"),
        (of_class("1", 20), {"min": 0.8, "too_few": "pass"}, True, False, "too few samples to tell"),
        (of_class("1", 3), {"min": 0.8}, True, False, "3 of 3 hold"),
    ],
)
def test_all_parts_are_sure_together(  # noqa: PLR0917 - a row of the table
    images: Images, answers: list[str], worst: dict[str, Any], passed: bool, warns: bool, told: str
) -> None:
    row = images.gate(1, answers, worst={"class": worst})
    assert (row.passed, row.warns) == (passed, warns), row
    assert told in row.found and row.wanted.endswith("95% sure of all")


@pytest.mark.parametrize(
    ("answers", "worst", "passed", "warns", "told"),
    [
        # as many mistakes as before, but all of them in one class
        (of_class("2", 30), {"tolerance": 0.05}, False, False, "washer: -0.2 (98.3333%: -0."),
        (of_class("2", 30), {"tolerance": 0.5}, True, False, ""),
        (wrong(30), {"tolerance": 0}, False, True, "too few samples to tell"),
        (wrong(30), {"tolerance": 0, "too_few": "fail"}, False, False, "too few samples to tell"),
    ],
)
def test_a_class_is_compared_with_itself(  # noqa: PLR0917 - a row of the table
    images: Images, answers: list[str], worst: dict[str, Any], passed: bool, warns: bool, told: str
) -> None:
    images.register(1, wrong(30))
    row = images.gate(2, answers, reference="previous", worst={"class": worst})
    assert (row.passed, row.warns) == (passed, warns), row
    assert (
        told in row.found
        and row.name.endswith("in the worst class against previous")
        and row.reference.startswith("Press-edge:1")
    )
    plain = images.gate(3, answers, confidence=None, reference=1, worst={"class": {"tolerance": 0.05}})
    assert plain.passed == (answers != of_class("2", 30)), plain


def test_a_first_version_passes_and_lost_records_do_not(images: Images) -> None:
    row = images.gate(1, wrong(3), reference="previous", worst={"class": {"tolerance": 0}})
    assert row.passed and row.found == "nothing to compare with yet"
    _, metrics = images.scored(1, wrong(3))
    context = images.context(gates={ACCURACY: {"worst": {"class": {"min": 0.1}, "folder": {"min": 0.1}}}})
    key = ModelKey(images.entry_name, 1)
    by_folder = gate_rows(open_metrics(metrics, context), key, context)[-1]
    assert not by_folder.passed and by_folder.found == "the records are not divided by folder, but by: class"
    bare: Artefact = metrics.model_copy(
        update={"parts": {name: blob for name, blob in metrics.parts.items() if name != SAMPLES}}
    )
    rows = gate_rows(open_metrics(bare, context), key, context)[-2:]
    assert [row.passed or row.warns for row in rows] == [False, False]
    assert all("kept no records" in row.found for row in rows)


def test_parts_together_are_the_whole() -> None:
    samples = Samples(range(9), {"m": np.arange(9.0)}, slices={"hour": ["b", "a", "c"] * 3}, follow_each_other=True)
    parts = slices_of(samples, "hour", "m")
    assert list(parts) == ["a", "b", "c"] and all(part.follow_each_other for part in parts.values())
    assert sorted(record for part in parts.values() for record in part.records) == list(range(9))
    assert parts["a"].values == {"m": [1.0, 4.0, 7.0]}


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ({"worst": {"class": {}}}, "needs min, max or tolerance"),
        ({"worst": {"class": {"min": 1, "max": 0}}}, "nothing could pass"),
        ({"worst": {"class": {"min": 0.1, "too_few": "warn"}}}, "too_few needs a confidence"),
        ({"worst": {"class": {"tolerance": 0.1}}}, "worst.class.tolerance: .* needs a reference"),
        ({"worst": {"class": {"tolerance": 0.1}}, "reference": "training"}, "worst.class.tolerance"),
        ({"worst": {"class": {"low": 0.1}}}, "low"),
    ],
)
def test_a_gate_that_means_nothing_is_refused(gate: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GateSettings.model_validate(gate)
