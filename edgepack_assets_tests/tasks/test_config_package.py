"""Reading a model for its config package: whatever is wrong with it is the model's failure, and what of its files would
hide a module of the component's own."""

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
    PluginError,
    TransientError,
)
from edgepack_assets.model_types import model_type
from edgepack_assets.model_types.image_classification.model_type import ImageClassification
from edgepack_assets.model_types.interface import ComponentSpec, ModelSource, Parameter
from edgepack_assets.model_types.state_identifier.model_type import StateIdentifier
from edgepack_assets.packaging.worker import PackagingWorker
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets.tasks import environment_ahead
from edgepack_assets.tasks.config_package import _assemble, _check_parameters, make_config_package
from edgepack_assets.tasks.context import TaskContext


def assembled(folder: Path, *names: str) -> Path:
    file = folder / "file"
    file.write_bytes(b"x")
    source = ModelSource(dict.fromkeys(names, file), {"file": names[0]}, (), None)
    _assemble(folder / "component", [StateIdentifier().folder / "component"], source, folder)
    return folder / "component"


@pytest.mark.parametrize(
    "names",
    [
        ("inference.joblib",),
        ("entrypoint.pkl",),
        ("inference.skops", "inference.txt", "inference"),
        ("model.json.pkl",),
        ("plant/inference.py", "plant/entrypoint/__init__.py"),
        ("inference_of_plant.py", "inference.v2/data.csv"),
    ],
)
def test_a_file_that_hides_no_module_ships(tmp_path: Path, names: tuple[str, ...]) -> None:
    component = assembled(tmp_path, *names)
    assert all((component / name).is_file() for name in names)
    assert (component / "inference.py").is_file()


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("inference.py", "inference.py"),
        ("inference/__init__.py", "inference.py"),
        ("entrypoint/data.csv", "entrypoint.py"),
        ("inference.pyc", "inference.py"),
        ("inference.so", "inference.py"),
        ("entrypoint.cpython-311-x86_64-linux-gnu.so", "entrypoint.py"),
        ("model.json", "model.json"),
        ("model.json/x", "model.json"),
    ],
)
def test_a_file_that_hides_a_module_is_refused(tmp_path: Path, name: str, hidden: str) -> None:
    with pytest.raises(ModelError, match=rf"ships {name}, which would hide the component's own {hidden}"):
        assembled(tmp_path, name)


def test_files_of_the_model_type_take_the_place_of_component_files_and_hide_what_they_may(tmp_path: Path) -> None:
    own, model = tmp_path / "own.py", tmp_path / "work" / "model.skops"
    own.write_text("own = True")
    model.parent.mkdir()
    model.write_bytes(b"model")
    files = {"entrypoint.py": own, "options.py": own}
    source = ModelSource({"m.skops": model}, {"file": "m.skops"}, (), None, component_files=files)
    _assemble(tmp_path / "component", [StateIdentifier().folder / "component"], source, model.parent)
    assert (tmp_path / "component" / "entrypoint.py").read_text() == "own = True"
    assert (tmp_path / "component" / "inference.py").read_bytes() != own.read_bytes()
    assert (tmp_path / "component" / "m.skops").samefile(model), "the run's own copy of the model is not copied again"
    assert not (tmp_path / "component" / "options.py").samefile(own), "a file that may change is copied"
    hidden = ModelSource({"options.py": model}, {"file": "options.py"}, (), None, component_files=files)
    with pytest.raises(ModelError, match=r"would hide the component's own options\.py"):
        _assemble(tmp_path / "hidden", [StateIdentifier().folder / "component"], hidden, model.parent)


def test_parameters_that_the_component_never_gets_are_refused(tmp_path: Path) -> None:
    plugin, entrypoint = model_type("state_identifier"), tmp_path / "entrypoint.py"
    none, one = ComponentSpec("", (), ()), ComponentSpec("", (), (), parameters=(Parameter("limit", "Double", 2.0),))
    entrypoint.write_text("def process_input(record): return None\n")
    _check_parameters(plugin, none, entrypoint)
    with pytest.raises(PluginError, match=r"the model type state_identifier \(.*component_spec declares.* limit, but "):
        _check_parameters(plugin, one, entrypoint)
    for defined in ("def update_parameters(params): pass\n", "from inference import update_parameters\n"):
        entrypoint.write_text(defined)
        _check_parameters(plugin, one, entrypoint)


def test_image_sets_go_together_with_options_of_an_onnx_file(tmp_path: Path) -> None:
    """Both bring an entrypoint. The one of image sets ships, and loads the model through the options."""
    folder = ImageClassification().folder
    model = tmp_path / "model.onnx"
    model.write_bytes(b"x")
    options = {file.name: file for file in (folder / "component_onnx").glob("*.py")}
    source = ModelSource({"model.onnx": model}, {"file": "model.onnx"}, (), None, component_files=options)
    component = tmp_path / "component"
    _assemble(component, [folder / "component", folder / "component_image_set"], source, tmp_path)
    entrypoint = (component / "entrypoint.py").read_text()
    assert entrypoint == (folder / "component_image_set" / "entrypoint.py").read_text()
    assert 'import_module("onnx_options" if' in entrypoint
    assert (component / "onnx_options.py").is_file()


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

    monkeypatch.setattr(environment_ahead, "find_python", lambda version, pythons: (version, ""))
    monkeypatch.setattr(environment_ahead, "generation_for", lock)
    source = ModelSource({}, {}, ("numpy==2.5",), None, pinned_with="3.12")
    monkeypatch.setattr(StateIdentifier, "read_model", lambda *_: source)
    (tmp_path / "model.pkl").write_bytes(b"x")
    with pytest.raises((EdgepackError, RuntimeError), match=said):
        packaged(tmp_path, tmp_path / "model.pkl")
    assert found == asked
