"""edgepack.yaml: its shape, where it is found, and errors that name the line and what is allowed.

Values may hold `${NAME}` or `${NAME:-default}`, taken from the environment. Relative paths are relative to
the file. Secrets do not belong in this file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from edgepack_assets.errors import ConfigError
from edgepack_assets.partitions import is_model_type_name, is_version

CONFIG_VARIABLE = "EDGEPACK_CONFIG"
CONFIG_NAME = "edgepack.yaml"
EDGE_PYTHONS = ("3.11", "3.12")
"""The Python versions that the AI Inference Server runs (simaticai 2.9 python_version_validator)."""

EdgePython = Literal["3.11", "3.12"]

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


def implementations() -> list[str]:
    """The model types this project implements: the packages under model_types/."""
    folder = Path(__file__).parent / "model_types"
    return sorted(entry.name for entry in folder.iterdir() if (entry / "__init__.py").is_file())


def _implementation(name: str) -> str:
    if name not in implementations():
        raise ValueError(f"no such implementation; there are: {', '.join(implementations())}")
    return name


def is_asset_name(name: str) -> bool:
    """Whether a registry takes `name` for a model or data asset. Such a name is one safe path component."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}", name) is not None


def _asset_name(name: str) -> str:
    if not is_asset_name(name):
        raise ValueError("a registry name starts with a letter or digit and holds letters, digits, _, . and - only")
    return name


def _package_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,99}", name) or name != name.strip():
        raise ValueError("a package name starts with a letter or digit and holds letters, digits, spaces, _ and - only")
    return name


def _requirement(line: str) -> str:
    try:
        return str(Requirement(line))
    except InvalidRequirement as error:
        raise ValueError(f"{line!r} is not a requirement such as scikit-learn==1.5.2 ({error})") from None


def _latest_or_number(value: object) -> object:
    if value == "latest" or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    # A value from an environment variable is text.
    if isinstance(value, str) and is_version(value):
        return int(value)
    raise ValueError("a version is latest or a whole number from 1 up")


def _no_boolean(value: object) -> object:
    # YAML reads `yes` and `on` as true, which would pass for the number 1.
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


AssetName = Annotated[str, AfterValidator(_asset_name)]
_Number = Annotated[float, BeforeValidator(_no_boolean), Field(allow_inf_nan=False)]
_OptionalText = Annotated[str | None, AfterValidator(lambda text: text or None)]
_OptionalPath = Annotated[Path | None, BeforeValidator(lambda path: None if path == "" else path)]
"""Optional values: an empty one, as `${NAME:-}` gives, is none."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LocalRegistrySettings(_Section):
    """A registry in a folder of this machine (or a mounted share)."""

    type: Literal["local"] = "local"
    path: Path = Path(".edgepack/registry")


class ArtefactSettings(_Section):
    """Where artefacts lie: a folder or an fsspec URL; `cache` is the local copy of a remote root."""

    root: str = ".edgepack/artefacts"
    cache: Path = Path(".edgepack/cache")


class RuntimeSettings(_Section):
    """How component environments are made, and how long model code may run."""

    environments: Path = Path(".edgepack/environments")
    pythons: dict[EdgePython, Path] = {}
    index_url: _OptionalText = None
    extra_index_urls: tuple[str, ...] = ()
    time_limit: _Number = Field(default=900.0, gt=0, description="seconds for one child process")


class DataAssetSettings(_Section):
    """A data asset of the registry: its name and version."""

    name: AssetName
    version: Annotated[Literal["latest"] | int, BeforeValidator(_latest_or_number)] = "latest"


class GateSettings(_Section):
    """Bounds that a metric must hold, both inclusive."""

    min: _Number | None = None
    max: _Number | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> GateSettings:
        if self.min is None and self.max is None:
            raise ValueError("a gate needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: nothing could pass")
        return self


class ModelTypeSettings(_Section):
    """One entry of `model_types`: which models are packaged, how, from what raw data, behind which gates."""

    implementation: Annotated[str, AfterValidator(_implementation)]
    model_name: AssetName
    package_name: Annotated[str, AfterValidator(_package_name)]
    raw_data: DataAssetSettings
    description: str = ""
    code_paths: tuple[Path, ...] = ()
    requirements: tuple[Annotated[str, AfterValidator(_requirement)], ...] = ()
    requirements_file: _OptionalPath = None
    python_version: EdgePython | None = None
    keep_mlflow: bool = False
    gates: dict[str, GateSettings] = {}

    @property
    def registered_package_name(self) -> str:
        """The name under which the deployment package is registered: `<Package-Name>-edge`."""
        return self.package_name.replace(" ", "-") + "-edge"


class RunSettings(_Section):
    """Where a run belongs; each ends in the run's and the package's tags."""

    environment: str = "dev"
    build_reference: str = ""
    experiment_name: str = ""
    display_name: str = ""


class Settings(_Section):
    """The whole configuration. `file` is where it was read from."""

    file: Path
    registry: LocalRegistrySettings = LocalRegistrySettings()
    artefacts: ArtefactSettings = ArtefactSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    run: RunSettings = RunSettings()
    model_types: dict[str, ModelTypeSettings] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Settings:
        seen: dict[str, str] = {}
        for name, entry in self.model_types.items():
            if not is_model_type_name(name):
                raise ValueError(f"model type {name!r}: use letters, digits, _ and -, starting with a letter")
            package = entry.registered_package_name
            if package in seen:
                raise ValueError(
                    f"model types {seen[package]!r} and {name!r} both register {package!r}; "
                    "give each a package_name of its own"
                )
            seen[package] = name
        for name, entry in self.model_types.items():
            if entry.model_name in seen:
                raise ValueError(
                    f"model type {name!r}: its model_name {entry.model_name!r} is the name under which "
                    f"{seen[entry.model_name]!r} registers its packages"
                )
        return self

    def model_type(self, name: str) -> ModelTypeSettings:
        """The entry called `name`. Raises ConfigError naming those there are."""
        if name not in self.model_types:
            known = ", ".join(sorted(self.model_types))
            raise ConfigError(f"{self.file}: model_types has no entry {name!r}; it has: {known}")
        return self.model_types[name]


def find_config() -> Path:
    """The configuration file in force: $EDGEPACK_CONFIG, else edgepack.yaml here or in a folder above,
    else the one beside this package (a checkout installed with `pip install -e`)."""
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        path = Path(named).expanduser().absolute()
        if not path.is_file():
            raise ConfigError(f"{CONFIG_VARIABLE} names {path}, which is not a file")
        return path
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).parent.parent):
        if (folder / CONFIG_NAME).is_file():
            return folder / CONFIG_NAME
    raise ConfigError(f"no {CONFIG_NAME} in {here} or above it; create one, or name it in {CONFIG_VARIABLE}")


def load_settings(file: Path | None = None) -> Settings:
    """Read and validate the configuration. Raises ConfigError with one line per fault."""
    file = (file or find_config()).absolute()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        hint = "\nInside {} and [], quote a value that holds ${NAME}." if "${" in text else ""
        raise ConfigError(f"{file}: not valid YAML: {error}{hint}") from error
    if root is None or not isinstance(document, dict):
        raise ConfigError(f"{file}: must be a mapping with keys such as registry, artefacts and model_types")
    _refuse_duplicate_keys(root, file)
    values = _substitute(document, file)
    if "file" in values:
        raise ConfigError(f"{file}:{_line(root, ('file',))}: unknown key 'file'")
    try:
        settings = Settings.model_validate({**values, "file": file})
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(fault, root, file) for fault in error.errors())) from None
    return _with_absolute_paths(settings, root)


def _substitute(value: Any, file: Path) -> Any:
    """Replace `${NAME}` and `${NAME:-default}` in every string. What comes from a variable stays text (a
    build number must not turn into 20240105.1); the field it is for reads a number or path from it."""
    if isinstance(value, dict):
        return {key: _substitute(item, file) for key, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, file) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return value

    def look_up(match: re.Match[str]) -> str:
        found = os.environ.get(match["name"]) or match["default"]
        if found is None:
            raise ConfigError(
                f"{file}: the environment variable {match['name']} is not set; "
                f"set it or write ${{{match['name']}:-default}}"
            )
        return found

    return _VARIABLE.sub(look_up, value)


def _refuse_duplicate_keys(node: yaml.Node, file: Path) -> None:
    # YAML lets a later key win silently; a plant would lose the first entry without a word.
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, item in node.value:
            if key.value in seen:
                raise ConfigError(f"{file}:{key.start_mark.line + 1}: key {key.value!r} stands twice")
            seen.add(key.value)
            _refuse_duplicate_keys(item, file)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicate_keys(item, file)


def _steps(node: yaml.Node, loc: Sequence[int | str]) -> Iterator[yaml.Node]:
    yield node
    for step in loc:
        if isinstance(node, yaml.MappingNode):
            found = [(key, item) for key, item in node.value if key.value == str(step)]
            if not found:
                continue  # a missing key, or what pydantic adds to a key's place: "[key]", a union's branch
            yield found[0][0]
            node = found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            yield node


def _line(root: yaml.Node, loc: Sequence[int | str]) -> int:
    return [node.start_mark.line for node in _steps(root, loc)][-1] + 1


def _allowed(loc: Sequence[int | str]) -> list[str]:
    """The keys that may stand where `loc` stands."""
    model: Any = Settings
    for step in loc[:-1]:
        field = getattr(model, "model_fields", {}).get(step)
        if field is not None:
            candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
            model = next((c for c in candidates if isinstance(c, type) and issubclass(c, _Section)), None)
    return sorted(set(getattr(model, "model_fields", {})) - {"file"})


def _explain(fault: ErrorDetails, root: yaml.Node, file: Path) -> str:
    loc, kind, message = fault["loc"], fault["type"], fault["msg"].removeprefix("Value error, ")
    where = f"{file}:{_line(root, loc)}: " if loc else f"{file}: "
    key = ".".join(str(step) for step in loc if step != "[key]")
    if kind == "extra_forbidden":
        return f"{where}unknown key {key!r}; allowed here: {', '.join(_allowed(loc))}"
    if kind == "missing":
        return f"{where}key {key!r} is missing"
    if kind in ("model_type", "model_attributes_type"):
        message = f"must be a mapping; keys allowed in it: {', '.join(_allowed((*loc, '')))}"
    found = fault["input"]
    shown = "" if isinstance(found, (dict, BaseModel)) else f" (found {found!r})"
    return f"{where}{key + ': ' if key else ''}{message}{shown}"


def _with_absolute_paths(settings: Settings, root: yaml.Node) -> Settings:
    base = settings.file.parent

    def absolute(path: Path) -> Path:
        return (base / path.expanduser()).absolute()

    def existing(path: Path, loc: Sequence[int | str], kind: str) -> Path:
        found = absolute(path)
        if not (found.exists() if kind == "file or folder" else found.is_file()):
            raise ConfigError(f"{settings.file}:{_line(root, loc)}: {'.'.join(map(str, loc))}: no such {kind}: {found}")
        return found

    entries = {}
    for name, entry in settings.model_types.items():
        at = ("model_types", name)
        file = entry.requirements_file
        entries[name] = entry.model_copy(
            update={
                "code_paths": tuple(
                    existing(path, (*at, "code_paths", i), "file or folder") for i, path in enumerate(entry.code_paths)
                ),
                "requirements_file": file and existing(file, (*at, "requirements_file"), "file"),
            }
        )
    runtime = settings.runtime
    return settings.model_copy(
        update={
            "model_types": entries,
            "registry": settings.registry.model_copy(update={"path": absolute(settings.registry.path)}),
            "artefacts": settings.artefacts.model_copy(
                update={
                    "root": settings.artefacts.root
                    if "://" in settings.artefacts.root
                    else str(absolute(Path(settings.artefacts.root))),
                    "cache": absolute(settings.artefacts.cache),
                }
            ),
            "runtime": runtime.model_copy(
                update={
                    "environments": absolute(runtime.environments),
                    "pythons": {
                        version: existing(path, ("runtime", "pythons", version), "interpreter")
                        for version, path in runtime.pythons.items()
                    },
                }
            ),
        }
    )
