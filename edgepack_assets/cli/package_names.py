"""What the names of packages and model versions mean on the command line: one rule for every command.

MODEL_TYPE:VERSION is a version of the *model*, as in the key of a partition, and stands for its newest package.
PACKAGE:VERSION, with the name of the registered package, is that package. Both take `latest`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

import click

from edgepack_assets.config.schema import Settings
from edgepack_assets.errors import NotFoundError, PartitionKeyError
from edgepack_assets.operations.compare_packages import candidate_of_model, package_key
from edgepack_assets.partitions import ModelKey, is_version
from edgepack_assets.registry.base import (
    Kind,
    RegisteredVersion,
    Registry,
    damaged_above,
    damaged_in_words,
    latest,
)
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.packages.archive import archived
from edgepack_assets.tasks.packages.history import model_version_of
from edgepack_assets.tasks.reports.facts import Candidate, registered_candidate

_HINT = "PACKAGE"
_Command = TypeVar("_Command", bound=Callable[..., None])


def package_argument(command: _Command) -> _Command:
    """The argument PACKAGE, and what it means in the help."""
    command.__doc__ = (
        f"{inspect.getdoc(command)}\n\nPACKAGE is a registered package (State-Identifier-edge:2) or a model version "
        "(state_identifier:3, which stands for its newest package). The version may be `latest`."
    )
    return click.argument("package_version", metavar=_HINT)(command)


def find_package(
    text: str, settings: Settings, registry: Registry, *, with_archived: bool = False
) -> tuple[str, RegisteredVersion]:
    """The model type and the package that PACKAGE means. Raises click.BadParameter or NotFoundError.

    Of a model version with several packages it is the newest that is not archived, or that is with `with_archived`;
    which one that is, is said wherever it is not plain."""
    name, version = _split(text, settings)
    if name in settings.model_types:
        return name, _package_of_model(name, version, settings, registry, with_archived)
    model_type = _type_of(name, settings)
    if version == "latest":
        return model_type, _latest(name, registry)
    return model_type, registry.get(Kind.MODEL, name, int(version))


def find_type(text: str, settings: Settings) -> str:
    """The model type that a model type's or a package's name means. Raises ConfigError."""
    if text not in settings.model_types and _is_package(text, settings):
        return _type_of(text, settings)
    settings.model_type(text)
    return text


def find_key(text: str, settings: Settings, registry: Registry) -> ModelKey:
    """The partition key of a model version that the registry has; for a package, of the one that it was made from.

    Raises PartitionKeyError, ConfigError or EdgepackError."""
    name, _, version = text.rpartition(":")
    if name not in settings.model_types and _is_package(name, settings) and _is_version(version):
        model_type, package = find_package(text, settings, registry)
        key = package_key(model_type, package, settings)
        click.echo(f"{package} was made from {key}", err=True)
    elif version == "latest" and name in settings.model_types:
        return ModelKey(name, _latest_readable(settings.model_type(name).model_name, registry).number)
    else:
        try:
            key = ModelKey.parse(text)
        except PartitionKeyError:
            raise PartitionKeyError(_no_name(text, settings)) from None
    registry.get(Kind.MODEL, settings.model_type(key.model_type).model_name, key.version)
    return key


def find_candidate(text: str, context: TaskContext) -> Candidate:
    """The package that an argument of `compare` means; of a model version without a package, what was validated of it
    last. Raises click.BadParameter or EdgepackError."""
    settings = context.settings
    name, version = _split(text, settings)
    try:
        model_type, found = find_package(text, settings, context.registry)
    except NotFoundError:
        if name not in settings.model_types:
            raise
        return candidate_of_model(name, version if version == "latest" else int(version), context)
    return registered_candidate(package_key(model_type, found, settings), found, context)


def _split(text: str, settings: Settings) -> tuple[str, str]:
    name, _, version = text.rpartition(":")
    if not _is_version(version) or not (name in settings.model_types or _is_package(name, settings)):
        raise click.BadParameter(_no_name(text, settings), param_hint=_HINT)
    return name, version


def _is_version(text: str) -> bool:
    return text == "latest" or is_version(text)


def _is_package(name: str, settings: Settings) -> bool:
    return any(name == entry.registered_package_name for entry in settings.model_types.values())


def _type_of(package_name: str, settings: Settings) -> str:
    return next(key for key, entry in settings.model_types.items() if entry.registered_package_name == package_name)


def _no_name(text: str, settings: Settings) -> str:
    types = ", ".join(settings.model_types)
    packages = ", ".join(entry.registered_package_name for entry in settings.model_types.values())
    return (
        f"{text!r} is no model version and no package of {settings.file}: write NAME:VERSION or NAME:latest, with a "
        f"model type ({types}) or a package ({packages})"
    )


def _package_of_model(
    model_type: str, version: str, settings: Settings, registry: Registry, with_archived: bool
) -> RegisteredVersion:
    entry = settings.model_type(model_type)
    number = int(version) if version != "latest" else _latest_readable(entry.model_name, registry).number
    registered = registry.versions(Kind.MODEL, entry.registered_package_name)
    made = [each for each in registered if model_version_of(each, entry.model_name) == number]
    if not made:
        raise NotFoundError(_no_package(ModelKey(model_type, number), registered, settings, registry))
    offered = [each for each in made if with_archived or archived(each) is None] or made
    package = max(offered, key=lambda each: each.number)
    others = ", ".join(str(each) for each in made if each != package)
    if others:
        click.echo(f"{model_type}:{number} is taken as {package}; it also has {others}", err=True)
    elif str(package.number) != version:
        click.echo(f"{model_type}:{version} is {package}, of model version {number}", err=True)
    _say_damaged(package, registry)
    return package


def _no_package(key: ModelKey, registered: list[RegisteredVersion], settings: Settings, registry: Registry) -> str:
    """With the package that may be meant."""
    model_name = settings.model_type(key.model_type).model_name
    try:
        registry.get(Kind.MODEL, model_name, key.version)
        text = f"version {key.version} of the model {model_name} has no package: edgepack package {key} makes one"
    except NotFoundError as error:
        text = str(error)
    meant = [each for each in registered if each.number == key.version] or registered[-1:]
    made_from = [f"{each} was made from its version {model_version_of(each, model_name) or '?'}" for each in meant]
    return "; ".join([text, *made_from])


def _latest(name: str, registry: Registry) -> RegisteredVersion:
    """The newest package that is not archived. Raises NotFoundError."""
    newest = _latest_readable(name, registry)
    if archived(newest) is None:
        return newest
    offered = [each for each in registry.versions(Kind.MODEL, name) if archived(each) is None]
    if not offered:
        raise NotFoundError(f"every package {name} is archived: edgepack package list --all")
    return offered[-1]


def _latest_readable(name: str, registry: Registry) -> RegisteredVersion:
    newest = latest(registry, Kind.MODEL, name)
    _say_damaged(newest, registry)
    return newest


def _say_damaged(taken: RegisteredVersion, registry: Registry) -> None:
    if damaged := damaged_above(registry, taken):
        click.echo(f"{taken} is the latest that can be read: {damaged_in_words(damaged)}", err=True)
