"""Reading edgepack.yaml: where it is found, `${NAME}` in its values, and errors that name the line.

Values may hold `${NAME}` or `${NAME:-default}`, taken from the environment. Relative paths are relative to
the file. Secrets do not belong in this file. What it may hold is schema.py's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edgepack_assets.config.implementations import keys_beside_settings, settings_class
from edgepack_assets.config.registry_settings import AzureMLRegistrySettings, LocalRegistrySettings
from edgepack_assets.config.schema import ModelTypeSettings, Settings
from edgepack_assets.config.section import Section
from edgepack_assets.errors import ConfigError
from edgepack_assets.masking import without_secrets

CONFIG_VARIABLE = "EDGEPACK_CONFIG"
CONFIG_NAME = "edgepack.yaml"

_REGISTRIES: dict[str, type[Section]] = {"local": LocalRegistrySettings, "azure_ml": AzureMLRegistrySettings}

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


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
    for folder in (here, *here.parents, Path(__file__).parents[2]):
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
        document = _constructed(root)
    except yaml.YAMLError as error:
        hint = "\nInside {} and [], quote a value that holds ${NAME}." if "${" in text else ""
        raise ConfigError(f"{file}: not valid YAML: {error}{hint}") from error
    if root is None or not isinstance(document, dict):
        raise ConfigError(f"{file}: must be a mapping with keys such as registry, artefacts and model_types")
    _refuse_duplicate_keys(root, file)
    _keep_versions_as_written(document, root)
    values = _substitute(document, file)
    if "file" in values:
        raise ConfigError(f"{file}:{_line(root, ('file',))}: unknown key 'file'")
    try:
        values |= {"file": file}
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(fault, root, values) for fault in error.errors())) from None
    _refuse_text_versions_in_a_local_registry(settings, root)
    return _with_absolute_paths(settings, root)


def _keep_versions_as_written(document: Any, root: yaml.Node) -> None:
    # YAML makes a date of 2024-06-01, the number 1 of 1.0 and 8 of 010: each is another version than the one written.
    entries = document.get("model_types")
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        raw_data = entry.get("raw_data") if isinstance(entry, dict) else None
        if not isinstance(raw_data, dict) or raw_data.get("version") is None:
            continue
        node = _value_node(root, ("model_types", str(name), "raw_data", "version"))
        if isinstance(node, yaml.ScalarNode):
            raw_data["version"] = node.value


def _refuse_text_versions_in_a_local_registry(settings: Settings, root: yaml.Node) -> None:
    if not isinstance(settings.registry, LocalRegistrySettings):
        return
    for name, entry in settings.model_types.items():
        version = entry.raw_data.version
        if isinstance(version, str) and version != "latest":
            at = ("model_types", name, "raw_data", "version")
            raise ConfigError(
                f"{settings.file}:{_line(root, at)}: {'.'.join(at)}: a version is latest or a whole number from 1 up "
                f"in a local registry (found {version!r})"
            )


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
        try:
            found.encode()
        except UnicodeEncodeError:  # it would end in tags and packages, which are UTF-8, and fail at the end of a run
            raise ConfigError(
                f"{file}: the environment variable {match['name']} is not UTF-8 text; set the locale of the shell "
                "that sets it to UTF-8"
            ) from None
        return found

    return _VARIABLE.sub(look_up, value)


def _constructed(root: yaml.Node | None) -> Any:
    """The document of composed YAML, where versions of Python are text: 3.10 is no number, which would be 3.1."""
    if root is None:
        return None
    for node in _all_nodes(root):
        for key, item in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.value == "python_version":
                _read_as_text(item)
            elif key.value == "pythons" and isinstance(item, yaml.MappingNode):
                for version, _ in item.value:
                    _read_as_text(version)
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _read_as_text(node: yaml.Node) -> None:
    if node.tag in ("tag:yaml.org,2002:float", "tag:yaml.org,2002:int"):
        node.tag = "tag:yaml.org,2002:str"


def _all_nodes(root: yaml.Node) -> Iterator[yaml.Node]:
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


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


def _value_node(node: yaml.Node | None, keys: Sequence[str]) -> yaml.Node | None:
    """What stands under keys within keys; None if it does not stand there itself (a merged mapping)."""
    for key in keys:
        entries = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((item for name, item in entries if name.value == key), None)
    return node


def _line(root: yaml.Node, loc: Sequence[int | str]) -> int:
    return [node.start_mark.line for node in _steps(root, loc)][-1] + 1


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
    return loc[0] == "registry" and section in _REGISTRIES.values() and _REGISTRIES.get(str(loc[1])) is not section


def _explain(fault: ErrorDetails, root: yaml.Node, values: Mapping[str, Any]) -> str:
    loc, kind, message = fault["loc"], fault["type"], fault["msg"].removeprefix("Value error, ")
    allowed, file = _allowed(loc, values), values["file"]
    if loc[2:3] == ("settings",) and len(loc) > 3:
        entry = values["model_types"][loc[1]]
        if loc[3] in keys_beside_settings(entry["implementation"]) & entry.keys():
            loc = loc[:2] + loc[3:]
    if loc and loc[0] == "registry":
        loc = tuple(step for n, step in enumerate(loc) if not (n == 1 and step in _REGISTRIES))
    where = f"{file}:{_line(root, loc)}: " if loc else f"{file}: "
    key = ".".join(str(step) for step in loc if step != "[key]")
    if kind == "extra_forbidden":
        return f"{where}unknown key {key!r}; allowed here: {', '.join(allowed)}"
    if kind == "missing":
        return f"{where}key {key!r} is missing"
    if kind in ("model_type", "model_attributes_type"):
        message = f"must be a mapping; keys allowed in it: {', '.join(_allowed((*fault['loc'], ''), values))}"
    found = fault["input"]
    # A webhook's path is often its key, so not even a wrong one is shown.
    secret = any(word in key for word in ("secret", "password", "webhook"))
    shown = "" if secret or isinstance(found, (dict, BaseModel)) else f" (found {without_secrets(repr(found))})"
    return f"{where}{key + ': ' if key else ''}{message}{shown}"


def _with_absolute_fields(own: object, absolute: Callable[[Path], Path]) -> object:
    """A model type's own settings, with the paths among their values absolute."""
    if not isinstance(own, Section):
        return own  # of an implementation that cannot be used
    return own.model_copy(update={name: absolute(value) for name, value in own if isinstance(value, Path)})


def _with_absolute_paths(settings: Settings, root: yaml.Node) -> Settings:
    base = settings.file.parent

    def absolute(path: Path) -> Path:
        return (base / path.expanduser()).absolute()

    def normal(path: Path) -> Path:
        return Path(os.path.normpath(absolute(path)))

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
                "settings": _with_absolute_fields(entry.settings, absolute),
            }
        )
    runtime = settings.runtime
    registry = settings.registry
    if isinstance(registry, LocalRegistrySettings):
        registry = registry.model_copy(update={"path": absolute(registry.path)})
    else:
        who, at = registry.credential, ("registry", "credential")
        certificate, token = who.certificate_path, who.token_file_path
        paths = {
            "certificate_path": certificate and existing(certificate, (*at, "certificate_path"), "file"),
            "token_file_path": token and absolute(token),  # a pod's token may appear later
        }
        registry = registry.model_copy(update={"credential": who.model_copy(update=paths)})
    return settings.model_copy(
        update={
            "model_types": entries,
            "registry": registry,
            "run": settings.run.model_copy(
                update={"output_folders": tuple(normal(path) for path in settings.run.output_folders)}
            ),
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
                    "readable_folders": tuple(
                        existing(path, ("runtime", "readable_folders", i), "file or folder")
                        for i, path in enumerate(runtime.readable_folders)
                    ),
                    "pythons": {
                        version: existing(path, ("runtime", "pythons", version), "interpreter")
                        for version, path in runtime.pythons.items()
                    },
                }
            ),
        }
    )
