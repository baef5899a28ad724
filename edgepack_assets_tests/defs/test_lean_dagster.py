"""Dagster started by a command: the same databases, without what a run does not need."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import dagster as dg

from edgepack_assets.defs.instance import opened
from edgepack_assets.defs.lean_dagster import run_file

_LEAN = """
import sys
from pathlib import Path
from edgepack_assets.defs.lean_dagster import import_lean

import_lean()
from edgepack_assets.defs.instance import add_keys, opened
from edgepack_assets.partitions import ModelKey

def loaded():
    return sorted(name for name in sys.modules if name.startswith(("alembic", "dagster._daemon", "structlog")))

new, known, old = map(Path, sys.argv[1:])
with opened(known) as instance:
    add_keys(instance, [ModelKey("press", 1)])
    assert instance.get_dynamic_partitions("models") == ["press:1"]
assert loaded() == ["dagster._daemon.types"], loaded()
with opened(new) as instance:  # its databases are stamped
    add_keys(instance, [ModelKey("press", 2)])
assert "alembic.script" in loaded() and "dagster._daemon" not in loaded(), loaded()
with opened(old) as instance:
    revision, head = instance.run_storage.alembic_version()
    assert revision == "f00d" and head not in {None, revision}, (revision, head)
from dagster._daemon import DagsterDaemonController, types
from dagster._core.storage.runs import base
assert DagsterDaemonController.__module__ == "dagster._daemon.controller"
assert types.DaemonHeartbeat is base.DaemonHeartbeat
"""


def _content(file: Path) -> set[tuple[str, ...]]:
    """Tables and indexes, whatever the spaces in their texts, and the revision."""
    with closing(sqlite3.connect(file)) as database:
        made = database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        revision = database.execute("SELECT version_num FROM alembic_version").fetchall()
        mode = database.execute("PRAGMA journal_mode").fetchone()
    return {(name, "".join(sql.split())) for name, sql in made} | {("revision", *row) for row in revision} | {mode}


def _databases(home: Path) -> list[Path]:
    return [home / "history" / "runs.db", home / "history" / "runs" / "index.db", home / "schedules" / "schedules.db"]


def test_a_lean_start_makes_the_same_databases_and_loads_the_rest_when_it_is_used(tmp_path: Path) -> None:
    new, known, old = (tmp_path / name for name in ("new", "known", "old"))
    for home in (new, known, old):
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    for home in (known, old):
        with opened(home):
            pass
    with closing(sqlite3.connect(_databases(old)[0])) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'f00d'")
    done = subprocess.run(
        [sys.executable, "-c", _LEAN, new, known, old], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert [_content(file) for file in _databases(new)] == [_content(file) for file in _databases(known)]


def test_the_file_of_a_run_is_what_dagster_would_have_made(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with opened(tmp_path) as instance:
        event = dg.EventLogEntry(None, 10, "text", "dagsters-own", 0.0)
        instance.store_event(event)
        with run_file(instance, "ours"):
            instance.store_event(event._replace(run_id="ours"))
            assert [each.user_message for each in instance.all_logs("ours")] == ["text"]
    folder = tmp_path / "history" / "runs"
    assert _content(folder / "ours.db") == _content(folder / "dagsters-own.db")
    assert not list(folder.glob("*-wal"))  # nothing is held open any more
