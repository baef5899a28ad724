"""The commands that look after a machine: `edgepack env`, `doctor`, `sensors` and `gc`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING

import click

from edgepack_assets.artefacts.store import open_store
from edgepack_assets.cli.outcome import REFUSED, FailureError, print_json
from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import Settings
from edgepack_assets.defs import instance as dagster_home
from edgepack_assets.environments.environment import idle_environments, remove_environment
from edgepack_assets.errors import CorruptError, EdgepackError
from edgepack_assets.operations.garbage import find_garbage
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.base import DamagedVersion, damaged_in_words
from edgepack_assets.text_format import counted, format_age, format_size, format_table

if TYPE_CHECKING:
    from edgepack_assets.operations.doctor import Finding


@click.command()
def env() -> None:
    """Print the variables that Dagster's commands need.

    Use it with: eval "$(edgepack env)", in the folder of edgepack.yaml."""
    for name, value in dagster_home.environment().items():
        click.echo(f"export {name}={shlex.quote(value)}")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list of all checks.")
def doctor(as_json: bool) -> None:
    """Check what a run needs on this machine.

    Above all it tries the isolation of model code. Exits with 1 if something that every run needs fails."""
    settings = load_settings()
    if not as_json:
        click.echo(f"configuration: {settings.file}")
    from edgepack_assets.operations.doctor import examine

    failed = 0
    section = ""
    findings = chain(examine(settings), _examine_dagster(settings))
    if as_json:
        listed = list(findings)
        print_json([asdict(finding) for finding in listed])
        failed, findings = sum(not each.holds and each.vital for each in listed), chain()
    for finding in findings:
        if finding.section != section:
            section = finding.section
            click.echo(f"\n{section}")
        failed += not finding.holds and finding.vital
        mark = "ok" if finding.holds else "FAILS" if finding.vital else "no"
        click.echo(f"  {mark:<6} {finding.name}: {finding.message}")
    if failed:
        raise FailureError(f"{counted(failed, 'vital check')} failed", REFUSED)


def _examine_dagster(settings: Settings) -> Iterator[Finding]:
    """The instance must be usable. Its daemon and sensors need not run where runs are started by hand."""
    from edgepack_assets.defs.sensors.status import sensors_status
    from edgepack_assets.operations.doctor import Finding

    try:
        home = dagster_home.ensure()
        status = sensors_status(settings, str(home))
    except EdgepackError as error:
        yield Finding("Dagster", "instance", False, str(error))
        return
    yield Finding("Dagster", "instance", True, str(home))
    running = "is running" if status.daemon_is_alive else "is not running: `edgepack ui` starts it"
    yield Finding("Dagster", "daemon", status.daemon_is_alive, running, vital=False)
    for each in status.sensors:
        message = each.state + (f", {each.fault}" if each.fault else "")
        yield Finding(
            "Dagster", f"sensor {each.name}", each.state.startswith("on") and not each.fault, message, vital=False
        )


@click.command()
@click.option(
    "--start-anew",
    metavar="MODEL_TYPE",
    help="Forget what the sensor registry_models has handled of a model type: it starts anew as sensors.start says.",
)
def sensors(start_anew: str | None) -> None:
    """Show the state of the sensors.

    Shows when each last ticked, its message, and which versions wait for approval. Exits with 1 if Dagster's daemon is
    not running, or if a sensor that is on is late or failed."""
    settings = load_settings()
    from edgepack_assets.defs.sensors.status import sensors_status
    from edgepack_assets.defs.sensors.status import start_anew as start_type_anew

    if start_anew is not None:
        start_type_anew(settings, str(dagster_home.ensure()), start_anew)
        click.echo(f"{start_anew} starts anew in the next tick")
        return
    status = sensors_status(settings, str(dagster_home.ensure()))
    rows = [
        (each.name, each.state, f"{format_age(each.looked)} ago" if each.looked is not None else "-",
         " ".join(f"{each.fault + ': ' if each.fault and each.words else each.fault}{each.words}".split()))
        for each in status.sensors
    ]  # fmt: skip
    click.echo(format_table([("SENSOR", "STATUS", "LAST TICK", "MESSAGE"), *rows]))
    waiting = sorted({name for each in status.sensors for name in each.waiting})
    for name in waiting:
        click.echo(f"waits for approval: edgepack model approve {name}")
    if not status.daemon_is_alive:
        seen = "never" if status.daemon is None else f"{format_age(status.daemon)} ago"
        raise FailureError(
            f"the Dagster daemon is not running (last heartbeat: {seen}): start `edgepack ui`, or `dagster-daemon run`",
            REFUSED,
        )
    if faulty := [each.name for each in status.sensors if each.fault]:
        raise FailureError(f"failed or late: {', '.join(faulty)}", REFUSED)


@click.command()
@click.option("--delete", is_flag=True, help="Delete what is listed. Without this option nothing is deleted.")
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=3600,
    show_default=True,
    help="Keep what was used in the last SECONDS. A run in progress may need it.",
    metavar="SECONDS",
)
@click.option(
    "--idle-days",
    type=click.FloatRange(min=0),
    default=30,
    show_default=True,
    help="Keep environments that a run used in the last DAYS. A deleted one is built again when it is needed.",
    metavar="DAYS",
)
def gc(delete: bool, grace: float, idle_days: float) -> None:
    """List or delete what nothing needs any more.

    That is environments that no run uses, artefacts that no manifest, registered package or kept environment needs,
    and registrations that were cut short."""
    settings = load_settings()
    store = open_store(settings)
    environments = settings.runtime.environments
    idle = idle_environments(environments, max(idle_days * 24 * 3600, grace))
    if delete:
        idle = [environment for environment in idle if remove_environment(environment)]
    gone = [environment.folder for environment in idle]
    registry = open_registry(settings)
    unread: list[CorruptError] = []
    damaged: list[DamagedVersion] = []
    garbage = find_garbage(store, registry, environments, grace, without=gone, damaged=unread, damaged_versions=damaged)
    if damaged:
        click.echo(damaged_in_words(damaged), err=True)
    if unreadable := [str(each) for each in damaged if not each.tags_are_known]:
        click.echo(f"every lock is kept with its wheels: {', '.join(unreadable)} may need any of them", err=True)
    unfinished = registry.unfinished()
    for entry in unfinished:
        if entry.may_be_alive:
            click.echo(
                f"{entry.path} ({format_size(entry.size)}) is kept: a registration in progress, or one that was cut "
                f"short {format_age(entry.idle)} ago", err=True,
            )  # fmt: skip
    cut_short = [entry for entry in unfinished if entry.idle > grace and not entry.may_be_alive]
    if delete:
        garbage, cut_short = store.remove(garbage), registry.remove_unfinished(grace)
    rows = [(str(item.folder), item.size) for item in idle] + [(item.path, item.size) for item in garbage]
    rows += [(str(entry.path), entry.size) for entry in cut_short]
    if rows:
        click.echo(format_table([("PATH", "SIZE"), *((path, format_size(size)) for path, size in rows)]))
    total = format_size(sum(size for _, size in rows))
    summary = f"{total} in {counted(len(garbage), 'file')}"
    summary += f" and {counted(len(idle), 'environment')}" if idle else ""
    summary += f" and {counted(len(cut_short), 'unfinished registration')}" if cut_short else ""
    if rows:
        click.echo(f"{summary} {'deleted' if delete else 'can be deleted: edgepack gc --delete'}")
    else:
        click.echo("nothing to delete")
    if unread:
        raise CorruptError(
            "; ".join(dict.fromkeys(map(str, unread)))
            + ". Every artefact and lock is kept, as what is damaged may need any of them. A manifest whose partition "
            "is not needed any more may be deleted"
        )
