"""Reading a model for its config package: whatever is wrong with it is the model's failure."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest

from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.loader import load_settings
from edgepack_assets.errors import (
    EdgepackError,
    EnvironmentBuildError,
    IndexUnreachableError,
    ModelError,
    TransientError,
)
from edgepack_assets.model_types.interface import ModelSource
from edgepack_assets.model_types.state_identifier.model_type import StateIdentifier
from edgepack_assets.packaging.worker import PackagingWorker
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets.tasks import component_environment
from edgepack_assets.tasks.config_package import make_config_package
from edgepack_assets.tasks.context import TaskContext


class NoPackaging(PackagingWorker):
    """The model is refused before anything is packaged."""

    def start(self) -> None:
        pass


def packaged(folder: Path, model: Path) -> None:
    file = folder / "edgepack.yaml"
    file.write_text(
        "registry: {path: registry}\nartefacts: {root: artefacts}\nmodel_types:\n  press: {"
        "implementation: state_identifier, model_name: press, package_name: Press, raw_data: {name: raw}}\n"
    )
    settings = load_settings(file)
    registry, store = LocalRegistry(folder / "registry"), ArtefactStore(settings.artefacts.root, folder / "cache")
    made = registry.register(Kind.MODEL, "press", model, {})
    with Sandbox(settings.runtime) as sandbox:
        context = TaskContext(settings, registry, store, sandbox, NoPackaging(), logging.getLogger(__name__))
        make_config_package(ModelKey("press", made.version), context)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("MLmodel", "flavors: [sklearn]\n", "MLmodel: flavors: must be a mapping"),
        ("MLmodel", "flavors: {sklearn: text}\n", "MLmodel: flavors.sklearn: must be a mapping"),
        ("MLmodel", "flavors: {python_function: {code: /etc}}\n", "outside the model folder"),
        ("MLmodel", "a: &a [x]\nb: [*a, *a]\n", "anchors and aliases"),
        ("conda.yaml", "dependencies: numpy\n", "conda.yaml: dependencies: must be a list"),
        ("conda.yaml", "dependencies:\n- pip:\n", r"says nothing of the packages it needs \(conda.yaml names none\)"),
        ("requirements.txt", "-r ../../../version.json\n", "replace_requirements"),
    ],
)
def test_what_is_wrong_with_a_model_s_files_is_the_model_s_failure(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.pkl").write_bytes(b"x")
    if name == "MLmodel":
        (model / "requirements.txt").write_text("scikit-learn\n")
    (model / name).write_text(text)
    with pytest.raises(ModelError, match=message):
        packaged(tmp_path, model)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(TypeError("'list' has no get"), ModelError), (OSError(errno.ENOSPC, "disk full"), TransientError)],
)
def test_what_nobody_foresaw_while_reading_is_the_model_s_failure_and_a_full_disk_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception]
) -> None:
    def read_model(*_: object) -> ModelSource:
        raise error

    monkeypatch.setattr(StateIdentifier, "read_model", read_model)
    (tmp_path / "model.pkl").write_bytes(b"x")
    with pytest.raises(kind, match=r"reading press:1.*(TypeError|disk full)"):
        packaged(tmp_path, tmp_path / "model.pkl")


@pytest.mark.parametrize(
    ("first", "second", "asked", "said"),
    [
        (EnvironmentBuildError("no such numpy"), RuntimeError("reached"), [None, "3.12"], "reached"),
        (EnvironmentBuildError("no such numpy"), EnvironmentBuildError("none here"), [None, "3.12"], "no such numpy"),
        (IndexUnreachableError("no answer"), ModelError("reached"), [None], "no answer"),
        (ModelError("reached"), None, [None], "reached"),
    ],
)
def test_versions_that_only_the_model_s_own_python_has_are_taken_with_that_python(  # noqa: PLR0917 - a table
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Exception, second: Exception, asked: list[str], said: str
) -> None:
    """An .onnx file runs with any Python, but MLflow pinned numpy for the one that saved it."""
    found: list[str | None] = []

    def lock(requirements: object, python: str | None, *_: object, **__: object) -> None:
        found.append(python)
        raise (first, second)[len(found) - 1]

    monkeypatch.setattr(component_environment, "find_python", lambda version, pythons: (version, ""))
    monkeypatch.setattr(component_environment, "generation_for", lock)
    source = ModelSource({}, {}, ("numpy==2.5",), None, pinned_with="3.12")
    monkeypatch.setattr(StateIdentifier, "read_model", lambda *_: source)
    (tmp_path / "model.pkl").write_bytes(b"x")
    with pytest.raises((EdgepackError, RuntimeError), match=said):
        packaged(tmp_path, tmp_path / "model.pkl")
    assert found == asked
