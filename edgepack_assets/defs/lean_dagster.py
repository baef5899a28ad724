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
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster import DagsterInstance

_LATER: dict[str, frozenset[str]] = {
    "alembic": frozenset(),
    "alembic.command": frozenset({"downgrade", "stamp", "upgrade"}),
    "alembic.config": frozenset({"Config"}),
    "alembic.runtime": frozenset(),
    "alembic.runtime.environment": frozenset({"EnvironmentContext"}),
    "alembic.runtime.migration": frozenset({"MigrationContext"}),
    "alembic.script": frozenset({"ScriptDirectory"}),
    "dagster._daemon": frozenset(),
}
"""Modules that are executed when they are used, and what of them may be imported by name without that."""
_REVISION = re.compile(r'^revision = "(\w+)"', re.MULTILINE)
_EARLIER = re.compile(r"^down_revision = (.*)", re.MULTILINE)
_TABLES = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type = 'table' DESC"


def import_lean() -> None:
    """Import Dagster's core so. Does nothing where it is imported already."""
    if "dagster" in sys.modules or "alembic" in sys.modules:
        return
    sys.meta_path.insert(0, _LaterFinder())
    from dagster._core.storage import sql

    check, make_config = sql.check_alembic_revision, sql.get_alembic_config

    def is_current(config: Any, connection: Any) -> Any:
        revision = _revision_of(connection)
        head = _head(Path(sql.__file__).with_name("alembic") / "versions")
        return (revision, head) if revision is not None and revision == head else check(config, connection)

    def config_later(*arguments: Any, **named: Any) -> _LaterValue:
        return _LaterValue(lambda: make_config(*arguments, **named))

    vars(sql).update(check_alembic_revision=is_current, get_alembic_config=config_later)


class _LaterFinder(MetaPathFinder):
    """Finds a stand-in for each module of `names`, until something is looked up in one of its package."""

    def __init__(self) -> None:
        self.names = set(_LATER)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname in self.names else None
        if spec is not None:
            spec.loader = _LaterLoader(self)
        return spec

    def look_up(self, module: str, name: str) -> Any:
        """A name of the module itself. All stand-ins of its package are gone from here on."""
        package = module if module.startswith("dagster.") else module.partition(".")[0]
        for each in [each for each in self.names if f"{each}.".startswith(f"{package}.")]:
            self.names.remove(each)
            sys.modules.pop(each, None)
        return getattr(importlib.import_module(module), name)


class _LaterLoader(Loader):
    def __init__(self, finder: _LaterFinder) -> None:
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _LaterModule(spec.name, self._finder)

    def exec_module(self, module: ModuleType) -> None:
        """Not yet: see _LaterModule."""


class _LaterModule(ModuleType):
    """A stand-in for a module, which is imported when something is looked up in it, or when what was imported by name
    from it is used."""

    def __init__(self, name: str, finder: _LaterFinder) -> None:
        super().__init__(name)
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # of a module, as import looks for them
            raise AttributeError(name)
        if name in _LATER[self.__name__]:
            return _LaterValue(lambda: self._finder.look_up(self.__name__, name))
        return self._finder.look_up(self.__name__, name)


class _LaterValue:
    """Stands for a value that is made when it is used."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

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
