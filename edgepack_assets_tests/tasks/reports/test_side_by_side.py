"""Two packages side by side, a registered package once more, and over a recording: with a real package and sandbox."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import yaml

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.loader import load_settings
from edgepack_assets.errors import ComponentError, EdgepackError, PluginError, RawDataError
from edgepack_assets.filesystem.parquet import write_columns
from edgepack_assets.model_types.state_identifier.model_type import StateIdentifier
from edgepack_assets.operations import compare_packages
from edgepack_assets.operations.compare_packages import candidate_of_model, compare_two, package_key
from edgepack_assets.operations.run_packages import run_recording, verify_run
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind, RegisteredVersion
from edgepack_assets.sandbox.sandbox import ChildFailure, Sandbox, TaskFailedError
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.deployment_package import Validated, deploy
from edgepack_assets.tasks.gates.references import references
from edgepack_assets.tasks.packages.archive import archive
from edgepack_assets.tasks.predecessor.answers import answers_to
from edgepack_assets.tasks.predecessor.find import Predecessor, Recorded, find_predecessor
from edgepack_assets.tasks.reports.comparison import comparison_page
from edgepack_assets.tasks.reports.facts import registered_candidate, validated_candidate
from edgepack_assets.tasks.reports.side_by_side import PredecessorComparison
from edgepack_assets_tests.tasks.plant import METRICS, MODEL, PACKAGE, Plant

PNG = b"\x89PNG\r\n\x1a\n picture"


@pytest.fixture
def line(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """A plant with an artefact store of its own: no run of another test is recorded there. What the tiny component
    answers is no state."""
    shutil.copytree(plant.built.store.root_url, tmp_path / "artefacts")
    monkeypatch.setattr(StateIdentifier, "comparison_picture", lambda *_: PNG)
    store = ArtefactStore(str(tmp_path / "artefacts"), tmp_path / "cache")
    return replace(plant, built=replace(plant.built, store=store))


@pytest.fixture
def context(line: Plant) -> Iterator[TaskContext]:
    with Sandbox(line.built.settings) as sandbox:
        context = line.task_context(sandbox)
        file = line.folder / "edgepack.yaml"
        document = yaml.safe_load(file.read_text())
        document["model_types"]["press"]["channels"] = ["x"]
        document["model_types"]["other"] = {
            **{name: document["model_types"]["press"][name] for name in ("model_name", "raw_data")},
            "implementation": "image_classification", "package_name": "Other",
        }  # fmt: skip
        file.write_text(yaml.safe_dump(document))
        yield replace(context, settings=load_settings(file))


def package(line: Plant, context: TaskContext, version: int, silhouette: float = 0.5, raw: int = 1) -> Validated:
    """What a run leaves that registers the package of a model version."""
    validated = line.validated(version, {**METRICS, "silhouette": silhouette}, raw)
    artefact, _ = deploy(ModelKey("press", version), validated, {"run_id": "run"}, "", context)
    for each in (*validated.inputs().values(), artefact):
        context.store.save(each)
    return validated


def add_models(line: Plant, count: int) -> None:
    file = line.folder / "model.bin"
    file.write_bytes(b"model")
    for _ in range(count):
        line.registry.register(Kind.MODEL, MODEL, file, {})


def registered(line: Plant, version: int = 1) -> RegisteredVersion:
    return line.registry.get(Kind.MODEL, PACKAGE, version)


def forget_runs(context: TaskContext) -> None:
    """The artefact store loses what was recorded, as when it is a new one."""
    for folder in Path(context.store.root_url).iterdir():
        if folder.name in {"deployment_package", "validation_results", "manifests"}:
            shutil.rmtree(folder)


def test_two_packages_are_compared_as_recorded(line: Plant, context: TaskContext) -> None:
    add_models(line, 2)
    package(line, context, 1), package(line, context, 2, silhouette=0.75)
    context.sandbox.close()
    quiet = replace(context, sandbox=None)  # type: ignore[arg-type] # nothing is run
    before, now = (candidate_of_model("press", version, quiet) for version in (1, "latest"))
    comparison = compare_two(before, now, quiet)
    by_name = {(row.part, row.name): row for row in comparison.rows}
    silhouette = by_name["metric", "silhouette"]
    assert (silhouette.before, silhouette.now, silhouette.difference) == ("0.5", "0.75", "+0.25 (+50 %)")
    assert by_name["metric", "inertia"].difference == ""
    assert not [row for row in comparison.rows if row.part in {"requirement", "file", "interface"}]
    assert comparison.answers is not None
    assert comparison.answers.differing == 0 < comparison.answers.both
    assert comparison.picture == PNG
    assert comparison.answers_in_words.endswith("records of press_raw:1")
    json.dumps(comparison.as_json(), allow_nan=False)


def test_packages_of_different_data_both_answer_the_later_one(line: Plant, context: TaskContext) -> None:
    package(line, context, 1), package(line, context, 2, raw=2)
    before, now = (
        registered_candidate(ModelKey("press", version), registered(line, version), context) for version in (1, 2)
    )
    comparison = compare_two(before, now, context)
    assert comparison.payload.endswith("records of press_raw:2")
    assert comparison.answers is not None and comparison.answers.differing == 0 < comparison.answers.both
    assert comparison.before.latency["max"] > 0, "it was run"
    assert ("metric", "of raw data") in {(row.part, row.name) for row in comparison.rows}


def test_packages_without_anything_recorded_are_run(line: Plant, context: TaskContext) -> None:
    """From another machine, say: the lock is there, the runs are not."""
    package(line, context, 1), package(line, context, 2)
    payload = context.store.load("payload_data", "press:2")
    forget_runs(context)
    context.store.save(payload)
    before, now = (
        registered_candidate(ModelKey("press", version), registered(line, version), context) for version in (1, 2)
    )
    assert before.known is None and now.known is None
    write_columns(line.folder / "raw.parquet", {"x": np.array([1.0, 2.0, 3.0])})
    line.registry.register(Kind.DATA, "press_raw", line.folder / "raw.parquet", {})
    comparison = compare_two(before, now, context)
    assert comparison.payload == "3 records of press_raw:1"
    assert comparison.answers is not None and (comparison.answers.both, comparison.answers.differing) == (2, 0)
    assert comparison.now.requirements == {"echo-helper": "1.5"}


def test_a_refused_model_version_is_compared_too(line: Plant, context: TaskContext) -> None:
    """That it has no package is why one looks at what it changes."""
    add_models(line, 3)
    package(line, context, 1)
    for each in line.validated(2, {**METRICS, "silhouette": 0.1}).inputs().values():
        context.store.save(each)
    before, now = (candidate_of_model("press", version, context) for version in (1, 2))
    assert now.package is None
    comparison = compare_two(before, now, context)
    assert comparison.now.name == "press:2 (no package)"
    assert {row.name: row.now for row in comparison.rows if row.part == "metric"}["silhouette"] == "0.1"
    with pytest.raises(EdgepackError, match="press:3 has no package, and was not validated as it is"):
        candidate_of_model("press", 3, context)


def test_what_cannot_be_compared_is_refused(line: Plant, context: TaskContext) -> None:
    package(line, context, 1)
    one = registered_candidate(ModelKey("press", 1), registered(line), context)
    other = replace(one, key=ModelKey("other", 1))
    with pytest.raises(EdgepackError, match="only packages of one kind can be compared"):
        compare_two(one, other, context)
    with pytest.raises(EdgepackError, match="name two different packages"):
        compare_two(one, one, context)
    made_by_hand = line.registry.register(Kind.MODEL, PACKAGE, line.folder / "edgepack.yaml", {})
    with pytest.raises(EdgepackError, match="has no tags that say which version of press_model"):
        package_key("press", made_by_hand, context.settings)


def compared_with_predecessor(line: Plant, context: TaskContext, validated: Validated) -> PredecessorComparison:
    recorded = Recorded(validated.config_package, validated.payload_data, validated.validation_results)
    comparison = PredecessorComparison(ModelKey("press", 2), recorded, validated.metrics, context)
    predecessor = Predecessor(registered(line), 1)
    with answers_to(validated.payload_data, predecessor, ModelKey("press", 2), context) as answers:
        comparison.add_answers(predecessor, answers)
    return comparison


def test_metrics_show_what_changed_from_the_package_before(line: Plant, context: TaskContext) -> None:
    package(line, context, 1)
    quiet = replace(context, sandbox=None)  # type: ignore[arg-type] # nothing is run
    made = compared_with_predecessor(line, quiet, line.validated(2, {**METRICS, "silhouette": 0.6}))
    comparison = made.comparison()
    assert comparison is not None and comparison.answers is not None
    assert comparison.picture == PNG
    assert [row.difference for row in comparison.rows if row.name == "silhouette"] == ["+0.1 (+20 %)"]


def test_a_picture_that_cannot_be_drawn_fails_no_metrics(
    line: Plant, context: TaskContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise PluginError("no colours")

    package(line, context, 1)
    monkeypatch.setattr(StateIdentifier, "comparison_picture", broken)
    comparison = compared_with_predecessor(line, context, line.validated(2)).comparison()
    assert comparison is not None and comparison.answers is None
    assert "the answers cannot be compared: " in comparison.answers_in_words
    assert "no colours" in comparison.answers_in_words
    assert comparison.rows


def test_a_package_answers_as_recorded(line: Plant, context: TaskContext) -> None:
    package(line, context, 1)
    verified = verify_run(ModelKey("press", 1), registered(line), context)
    assert verified.is_same
    assert "each as recorded when it was validated" in str(verified)


def test_other_answers_than_recorded_are_told(line: Plant, context: TaskContext) -> None:
    validated = package(line, context, 1)
    results = validated.validation_results
    lines = _lines(context, results)
    lines[0]["outputs"]["y"] += 1
    (line.folder / "changed").write_bytes(_gzipped(lines))
    blob = context.store.put_file(line.folder / "changed", "x")
    changed = results.model_copy(update={"parts": {**results.parts, "results": blob}})
    context.store.save(changed)
    deployed = context.store.load("deployment_package", "press:1")
    made_from = {**deployed.made_from, "validation_results": changed.digest}
    context.store.save(deployed.model_copy(update={"made_from": made_from}))
    verified = verify_run(ModelKey("press", 1), registered(line), context)
    assert not verified.is_same
    assert verified.differing == 1
    assert "record 0 is " in str(verified) and ", was " in str(verified)


def test_without_a_record_the_package_runs_on_what_is_configured(line: Plant, context: TaskContext) -> None:
    package(line, context, 1)
    forget_runs(context)
    write_columns(line.folder / "raw.parquet", {"x": np.array([1.0, 2.0, 3.0])})
    line.registry.register(Kind.DATA, "press_raw", line.folder / "raw.parquet", {})
    verified = verify_run(ModelKey("press", 1), registered(line), context)
    assert not verified.is_same
    assert "2 of 3 records of press_raw:1 answered" in str(verified)
    assert "nothing to compare with" in str(verified)


def test_a_recording_is_answered(line: Plant, context: TaskContext, tmp_path: Path) -> None:
    package(line, context, 1)
    write_columns(tmp_path / "mine.parquet", {"x": np.array([1.0, 2.0, np.nan, 4.0]), "note": np.array(["a"] * 4)})
    with run_recording(ModelKey("press", 1), registered(line), tmp_path / "mine.parquet", context) as answers:
        rows = list(answers.rows())
    assert [(row["record"], row["y"]) for row in rows] == [(0, 10.0), (1, 20.0), (3, 40.0)], (
        "x, twice, times the factor 5"
    )
    assert (answers.records, answers.answered) == (4, 3)
    assert len(line.packages()) == 1, "nothing is registered"


def test_a_recording_that_does_not_fit_is_one_sentence(line: Plant, context: TaskContext, tmp_path: Path) -> None:
    package(line, context, 1)
    key = ModelKey("press", 1)
    write_columns(tmp_path / "other.parquet", {"z": np.array([1.0])})
    with (
        pytest.raises(RawDataError, match=r"other.parquet: column x is missing") as refused,
        run_recording(key, registered(line), tmp_path / "other.parquet", context),
    ):
        pass
    assert "\n" not in str(refused.value)
    # the configuration has changed since that package was made
    document = yaml.safe_load((line.folder / "edgepack.yaml").read_text())
    document["model_types"]["press"]["channels"] = ["z"]
    (line.folder / "edgepack.yaml").write_text(yaml.safe_dump(document))
    changed = replace(context, settings=load_settings(line.folder / "edgepack.yaml"))
    with (
        pytest.raises(
            EdgepackError, match="does not fit Tiny-Echo-edge:1, which takes x: its records hold z"
        ) as refused,
        run_recording(key, registered(line), tmp_path / "other.parquet", changed),
    ):
        pass
    assert "\n" not in str(refused.value)


def test_the_page_escapes_what_others_named(line: Plant, context: TaskContext) -> None:
    package(line, context, 1), package(line, context, 2)
    before, now = (
        registered_candidate(ModelKey("press", version), registered(line, version), context) for version in (1, 2)
    )
    comparison = compare_two(before, now, context)
    evil = "<script>alert(1)</script>"
    page = comparison_page(
        replace(
            comparison,
            payload=evil,
            before=replace(comparison.before, name=evil),
            rows=tuple(replace(row, name=evil, before=evil) for row in comparison.rows),
        )
    ).decode()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "http://" not in page and "https://" not in page


def test_a_validation_that_does_not_hang_together_is_none(line: Plant, context: TaskContext) -> None:
    validated = line.validated(2)
    for each in validated.inputs().values():
        context.store.save(each)
    assert validated_candidate(ModelKey("press", 2), context) is not None
    changed = validated.config_package.model_copy(update={"facts": {"model": "another"}})
    context.store.save(changed)
    assert validated_candidate(ModelKey("press", 2), context) is None


def _lines(context: TaskContext, results: Artefact) -> list[dict[str, object]]:
    import gzip

    text = gzip.decompress(context.store.read_bytes(results.parts["results"])).decode()
    return [json.loads(each) for each in text.splitlines()]


def _gzipped(lines: list[dict[str, object]]) -> bytes:
    import gzip

    return gzip.compress("".join(json.dumps(each) + "\n" for each in lines).encode(), mtime=0)


def test_an_archived_package_is_not_the_one_before(line: Plant, context: TaskContext) -> None:
    for version in (1, 2):
        package(line, context, version, silhouette=0.5 * version)
    gate = {"silhouette": {"reference": "previous", "tolerance": "5 %"}}
    gated = replace(line, gates=gate).task_context(context.sandbox)
    third = line.validated(3)
    assert str(find_predecessor(ModelKey("press", 3), context)) == "Tiny-Echo-edge:2 of model version 2"
    assert "Tiny-Echo-edge:2" in references(third.metrics, ModelKey("press", 3), gated)["silhouette"].source
    archive(line.registry, registered(line, 2), "Ada", "", datetime.now(UTC))
    assert str(find_predecessor(ModelKey("press", 3), context)) == "Tiny-Echo-edge:1 of model version 1"
    assert "Tiny-Echo-edge:1" in references(third.metrics, ModelKey("press", 3), gated)["silhouette"].source


def test_a_package_that_fails_on_the_payload_of_the_other_is_one_sentence(
    line: Plant, context: TaskContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        failure = ChildFailure("KeyError", "'ph4'", None, 3, "Traceback ...\n  line 1")
        raise TaskFailedError("running it", failure)

    package(line, context, 1), package(line, context, 2)
    monkeypatch.setattr(compare_packages, "compare_candidates", failing)
    before, now = (
        registered_candidate(ModelKey("press", version), registered(line, version), context) for version in (1, 2)
    )
    with pytest.raises(ComponentError) as refused:
        compare_two(before, now, context)
    assert str(refused.value).endswith("on the same payload: running it failed at record 3: 'ph4'")
    assert "\n" not in str(refused.value)
