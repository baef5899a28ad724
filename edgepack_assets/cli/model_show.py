"""`edgepack model show`: all that is known of a version of a model."""

from __future__ import annotations

from typing import Any

import click

from edgepack_assets.cli.outcome import print_json
from edgepack_assets.cli.registry import name_and_version, version_as_json
from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import Settings
from edgepack_assets.config.versions import Version
from edgepack_assets.defs import instance as dagster_home
from edgepack_assets.errors import InfrastructureError, NotFoundError
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry import approval, open_registry
from edgepack_assets.registry.base import Kind, RegisteredVersion, Registry, resolve
from edgepack_assets.tasks.packages.archive import archived
from edgepack_assets.tasks.packages.history import model_version_of
from edgepack_assets.text_format import counted, format_size, format_table

_RUNS_SHOWN = 10


@click.command()
@click.argument("version", metavar="NAME:VERSION", callback=name_and_version)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def show(version: tuple[str, Version], as_json: bool) -> None:
    """Show all about a version of a model.

    Its tags and digest, its approval, the packages that were made from it and the runs of its partitions."""
    settings = load_settings()
    registry = open_registry(settings)
    name, number = version
    model, is_archived = _find(name, number, registry)
    keys = [ModelKey(each, model.number) for each, entry in settings.model_types.items() if entry.model_name == name]
    packages = [package for key in keys for package in _packages(key, settings, registry)]
    runs = _runs(keys)
    known = approval.approval_of(model.tags)
    if as_json:
        found = {
            **version_as_json(model), "archived": is_archived, "approved": None if known is None else str(known),
            "partitions": [str(key) for key in keys],
            "packages": [{"package": str(each), "created": each.created.isoformat(),
                          "archived": archived(each) is not None} for each in packages],
            "runs": runs,
        }  # fmt: skip
        print_json(found)
        return
    content = version_as_json(model)
    size = content["size"]
    pairs = [
        ("model", str(model)), ("registered", f"{model.created:%Y-%m-%d %H:%M:%S}Z"),
        ("archived", str(archived(model) or "yes").removeprefix("archived ") if is_archived else "no"),
        ("approved", "by " + str(known) if known else _not_approved(keys, settings)),
        ("partitions", ", ".join(map(str, keys)) or "none: no model type packages this model"),
        ("size", "?" if size is None else format_size(size)), ("sha256", content["digest"] or "?"),
        ("location", model.location),
        *((f"tag {tag}", value) for tag, value in sorted(model.tags.items())),
    ]  # fmt: skip
    click.echo(format_table(pairs))
    rows = [("PACKAGE", "CREATED", "")]
    rows += [(str(p), f"{p.created:%Y-%m-%d %H:%M}Z", "archived" if archived(p) else "") for p in packages]
    click.echo(f"\n{format_table(rows)}" if packages else "\nno package was made from it")
    heads = ("RUN", "PARTITION", "STARTED", "STATUS", "JOB")
    shown = [heads, *(tuple(str(value) for value in run.values()) for run in (runs or ())[:_RUNS_SHOWN])]
    if runs is None:
        return
    click.echo(f"\n{format_table(shown)}" if runs else "\nno run of it is known to Dagster")
    if len(runs) > _RUNS_SHOWN:
        click.echo(f"... {counted(len(runs) - _RUNS_SHOWN, 'earlier one')}; --json shows them")


def _find(name: str, number: Version, registry: Registry) -> tuple[RegisteredVersion, bool]:
    try:
        return resolve(registry, Kind.MODEL, name, number), False
    except NotFoundError:
        for version in registry.archived(Kind.MODEL, name):
            if version.version == number:
                return version, True
        raise


def _not_approved(keys: list[ModelKey], settings: Settings) -> str:
    needs = any(settings.model_type(key.model_type).needs_approval(settings.run.environment) for key in keys)
    return "no, it waits for that" if needs else "no, and needs no approval"


def _packages(key: ModelKey, settings: Settings, registry: Registry) -> list[RegisteredVersion]:
    entry = settings.model_type(key.model_type)
    packages = registry.versions(Kind.MODEL, entry.registered_package_name)
    return [each for each in packages if model_version_of(each, entry.model_name) == key.version]


def _runs(keys: list[ModelKey]) -> list[dict[str, Any]] | None:
    """The runs of partitions, the newest first; None, which is said, if Dagster's instance cannot be used here."""
    home = dagster_home.home()
    if not keys or not home.is_dir():
        return []
    try:
        dagster_home.prepare_process()

        from edgepack_assets.defs.partition_runs import partition_runs

        return partition_runs(keys, home)
    except InfrastructureError as error:  # all else is in the registry, which can be read
        click.echo(f"its runs are not shown: {error}", err=True)
        return None
