"""One database engine for each SQLite file of a Dagster instance, and while it is used one connection that stays open.

Dagster makes an engine, asks the database what it can do and compiles its SQL anew every time that it stores or reads
an event, some 350 times in a run: a sixth of its processor time. An engine without a pool holds no connection, so one
can serve all threads, and forks. Each time Dagster also closes its connection. Being the last one, SQLite then copies
its log into the database and waits for the disk, three times with each event. `kept_open` has another one.

What is replaced is no public interface; should Dagster cease to use it, all is as before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

_MOST = 32
"""Engines that are kept. Each run has a file of its own."""
_open: dict[str, sqlite3.Connection] | None = None
"""File -> the connection that keeps it open, inside of `kept_open`."""


def share_engines() -> None:
    """Have Dagster's SQLite storages of this process use shared engines."""
    from dagster._core.storage.event_log.sqlite import sqlite_event_log
    from dagster._core.storage.runs.sqlite import sqlite_run_storage
    from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
    from sqlalchemy import create_engine

    for module in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
        if getattr(module, "create_engine", None) is create_engine:
            module.create_engine = _shared  # type: ignore[attr-defined]


@contextmanager
def kept_open() -> Iterator[None]:
    """Keep the databases open that are used in this block, and let the operating system write them when it likes.

    A process that is killed loses nothing. If the machine loses its power, the last events of the run may be missing:
    then it counts as one that was cut short, which it nearly always is, and is made again. A process that is forked in
    this block must use none of them, nor end as Python does, which closes them: SQLite's locks are the process's."""
    global _open  # noqa: PLW0603 - the engines are Dagster's, nothing can be handed to them
    if _open is not None:
        yield
        return
    own = _open = {}
    try:
        yield
    finally:
        if _open is own:  # else another thread began at the same time
            _open = None
        while own:
            own.popitem()[1].close()


def _shared(url: str, *, poolclass: Any = None, connect_args: dict[str, Any] | None = None, **other: Any) -> Engine:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    if poolclass is not NullPool or other:
        return create_engine(url, poolclass=poolclass, connect_args=connect_args or {}, **other)
    return _engine(url, tuple(sorted((connect_args or {}).items())))


@lru_cache(maxsize=_MOST)
def _engine(url: str, arguments: tuple[tuple[str, Any], ...]) -> Engine:
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import NullPool

    engine = create_engine(url, poolclass=NullPool, connect_args=dict(arguments))
    event.listen(engine, "connect", _connected)
    # Dagster disposes of it after each statement. There is no connection to dispose of, and a new pool takes time.
    engine.dispose = lambda close=True: None  # type: ignore[method-assign]
    return engine


def _connected(connection: sqlite3.Connection, _: object) -> None:
    kept = _open  # another thread may end the block meanwhile
    if kept is None or connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        return  # without a log beside it, a database that is not synced can be damaged
    connection.execute("PRAGMA synchronous = NORMAL")
    file = connection.execute("PRAGMA database_list").fetchone()[2]
    if file not in kept:
        opened = sqlite3.connect(file, check_same_thread=False)
        opened.execute("SELECT count(*) FROM sqlite_master").fetchone()  # which opens the log
        kept[file] = opened
        if _open is not kept:
            opened.close()
