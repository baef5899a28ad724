"""The environment of the jobs: what its version covers, where its parts come from, and that it is registered once."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from packaging.requirements import Requirement

from edgepack_assets.compute.azure_ml.environment import JobEnvironment, installed_versions, job_environment
from edgepack_assets.config.compute_settings import DEFAULT_IMAGE, ComputeSettings
from edgepack_assets.errors import ConfigError, EdgepackError
from edgepack_assets_tests.azure.faults import lost_answer
from edgepack_assets_tests.compute.conftest import Plant


def settings(**keys: Any) -> ComputeSettings:
    return ComputeSettings.model_validate({"type": "azure_ml", "cluster_name": "c", **keys})


def test_ours_installs_what_is_installed_here() -> None:
    ours = job_environment(settings())
    assert ours.image == DEFAULT_IMAGE
    python, pip, installed = ours.conda["dependencies"]
    assert python.startswith("python=3.")
    assert pip == "pip"
    assert installed == {"pip": list(ours.lock)}
    names = {Requirement(line).name: line for line in ours.lock}
    assert len(names) == len(ours.lock) > 50
    assert {"simaticai", "dagster", "azure-ai-ml", "uv", "numpy"} <= names.keys()
    assert "edgepack-assets" not in names, "it comes as the wheel of what runs here"
    for name, line in names.items():
        assert line == f"{name}=={metadata.version(name).partition('+')[0]}"
    assert ours.lock == tuple(sorted(ours.lock)) == installed_versions()
    assert yaml.safe_load(yaml.safe_dump(ours.conda)) == ours.conda


def test_a_conda_file_or_an_image_of_the_users_replaces_ours(tmp_path: Path) -> None:
    conda = tmp_path / "conda.yml"
    conda.write_bytes(b"\xef\xbb\xbfname: press\ndependencies: [python=3.11, {pip: [edgepack==1]}]\n")
    theirs = job_environment(settings(conda_path=conda))
    assert theirs.conda == {"name": "press", "dependencies": ["python=3.11", {"pip": ["edgepack==1"]}]}
    assert (theirs.image, theirs.lock) == (DEFAULT_IMAGE, ())
    image = job_environment(settings(environment_image="plant.azurecr.io/edge:1"))
    assert (image.image, image.conda, image.lock) == ("plant.azurecr.io/edge:1", None, ())
    both = job_environment(settings(environment_image="plant.azurecr.io/edge:1", conda_path=conda))
    assert len({each.version for each in (theirs, image, both, job_environment(settings()))}) == 4
    conda.write_text("# a comment\nname: press\ndependencies:\n- python=3.11\n- pip: [edgepack==1]\n")
    assert job_environment(settings(conda_path=conda)).version == theirs.version, "how it is written is no difference"


PARTS = st.fixed_dictionaries(
    {
        "image": st.text(),
        "conda": st.one_of(st.none(), st.lists(st.text())),
        "lock": st.lists(st.text()).map(tuple),
    }
)


@settings_of_hypothesis(max_examples=30)
@given(PARTS, PARTS, st.text(), st.text())
def test_the_version_is_the_digest_of_image_conda_file_and_lock(one: Any, other: Any, name: str, text: str) -> None:
    version = JobEnvironment(name="edgepack", **one, description="").version
    assert JobEnvironment(name=name, **one, description=text).version == version
    assert (JobEnvironment(name=name, **other, description=text).version == version) == (one == other)
    assert len(version) == 32


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dependencies: [", "is not YAML"),
        ("", "is no conda file: it has no list `dependencies`"),
        ("- python", "is no conda file"),
        ("dependencies: {python: 3}", "is no conda file"),
        ("dependencies: [3.11]", "3.11 is no dependency"),
        ("dependencies: [{pip: numpy}]", "is no dependency"),
        ("dependencies: [{pip: ['--index-url https://me:canary-pass@mirror.example/simple']}]", "holds a password"),
        ("\xff\xfe", "is not YAML"),
    ],
)
def test_a_conda_file_that_is_none_is_refused(tmp_path: Path, text: str, words: str) -> None:
    conda = tmp_path / "conda.yml"
    conda.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=rf"conda\.yml \(compute\.conda_path\): .*{words}") as caught:
        job_environment(settings(conda_path=conda))
    assert "canary" not in str(caught.value)


def test_it_is_registered_once_and_found_again(plant: Plant, tmp_path: Path) -> None:
    conda = tmp_path / "conda.yml"
    conda.write_text("dependencies: [python=3.11, {pip: [edgepack==1]}]\n")
    keys = {"conda_path": conda, "environment_name": "press", "env_description": "for presses"}
    plant.azure.azure_ml.compute.add_cluster("edge-cpu")
    plant.jobs(**keys).prepare(plant.log)
    ((name, version),) = plant.azure.azure_ml.compute.environments
    kept = plant.azure.azure_ml.compute.environments[name, version]
    assert name == "press"
    assert version == job_environment(plant.compute(**keys)).version
    assert kept["image"] == "plant/edge:1"
    assert yaml.safe_load(kept["condaFile"]) == {"dependencies": ["python=3.11", {"pip": ["edgepack==1"]}]}
    assert kept["description"] == "for presses"
    assert [line for line in plant.said if "registering" in line]
    plant.said.clear()
    plant.jobs(**keys).prepare(plant.log)
    assert plant.said == []
    conda.write_text("dependencies: [python=3.12]\n")
    plant.jobs(**keys).prepare(plant.log)
    assert len(plant.azure.azure_ml.compute.environments) == 2


def test_an_answer_that_was_lost_is_no_failure(plant: Plant) -> None:
    plant.azure.azure_ml.compute.add_cluster("edge-cpu")
    plant.azure.faults.add("PUT .*/environments/", lost_answer)
    plant.jobs().prepare(plant.log)
    assert len(plant.azure.azure_ml.compute.environments) == 1


def test_another_environment_under_that_version_is_refused(plant: Plant) -> None:
    plant.ready()
    for kept in plant.azure.azure_ml.compute.environments.values():
        kept["image"] = "somebody/else:1"
    with pytest.raises(EdgepackError, match=r"has the image somebody/else:1, not plant/edge:1: .*environment_name"):
        plant.jobs().prepare(plant.log)
