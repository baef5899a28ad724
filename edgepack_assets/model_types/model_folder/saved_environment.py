"""The environment that a model was saved with, as its MLflow files tell and the configuration changes it.

requirements.txt, conda.yaml and python_env.yaml become requirements and constraints for the component's lock; each line
that cannot is refused by name, with the setting that settles it. Nothing is dropped without a row of
config_package.is_fit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from edgepack_assets.checks import CheckRow
from edgepack_assets.config.schema import EDGE_PYTHONS, ModelTypeSettings
from edgepack_assets.errors import ModelError, without_credentials
from edgepack_assets.model_types.model_folder.conda_lines import CondaKind, read_conda_line
from edgepack_assets.model_types.model_folder.mlflow_files import read_conda, read_mlmodel, read_python_env
from edgepack_assets.model_types.model_folder.requirement_lines import (
    MOST_LINES,
    LineKind,
    SavedLine,
    logical_lines,
    read_lines,
    read_requirements,
)
from edgepack_assets.text_format import counted

_MLFLOW = frozenset({"mlflow", "mlflow-skinny", "mlflow-tracing"})
_INDEXES = "runtime.index_url and runtime.extra_index_urls of edgepack.yaml name the package indexes"
_WHEELS = "the lock holds exact wheels, however they were chosen or built"
_REQUIREMENTS_TXT = re.compile(r"(?:-r|--requirement)[ =]*(?:\./)?requirements\.txt")
"""The one dependency that MLflow itself writes into python_env.yaml; that file is read anyway."""
_PATCHES = 40
_MOST_KEYS = 100


@dataclass(frozen=True)
class SavedEnvironment:
    """What the model was saved with.

    `requirements`: PEP 508 lines, empty if it does not say. `constraints`: bounds on packages that others need.
    `python_version`: `3.x`, or what is said instead of one. `versions`: distribution -> version that the MLmodel says
    it was saved with (`python` among them). `parts`: rows of a check, about lines that were passed over."""

    requirements: tuple[str, ...] = ()
    python_version: str | None = None
    constraints: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[CheckRow, ...] = ()


def saved_environment(
    root: Path, entry: ModelTypeSettings | None = None, only: Container[str] | None = None
) -> SavedEnvironment:
    """What the MLflow files beside the model say of the environment that it was saved with.

    `entry` may replace lines. With `only` (canonical names) other lines are passed over: what does not run the model
    need not be sound. Raises ModelError that names each line which cannot be used."""
    mlmodel = read_mlmodel(root)
    replacements = _Replacements(entry)
    conda_name, conda = read_conda(root, mlmodel)
    if (root / "requirements.txt").is_file():
        lines = read_requirements(root, root / "requirements.txt", replacements.replaces)
    else:
        placed = (("pip", text) for line in conda.pip for _, text in logical_lines(line))
        lines = read_lines(root, root / conda_name, placed, replacements.replaces)
    env_name, python_env = read_python_env(root, mlmodel)
    known = {(line.name, line.requirement) for line in lines}
    placed = (("dependencies", text) for line in python_env.dependencies for _, text in logical_lines(line))
    more_lines = (each for each in placed if not _REQUIREMENTS_TXT.fullmatch(each[1]))
    found_lines = read_lines(root, root / env_name, more_lines, replacements.replaces)
    lines += [line for line in found_lines if line.requirement is None or (line.name, line.requirement) not in known]
    rows: list[CheckRow] = []
    python = None
    by_pip = {line.name for line in lines if line.name is not None}
    passed_over: dict[CondaKind, list[str]] = {}
    if len(conda.conda) > MOST_LINES:
        raise ModelError(f"{conda_name}: more than {MOST_LINES} packages")
    for text in conda.conda:
        line = read_conda_line(text)
        if line.kind is CondaKind.PYTHON:
            python = str(line.requirement.specifier) if line.requirement else text
        elif line.kind in (CondaKind.TOOL, CondaKind.NATIVE):
            if not replacements.replaces(text) and not replacements.replaces(line.name):
                passed_over.setdefault(line.kind, []).append(text)
            else:
                lines.append(SavedLine(LineKind.REQUIREMENT, text, conda_name, line.name))
        else:
            name = canonicalize_name(line.requirement.name) if line.requirement else line.name
            # pip installs after conda, so its line is what the model was saved with.
            if name not in by_pip:
                requirement = str(line.requirement) if line.requirement else None
                kind = LineKind.UNUSABLE if line.problem else LineKind.REQUIREMENT
                lines.append(SavedLine(kind, text, conda_name, name, requirement, line.problem))
    if only is None:
        is_missing = bool(mlmodel.flavor("python_function").env.conda) and not (root / conda_name).is_file()
        rows += _conda_rows(conda_name, passed_over, is_missing)
    requirements, constraints, more = _settle(lines, replacements, only)
    versions: dict[str, str] = {canonicalize_name(name): version for name, version in mlmodel.versions.items()}
    stated = mlmodel.flavor("python_function").python_version or python_env.python or python
    if stated is not None and "python" not in versions:
        versions["python"] = stated
    return SavedEnvironment(
        requirements,
        edge_python(stated) if stated else None,
        constraints,
        versions,
        (*rows, *more, *replacements.unused_rows()),
    )


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
        file = entry.requirements_file.resolve()  # the configuration's own file may be a link
        for line in read_requirements(file.parent, file):
            where = f"{file.parent}/{line.origin}: {_shown(line.text)}"
            if line.kind is LineKind.UNUSABLE:
                raise ModelError(f"{where} {line.problem}; change the line")
            if line.kind is LineKind.INDEX_OPTION:
                raise ModelError(f"{where} is not read: {_INDEXES}")
            if line.kind is LineKind.CONSTRAINT:
                raise ModelError(f"{where}: constraints are read from the model's folder only")
            if line.requirement is not None:
                lines.append(line.requirement)
    return [*lines, *entry.requirements]


def edge_python(stated: str) -> str:
    """`3.x` of a version of Python, or of a range the first that the edge has and that is in it; else `stated`."""
    text = stated.split(" | ", maxsplit=1)[0].strip()[:50]  # 3.11.7 | packaged by conda-forge
    if exact := re.fullmatch(r"(?:==)?(\d+\.\d+)(?!\d)(?:[.a-z].*)?", text):
        return exact[1]
    try:
        wanted = SpecifierSet(f"=={text}.*" if re.fullmatch(r"\d+", text) else text)
    except InvalidSpecifier:
        return text
    fitting = (v for v in EDGE_PYTHONS if any(wanted.contains(f"{v}.{patch}") for patch in range(_PATCHES)))
    return next(fitting, text)


class _Replacements:
    """The configuration's word on lines of the model: `replace_requirements`, and the names under `requirements`."""

    def __init__(self, entry: ModelTypeSettings | None) -> None:
        given = entry.replace_requirements if entry is not None else {}
        self._by_text = {_normal(key): key for key in given}
        self._by_name: dict[str, str] = {canonicalize_name(key): key for key in given}
        self._given = given
        self.unused = dict.fromkeys(given)
        configured = configured_requirements(entry) if entry is not None else []
        self.left_out = frozenset() if entry is not None and entry.keep_mlflow else _MLFLOW
        self.names = {canonicalize_name(Requirement(line).name) for line in configured}

    def replaces(self, text: str) -> bool:
        """Whether a line of this text, or a project of this name, is replaced."""
        return self._key(text, None) is not None

    def find(self, line: SavedLine) -> tuple[bool, str | None]:
        """(whether a line is replaced, by what)."""
        key = self._key(line.text, line.name)
        return (line.name in self.names, None) if key is None else (True, self._given[key])

    def _key(self, text: str, name: str | None) -> str | None:
        """The key of `replace_requirements` that a line of this text, about the project `name`, matches."""
        by_name = (self._by_name[n] for n in (name, canonicalize_name(text)) if n is not None and n in self._by_name)
        key = self._by_text.get(_normal(text)) or next(by_name, None)
        if key is not None:
            self.unused.pop(key, None)
        return key

    def unused_rows(self) -> list[CheckRow]:
        """A row that warns of the keys that matched nothing: mistyped, or written for an earlier version."""
        if not self.unused:
            return []
        found = f"nothing in the model's files matches: {_listed(list(self.unused))}"
        wanted = "each key is a line of the model's requirements, or the name of a package in them; remove the others"
        return [CheckRow("replace_requirements", False, found, wanted, warns=True)]


def _settle(
    lines: Iterable[SavedLine], replacements: _Replacements, only: Container[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...], list[CheckRow]]:
    """(requirements, constraints, rows) of the lines, as the configuration leaves them."""
    requirements: list[str] = []
    constraints: list[str] = []
    unusable: list[SavedLine] = []
    passed_over: dict[tuple[str, LineKind], list[str]] = {}
    for line in lines:
        is_replaced, replacement = replacements.find(line)
        taken = replacement if is_replaced else line.requirement
        name = canonicalize_name(Requirement(taken).name) if taken else line.name
        if (only is not None and name not in only) or (line.problem and name in replacements.left_out):
            continue
        if taken is not None:
            (constraints if line.kind is LineKind.CONSTRAINT else requirements).append(taken)
        elif is_replaced:
            continue
        elif line.kind is LineKind.UNUSABLE:
            unusable.append(line)
        else:
            passed_over.setdefault((line.origin.split(":")[0], line.kind), []).append(line.text)
    if unusable:
        raise _refusal(unusable)
    rows = [
        _passed_over(f"{file}: options", texts, _INDEXES if kind is LineKind.INDEX_OPTION else _WHEELS)
        for (file, kind), texts in passed_over.items()
    ]
    return tuple(requirements), tuple(dict.fromkeys(constraints)), rows


def _refusal(lines: list[SavedLine]) -> ModelError:
    shown = "\n".join(f"{line.origin}: {_shown(line.text)} {line.problem}" for line in lines[:20])
    more = f"\nand {counted(len(lines) - 20, 'more line')}" if len(lines) > 20 else ""
    # By name where there is one: that also holds for the next version that is saved.
    keys = {line.name or _normal(line.text): None for line in lines[:_MOST_KEYS]}
    return ModelError(
        f"{shown}{more}\nIf the model runs without them, put this into its model type in edgepack.yaml; else put a "
        f'requirement such as "scikit-learn==1.5.2" in place of null:\n'
        f"    replace_requirements: {json.dumps(keys, ensure_ascii=False)}"
    )


def _conda_rows(file: str, passed_over: Mapping[CondaKind, list[str]], is_missing: bool) -> list[CheckRow]:
    rows = []
    if is_missing:
        wanted = "the file, as it may hold versions that nothing else names; else name them under `requirements`"
        rows.append(CheckRow(f"{file}: is there", False, "MLmodel names it; it is missing", wanted, warns=True))
    if installers := passed_over.get(CondaKind.TOOL):
        passed = f"passed over: {_listed(installers)}"
        rows.append(CheckRow(f"{file}: tools", True, passed, "what installs packages does not run the model"))
    if native := passed_over.get(CondaKind.NATIVE):
        wanted = "wheels bring the libraries that they need; else name a package under replace_requirements"
        rows.append(_passed_over(f"{file}: libraries of the system", native, wanted))
    return rows


def _passed_over(name: str, texts: list[str], wanted: str) -> CheckRow:
    return CheckRow(name, False, f"passed over: {_listed(texts)}", wanted, warns=True)


def _listed(texts: list[str]) -> str:
    return without_credentials(", ".join(texts))[:1_500]


def _shown(text: str) -> str:
    return without_credentials(repr(text[:200]))


def _normal(text: str) -> str:
    return without_credentials(" ".join(text.split()))
