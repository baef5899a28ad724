"""Reading a registered model's files without executing any: which file is the model, what environment it was
saved with (MLflow's MLmodel, requirements.txt, conda.yaml, python_env.yaml), and which code ships with it."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from edgepack_assets.errors import ModelError
from edgepack_assets.registry.base import files_of
from edgepack_assets.settings import ModelTypeSettings

_MLFLOW = {"mlflow", "mlflow-skinny", "mlflow-tracing"}
_IGNORED_FOLDERS = {"__pycache__", ".git", ".ipynb_checkpoints"}


@dataclass(frozen=True)
class SavedEnvironment:
    """What the model was saved with: PEP 508 lines (empty if it does not say) and its Python as `3.x`."""

    requirements: tuple[str, ...]
    python_version: str | None


def find_model_file(model: Path, suffixes: tuple[str, ...]) -> tuple[Path, Path]:
    """(root, model file): the folder whose files belong to the model, and the one file that is the model.

    `model` is a file, or a folder that holds the model at its top or one level down (as a registry's
    download of a folder does). Raises ModelError if there is no model file, or more than one.
    """
    wanted = " or ".join(suffixes)
    if model.is_file():
        if model.suffix.lower() not in suffixes:
            raise ModelError(f"{model.name}: not a model file this model type knows; it takes {wanted}")
        return model.parent, model
    root = mlflow_root(model) or _folder_with_models(model, suffixes)
    found = _models_in(root, suffixes)
    if len(found) > 1:
        names = ", ".join(sorted(path.relative_to(model).as_posix() for path in found))
        raise ModelError(f"the model folder holds {len(found)} model files ({names}); register a folder with one")
    named = _named_by_mlflow(root)
    if named is not None and named.suffix.lower() in suffixes:
        if not named.is_file():
            raise ModelError(f"MLmodel names {named.relative_to(root).as_posix()}, but the folder does not hold it")
        if found and found[0] != named:
            raise ModelError(
                f"MLmodel names {named.relative_to(root).as_posix()}, but the folder also holds {found[0].name}; "
                "register a folder with one model file"
            )
        return root, named
    if not found:
        listing = ", ".join(name for name, _ in files_of(model))[:400] or "nothing"
        raise ModelError(f"the model folder holds no model file ({wanted}); it holds: {listing}")
    return root, found[0]


def mlflow_root(model: Path) -> Path | None:
    """The folder with the MLmodel file: `model` itself or one level below. Raises ModelError on two."""
    roots = [path.parent for path in (model / "MLmodel", *sorted(model.glob("*/MLmodel"))) if path.is_file()]
    if len(roots) > 1:
        raise ModelError(
            f"the model folder holds {len(roots)} MLflow models "
            f"({', '.join(root.relative_to(model).as_posix() for root in roots)}); register one of them"
        )
    return roots[0] if roots else None


def read_mlmodel(root: Path) -> dict[str, Any]:
    """The MLmodel file of an MLflow folder, or {} where there is none. Raises ModelError."""
    return _read_yaml(root / "MLmodel") if (root / "MLmodel").is_file() else {}


def saved_environment(root: Path, only: Container[str] | None = None) -> SavedEnvironment:
    """What the MLflow files beside the model say of the environment that it was saved with.

    With `only` (canonical names) other lines are passed over unread: what does not run the model need not be sound."""
    mlmodel = read_mlmodel(root)
    python = _python_of(root, mlmodel)
    lines: list[str] = []
    if (root / "requirements.txt").is_file():
        lines = _read_text(root / "requirements.txt").splitlines()
        origin = "requirements.txt"
    elif (root / "conda.yaml").is_file():
        origin = "conda.yaml"
        for entry in _read_yaml(root / "conda.yaml").get("dependencies", []):
            if isinstance(entry, dict):
                lines += [str(line) for line in entry.get("pip", [])]
    return SavedEnvironment(tuple(_parse_line(line, origin) for line in lines if _is_requirement(line, only)), python)


def merge_requirements(saved: Iterable[str], entry: ModelTypeSettings, needed: Iterable[str] = ()) -> tuple[str, ...]:
    """The component's requirements: the model's own, then the configuration's, then what our entrypoint needs.

    The configuration's line replaces the model's of the same name; a needed name that stands already keeps
    its line. mlflow is left out unless the configuration asks for it: the component does not import it.
    """
    by_name: dict[str, list[str]] = {}  # a name may have several lines, with different markers
    for line in saved:
        name = canonicalize_name(Requirement(line).name)
        if name not in _MLFLOW or entry.keep_mlflow:
            by_name.setdefault(name, []).append(line)
    configured: dict[str, list[str]] = {}
    for line in configured_requirements(entry):
        configured.setdefault(canonicalize_name(Requirement(line).name), []).append(line)
    by_name |= configured
    for line in needed:
        by_name.setdefault(canonicalize_name(Requirement(line).name), [line])
    return tuple(line for name in sorted(by_name) for line in by_name[name])


def configured_requirements(entry: ModelTypeSettings) -> list[str]:
    """The requirements that edgepack.yaml adds: those of `requirements_file`, then `requirements`."""
    lines: list[str] = []
    if entry.requirements_file is not None:
        text = _read_text(entry.requirements_file).splitlines()
        lines = [_parse_line(line, str(entry.requirements_file)) for line in text if _is_requirement(line)]
    return [*lines, *entry.requirements]


def model_code(root: Path | None, entry: ModelTypeSettings) -> dict[str, Path]:
    """Path in the component -> file of the model's own code: the code/ folder of a model folder `root`, then
    the configured code_paths, each under the import path that the pickle knows.

    Raises ModelError if two files would collide, or a named folder is missing."""
    found: dict[str, Path] = {}
    if root is not None:
        named = (read_mlmodel(root).get("flavors", {}).get("python_function") or {}).get("code")
        folder = root / str(named or "code")
        if folder.is_dir():
            _collect(found, dict(files_of(folder)), folder)
        elif named:
            raise ModelError(f"MLmodel names the code folder {named!r}, but the model does not hold it")
    for path in entry.code_paths:
        prefix = "" if path.is_file() else f"{path.name}/"
        _collect(found, {f"{prefix}{name}": file for name, file in files_of(path)}, path)
    return found


def _collect(found: dict[str, Path], more: Mapping[str, Path], origin: Path) -> None:
    for name, file in more.items():
        if _IGNORED_FOLDERS & set(Path(name).parts) or file.suffix == ".pyc":
            continue
        if name in found and found[name].read_bytes() != file.read_bytes():
            raise ModelError(f"{origin} and {found[name]} both give the component's {name}, with other content")
        found[name] = file


def _folder_with_models(model: Path, suffixes: tuple[str, ...]) -> Path:
    below = [path for path in sorted(model.iterdir()) if path.is_dir() and _models_in(path, suffixes)]
    return below[0] if len(below) == 1 and not _models_in(model, suffixes) else model


def _models_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in suffixes)


def _named_by_mlflow(root: Path) -> Path | None:
    flavors = read_mlmodel(root).get("flavors", {})
    sklearn = flavors.get("sklearn") or {}
    name = sklearn.get("pickled_model") or (flavors.get("python_function") or {}).get("model_path")
    if name is None:
        return None
    path = root / str(name)
    if not path.resolve().is_relative_to(root.resolve()):
        raise ModelError(f"MLmodel names the model file {name!r}, which lies outside the model folder")
    return path


def _python_of(root: Path, mlmodel: Mapping[str, Any]) -> str | None:
    stated = (mlmodel.get("flavors", {}).get("python_function") or {}).get("python_version")
    if stated is None and (root / "python_env.yaml").is_file():
        stated = _read_yaml(root / "python_env.yaml").get("python")
    if stated is None and (root / "conda.yaml").is_file():
        pins = [str(d) for d in _read_yaml(root / "conda.yaml").get("dependencies", []) if isinstance(d, str)]
        stated = next((pin.removeprefix("python").lstrip("=") for pin in pins if pin.startswith("python=")), None)
    return ".".join(str(stated).split(".")[:2]) if stated is not None else None


def _is_requirement(line: str, only: Container[str] | None = None) -> bool:
    text = line.strip()
    if not text or text.startswith("#"):
        return False
    name = re.match(r"[A-Za-z0-9._-]+", text)
    return only is None or (name is not None and canonicalize_name(name[0]) in only)


def _parse_line(line: str, origin: str) -> str:
    text = line.split(" #", maxsplit=1)[0].strip()
    if text.startswith("-"):
        raise ModelError(
            f"{origin}: the option {text!r} cannot be carried over; name the requirements in `requirements` "
            "and the index in `runtime.index_url` of edgepack.yaml"
        )
    try:
        return str(Requirement(text))
    except InvalidRequirement as error:
        raise ModelError(f"{origin}: {text!r} is not a requirement such as scikit-learn==1.5.2 ({error})") from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(_read_text(path))
    except yaml.YAMLError as error:
        raise ModelError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise ModelError(f"{path}: must be a mapping")
    return document
