"""`edgepack package`: packages model versions, and lists, shows and moves what is registered.

`edgepack package KEY...` has no word of its own: what is no command of this group is for package_models.py.
"""

from __future__ import annotations

import getpass
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from edgepack_assets.artefacts.store import open_store
from edgepack_assets.cli.outcome import print_json
from edgepack_assets.cli.package_comparison import compare, run_package, verify_run
from edgepack_assets.cli.package_models import package_models
from edgepack_assets.cli.package_names import find_package, find_type, package_argument
from edgepack_assets.cli.written_file import WrittenFile
from edgepack_assets.config.gate_settings import STAGES
from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import Settings
from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets.filesystem.atomic_files import writing
from edgepack_assets.filesystem.temp_folders import scratch_folder
from edgepack_assets.operations.compare_packages import package_key
from edgepack_assets.operations.packages import PackageEntry, list_packages, why_no_metrics
from edgepack_assets.packaging.contract import read_contract
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.base import Kind, RegisteredVersion, Registry, damaged_in_words
from edgepack_assets.tasks.packages import archive as archives
from edgepack_assets.tasks.packages import stages
from edgepack_assets.tasks.packages.download import registered_zip
from edgepack_assets.tasks.packages.tags import PACKAGE_TAGS
from edgepack_assets.tasks.reports.package_page import read_report
from edgepack_assets.text_format import format_size, format_table

_DEFAULT = "models"
_METRICS_WIDTH = 20
_NO_TERMINAL = 10_000
"""Columns where the output goes to a file or another program: nothing is cut there."""


class _Group(click.Group):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """What is no command of this group is given to package_models.py."""
        if not args or args[0] not in {*self.commands, *ctx.help_option_names}:
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Without a name for that command, as it is written without one."""
        name, command, rest = super().resolve_command(ctx, args)
        return (None if name == _DEFAULT else name), command, rest

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Both forms."""
        formatter.write_usage("edgepack package", "[OPTIONS] KEY...")
        formatter.write_usage("edgepack package", "COMMAND [OPTIONS] [ARGS]...")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options for model versions, then the commands."""
        click.Command.format_options(package_models, ctx, formatter)
        self.format_commands(ctx, formatter)


@click.group("package", cls=_Group, help=package_models.help, context_settings={"help_option_names": ["-h", "--help"]})
def package() -> None: ...


package.add_command(package_models, _DEFAULT)
for _command in (compare, run_package, verify_run):
    package.add_command(_command)


@package.command("list")
@click.argument("name", metavar="[MODEL_TYPE]", required=False)
@click.option("--wide", is_flag=True, help="Show every column whole, however wide the terminal is.")
@click.option("--all", "with_archived", is_flag=True, help="Show archived packages too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list with everything that is known.")
def list_(name: str | None, wide: bool, with_archived: bool, as_json: bool) -> None:
    """List the registered packages, the newest last.

    With MODEL_TYPE, or the name of its package, only those."""
    settings = load_settings()
    registry = open_registry(settings)
    types = [find_type(name, settings)] if name is not None else list(settings.model_types)
    entries = [entry for each in types for entry in list_packages(each, settings.model_type(each), registry)]
    entries = [entry for entry in entries if with_archived or entry.archived is None]
    for each in types:
        _say_if_no_metrics(each, settings)
        damaged = registry.damaged(Kind.MODEL, settings.model_type(each).registered_package_name)
        if damaged:
            click.echo(damaged_in_words(damaged), err=True)
    if as_json:
        print_json([entry.as_json() for entry in entries])
        return
    heads = ("PACKAGE", "MODEL", "CREATED", "GATES", "STAGE", "SIZE", "METRICS")
    rows = [heads, *map(_row, entries)]
    if not wide:
        used = sum(max(map(len, column)) + 2 for column in list(zip(*rows, strict=True))[:-1])
        room = max(shutil.get_terminal_size((_NO_TERMINAL, 0)).columns - used, _METRICS_WIDTH)
        rows = [(*row[:-1], _cut(row[-1], room)) for row in rows]
    click.echo(format_table(rows))


def _say_if_no_metrics(model_type: str, settings: Settings) -> None:
    if why := why_no_metrics(settings.model_type(model_type)):
        click.echo(f"metrics of {model_type} are not shown: {why}", err=True)


@package.command()
@package_argument
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option("--interface", is_flag=True, help="Print what the package declares; it is downloaded for that.")
@click.option(
    "--html", is_flag=False, flag_value="-", type=WrittenFile(), metavar="[FILE]",
    help="Write its report, a page for a browser, to FILE; without FILE into this folder, named after the package.",
)  # fmt: skip
def show(package_version: str, as_json: bool, interface: bool, html: Path | None) -> None:
    """Show all that the registry knows about a package."""
    settings = load_settings()
    registry = open_registry(settings)
    model_type, registered = find_package(package_version, settings, registry)
    if html is not None:
        if as_json or interface:
            raise click.UsageError("--html goes alone")
        _write_report(model_type, registered, html, settings)
    elif interface:
        _show_interface(registered, as_json, registry)
    else:
        _show_facts(model_type, registered, as_json, settings, registry)


def _write_report(model_type: str, registered: RegisteredVersion, file: Path, settings: Settings) -> None:
    version = package_key(model_type, registered, settings).version
    page = read_report(registered.resolve(), version, open_store(settings))
    target = Path(f"{registered.name}_{registered.version}.html") if str(file) == "-" else file
    with writing(target) as stream:
        stream.write(page)
    click.echo(target)


def _show_interface(registered: RegisteredVersion, as_json: bool, registry: Registry) -> None:
    with scratch_folder() as folder:
        contract = read_contract(registered_zip(registered, folder, registry))
    if as_json:
        print_json(asdict(contract))
    else:
        click.echo(format_table([("PART", "NAME", "TYPE"), *contract.as_table()]))


def _show_facts(
    model_type: str, registered: RegisteredVersion, as_json: bool, settings: Settings, registry: Registry
) -> None:
    entry = next(
        each for each in list_packages(model_type, settings.model_type(model_type), registry)
        if each.package.number == registered.number
    )  # fmt: skip
    _say_if_no_metrics(model_type, settings)
    if as_json:
        print_json(entry.as_json())
        return
    content = registered.resolve()
    pairs = [
        ("package", str(registered)), ("model", entry.model),
        ("registered", f"{registered.created:%Y-%m-%d %H:%M:%S}Z"),
        ("gates", entry.gates), ("stages", ", ".join(entry.stages) or "-"),
        *([("archived", str(entry.archived))] if entry.archived else []), ("size", format_size(content.size)),
        ("sha256", content.digest), ("location", registered.location),
        *((f"metric {name}", f"{value:.6g}") for name, value in entry.metrics.items()),
        *((f"tag {name}", value) for name, value in sorted(registered.tags.items()) if name in PACKAGE_TAGS),
    ]  # fmt: skip
    click.echo(format_table(pairs))
    if history := stages.moves([registered]):
        rows = [("STAGE", "SINCE", "BY", "BEFORE", "REASON")]
        rows += [
            (str(move), f"{move.at:%Y-%m-%d %H:%M}Z", move.by, str(move.before or "-"),
             ("rollback: " if move.is_rollback else "") + move.reason)
            for move in history
        ]  # fmt: skip
        click.echo(f"\n{format_table(rows)}")


_stage = click.option(
    "--stage", type=click.Choice(STAGES), default="production", show_default=True, help="The stage to move."
)
_line = click.option("--line", default="", metavar="LINE", help="The production line, one of `lines` in edgepack.yaml.")
_by = click.option("--by", metavar="NAME", help="Who does it; the user of this machine by default.")
_reason = click.option("--reason", default="", metavar="TEXT", help="Why; kept in a tag of the package.")


@package.command()
@package_argument
@_stage
@_line
@_by
@_reason
def promote(package_version: str, stage: str, line: str, by: str | None, reason: str) -> None:
    """Move a stage to a package.

    One package is in each stage of a line. The history of moves is kept in the packages' tags."""
    settings = load_settings()
    _check_line(line, settings)
    registry = open_registry(settings)
    _, registered = find_package(package_version, settings, registry)
    move = stages.promote(registry, registered, stage, line, by or getpass.getuser(), reason, datetime.now(UTC))
    where = f"{stage} of {line}" if line else stage
    if move is None:
        click.echo(f"{registered} is in {where} already")
    else:
        before = f", in the place of {registered.name}:{move.before}" if move.before else ""
        click.echo(f"{registered} is in {where} now{before}")


@package.command()
@click.argument("name", metavar="MODEL_TYPE")
@_stage
@_line
@_by
@_reason
def rollback(name: str, stage: str, line: str, by: str | None, reason: str) -> None:
    """Move a stage back to the package that was there before.

    Run it again to go back one package further. MODEL_TYPE may also be the name of the package."""
    settings = load_settings()
    _check_line(line, settings)
    package_name = settings.model_type(find_type(name, settings)).registered_package_name
    registry = open_registry(settings)
    left, move = stages.roll_back(
        registry, package_name, stage, line, by or getpass.getuser(), reason, datetime.now(UTC)
    )
    click.echo(f"{move.package} is in {move} now, in the place of {left.package}")


@package.command()
@package_argument
@click.option("--undo", is_flag=True, help="Take it out of the archive.")
@click.option("--force", is_flag=True, help="Archive it even if it is in a stage.")
@_by
@_reason
def archive(package_version: str, undo: bool, force: bool, by: str | None, reason: str) -> None:
    """Hide a package from list, promote and rollback.

    It stays registered with its number and can be downloaded. A package that is in a stage is not archived."""
    settings = load_settings()
    registry = open_registry(settings)
    _, found = find_package(package_version, settings, registry, with_archived=True)
    if undo:
        done = archives.restore(registry, found)
        click.echo(f"{found} is {'no longer archived' if done else 'not archived'}")
        return
    done = archives.archive(registry, found, by or getpass.getuser(), reason, datetime.now(UTC), force)
    click.echo(f"{found} is {'archived' if done else 'archived already'}")


def _check_line(line: str, settings: Settings) -> None:
    if line and line not in settings.lines:
        known = ", ".join(settings.lines) or "none"
        raise click.BadParameter(f"{line!r} is no line of {settings.file}; `lines` has: {known}", param_hint="--line")


def _row(entry: PackageEntry) -> tuple[str, ...]:
    try:
        size = format_size(entry.package.resolve().size)
    except TransientError:
        raise
    except EdgepackError:
        size = "?"
    metrics = " ".join(f"{name}={value:.4g}" for name, value in entry.metrics.items())
    created = f"{entry.package.created:%Y-%m-%d %H:%M}Z"
    stage = ", ".join([*entry.stages, *["archived"] * (entry.archived is not None)])
    return str(entry.package), entry.model, created, entry.gates, stage or "-", size, metrics


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"
