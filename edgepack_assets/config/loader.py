"""Reads edgepack.yaml: finds it, fills in `${NAME}`, and collects all mistakes, each with its line.

Values may hold `${NAME}` or `${NAME:-default}`, taken from the environment. Relative paths are relative to
the file. Secrets do not belong in this file. Which keys there are is defined in schema.py.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edgepack_assets.config.compute_settings import ComputeSettings, compute_problems
from edgepack_assets.config.implementations import keys_beside_settings, settings_class
from edgepack_assets.config.names import name_conflicts
from edgepack_assets.config.registry_settings import REGISTRIES, LocalRegistrySettings
from edgepack_assets.config.schema import ModelTypeSettings, Settings
from edgepack_assets.config.section import Section
from edgepack_assets.config.yaml_nodes import compose, construct, duplicate_keys, line_of, octal_numbers, value_node
from edgepack_assets.errors import ConfigError
from edgepack_assets.masking import without_secrets
from edgepack_assets.partitions import is_version

CONFIG_VARIABLE = "EDGEPACK_CONFIG"
CONFIG_NAME = "edgepack.yaml"


_MUST_EXIST: dict[tuple[str, ...], str] = {
    ("model_types", "*", "code_paths", "*"): "file or folder",
    ("model_types", "*", "requirements_file"): "file",
    ("model_types", "*", "compute", "conda_path"): "file",
    ("compute", "conda_path"): "file",
    ("registry", "credential", "certificate_path"): "file",  # a pod's token_file_path may appear later
    ("runtime", "readable_folders", "*"): "file or folder",
    ("runtime", "pythons", "*"): "interpreter",
}
"""Places in the configuration that name something on the disk which must be there."""

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


def config_beside() -> Path | None:
    """The edgepack.yaml here or in a folder above, if there is one."""
    here = Path.cwd()
    return next((folder / CONFIG_NAME for folder in (here, *here.parents) if (folder / CONFIG_NAME).is_file()), None)


def other_config_beside() -> Path | None:
    """The edgepack.yaml here or in a folder above, where $EDGEPACK_CONFIG names another file."""
    named, beside = os.environ.get(CONFIG_VARIABLE), config_beside()
    if not named or beside is None or Path(named).expanduser().resolve() == beside.resolve():
        return None
    return beside


def find_config() -> Path:
    """The configuration file in force: $EDGEPACK_CONFIG, else edgepack.yaml here or in a folder above,
    else the one beside this package (a checkout installed with `pip install -e`)."""
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        path = Path(named).expanduser().absolute()
        if not path.is_file():
            raise ConfigError(f"{CONFIG_VARIABLE} names {path}, which is not a file")
        return path
    if (beside := config_beside()) is not None:
        return beside
    of_checkout = Path(__file__).parents[2] / CONFIG_NAME
    if of_checkout.is_file():
        return of_checkout
    raise ConfigError(f"no {CONFIG_NAME} in {Path.cwd()} or above it; create one, or name it in {CONFIG_VARIABLE}")


@dataclass(frozen=True)
class Mistake:
    """Something in edgepack.yaml that cannot be used: where it is, and what to do about it."""

    loc: Sequence[int | str]
    line: int
    text: str


@dataclass
class ConfigFile:
    """edgepack.yaml as it was read. `settings` is None if there are mistakes that pydantic found."""

    file: Path
    root: yaml.Node
    values: dict[str, Any]
    settings: Settings | None = None
    mistakes: list[Mistake] = field(default_factory=list)

    def add(self, loc: Sequence[int | str], text: str) -> None:
        """Add a mistake at a key, unless that key or the section around it is known to be wrong already."""
        if not any(tuple(loc[: len(known.loc)]) == tuple(known.loc) for known in self.mistakes if known.loc):
            self.mistakes.append(Mistake(loc, line_of(self.root, loc), text))

    def raise_if_wrong(self) -> Settings:
        """The settings. Raises ConfigError with one line per mistake, in the order of the file."""
        if self.settings is None or self.mistakes:
            in_order = sorted(self.mistakes, key=lambda mistake: mistake.line)
            raise ConfigError("\n".join(f"{self.file}:{each.line}: {each.text}" for each in in_order))
        return self.settings


def load_settings(file: Path | None = None) -> Settings:
    """Read and validate the configuration. Raises ConfigError with one line per mistake."""
    return read_config(file).raise_if_wrong()


def read_config(file: Path | None = None) -> ConfigFile:
    """Read the configuration and collect its mistakes. Raises ConfigError if it cannot be read or is not YAML."""
    file = (file or find_config()).absolute()
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is not text in UTF-8 (byte {error.start + 1}): save it as UTF-8") from error
    variables: dict[Sequence[int | str], str] = {}
    try:
        config = _parse(text, file)
        config.values = _substitute(config.values, (), variables)
    except RecursionError:
        raise ConfigError(f"{file}: not valid YAML: it is nested too deeply, or holds itself") from None
    root = config.root
    for loc, problem in variables.items():
        config.add(loc, f"{_dotted(loc)}: {problem}")
    if "file" in config.values:
        config.add(("file",), "unknown key 'file'")
        del config.values["file"]
    try:
        settings = Settings.model_validate({**config.values, "file": file})
    except ValidationError as error:
        for fault in error.errors():
            at = _as_written(fault["loc"], config.values)
            caused = fault["type"] != "extra_forbidden" and any(
                tuple(variable[: len(at)]) == tuple(at) or tuple(at[: len(variable)]) == tuple(variable)
                for variable in variables
            )
            if at and not caused:  # what is wrong with the whole is found below, with its line
                config.mistakes.append(Mistake(at, line_of(root, at), _explain(fault, config.values)))
    else:
        config.settings = _with_absolute_paths(settings)
    for loc, problem in (
        *name_conflicts(config.values.get("model_types")),
        *_missing_files(config.values, file.parent),
        *_text_versions_in_a_local_registry(config.values),
        *(compute_problems(config.settings) if config.settings is not None else ()),
    ):
        config.add(loc, problem)
    return config


def _parse(text: str, file: Path) -> ConfigFile:
    try:
        root = compose(text)
        duplicates = list(duplicate_keys(root)) if root is not None else []
        document = construct(root)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        hint = "\nInside {} and [], quote a value that holds ${NAME}." if "${" in text else ""
        raise ConfigError(f"{file}{line}: not valid YAML: {error}{hint}") from error
    if root is None or not isinstance(document, dict):
        raise ConfigError(f"{file}: must be a mapping with keys such as registry, artefacts and model_types")
    config = ConfigFile(file, root, document)
    for key, first_line in duplicates:
        number = key.start_mark.line + 1
        config.mistakes.append(Mistake((), number, f"duplicate key {key.value!r}: it is on line {first_line} already"))
    versions = _keep_versions_as_written(config.values, root)
    for node in octal_numbers(root):
        if node not in versions:
            config.mistakes.append(
                Mistake(
                    (),
                    node.start_mark.line + 1,
                    f"{node.value} begins with a zero, and YAML reads it to the base of 8: write it without the zero",
                )
            )
    return config


def _keep_versions_as_written(document: Any, root: yaml.Node) -> list[yaml.Node]:
    # YAML reads 1.0 as the number 1 and 010 as 8: each is another version than the one written.
    versions: list[yaml.Node] = []
    entries = document.get("model_types")
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        raw_data = entry.get("raw_data") if isinstance(entry, dict) else None
        if not isinstance(raw_data, dict) or raw_data.get("version") is None:
            continue
        node = value_node(root, ("model_types", str(name), "raw_data", "version"))
        if isinstance(node, yaml.ScalarNode):
            raw_data["version"] = node.value
            versions.append(node)
    return versions


def _text_versions_in_a_local_registry(values: Mapping[str, Any]) -> Iterator[tuple[Sequence[int | str], str]]:
    registry = values.get("registry", {})
    if not isinstance(registry, dict) or registry.get("type", "local") != "local":
        return
    for loc, version in _values_at(values, ("model_types", "*", "raw_data", "version")):
        if isinstance(version, str) and version != "latest" and not is_version(version):
            message = "a version is latest or a whole number from 1 up in a local registry"
            yield loc, f"{_dotted(loc)}: {message} (found {version!r})"


def _missing_files(values: Mapping[str, Any], base: Path) -> Iterator[tuple[Sequence[int | str], str]]:
    for pattern, kind in _MUST_EXIST.items():
        for loc, value in _values_at(values, pattern):
            path = _absolute(base, Path(value)) if isinstance(value, str) and value else None
            if path and not (path.exists() if kind == "file or folder" else path.is_file()):
                yield loc, f"{_dotted(loc)}: no such {kind}: {path}"


def _values_at(
    value: Any, pattern: Sequence[str], loc: tuple[int | str, ...] = ()
) -> Iterator[tuple[tuple[int | str, ...], Any]]:
    """Every value at a place such as ("model_types", "*", "code_paths", "*"), with its keys."""
    if not pattern:
        yield loc, value
    elif isinstance(value, dict):
        for key in value if pattern[0] == "*" else [pattern[0]]:
            if key in value:
                yield from _values_at(value[key], pattern[1:], (*loc, key))
    elif isinstance(value, list) and pattern[0] == "*":
        for number, item in enumerate(value):
            yield from _values_at(item, pattern[1:], (*loc, number))


def _substitute(value: Any, loc: tuple[int | str, ...], problems: dict[Sequence[int | str], str]) -> Any:
    """Replace `${NAME}` and `${NAME:-default}` in every string. What comes from a variable stays text (a
    build number must not turn into 20240105.1); the field it is for reads a number or path from it.
    `problems` gets the places whose variables cannot be used; such values are left as they are."""
    if isinstance(value, dict):
        return {key: _substitute(item, (*loc, key), problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, (*loc, number), problems) for number, item in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value

    def look_up(match: re.Match[str]) -> str:
        name = match["name"]
        text = os.environ.get(name) or match["default"]
        if text is None:
            problems[loc] = f"the environment variable {name} is not set; set it or write ${{{name}:-default}}"
            return match[0]
        try:
            text.encode()
        except UnicodeEncodeError:  # it would go into tags and packages, which are UTF-8, and fail at the end of a run
            problems[loc] = (
                f"the environment variable {name} is not UTF-8 text; set the locale of the shell that sets it to UTF-8"
            )
            return match[0]
        return text

    return _VARIABLE.sub(look_up, value)


def _allowed(loc: Sequence[int | str], values: Mapping[str, Any]) -> list[str]:
    """The keys that may stand where `loc` stands in a configuration with these values."""
    model: Any = Settings
    for step in loc[:-1]:
        field = getattr(model, "model_fields", {}).get(step)
        if model is ModelTypeSettings and step == "settings":
            model = settings_class(values["model_types"][loc[1]]["implementation"])
        elif field is not None:
            model = next((c for c in _sections(field.annotation) if not _is_branch(c, loc)), None)
    return sorted(set(getattr(model, "model_fields", {})) - {"file"})


def _sections(annotation: Any) -> Iterator[type[Section]]:
    """Every section that may stand in a field: the one it is of, or the branches of a union."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _sections(part)


def _is_branch(section: type[Section], loc: Sequence[int | str]) -> bool:
    """Whether `section` is a registry of another type than the one that `loc` is in."""
    return loc[0] == "registry" and section in REGISTRIES.values() and REGISTRIES.get(str(loc[1])) is not section


def _as_written(loc: Sequence[int | str], values: Mapping[str, Any]) -> Sequence[int | str]:
    """The keys as they are written: pydantic adds the type of registry that it tried, and an implementation's own
    settings may stand beside `settings`."""
    if loc[2:3] == ("settings",) and len(loc) > 3:
        entry = values["model_types"][loc[1]]
        if loc[3] in keys_beside_settings(entry["implementation"]) & entry.keys():
            loc = (*loc[:2], *loc[3:])
    in_registry = bool(loc) and loc[0] == "registry"
    return tuple(step for n, step in enumerate(loc) if not (in_registry and n == 1 and step in REGISTRIES))


def _dotted(loc: Sequence[int | str]) -> str:
    return ".".join(str(step) for step in loc if step != "[key]")


def _explain(fault: ErrorDetails, values: Mapping[str, Any]) -> str:
    kind, message = fault["type"], fault["msg"].removeprefix("Value error, ")
    key = _dotted(_as_written(fault["loc"], values))
    if kind == "extra_forbidden":
        return f"unknown key {key!r}; allowed here: {', '.join(_allowed(fault['loc'], values))}"
    if kind == "missing":
        return f"key {key!r} is missing"
    if kind in ("model_type", "model_attributes_type"):
        message = f"must be a mapping; keys allowed in it: {', '.join(_allowed((*fault['loc'], ''), values))}"
    value = fault["input"]
    # A webhook's path is often its key, so not even a wrong one is shown.
    secret = any(word in key for word in ("secret", "password", "webhook"))
    shown = "" if secret or isinstance(value, (dict, BaseModel)) else f" (found {without_secrets(repr(value))})"
    return f"{key}: {message}{shown}"


def _absolute(base: Path, path: Path) -> Path:
    with contextlib.suppress(RuntimeError):  # ~ of a user that this machine does not know
        path = path.expanduser()
    return (base / path).absolute()


def _with_absolute_fields(own: object, absolute: Callable[[Path], Path]) -> object:
    """A model type's own settings, with the paths among their values absolute."""
    if not isinstance(own, Section):
        return own  # of an implementation that cannot be used
    return own.model_copy(update={name: absolute(value) for name, value in own if isinstance(value, Path)})


def _with_absolute_paths(settings: Settings) -> Settings:
    base = settings.file.parent

    def absolute(path: Path) -> Path:
        return _absolute(base, path)

    def absolute_compute(compute: ComputeSettings) -> ComputeSettings:
        paths = {key: getattr(compute, key) for key in ("conda_path", "output_file")}
        named = {key: absolute(path) for key, path in paths.items() if path is not None}
        return compute.model_copy(update=named) if named else compute

    entries = {
        name: entry.model_copy(
            update={
                "code_paths": tuple(map(absolute, entry.code_paths)),
                "requirements_file": entry.requirements_file and absolute(entry.requirements_file),
                "settings": _with_absolute_fields(entry.settings, absolute),
                "compute": entry.compute and absolute_compute(entry.compute),
            }
        )
        for name, entry in settings.model_types.items()
    }
    registry, artefacts, runtime, run = settings.registry, settings.artefacts, settings.runtime, settings.run
    if isinstance(registry, LocalRegistrySettings):
        registry = registry.model_copy(update={"path": absolute(registry.path)})
    else:
        who = registry.credential
        paths = {
            "certificate_path": who.certificate_path and absolute(who.certificate_path),
            "token_file_path": who.token_file_path and absolute(who.token_file_path),
        }
        registry = registry.model_copy(update={"credential": who.model_copy(update=paths)})
    root = artefacts.root if "://" in artefacts.root else str(absolute(Path(artefacts.root)))
    folders = tuple(Path(os.path.normpath(absolute(path))) for path in run.output_folders)
    return settings.model_copy(
        update={
            "model_types": entries,
            "registry": registry,
            "run": run.model_copy(update={"output_folders": folders}),
            "compute": absolute_compute(settings.compute),
            "artefacts": artefacts.model_copy(update={"root": root, "cache": absolute(artefacts.cache)}),
            "runtime": runtime.model_copy(
                update={
                    "environments": absolute(runtime.environments),
                    "readable_folders": tuple(map(absolute, runtime.readable_folders)),
                    "pythons": {version: absolute(path) for version, path in runtime.pythons.items()},
                }
            ),
        }
    )
