"""What PACKAGE:VERSION means on the command line."""

from __future__ import annotations

import click

from edgepack_assets.config.schema import Settings
from edgepack_assets.errors import NotFoundError
from edgepack_assets.operations.compare_packages import candidate_of_model, package_key
from edgepack_assets.partitions import is_version
from edgepack_assets.registry.base import Kind, RegisteredVersion, Registry, latest
from edgepack_assets.tasks.archive import archived
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.package_facts import Candidate, registered_candidate
from edgepack_assets.tasks.package_history import model_version_of

_HINT = "PACKAGE:VERSION"


def find_package(text: str, settings: Settings, registry: Registry) -> tuple[str, RegisteredVersion]:
    """The model type and the package that PACKAGE:VERSION means. Raises click.BadParameter or NotFoundError.

    A model type stands for its package: the version is that of the package. Where the model's version is another one,
    that is said, since a key of `edgepack package KEY` looks the same."""
    name, _, version = text.rpartition(":")
    for model_type, entry in settings.model_types.items():
        if name in {model_type, entry.registered_package_name}:
            if version != "latest" and not is_version(version):
                break
            if version == "latest":
                return model_type, _latest(entry.registered_package_name, registry)
            given = int(version)
            found = registry.get(Kind.MODEL, entry.registered_package_name, given)
            of_model = model_version_of(found, entry.model_name)
            if name == model_type and of_model not in {None, given}:
                click.echo(f"{text} is the package {found}, of model version {of_model}", err=True)
            return model_type, found
    known = ", ".join(entry.registered_package_name for entry in settings.model_types.values())
    raise click.BadParameter(
        f"{text!r} is no package of {settings.file}: write NAME:VERSION or NAME:latest, with one of {known}",
        param_hint=_HINT,
    )


def _latest(name: str, registry: Registry) -> RegisteredVersion:
    """The newest package that is not archived. Raises NotFoundError."""
    newest = latest(registry, Kind.MODEL, name)
    if archived(newest) is None:
        return newest
    offered = [each for each in registry.versions(Kind.MODEL, name) if archived(each) is None]
    if not offered:
        raise NotFoundError(f"every package {name} is archived: edgepack package list --all")
    return offered[-1]


def find_candidate(text: str, context: TaskContext) -> Candidate:
    """The package, or the model version, that an argument of `compare` means: of a model type its model's version, of
    a package's name its own. Raises click.BadParameter or EdgepackError."""
    name, _, version = text.rpartition(":")
    settings = context.settings
    if name in settings.model_types and (version == "latest" or is_version(version)):
        return candidate_of_model(name, version if version == "latest" else int(version), context)
    model_type, found = find_package(text, settings, context.registry)
    return registered_candidate(package_key(model_type, found, settings), found, context)
