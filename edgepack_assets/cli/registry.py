"""The commands that work on the registry: `edgepack model`, `data` and `sync`.

A new model version also becomes a partition of Dagster's instance, here as soon as it is added.
"""

from __future__ import annotations

import difflib
import getpass
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from edgepack_assets.cli.outcome import print_json
from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.registry_settings import LocalRegistrySettings
from edgepack_assets.config.schema import Settings
from edgepack_assets.config.versions import Version, is_version_text, read_version
from edgepack_assets.defs import instance as dagster_home
from edgepack_assets.errors import EdgepackError, InfrastructureError, TransientError
from edgepack_assets.filesystem.atomic_files import write_checksum
from edgepack_assets.partitions import ModelKey, is_version
from edgepack_assets.registry import approval, open_registry
from edgepack_assets.registry.base import (
    DamagedVersion,
    Kind,
    RegisteredVersion,
    Registry,
    ResolvedVersion,
    damaged_above,
    damaged_in_words,
    latest,
    resolve,
)
from edgepack_assets.tasks.packages import archive as archives
from edgepack_assets.tasks.packages.tags import CONTENT_DIGEST
from edgepack_assets.text_format import counted, format_size, format_table, shortened

_MOST_FAILURES = 3
"""Look-ups of a list that may fail before no more are tried."""
_LONGEST_TAG = 40
"""Characters of a tag's value in a table. Packages have digests and, in JSON, the metrics of each validation."""


def _tags(ctx: click.Context, param: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    tags: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{text!r} is not a tag: write KEY=VALUE")
        if key in tags:
            raise click.BadParameter(f"tag {key!r} is given twice")
        tags[key] = value
    return tags


def name_and_version(ctx: click.Context, param: click.Parameter, given: str) -> tuple[str, Version]:
    name, _, version = given.partition(":")  # the version of a data asset may hold a colon, a name cannot
    is_model = ctx.parent is not None and ctx.parent.info_name == Kind.MODEL.value
    if not name or not (version == "latest" or (is_version if is_model else is_version_text)(version)):
        example = "state_identifier:3" if is_model else "press_raw:3 or press_raw:2024-06-01"
        raise click.BadParameter(f"{given!r}: write NAME:VERSION, e.g. {example}, or NAME:latest")
    return name, read_version(version)


def _refuse_text_in_a_local_registry(name: str, version: Version, settings: Settings) -> None:
    if isinstance(settings.registry, LocalRegistrySettings) and isinstance(version, str) and version != "latest":
        raise click.BadParameter(
            f"'{name}:{version}': write NAME:VERSION, e.g. {name}:3, or {name}:latest. The versions of a local "
            "registry are whole numbers from 1 up"
        )


def _group(kind: Kind, noun: str) -> click.Group:
    """`edgepack model` and `edgepack data` have the same commands, for another kind."""
    commands = [_add_command(kind, noun), _archive_command(kind, noun), _list_command(kind, noun)]
    commands.append(_download_command(kind, noun))
    return click.Group(kind.value, commands, help=f"Add, list, download and archive {noun}s of the registry.")


def _add_command(kind: Kind, noun: str) -> click.Command:
    @click.command(
        "add", help=f"Register the next version of a {noun}.\n\nPATH is a file or folder. Prints NAME:VERSION."
    )
    @click.argument("name")
    @click.argument("path", type=click.Path(path_type=Path))
    @click.option(
        "--tag",
        "tags",
        multiple=True,
        metavar="K=V",
        callback=_tags,
        help="A tag of the version; may be repeated.",
    )
    @click.option("--force", is_flag=True, help="Register it although no model type of edgepack.yaml can use it.")
    def add(name: str, path: Path, tags: dict[str, str], force: bool) -> None:
        settings = load_settings()
        _check_use(kind, name, path, tags, settings, force)
        added = open_registry(settings).register(kind, name, path, tags)
        click.echo(added)
        if kind is Kind.MODEL:
            _add_partitions_of(added, settings)

    return add


def _archive_command(kind: Kind, noun: str) -> click.Command:
    @click.command(
        "archive",
        help=f"Take a version of a {noun} out of use.\n\nOnly list --archived lists it then. It is never the latest, "
        "and nothing is made from it. Its files and its number stay. In Azure ML it is archived there."
        + " Packages are archived with `edgepack package archive`."
        * (kind is Kind.MODEL),
    )
    @click.argument("version", metavar="NAME:VERSION", callback=name_and_version)
    @click.option("--undo", is_flag=True, help="Take it out of the archive.")
    @click.option("--by", metavar="NAME", help="Who does it; the user of this machine by default.")
    @click.option("--reason", default="", metavar="TEXT", help="Why; kept in its tag `archived`.")
    def archive(version: tuple[str, Version], undo: bool, by: str | None, reason: str) -> None:
        _archive(kind, *version, undo, by or getpass.getuser(), reason)

    return archive


def _list_command(kind: Kind, noun: str) -> click.Command:
    @click.command("list", help=f"List every {noun}, or only the versions of NAME.")
    @click.argument("name", required=False)
    @click.option("--archived", is_flag=True, help="List the archived versions instead.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON list instead of a table, with tags in full.")
    def list_(name: str | None, archived: bool, as_json: bool) -> None:
        looked_up = _look_up(_listed(open_registry(load_settings()), kind, name, archived))
        if as_json:
            print_json([_as_json(*each) for each in looked_up])
        else:
            heads = ("NAME", "VERSION", "CREATED", "SIZE", "DIGEST", "TAGS")
            click.echo(format_table([heads, *(_as_row(*each) for each in looked_up)]))
        unread = {str(version): content.unread for version, content in looked_up if content.unread}
        if unread:
            raise TransientError(
                f"digest and size of {', '.join(unread)} cannot be read at the moment, try again later: "
                + "; ".join(dict.fromkeys(unread.values()))
            )

    return list_


def _listed(
    registry: Registry, kind: Kind, name: str | None, archived: bool
) -> list[RegisteredVersion | DamagedVersion]:
    """The versions of `name`, or of all names. A name that there is not is a mistake, and no empty list."""
    entries: list[RegisteredVersion | DamagedVersion] = []
    for each in [name] if name is not None else registry.names(kind):
        if archived:
            entries += registry.archived(kind, each)
            continue
        versions, damaged = registry.versions_and_damaged(kind, each)
        entries += sorted([*versions, *damaged], key=lambda v: v.number) if damaged else versions
    if name is not None and not entries and not archived:
        latest(registry, kind, name)
    return entries


def _download_command(kind: Kind, noun: str) -> click.Command:
    @click.command(
        "download",
        help=f"Copy a version of a {noun} into a folder.\n\nThe copy in DEST is verified; its path is printed."
        + " The .sha256 file of a deployment package is written beside it." * (kind is Kind.MODEL),
    )
    @click.argument("version", metavar="NAME:VERSION", callback=name_and_version)
    @click.argument("dest", type=click.Path(path_type=Path, file_okay=False))
    def download(version: tuple[str, Version], dest: Path) -> None:
        settings = load_settings()
        _refuse_text_in_a_local_registry(*version, settings)
        registry = open_registry(settings)
        asset = resolve(registry, kind, *version)
        if version[1] == "latest" and (damaged := damaged_above(registry, asset)):
            click.echo(f"{asset} is the latest that can be read: {damaged_in_words(damaged)}", err=True)
        path = registry.download(asset, dest)
        if CONTENT_DIGEST in asset.tags and not (resolved := asset.resolve()).is_folder:
            write_checksum(path, resolved.digest)
        click.echo(path)

    return download


model = _group(Kind.MODEL, "model")
data = _group(Kind.DATA, "data asset")


@model.command("approve")
@click.argument("version", metavar="NAME:VERSION", callback=name_and_version)
@click.option("--by", metavar="NAME", help="Who approves; the user of this machine by default.")
@click.option("--revoke", is_flag=True, help="Take the approval back. Packages that were made stay.")
def approve(version: tuple[str, Version], by: str | None, revoke: bool) -> None:
    """Approve a version of a model, or take that back.

    With `approval: required` in edgepack.yaml the sensor packages a version only after that."""
    name, number = version
    if isinstance(number, str):
        raise click.BadParameter("approve a version by its number", param_hint="NAME:VERSION")
    settings = load_settings()
    registry = open_registry(settings)
    registered = registry.get(Kind.MODEL, name, number)
    if revoke:
        if by is not None:
            raise click.UsageError("--by says who approves: leave it out with --revoke")
        known = approval.revoke(registry, registered)
        click.echo(f"{registered} is not approved any more (it was by {known})" if known else
                   f"{registered} was not approved")  # fmt: skip
        return
    types = [key for key, entry in settings.model_types.items() if entry.model_name == name]
    if not types:
        click.echo(
            f"no model type of {settings.file} has the model_name {name}: no sensor waits for this approval", err=True
        )
    elif not any(settings.model_types[key].needs_approval(settings.run.environment) for key in types):
        click.echo(
            f"{', '.join(types)} needs no approval in the environment {settings.run.environment!r}: no sensor waits "
            "for this approval here", err=True,
        )  # fmt: skip
    approver, is_new = approval.approve(registry, registered, by or getpass.getuser(), datetime.now(UTC))
    click.echo(f"{registered} {'is' if is_new else 'was already'} approved by {approver}")


def _archive(kind: Kind, name: str, number: Version, undo: bool, by: str, reason: str) -> None:  # noqa: PLR0917
    if number == "latest":
        raise click.BadParameter("archive a version by its number", param_hint="NAME:VERSION")
    settings = load_settings()
    _refuse_text_in_a_local_registry(name, number, settings)
    registry = open_registry(settings)
    if undo:
        changed = archives.restore_version(registry, kind, name, number)
    else:
        _refuse_package(kind, name, number, settings)
        now = datetime.now(UTC)
        changed = archives.archive_version(
            registry, kind, name, number, lambda found: archives.tag_value(found, by, reason, now)
        )
    if undo:
        click.echo(f"{name}:{number} is {'no longer archived' if changed else 'not archived'}")
    else:
        click.echo(f"{name}:{number} is {'archived' if changed else 'archived already'}")


def _refuse_package(kind: Kind, name: str, number: Version, settings: Settings) -> None:
    """A package is archived by a tag, so that its number, its lock and the gates' references are still found."""
    if kind is Kind.MODEL and name in {entry.registered_package_name for entry in settings.model_types.values()}:
        raise click.BadParameter(
            f"{name}:{number} is a package: edgepack package archive {name}:{number}", param_hint="NAME:VERSION"
        )


def _check_use(  # noqa: PLR0917 - what is added, and how
    kind: Kind, name: str, path: Path, tags: Mapping[str, str], settings: Settings, force: bool
) -> None:
    from edgepack_assets.operations.added_files import used_names, using_types, why_useless

    if not using_types(kind, name, settings):
        key = "model_name" if kind is Kind.MODEL else "raw_data.name"
        near = difflib.get_close_matches(name, used_names(kind, settings), n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        click.echo(f"no model type of {settings.file} has the {key} {name}: nothing will use it{meant}", err=True)
    elif not force and path.exists() and (reason := why_useless(kind, name, path, tags, settings)) is not None:
        raise EdgepackError(f"{path} is not registered, as it could not be used (--force registers it):\n{reason}")


def _add_partitions_of(model_version: RegisteredVersion, settings: Settings) -> None:
    keys = _keys([model_version], settings)
    try:
        new = dagster_home.add_partitions(keys)
    except EdgepackError as error:
        raise InfrastructureError(
            f"{model_version} is registered, but its partition is not added; `edgepack sync` does that later: {error}"
        ) from error
    for key in new:
        click.echo(f"partition {key} added", err=True)


def _keys(versions: Iterable[RegisteredVersion], settings: Settings) -> list[ModelKey]:
    """The partition keys of model versions: one for each model type that packages the model."""
    return [
        ModelKey(name, version.number)
        for version in versions
        for name, entry in settings.model_types.items()
        if entry.model_name == version.name
    ]


@dataclass(frozen=True)
class _Content:
    """What the registry says of a version's files: None where it knows nothing of them. `unread` says why it cannot at
    the moment."""

    digest: str | None = None
    size: int | None = None
    unread: str = ""


def _look_up(
    entries: Iterable[RegisteredVersion | DamagedVersion],
) -> list[tuple[RegisteredVersion | DamagedVersion, _Content]]:
    """Each entry with its content. A list still shows the others where the files of one cannot be looked up.

    Each look-up that fails has waited for as long as the registry's limit says. So after a few no more are tried."""
    found: list[tuple[RegisteredVersion | DamagedVersion, _Content]] = []
    failures: list[str] = []
    for entry in entries:
        content = _Content()
        if isinstance(entry, ResolvedVersion):
            content = _Content(entry.digest, entry.size)
        elif isinstance(entry, RegisteredVersion) and len(failures) >= _MOST_FAILURES:
            content = _Content(unread=failures[-1])
        elif isinstance(entry, RegisteredVersion):
            try:
                resolved = entry.resolve()
                content = _Content(resolved.digest, resolved.size)
            except TransientError as error:
                failures.append(str(error))
                content = _Content(unread=str(error))
            except EdgepackError:
                pass  # its files are gone
        found.append((entry, content))
    return found


def version_as_json(version: RegisteredVersion) -> dict[str, Any]:
    """What `list --json` says of a version."""
    return _as_json(*_look_up([version])[0])


def _as_json(version: RegisteredVersion | DamagedVersion, content: _Content) -> dict[str, Any]:
    if isinstance(version, DamagedVersion):
        unknown = dict.fromkeys(("created", "digest", "size", "location"))
        named = {"kind": version.kind.value, "name": version.name, "version": version.version or None}
        return {**named, "tags": dict(version.tags), **unknown, "damaged": version.reason}
    return {
        "kind": version.kind.value,
        "name": version.name,
        "version": version.version,
        "tags": dict(version.tags),
        "created": version.created.isoformat(),
        "digest": content.digest,
        "size": content.size,
        "location": version.location,
        **({"unread": content.unread} if content.unread else {}),
    }


def _as_row(version: RegisteredVersion | DamagedVersion, content: _Content) -> tuple[str, ...]:
    if isinstance(version, DamagedVersion):
        return version.name, str(version.version or "all"), "damaged", "?", "?", version.reason
    tags = " ".join(f"{key}={shortened(value, _LONGEST_TAG)}" for key, value in sorted(version.tags.items()))
    created = f"{version.created:%Y-%m-%d %H:%M}Z"
    size = "?" if content.size is None else format_size(content.size)
    return version.name, str(version.version), created, size, (content.digest or "?")[:12], tags


@click.command()
def sync() -> None:
    """Add a partition for every model version to Dagster.

    Prints the partition keys that are new."""
    settings = load_settings()
    registry = open_registry(settings)
    names = sorted({entry.model_name for entry in settings.model_types.values()})
    keys = []
    for name in names:
        versions, damaged = registry.versions_and_damaged(Kind.MODEL, name)
        keys += _keys(versions, settings)
        if damaged:
            click.echo(damaged_in_words(damaged), err=True)
    new = dagster_home.add_partitions(keys)
    for key in new:
        click.echo(key)
    click.echo(f"{len(new)} of {counted(len(keys), 'partition')} added in {dagster_home.home()}", err=True)
