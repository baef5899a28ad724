"""Starts Dagster without what a command's run does not need of it: half a second of imports and look-ups.

- alembic migrates databases. Dagster's storages import it to ask whether a SQLite file is up to date, which one query
  answers, and to stamp a new one. It loads when something else is asked of it.
- `dagster._daemon` is the daemon. The storages import one record type of it.
- Each run has a SQLite file of its own, whose tables are copied from the instance's index.

Nothing is left out for good: what is used after all is imported then. All of this is Dagster's inside, so it is here in
one place, and where Dagster is built differently its own way is taken.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster import DagsterInstance

_ALEMBIC = {
    "alembic.command": ("downgrade", "stamp", "upgrade"),
    "alembic.config": ("Config",),
    "alembic.runtime.environment": ("EnvironmentContext",),
    "alembic.runtime.migration": ("MigrationContext",),
    "alembic.script": ("ScriptDirectory",),
}
"""What Dagster's storages import of it."""
_DAEMON = "dagster._daemon"
_REVISION = re.compile(r'^revision = "(\w+)"', re.MULTILINE)
_EARLIER = re.compile(r"^down_revision = (.*)", re.MULTILINE)
_TABLES = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type = 'table' DESC"


def import_lean() -> None:
    """Import Dagster's core so. Does nothing where it is imported already."""
    dagster = importlib.util.find_spec("dagster")
    if "dagster" in sys.modules or "alembic" in sys.modules or dagster is None or dagster.origin is None:
        return
    stand_ins = {name: ModuleType(name) for name in (*_ALEMBIC, _DAEMON)}
    for name, imported in _ALEMBIC.items():
        for each in imported:
            setattr(stand_ins[name], each, _Later(partial(_import_from, name, each)))
    stand_ins[_DAEMON].__path__ = [str(Path(dagster.origin).with_name("_daemon"))]  # its modules can be imported
    sys.modules.update(stand_ins)
    try:
        from dagster._core.storage import sql

        _ask_without_alembic(sql)
        from dagster._core.storage import event_log, runs, schedules  # noqa: F401 - which import functions of it
    finally:
        for name in stand_ins:
            del sys.modules[name]


def _ask_without_alembic(sql: Any) -> None:
    """Have Dagster's storages find out by a query whether a SQLite file is up to date."""
    check, make_config = sql.check_alembic_revision, sql.get_alembic_config

    def is_current(config: Any, connection: Any) -> Any:
        revision = _revision_of(connection)
        head = _head(Path(sql.__file__).with_name("alembic") / "versions")
        return (revision, head) if revision is not None and revision == head else check(config, connection)

    def config_later(*arguments: Any, **named: Any) -> _Later:
        return _Later(partial(make_config, *arguments, **named))

    vars(sql).update(check_alembic_revision=is_current, get_alembic_config=config_later)


def _import_from(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


class _Later:
    """Stands for a value that is made when it is used."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = cache(make)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._make()(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._make(), name)


def _revision_of(connection: Any) -> str | None:
    """The revision that a SQLite database is stamped with, None if there is not exactly one."""
    if connection.dialect.name != "sqlite":
        return None
    with contextlib.suppress(sqlite3.Error):  # no such table: a new file
        rows = connection.connection.execute("SELECT version_num FROM alembic_version").fetchall()
        return str(rows[0][0]) if len(rows) == 1 else None
    return None


@cache
def _head(folder: Path) -> str | None:
    """The newest revision among Dagster's migrations: the one that no other follows. None if that is not one."""
    revisions, followed = set(), ""
    for file in folder.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        revisions.update(_REVISION.findall(text))
        followed += " ".join(_EARLIER.findall(text))
    heads = [revision for revision in revisions if revision not in followed]
    return heads[0] if len(heads) == 1 else None


@contextlib.contextmanager
def run_file(instance: DagsterInstance, run_id: str) -> Iterator[None]:
    """Make the SQLite file with the events of a new run, and keep it open too. Its tables are those of the index."""
    from dagster._core.storage.event_log import SqliteEventLogStorage
    from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME

    storage = instance.event_log_storage
    if not isinstance(storage, SqliteEventLogStorage):
        yield
        return
    with _open(Path(storage.path_for_shard(run_id))) as made:
        with _open(Path(storage.path_for_shard(INDEX_SHARD_NAME))) as index:
            tables = [sql for (sql,) in index.execute(_TABLES) if not sql.startswith("CREATE TABLE sqlite_")]
            revision = index.execute("SELECT version_num FROM alembic_version").fetchone()
        made.execute("PRAGMA journal_mode=WAL")
        made.execute("BEGIN IMMEDIATE")
        for sql in tables:
            made.execute(sql)
        made.execute("INSERT INTO alembic_version VALUES (?)", revision)
        made.execute("COMMIT")
        yield


@contextlib.contextmanager
def _open(file: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # until then the file is not opened
        yield connection
