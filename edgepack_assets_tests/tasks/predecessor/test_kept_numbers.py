"""metrics.pass_gates on states and classes: compared with the package before, from what is recorded of it."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.checks import all_pass
from edgepack_assets.config.loader import load_settings
from edgepack_assets.errors import EdgepackError, OvertakenError
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.packages.stages import promote
from edgepack_assets.tasks.predecessor.find import NO_PREDECESSOR, find_predecessor
from edgepack_assets.tasks.predecessor.kept_numbers import NumbersReport, numbers_report
from edgepack_assets.tasks.predecessor.renumbering import NUMBERED_LIKE
from edgepack_assets_tests.tasks.plant import PackagingHere

CLUSTERS = {"clusters": 3}
STATES = [0] * 10 + [1] * 10 + [2] * 10
PERMUTED = [2] * 10 + [0] * 10 + [1] * 10
IMAGES = ["0"] * 10 + ["1"] * 10 + ["2"] * 10
FOLDERS = {"0": "bolt", "1": "nut", "2": "washer"}


@dataclass
class Plant:
    """A store and a registry that hold what runs of these answers leave."""

    folder: Path
    implementation: str = "state_identifier"
    entry_name: str = "press"

    @property
    def registry(self) -> LocalRegistry:
        return LocalRegistry(self.folder / "registry")

    def context(self, lines: Sequence[str] = (), **keys: Any) -> TaskContext:
        entry = {"implementation": self.implementation, "model_name": "press_model", "package_name": "Press",
                 "raw_data": {"name": "press_raw"}, **keys}  # fmt: skip
        file = self.folder / "edgepack.yaml"
        file.write_text(yaml.safe_dump({
            "registry": {"path": "registry"}, "artefacts": {"root": "artefacts"},
            "lines": list(lines), "model_types": {self.entry_name: entry},
        }))  # fmt: skip
        settings = load_settings(file)
        store = ArtefactStore(settings.artefacts.root, self.folder / "cache")
        return TaskContext(
            settings, self.registry, store, Sandbox(settings.runtime), PackagingHere(), logging.getLogger(__name__)
        )

    def ran(
        self, version: int, answers: Sequence[Any], folders: Mapping[str, str], inspection: Mapping[str, Any], raw: str
    ) -> tuple[Artefact, Artefact, Artefact]:
        """Config package, payload and validation results of a model version."""
        store, key = self.context().store, f"{self.entry_name}:{version}"

        def lines(values: Sequence[Any]) -> Any:
            text = "".join(json.dumps(value) + "\n" for value in values)
            return store.put_bytes(gzip.compress(text.encode(), mtime=0), "x")

        payload = Artefact(
            asset="payload_data", partition=key,
            parts={"records": lines([{"raw": raw, "x": i} for i in range(len(answers))]),
                   "sources": lines([
                       {"record": i, "file": f"{folders[answer]}/{i}.png", "label": int(answer)}
                       for i, answer in enumerate(answers) if answer in folders
                   ])},
            facts={"records": len(answers)}, made_from={"raw_data": raw},
        )  # fmt: skip
        known = store.put_json(dict(inspection))
        package = Artefact(asset="config_package", partition=key, parts={"inspection": known}, facts={"model": version})
        results = Artefact(
            asset="validation_results", partition=key,
            parts={"results": lines([
                {"record": i, "outputs": None if answer is None else {"prediction": answer}}
                for i, answer in enumerate(answers)
            ]), "inspection": known},
            made_from={"payload_data": payload.digest, "config_package": package.digest},
        )  # fmt: skip
        return package, payload, results

    def packaged(  # noqa: PLR0917 - what is recorded
        self, version: int, answers: Sequence[Any], folders: Mapping[str, str] = {}, raw: str = "1",
        inspection: Mapping[str, Any] = CLUSTERS, made_from: Mapping[str, str] = {},
    ) -> None:  # fmt: skip
        """A model version of which the package is registered."""
        artefacts = self.ran(version, answers, folders, inspection, raw)
        file = self.folder / "package.zip"
        file.write_bytes(b"PK")
        tags = {"model_name": "press_model", "model_version": str(version), "model_type": self.entry_name,
                "content_digest": f"{version:064x}", "lock_key": "f" * 64, "lock_digest": "e" * 64}  # fmt: skip
        registered = self.registry.register(Kind.MODEL, "Press-edge", file, tags)
        deployed = Artefact(
            asset="deployment_package", partition=artefacts[0].partition, parts={},
            facts={"name": "Press-edge", "version": registered.version, "content_digest": f"{version:064x}"},
            made_from={**{each.asset: each.digest for each in artefacts}, **made_from},
        )  # fmt: skip
        for artefact in (*artefacts, deployed):
            self.context().store.save(artefact)

    def report(
        self, version: int, answers: Sequence[Any], folders: Mapping[str, str] = {}, raw: str = "1",
        inspection: Mapping[str, Any] = CLUSTERS, **keys: Any,
    ) -> NumbersReport:  # fmt: skip
        """What is said of a version whose config package was compared with the package before, as it is now."""
        key, context = ModelKey(self.entry_name, version), self.context(**keys)
        with contextlib.suppress(EdgepackError):
            inspection = {NUMBERED_LIKE: str(find_predecessor(key, context)), **inspection}
        _, payload, results = self.ran(version, answers, folders, inspection, raw)
        return numbers_report(key, payload, results, context)


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    return Plant(tmp_path)


def said(report: NumbersReport) -> str:
    return "; ".join(row.found for row in report.rows)


def test_a_first_package_is_compared_with_none_and_has_no_row(plant: Plant) -> None:
    report = plant.report(1, STATES)
    assert report.predecessor == NO_PREDECESSOR
    assert report.rows == ()
    # one of a higher version is none before it
    plant.packaged(5, PERMUTED)
    assert plant.report(3, STATES).rows == ()


@pytest.mark.parametrize("numbering", ["map", "fail", "warn"])
def test_the_same_numbers_pass(plant: Plant, numbering: str) -> None:
    plant.packaged(1, STATES)
    report = plant.report(2, [*STATES[:29], 1], numbering=numbering)
    assert all_pass(report.rows) and said(report) == "29 of 30 records agree"
    assert report.predecessor == "Press-edge:1 of model version 1"
    assert report.table[2] == {"before": "2", "now 0": 0, "now 1": 1, "now 2": 9}


@pytest.mark.parametrize(("numbering", "passes"), [("map", False), ("fail", False), ("warn", True)])
def test_other_numbers_fail_unless_they_only_warn(plant: Plant, numbering: str, passes: bool) -> None:
    plant.packaged(1, STATES)
    report = plant.report(2, PERMUTED, numbering=numbering)
    assert [row.passed for row in report.rows] == [False]
    assert all_pass(report.rows) == passes
    assert said(report) == "state 0 was 1, 1 was 2, 2 was 0; 30 of 30 records agree then"
    assert ("materialize config_package of press:2 again" in report.rows[0].wanted) == (numbering == "map")


def test_a_package_that_came_in_between_is_a_reason_to_package_again(plant: Plant) -> None:
    plant.packaged(1, STATES)
    for knew in ({}, {NUMBERED_LIKE: "Press-edge:7 of model version 7"}):
        overtaken = {**CLUSTERS, NUMBERED_LIKE: "", **knew}
        with pytest.raises(OvertakenError, match=r"Press-edge:1 of model version 1, .* package press:2 again"):
            plant.report(2, PERMUTED, inspection=overtaken)
        assert all_pass(plant.report(2, STATES, inspection=overtaken).rows), "the numbers are right all the same"
        assert not all_pass(plant.report(2, PERMUTED, inspection=overtaken, numbering="fail").rows)


def test_the_package_before_is_the_newest_of_the_highest_lower_model_version(plant: Plant) -> None:
    plant.packaged(1, STATES)
    plant.packaged(3, PERMUTED)
    plant.packaged(2, STATES)
    assert not all_pass(plant.report(4, STATES).rows)
    assert all_pass(plant.report(4, PERMUTED).rows)


def test_the_package_in_production_is_the_one_before(plant: Plant) -> None:
    plant.packaged(1, STATES)
    plant.packaged(2, PERMUTED)  # by a person's reason, say, and not on the line yet

    def move(number: int, line: str, hour: int) -> None:
        package = plant.registry.get(Kind.MODEL, "Press-edge", number)
        at = datetime(2026, 3, 4, hour, tzinfo=UTC)
        assert promote(plant.registry, package, "production", line, "me", "", at)

    move(1, "", 8)
    assert all_pass(plant.report(3, STATES).rows)
    # what is made again is not compared with itself, though it is in production
    assert plant.report(1, PERMUTED).rows == ()
    # a line that edgepack.yaml does not name
    move(2, "line-4", 9)
    assert all_pass(plant.report(3, STATES).rows)


def test_another_name_of_a_state_is_said(plant: Plant) -> None:
    plant.packaged(1, STATES, inspection={**CLUSTERS, "state_names": {"0": "idle", "1": "running"}})
    report = plant.report(2, STATES, inspection={**CLUSTERS, "state_names": {"1": "overload", "2": "running"}})
    assert [(row.passed, row.warns) for row in report.rows] == [(True, False), (False, True)]
    assert report.rows[1].found == "state 1 is overload now, was running"
    assert len(plant.report(2, STATES).rows) == 1


def test_of_several_lines_each_keeps_its_numbers(plant: Plant) -> None:
    for version, answers in ((1, STATES), (2, PERMUTED), (3, STATES)):
        plant.packaged(version, answers)
    for hour, (number, line) in enumerate([(2, "old"), (1, "line-1"), (3, "line-2"), (3, "line-3")]):
        package = plant.registry.get(Kind.MODEL, "Press-edge", number)
        at = datetime(2026, 3, 4, hour, tzinfo=UTC)
        assert promote(plant.registry, package, "production", line, "me", "", at)
    lines = ["line-1", "line-2", "line-3", "line-4"]
    report = plant.report(4, STATES, lines=lines)
    assert [row.reference for row in report.rows] == [
        "Press-edge:3 of model version 3, production of line-3, line-2",
        "Press-edge:1 of model version 1, production of line-1",
    ]
    assert all_pass(report.rows) and report.predecessor == "Press-edge:3 of model version 3"
    # What fits one line and not the other does not pass.
    report = plant.report(4, STATES, lines=["line-1", "old"])
    assert [row.passed for row in report.rows] == [True, False]
    assert report.rows[1].found == "state 0 was 2, 1 was 0, 2 was 1; 30 of 30 records agree then"
    # The one that cannot be asked is said, the other one is compared all the same.
    next(plant.folder.glob("artefacts/manifests/deployment_package/press/1*")).unlink()
    report = plant.report(4, STATES, lines=lines)
    assert [row.passed for row in report.rows] == [True, False]
    assert "cannot be compared: Press-edge:1 of model version 1 cannot be run" in report.rows[1].found
    # Lines that are not named any more count where no other has a package.
    assert plant.report(4, PERMUTED, lines=["line-9"]).predecessor == "Press-edge:3 of model version 3"


def test_another_number_of_states_fails_with_the_table(plant: Plant) -> None:
    plant.packaged(1, STATES)
    # the fourth state does not show in the payload: the model knows of it
    report = plant.report(2, STATES, inspection={"clusters": 4})
    assert not all_pass(report.rows) and said(report) == "4 states, and 3 before"
    assert len(report.table) == 3


def test_numbers_that_were_given_are_those_that_count(plant: Plant) -> None:
    # the model of version 1 knows 0 to 2, its package answers 5 to 7
    given = {"clusters": 3, "renumbering": [[0, 5], [1, 6], [2, 7]]}
    plant.packaged(1, [state + 5 for state in STATES], inspection=given)
    assert all_pass(plant.report(2, [state + 5 for state in STATES], inspection=given).rows)
    assert said(plant.report(2, STATES)) == "state 0 was 5, 1 was 6, 2 was 7; 30 of 30 records agree then"


def test_states_that_no_record_shows_are_said(plant: Plant) -> None:
    shown = [0] * 10 + [1] * 10
    plant.packaged(1, shown, inspection={"clusters": 4})
    report = plant.report(2, shown, inspection={"clusters": 4})
    assert all_pass(report.rows)
    assert [row.found for row in report.rows if row.warns] == ["none for 2, 3"]


def test_a_model_type_that_had_another_name_is_found(plant: Plant) -> None:
    plant.packaged(1, STATES)
    plant.entry_name = "press_line_4"
    assert not all_pass(plant.report(2, PERMUTED).rows)


@pytest.mark.parametrize("damage", ["no_manifests", "other_results", "other_payload", "no_blob"])
@pytest.mark.parametrize(("numbering", "passes"), [("map", False), ("warn", True)])
def test_a_package_that_is_not_recorded_and_cannot_be_run_is_said_and_passes_nothing(
    plant: Plant, damage: str, numbering: str, passes: bool
) -> None:
    plant.packaged(
        1, STATES, raw="2" if damage == "other_payload" else "1",
        made_from={"validation_results": "0" * 64} if damage == "other_results" else {},
    )  # fmt: skip
    if damage == "no_manifests":
        shutil.rmtree(plant.folder / "artefacts" / "manifests")
    if damage == "no_blob":
        shutil.rmtree(plant.folder / "artefacts" / "blobs")
    report = plant.report(2, [*STATES[:29], 1], numbering=numbering)  # equal answers would be the missing blob itself
    assert [row.passed for row in report.rows] == [False] and all_pass(report.rows) == passes
    assert "cannot be compared: Press-edge:1 of model version 1 cannot be run: its lock eeeeeeeeeeee" in said(report)


def test_a_damaged_package_before_passes_nothing(plant: Plant) -> None:
    plant.packaged(1, STATES)
    for file in (plant.folder / "registry").rglob("package.zip"):
        file.chmod(0o600)
        file.unlink()
    report = plant.report(2, STATES)
    assert not all_pass(report.rows) and "cannot be" in said(report)


# classes ---------------------------------------------------------------------------------------------------


@pytest.fixture
def line(tmp_path: Path) -> Plant:
    return Plant(tmp_path, implementation="image_classification")


def test_a_better_classifier_of_the_same_classes_passes(line: Plant) -> None:
    line.packaged(1, ["1", *IMAGES[1:20], *["1"] * 4, *IMAGES[24:]], FOLDERS)
    report = line.report(2, IMAGES, FOLDERS)
    assert all(row.passed for row in report.rows)


def test_an_index_with_another_label_fails_by_name(line: Plant) -> None:
    line.packaged(1, IMAGES, FOLDERS)
    # a class was added in the middle, and those behind it moved on
    report = line.report(2, IMAGES, {**FOLDERS, "1": "hook", "2": "nut"}, raw="1")
    assert not all_pass(report.rows)
    assert said(report) == "index 1 is hook now, was nut; index 2 is nut now, was washer"
    assert all_pass(line.report(2, IMAGES, {**FOLDERS, "1": "hook"}, numbering="warn").rows)


def test_classes_that_are_new_pass(line: Plant) -> None:
    line.packaged(1, IMAGES, FOLDERS)
    assert all_pass(line.report(2, IMAGES, {**FOLDERS, "3": "hook"}).rows)


def test_indexes_that_changed_places_fail_by_their_answers(line: Plant) -> None:
    line.packaged(1, IMAGES, FOLDERS)
    swapped = {"0": "0", "1": "2", "2": "1"}
    report = line.report(2, [swapped[index] for index in IMAGES])
    assert not all_pass(report.rows)
    assert "index 1 answers what index 2 (washer) answered" in said(report)
