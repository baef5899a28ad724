"""Gates with a confidence: from the records of a run, and those of the reference on the same payload."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.checks import CheckRow
from edgepack_assets.config.gate_settings import GateSettings
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind
from edgepack_assets.tasks.gates.certainty import SAMPLES, certainty_report
from edgepack_assets.tasks.gates.compare import Certainty, Reference, compare_with_gates
from edgepack_assets.tasks.gates.resampling import Difference, Interval
from edgepack_assets.tasks.metrics import gate_rows, make_metrics, open_metrics
from edgepack_assets_tests.tasks.predecessor.test_kept_numbers import FOLDERS, Plant

INSPECTION = {"output": {"classes": 3}}
TRUTH = ["0", "1", "2"] * 100
ACCURACY = "accuracy_validation"
SURE = {"confidence": "95%"}


def wrong(count: int, first: int = 0) -> list[str]:
    """Answers to 300 images, of which so many from the first on are wrong."""
    return [str((int(label) + (first <= at < first + count)) % 3) for at, label in enumerate(TRUTH)]


def _changed(artefact: Artefact, **fields: Any) -> Artefact:
    return artefact.model_copy(update=fields)


class Images(Plant):
    """Answers to images with other labels than the answers."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "image_classification")

    def ran(self, version: int, answers: Sequence[Any], *more: Any) -> tuple[Artefact, Artefact, Artefact]:
        payload = super().ran(version, TRUTH, *more)[1]
        payload = _changed(payload, facts={**payload.facts, "raw_data": {"digest": payload.made_from["raw_data"]}})
        package, _, results = super().ran(version, answers, *more)
        package = _changed(package, facts={"model": {"digest": "m"}}, made_from={"registered_model": "m"})
        made_from = {"payload_data": payload.digest, "config_package": package.digest}
        return package, payload, _changed(results, made_from=made_from)

    def scored(self, version: int, answers: Sequence[Any], raw: str = "1") -> tuple[Artefact, Artefact]:
        """Payload and metrics of a run."""
        context = self.context()
        package, payload, results = self.ran(version, answers, FOLDERS, INSPECTION, raw)
        nothing = Artefact(
            asset="prepped_data", partition=payload.partition, parts={}, facts={"empty": "x"},
            made_from={"payload_data": payload.digest, "config_package": package.digest},
        )  # fmt: skip
        context.store.save(payload)
        metrics, _ = make_metrics(ModelKey(self.entry_name, version), payload, nothing, results, context)
        return payload, metrics

    def register(self, version: int, answers: Sequence[Any], raw: str = "1") -> Artefact:
        """A run of which the package is registered; its metrics."""
        _, metrics = self.scored(version, answers, raw)
        self.context().store.save(metrics)
        self.packaged(version, answers, FOLDERS, raw, INSPECTION)
        package = self.registry.versions(Kind.MODEL, "Press-edge")[-1]
        self.registry.set_tags(package, {ACCURACY: repr(metrics.facts["metrics"][ACCURACY])})
        return metrics

    def gate(self, version: int, answers: Sequence[Any], raw: str = "1", **gate: Any) -> CheckRow:
        """The last row of the gates on accuracy."""
        _, metrics = self.scored(version, answers, raw)
        gate = {key: value for key, value in {**SURE, **gate}.items() if value is not None}
        context = self.context(gates={ACCURACY: gate})
        return gate_rows(open_metrics(metrics, context), ModelKey(self.entry_name, version), context)[-1]


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(tmp_path)


@pytest.mark.parametrize(
    ("count", "gate", "passed", "warns", "told"),
    [
        (15, {"min": 0.9}, True, False, "0.95 (95%: 0.9192 to 0.9695, 300 records)"),
        (15, {"min": 0.93}, False, False, "too few samples to tell"),
        (15, {"min": 0.93, "too_few": "warn"}, False, True, "too few samples to tell"),
        (15, {"min": 0.93, "too_few": "pass"}, True, False, "too few samples to tell"),
        (60, {"min": 0.93, "too_few": "pass"}, False, False, "0.8 (95%"),
        (15, {"max": 0.9, "too_few": "pass"}, False, False, "0.95 (95%"),
    ],
)
def test_bounds_hold_for_the_whole_interval(  # noqa: PLR0917 - a row of the table
    images: Images, count: int, gate: dict[str, Any], passed: bool, warns: bool, told: str
) -> None:
    row = images.gate(1, wrong(count), **gate)
    assert (row.passed, row.warns) == (passed, warns)
    assert told in row.found
    assert row.wanted.endswith("95% sure")


@pytest.mark.parametrize(
    ("now", "gate", "passed", "warns", "told"),
    [
        (wrong(15), {}, False, True, "too few samples to tell"),
        (wrong(15), {"tolerance": 0.03}, True, False, "on the same records +0 (95%"),
        (wrong(15, 100), {}, False, True, "15 records worse and 15 better of 300"),
        (wrong(24), {}, False, False, "9 records worse and 0 better of 300, by chance 0.0039"),
        (wrong(24), {"tolerance": 0.02, "too_few": "fail"}, False, False, "too few"),
        (wrong(2), {}, True, False, "0 records worse and 13 better"),
    ],
)
def test_a_reference_is_compared_record_by_record(  # noqa: PLR0917 - a row of the table
    images: Images, now: list[str], gate: dict[str, Any], passed: bool, warns: bool, told: str
) -> None:
    images.register(1, wrong(15))
    row = images.gate(2, now, reference="previous", **gate)
    assert (row.passed, row.warns) == (passed, warns), row
    assert told in row.found
    assert row.reference.startswith("Press-edge:1 of model version 1")


def test_what_cannot_be_compared_is_said_and_never_passes_by_itself(images: Images) -> None:
    images.register(1, wrong(15))
    for raw in ("1", "2"):
        row = images.gate(2, wrong(0), raw, reference="previous")
        assert row.passed == (raw == "1"), row
    assert (row.warns, "cannot be" in row.found) == (True, True)
    (images.folder / "artefacts" / "manifests").rename(images.folder / "gone")
    row = images.gate(2, wrong(0), reference="previous", too_few="fail")
    assert (row.passed, row.warns, "is not in the artefact store" in row.found) == (False, False, True)


def test_metrics_without_records_have_no_interval(images: Images) -> None:
    _, metrics = images.scored(1, wrong(15))
    before = _changed(metrics, parts={name: blob for name, blob in metrics.parts.items() if name != SAMPLES})
    context = images.context(gates={ACCURACY: {"min": 0.1, **SURE}})
    row = gate_rows(open_metrics(before, context), ModelKey("press", 1), context)[-1]
    assert (row.passed, row.warns, "kept no records" in row.found) == (False, False, True)


def test_a_first_package_and_a_number_of_training() -> None:
    interval = Interval(0.9, 0.85, 0.94, 0.95, 100, "Wilson")
    gate = {"m": GateSettings.model_validate({"reference": "training", **SURE})}

    def row(reference: Reference, difference: Difference | str | None = None) -> CheckRow:
        return compare_with_gates({"m": 0.9}, gate, (), {"m": reference}, {"m": Certainty(interval, difference)})[-1]

    assert row(Reference("none", None, nothing_yet=True)).passed
    assert not row(Reference("no tag", None)).passed
    assert row(Reference("training", 0.8)).passed
    found = row(Reference("training", 0.92))
    assert (found.passed, found.warns) == (False, True)
    assert (row(Reference("training", 0.97)).passed, row(Reference("training", 0.97)).warns) == (False, False)


def test_what_a_person_sees(images: Images) -> None:
    images.register(1, wrong(15))
    payload, metrics = images.scored(2, wrong(24))
    key = ModelKey("press", 2)
    assert not certainty_report(metrics, payload, key, images.context()).tables
    plain = certainty_report(metrics, payload, key, images.context(intervals=True))
    assert set(plain.texts) == set(metrics.facts["metrics"])
    assert list(plain.tables) == ["How sure metrics are", "Where metrics are worst"]
    gates = {ACCURACY: {"reference": "previous", **SURE}}
    report = certainty_report(metrics, payload, key, images.context(gates=gates))
    assert [row["worse"] for row in report.tables["Against Press-edge:1"]] == [9] * 4
    changed = report.tables["Records that differ from Press-edge:1"]
    assert [row["record"] for row in changed] == list(range(15, 24))
    assert {(row["change"], row["file"]) for row in changed[:1]} == {("worse", "bolt/15.png")}
