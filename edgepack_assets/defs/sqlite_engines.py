"""One database engine for each SQLite file of a Dagster instance, in place of one for each statement.

Dagster makes an engine, asks the database what it can do and compiles its SQL anew every time that it stores or reads
an event: a sixth of the processor time of a run. An engine without a pool holds no connection, so one can serve all
threads, and forks. What is replaced is no public interface; should Dagster cease to use it, engines are made as before.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

_MOST = 32
"""Engines that are kept. Each run has a file of its own."""


def share_engines() -> None:
    """Have Dagster's SQLite storages of this process use shared engines."""
    from dagster._core.storage.event_log.sqlite import sqlite_event_log
    from dagster._core.storage.runs.sqlite import sqlite_run_storage
    from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
    from sqlalchemy import create_engine

    for module in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
        if getattr(module, "create_engine", None) is create_engine:
            module.create_engine = _shared  # type: ignore[attr-defined]


def _shared(url: str, *, poolclass: Any = None, connect_args: dict[str, Any] | None = None, **other: Any) -> Engine:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    if poolclass is not NullPool or other:
        return create_engine(url, poolclass=poolclass, connect_args=connect_args or {}, **other)
    return _engine(url, tuple(sorted((connect_args or {}).items())))


@lru_cache(maxsize=_MOST)
def _engine(url: str, arguments: tuple[tuple[str, Any], ...]) -> Engine:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    engine = create_engine(url, poolclass=NullPool, connect_args=dict(arguments))
    # Dagster disposes of it after each statement. There is no connection to dispose of, and a new pool takes time.
    engine.dispose = lambda close=True: None  # type: ignore[method-assign]
    return engine
