"""deployment_package: what is registered, under which version, with which tags; and which gates it holds itself."""

from __future__ import annotations

import ast
import json
import re
import shutil
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import edgepack_assets
from edgepack_assets.checks import CheckRow
from edgepack_assets.config.digest import config_digest
from edgepack_assets.errors import EdgepackError, PackageError
from edgepack_assets.packaging.deployment_package import build_deployment_package, expected_contents
from edgepack_assets.packaging.stamp import Stamp, package_id_for, read_stamp
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets.tasks.deployment_package import Validated, deploy
from edgepack_assets.tasks.failed_checks import failed_rows
from edgepack_assets.tasks.metrics import gate_rows, open_metrics
from edgepack_assets.tasks.packages import registration
from edgepack_assets.tasks.packages import tags as package_tags
from edgepack_assets_tests.tasks.plant import METRICS, MODEL, PACKAGE, Plant


def better(**numbers: float | None) -> dict[str, float | None]:
    return {**METRICS, **numbers}


def compared(plant: Plant, version: int, metrics: dict[str, Any] | None = None, raw: int = 1) -> tuple[bool, str]:
    """Whether the gate with a reference holds, and the reference it names."""
    context = plant.task_context()
    scored = open_metrics(plant.validated(version, metrics or dict(METRICS), raw).metrics, context)
    row = gate_rows(scored, ModelKey("press", version), context)[-1]
    return row.passed, row.reference


# Registration --------------------------------------------------------------------------------------------


def test_the_same_content_of_a_model_version_is_registered_once(plant: Plant) -> None:
    first = plant.deploy(1)
    again = plant.deploy(1, run_id="another")
    assert (first.was_registered_before, again.was_registered_before) == (False, True)
    assert again.registered == first.registered
    second = plant.deploy(2)
    assert [package.version for package in plant.packages()] == [1, 2]
    assert second.content_digest == first.content_digest
    assert first.package_id == second.package_id == str(package_id_for(PACKAGE))
    tags = first.registered.tags
    assert tags["silhouette"] == "0.5"
    assert {key: tags[key] for key in ("model_name", "model_version", "raw_data", "run_id", "packageid")} == {
        "model_name": MODEL, "model_version": "1", "raw_data": "press_raw:1", "run_id": "run",
        "packageid": first.package_id,
    }  # fmt: skip
    assert tags["config_digest"] == config_digest(plant.task_context().settings)
    assert {"content_digest", "lock_digest", "payload_digest", "raw_data_digest", "edgepack_version"} <= tags.keys()
    assert not any(tag.startswith(("metrics_", "gates_", "older_")) for tag in tags)


def test_metrics_on_new_raw_data_are_added_with_their_date_and_once(plant: Plant) -> None:
    plant.deploy(1)
    for raw, silhouette in ((2, 0.4), (2, 0.4), (3, 0.5), (1, 0.5)):
        report = plant.deploy(1, better(silhouette=silhouette), raw=raw)
        assert report.was_registered_before
    (package,) = plant.packages()
    dated = {tag: json.loads(text) for tag, text in sorted(package.tags.items()) if tag.startswith("metrics_")}
    assert all(re.fullmatch(r"metrics_\d{8}T\d{6}Z", tag) for tag in dated)
    assert [(each["raw_data"], each["metrics"]["silhouette"]) for each in dated.values()] == [
        ("press_raw:2", 0.4),
        ("press_raw:3", 0.5),
    ]
    assert package.tags["silhouette"] == "0.5"
    plant.deploy(1, better(silhouette=0.45), raw=2)
    assert sum(tag.startswith("metrics_") for tag in plant.packages()[0].tags) == 3


def test_a_package_keeps_its_newest_dated_metrics_and_so_a_bounded_number_of_tags(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "DATED_KEPT", 3)
    first = plant.deploy(1).registered
    plant.registry.set_tags(first, {"metrics_of_mine": "x", "metrics_20200101T000000Z": "not ours",
                                      "metrics_99999999T999999Z": '{"metrics": {}}'})  # fmt: skip
    for raw in range(2, 8):
        plant.deploy(1, better(silhouette=raw / 10), raw=raw)
    tags = plant.packages()[0].tags
    kept = {tag: json.loads(text)["raw_data"] for tag, text in sorted(tags.items()) if "run_id" in text}
    assert list(kept.values()) == ["press_raw:5", "press_raw:6", "press_raw:7"]
    assert tags.keys() == {
        *first.tags,
        *kept,
        "metrics_of_mine",
        "metrics_20200101T000000Z",
        "metrics_99999999T999999Z",
    }
    assert all(len(text) <= package_tags.LONGEST_TAG for text in tags.values())


def test_a_package_of_an_older_model_says_so(plant: Plant) -> None:
    plant.deploy(5)
    late, newest = plant.deploy(3).registered, plant.deploy(6).registered
    assert late.tags["older_than_model_version"] == "5"
    assert "older_than_model_version" not in newest.tags
    assert plant.deploy(4).registered.tags["older_than_model_version"] == "6"


def test_the_package_id_is_that_of_the_newest_version_that_has_one(plant: Plant, tmp_path: Path) -> None:
    given = uuid.uuid4()
    (tmp_path / "other.zip").write_bytes(b"made by another tool")
    for tags in ({"packageid": str(uuid.uuid4())}, {"packageid": str(given)}, {"packageid": "no id"}, {}):
        plant.registry.register(
            Kind.MODEL, PACKAGE, tmp_path / "other.zip", {**tags, "model_version": "ten", "ä=\n": "x"}
        )
    made = plant.deploy(1).registered
    assert (made.version, made.tags["packageid"]) == (5, str(given))
    assert read_stamp(plant.registry.download(made, tmp_path / "got")).package_id == given


def test_a_package_says_what_it_was_made_from(plant: Plant, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.pkl").write_bytes(b"x")
    model = plant.registry.register(Kind.MODEL, MODEL, tmp_path / "model", {})
    path = plant.registry.download(plant.deploy(1).registered, tmp_path / "got")
    origin = read_stamp(path).origin
    assert origin is not None
    assert origin.created == model.created.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert origin.text == (
        f"made from model {MODEL}:1, sha256 000000000000, with lock {plant.built.lock.digest[:12]} for Python "
        f"{plant.built.lock.python}; validated on press_raw:1"
    )


def test_the_same_package_has_the_same_bytes_wherever_it_is_registered(plant: Plant, tmp_path: Path) -> None:
    """Origin and list are functions of the inputs: on another registry, which got the model from this one."""
    (tmp_path / "model.pkl").write_bytes(b"x")
    plant.registry.register(Kind.MODEL, MODEL, tmp_path / "model.pkl", {})
    other = Plant(plant.built, tmp_path / "other")
    shutil.copytree(plant.folder / "registry", other.folder / "registry")
    first, second = plant.deploy(1), other.deploy(1, run_id="another")
    assert (first.registered.digest, first.registered.version) == (second.registered.digest, second.registered.version)


def test_contents_that_were_kept_are_not_read_again_and_prove_nothing(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = expected_contents(plant.built.config, plant.built.lock)
    validated = plant.validated(1)

    def keeping(contents: dict[str, str]) -> Validated:
        kept = {"contents": plant.built.store.put_json(contents)}
        return replace(validated, config_package=validated.config_package.model_copy(update={"observations": kept}))

    with Sandbox(plant.built.settings) as sandbox:
        context = plant.task_context(sandbox)
        monkeypatch.setattr(context.packaging, "expected_contents", None)
        with pytest.raises(PackageError, match=r"differs from what was validated in|lists other files"):
            deploy(ModelKey("press", 1), keeping({**expected, next(iter(expected)): "0" * 64}), {}, "", context)
        assert plant.packages() == []
        deploy(ModelKey("press", 1), keeping(expected), {}, "", context)
    assert len(plant.packages()) == 1


def test_a_package_of_an_earlier_release_is_found_and_not_registered_again(plant: Plant, tmp_path: Path) -> None:
    """It has no origin and no pipeline_content.yml."""
    reference = Plant(plant.built, tmp_path / "reference")
    reference.folder.mkdir()
    tags = reference.deploy(1).registered.tags
    stamp = Stamp(1, package_id_for(PACKAGE), lists_content=False)
    built = plant.built
    old = build_deployment_package(built.config, built.lock, built.store, PACKAGE, stamp, tmp_path)
    (tmp_path / "model.pkl").write_bytes(b"x")
    plant.registry.register(Kind.MODEL, MODEL, tmp_path / "model.pkl", {})
    made = plant.registry.register(Kind.MODEL, PACKAGE, old, tags)
    report = plant.deploy(1)
    assert report.was_registered_before
    assert report.registered.version == made.version
    assert all(part.passed for part in report.rows)


@pytest.mark.parametrize("asset", ["config_package", "payload_data", "prepped_data", "validation_results"])
def test_nothing_is_registered_from_an_artefact_whose_blocking_check_failed(plant: Plant, asset: str) -> None:
    """Dagster has blocked the steps of that run only. A reason overrides gates and nothing else."""
    validated = plant.validated(1, failed=[asset])
    message = rf"nothing is registered: the check of {asset} \(a row of {asset}\)\. .*materialize {asset}"
    with Sandbox(plant.built.settings) as sandbox, pytest.raises(EdgepackError, match=message):
        deploy(ModelKey("press", 1), validated, {}, "never mind", plant.task_context(sandbox))
    assert plant.packages() == []


def test_only_an_artefact_whose_check_failed_says_so() -> None:
    """The digests of sound artefacts, and so of packages, stay what they were."""
    sound, warning = CheckRow("a", True, "", ""), CheckRow("b", False, "", "", warns=True)
    bad = CheckRow("c", False, "", "")
    assert failed_rows([sound]) == failed_rows([sound, warning]) == {}
    assert failed_rows([bad, sound, warning]) == {"failed_rows": ["c"]}
    assert failed_rows([]) == {"failed_rows": ["it has no rows"]}  # Dagster is told that such a check failed


# Tags ----------------------------------------------------------------------------------------------------


def test_every_tag_of_a_package_has_its_name_in_one_place(plant: Plant) -> None:
    plant.deploy(5)
    plant.gates = {"silhouette": {"min": 0.6}}
    plant.deploy(3, override="agreed")
    plant.deploy(3, raw=2, override="agreed")
    tags = {tag for package in plant.packages() for tag in package.tags}
    named = package_tags.PACKAGE_TAGS | METRICS.keys()
    assert {tag for tag in tags - named if not package_tags.is_dated_metrics(tag)} == set()
    assert {package_tags.OLDER_THAN, package_tags.GATES_OVERRIDDEN_FAILED} <= tags


def test_no_literal_is_a_tag_s_name() -> None:
    literals = []
    for file in sorted(Path(edgepack_assets.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Subscript(value=mapping, slice=ast.Constant(value=str() as key)):
                    pass
                case ast.Call(
                    func=ast.Attribute(value=mapping, attr="get"), args=[ast.Constant(value=str() as key), *_]
                ):
                    pass
                case _:
                    continue
            if ast.unparse(mapping).endswith("tags"):
                literals.append(f"{file.name}:{mapping.lineno}: {key}")
    assert literals == []


@pytest.mark.parametrize("name", ["model_version", "packageid", "metrics_20300101T000000Z"])
def test_a_metric_cannot_take_the_place_of_another_tag(plant: Plant, name: str) -> None:
    with pytest.raises(EdgepackError, match=f"the metric '{name}' has the name of a tag"):
        plant.deploy(1, better(**{name: 1.0}))
    assert plant.packages() == []


# Gates ---------------------------------------------------------------------------------------------------


def test_a_failed_gate_is_refused_here_too_and_only_a_reason_overrides_it(plant: Plant) -> None:
    plant.gates = {"silhouette": {"min": 0.6}, "inertia": {"max": 50}}
    with pytest.raises(EdgepackError, match=r"gates of press:1 do not hold, nothing is registered: gate on inertia"):
        plant.deploy(1)
    assert plant.packages() == []
    tags = plant.deploy(1, override="the line stands still; agreed with M. Huber").registered.tags
    assert tags["gates_overridden"] == "the line stands still; agreed with M. Huber"
    assert "gate on inertia: 100, wanted at most 50" in tags["gates_overridden_failed"]
    assert "gate on silhouette: 0.5, wanted at least 0.6" in tags["gates_overridden_failed"]
    with pytest.raises(EdgepackError, match="gates of press:1 do not hold"):  # one override is not for ever
        plant.deploy(1)


def test_what_is_told_of_overridden_gates_fits_into_tags(plant: Plant) -> None:
    plant.gates = {"silhouette": {"min": 0.6}}
    with pytest.raises(EdgepackError, match="has 1001 characters; a tag holds 1000"):
        plant.deploy(1, override="x" * 1001)
    assert plant.packages() == []
    assert plant.deploy(1, override="x" * 1000).registered.tags["gates_overridden"] == "x" * 1000


def test_a_reason_that_is_not_needed_is_not_kept(plant: Plant) -> None:
    assert "gates_overridden" not in plant.deploy(1, override="just in case").registered.tags


def test_overriding_a_package_that_stands_is_told_in_its_tags(plant: Plant) -> None:
    plant.deploy(1)
    plant.gates = {"silhouette": {"min": 0.6}}
    report = plant.deploy(1, override="accepted for line 4")
    assert report.was_registered_before
    assert report.registered.tags["gates_overridden"] == "accepted for line 4"


def test_no_reason_overrides_answers_that_do_not_fit(plant: Plant) -> None:
    with pytest.raises(EdgepackError, match="do not hold, nothing is registered: answers: 4, wanted 4"):
        plant.deploy(1, sound=False, override="never mind")
    assert plant.packages() == []


def test_the_previous_package_is_that_of_the_highest_lower_model_version(plant: Plant) -> None:
    plant.gates = {"silhouette": {"reference": "previous", "tolerance": 0.05}}
    assert compared(plant, 4)[0]
    assert "no package of a lower model version than 4" in compared(plant, 4)[1]
    plant.deploy(4, better(silhouette=0.5))
    plant.deploy(2, better(silhouette=0.9))  # late, and better: no reference for what is newer than 4
    assert compared(plant, 5, better(silhouette=0.46)) == (
        True, f"{PACKAGE}:1 of model version 4, on press_raw:1",
    )  # fmt: skip
    assert not compared(plant, 5, better(silhouette=0.44))[0]
    assert compared(plant, 3, better(silhouette=0.84)) == (
        False, f"{PACKAGE}:2 of model version 2, on press_raw:1",
    )  # fmt: skip
    with pytest.raises(EdgepackError, match=r"silhouette against previous: 0.44, wanted at least 0.45 .*:1 of model"):
        plant.deploy(5, better(silhouette=0.44))


def test_of_several_packages_of_a_model_version_the_newest_counts(plant: Plant, tmp_path: Path) -> None:
    (tmp_path / "other.zip").write_bytes(b"x")
    for version, value in (("1", "0.1"), ("1", "0.7"), ("9", "0.9"), ("x", "0.8")):
        tags = {"model_name": MODEL, "model_version": version, "silhouette": value}
        plant.registry.register(Kind.MODEL, PACKAGE, tmp_path / "other.zip", tags)
    foreign = {"model_name": "another_model", "model_version": "2", "silhouette": "1"}
    plant.registry.register(Kind.MODEL, PACKAGE, tmp_path / "other.zip", foreign)
    plant.gates = {"silhouette": {"reference": "previous"}}
    assert compared(plant, 3, better(silhouette=0.69)) == (
        False, f"{PACKAGE}:2 of model version 1, on unknown raw data",
    )  # fmt: skip
    assert compared(plant, 3, better(silhouette=0.71))[0]


def test_a_reference_is_taken_on_the_same_raw_data_if_it_was_validated_on_that(plant: Plant) -> None:
    plant.gates = {"silhouette": {"reference": "previous"}}
    plant.deploy(1, better(silhouette=0.8), raw=1)
    assert compared(plant, 2, better(silhouette=0.5), raw=2) == (
        False,
        f"{PACKAGE}:1 of model version 1, on press_raw:1",
    )
    plant.deploy(1, better(silhouette=0.4), raw=2)
    assert compared(plant, 2, better(silhouette=0.5), raw=2) == (
        True,
        f"{PACKAGE}:1 of model version 1, on press_raw:2",
    )
    assert not compared(plant, 2, better(silhouette=0.5), raw=1)[0]


def test_lower_is_better_where_the_model_type_says_so(plant: Plant) -> None:
    plant.gates = {"inertia": {"reference": "previous", "tolerance": "10%"}}
    plant.deploy(1)
    assert compared(plant, 2, better(inertia=109.0))[0]
    assert not compared(plant, 2, better(inertia=111.0))[0]


def test_training_metrics_are_the_tags_of_the_model(plant: Plant, tmp_path: Path) -> None:
    plant.gates = {"silhouette": {"reference": "training", "tolerance": "10%"}}
    (tmp_path / "model.pkl").write_bytes(b"x")
    for value in ("0.5", "nan", "much", None):
        plant.registry.register(
            Kind.MODEL, MODEL, tmp_path / "model.pkl", {} if value is None else {"silhouette": value}
        )
    assert compared(plant, 1, better(silhouette=0.46)) == (True, f"training, in the tags of {MODEL}:1")
    assert not compared(plant, 1, better(silhouette=0.44))[0]
    for version in (2, 3, 4):
        assert compared(plant, version) == (False, f"{MODEL}:{version} has no tag silhouette with a number")


def test_a_named_model_version_is_the_reference(plant: Plant) -> None:
    plant.gates = {"silhouette": {"reference": 3}}
    assert compared(plant, 5) == (False, "no package of model version 3 is registered: package it first")
    assert compared(plant, 3)[0]
    plant.deploy(3)
    plant.gates["silhouette"]["tolerance"] = 0.1
    assert compared(plant, 5, better(silhouette=0.4)) == (True, f"{PACKAGE}:1 of model version 3, on press_raw:1")
    assert not compared(plant, 5, better(silhouette=0.39))[0]


def test_metrics_that_are_no_numbers_pass_nothing_and_leave_no_tag(plant: Plant) -> None:
    with pytest.raises(EdgepackError, match="silhouette is a finite number: not defined"):
        plant.deploy(1, better(silhouette=None))
    plant.gates = {"silhouette": {"reference": "previous"}}
    tags = plant.deploy(1, better(silhouette=None), override="one state only").registered.tags
    assert "silhouette" not in tags
    assert compared(plant, 2) == (False, f"{PACKAGE}:1 of model version 1 has no silhouette")


def test_a_row_that_warns_holds_nothing_up(plant: Plant) -> None:
    validated = plant.validated(1)
    doubt = ["as many scores as classes", False, "1024", "about 10", True]
    facts = {**validated.metrics.facts, "parts": [*validated.metrics.facts["parts"], doubt]}
    metrics = validated.metrics.model_copy(
        update={"facts": facts, "parts": {"metrics": plant.built.store.put_json(facts)}}
    )
    assert [part.warns for part in open_metrics(metrics, plant.task_context()).consistency_rows] == [False, True]
    with Sandbox(plant.built.settings) as sandbox:
        _, report = deploy(
            ModelKey("press", 1), replace(validated, metrics=metrics), {}, "", plant.task_context(sandbox)
        )
    assert report.registered.version == 1
