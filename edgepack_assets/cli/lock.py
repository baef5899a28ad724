"""`edgepack lock`: lists locks and what uses them, and resolves one again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

import click

from edgepack_assets.artefacts.store import ArtefactStore, open_store
from edgepack_assets.cli.outcome import print_json
from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import Settings
from edgepack_assets.environments.lock import Generation, changes, generations, newest_generation, refresh_lock
from edgepack_assets.errors import CorruptError, NotFoundError
from edgepack_assets.operations.lock_usage import LockUse, lock_uses
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry import open_registry
from edgepack_assets.text_format import format_age, format_table

_SHOWN = 12
"""Digits of a key that the table shows."""


@click.group()
def lock() -> None:
    """List or refresh the locks of components.

    A lock is the exact wheels of an environment. They are resolved once and kept."""


@lock.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of a table.")
def list_(as_json: bool) -> None:
    """List every lock and what uses it.

    The newest generation of a lock is in force."""
    settings = load_settings()
    store, uses = _store(settings), _uses(settings)
    damaged: list[CorruptError] = []
    rows = [(generation, _users(generation, uses)) for generation in generations(store, damaged)]
    if as_json:
        print_json([_as_json(*each) for each in rows])
    else:
        heads = ("KEY", "GENERATION", "AGE", "PYTHON", "REQUIREMENTS", "PACKAGES", "USED BY")
        click.echo(format_table([heads, *(_as_row(*each) for each in rows)]))
    if damaged:
        raise CorruptError("\n".join(map(str, damaged)))


@lock.command()
@click.argument("which", nargs=-1, metavar="[PARTITION|PACKAGE:VERSION|KEY]...")
@click.option("--model-type", "model_types", multiple=True, help="The locks of this model type's config packages.")
def refresh(which: tuple[str, ...], model_types: tuple[str, ...]) -> None:
    """Resolve locks again with today's index.

    The result is in force as the next generation, if it differs.

    A lock is named by a model version (state_identifier:3), a registered package (State-Identifier-edge:1) or the
    first digits of its key. Existing packages stay as they are; materialize config_package to use the new lock.
    """
    settings = load_settings()
    for name in model_types:
        settings.model_type(name)
    if not which and not model_types:
        raise click.UsageError(
            "name what to refresh: a partition, a package, a key (edgepack lock list) or --model-type"
        )
    store, uses = _store(settings), _uses(settings)
    keys = [_key(name, store, uses) for name in which]
    keys += [key for name in model_types for key in _keys_of_type(name, uses)]
    for key in dict.fromkeys(keys):
        known = newest_generation(key, store)
        if known is None:
            raise NotFoundError(
                f"the lock {key[:_SHOWN]} does not exist any more: materialize config_package, which makes a new one"
            )
        before, after = refresh_lock(known.lock, store, settings.runtime)
        _report(before, after, uses)


def _report(before: Generation, after: Generation, uses: list[LockUse]) -> None:
    name = f"{after.lock.key[:_SHOWN]} ({', '.join(after.lock.requirements) or 'no requirements'})"
    if before == after:
        click.echo(f"{name}: nothing has changed, generation {after.number} stays in force")
        return
    click.echo(f"{name}: generation {after.number} is in force; changes since generation {before.number}:")
    rows = [(row["package"], row["before"] or "-", row["after"] or "-") for row in changes(before.lock, after.lock)]
    click.echo(format_table([("PACKAGE", "BEFORE", "AFTER"), *rows]))
    waiting = sorted({
        use.who for use in uses
        if use.document is not None and use.key == after.lock.key and use.digest != after.lock.digest
    })  # fmt: skip
    if waiting:
        click.echo(f"materialize config_package to use it: {', '.join(waiting)}", err=True)


def _store(settings: Settings) -> ArtefactStore:
    return open_store(settings)


def _uses(settings: Settings) -> list[LockUse]:
    damaged: list[CorruptError] = []
    uses = lock_uses(_store(settings), open_registry(settings), settings.runtime.environments, damaged=damaged)
    for error in damaged:
        click.echo(f"which lock it uses is not known: {error}", err=True)
    return uses


def _key(name: str, store: ArtefactStore, uses: Iterable[LockUse]) -> str:
    """The key of the lock that a partition, a package or the beginning of a key names."""
    if ":" in name:
        for use in uses:
            if use.who == name:
                return use.key
        raise NotFoundError(
            f"{name} has no lock: it is neither a partition with a materialized config_package nor a registered package"
        )
    if not re.fullmatch(r"[0-9a-f]{4,64}", name):
        raise click.BadParameter(f"{name!r}: write a partition, PACKAGE:VERSION or four or more digits of a lock's key")
    keys = sorted({each.lock.key for each in generations(store) if each.lock.key.startswith(name)})
    if len(keys) != 1:
        problem = f"{len(keys)} locks have keys that begin" if keys else "no lock has a key that begins"
        raise NotFoundError(f"{problem} with {name}: `edgepack lock list` shows the keys")
    return keys[0]


def _keys_of_type(name: str, uses: Iterable[LockUse]) -> list[str]:
    keys = [use.key for use in uses if use.document is not None and ModelKey.parse(use.who).model_type == name]
    if not keys:
        raise NotFoundError(f"no config_package of {name} is materialized, so it has no lock to refresh")
    return keys


def _users(generation: Generation, uses: Iterable[LockUse]) -> list[str]:
    lock = generation.lock
    return [use.who for use in uses if use.key == lock.key and use.digest in (lock.digest, None)]


def _as_json(generation: Generation, users: list[str]) -> dict[str, object]:
    lock = generation.lock
    return {
        "key": lock.key,
        "generation": generation.number,
        "resolved": generation.resolved.isoformat() if generation.resolved else None,
        "digest": lock.digest,
        "python": lock.python,
        "platform": lock.platform,
        "requirements": list(lock.requirements),
        "constraints": list(lock.constraints),
        "packages": {package.name: package.version for package in lock.packages},
        "used_by": users,
    }


def _as_row(generation: Generation, users: list[str]) -> tuple[str, ...]:
    lock, resolved = generation.lock, generation.resolved
    age = format_age((datetime.now(UTC) - resolved).total_seconds()) if resolved else "-"
    within = f" (within {', '.join(lock.constraints)})" if lock.constraints else ""
    rest = (
        (", ".join(lock.requirements) or "-") + within,
        str(len(lock.packages)),
        ", ".join(users).replace(lock.key, lock.key[:_SHOWN]) or "nothing",
    )
    return lock.key[:_SHOWN], str(generation.number), age, lock.python, *rest
