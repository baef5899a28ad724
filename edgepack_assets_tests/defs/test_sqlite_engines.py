"""Shared database engines: Dagster's storages use them, and nothing of a database stays in them."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sqlite3
import threading
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool, StaticPool

from edgepack_assets.defs import sqlite_engines
from edgepack_assets.defs.resources import edgepack_resource
from edgepack_assets.defs.sqlite_engines import kept_open, share_engines

CONFIG = """\
registry: {path: registry}
model_types:
  press: {implementation: state_identifier, model_name: press, package_name: Press, raw_data: {name: raw}}
"""
STORAGES = (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage)


def test_dagster_s_storages_make_engines_in_the_way_that_is_replaced() -> None:
    share_engines()
    share_engines()  # once more changes nothing
    assert all(module.create_engine is sqlite_engines._shared for module in STORAGES)  # type: ignore[attr-defined]


def test_an_engine_serves_all_threads_and_a_database_that_was_made_anew(tmp_path: Path) -> None:
    share_engines()
    for number in range(2):  # in the same place as before
        (tmp_path / "home").mkdir()
        with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
            partitions = [f"key-{number}-{thread}" for thread in range(8)]
            threads = [
                threading.Thread(target=instance.add_dynamic_partitions, args=("models", [partition]))
                for partition in partitions
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(instance.get_dynamic_partitions("models")) == partitions
            assert instance.has_dynamic_partition("models", partitions[0])
        shutil.rmtree(tmp_path / "home")


def test_only_an_engine_that_keeps_no_connection_is_shared(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/some.db"
    engine = sqlite_engines._shared(url, poolclass=NullPool, connect_args={"timeout": 9})
    assert engine is sqlite_engines._shared(url, poolclass=NullPool, connect_args={"timeout": 9})
    assert engine is not sqlite_engines._shared(url, poolclass=NullPool, connect_args={"timeout": 8})
    assert engine is not sqlite_engines._shared(url, poolclass=NullPool)
    kept = [sqlite_engines._shared(url, poolclass=StaticPool) for _ in range(2)]
    assert kept[0] is not kept[1]
    other = create_engine(url, poolclass=NullPool)
    assert type(engine) is type(other)
    assert engine.url == other.url


def test_a_run_keeps_its_databases_open_and_leaves_none(tmp_path: Path) -> None:
    share_engines()
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        index = tmp_path / "history" / "runs" / "index.db"
        log = index.with_name("index.db-wal")
        instance.add_dynamic_partitions("models", ["before"])
        assert not log.exists()
        with kept_open(), kept_open():  # a run inside of the process that makes several
            instance.add_dynamic_partitions("models", ["within"])
            assert log.stat().st_size
            assert instance.has_dynamic_partition("models", "within")
        assert not log.exists()
        assert instance.has_dynamic_partition("models", "within")
        assert not [link for link in os.scandir("/proc/self/fd") if os.path.realpath(link).startswith(str(index))]


def test_another_thread_may_end_the_block_while_a_connection_is_made(tmp_path: Path) -> None:
    block = kept_open()

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            found = super().execute(sql, *parameters)
            if sql == "PRAGMA journal_mode":
                block.__exit__(None, None, None)
            return found

    connection = sqlite3.connect(tmp_path / "index.db", factory=Connection)
    connection.executescript("PRAGMA journal_mode=WAL; CREATE TABLE found (name)")
    block.__enter__()
    sqlite_engines._connected(connection, None)
    connection.close()
    assert not (tmp_path / "index.db-wal").exists()  # nothing keeps it open


def test_a_sensor_that_has_the_resource_of_runs_changes_nothing_for_the_code_server(tmp_path: Path) -> None:
    (tmp_path / "edgepack.yaml").write_text(CONFIG)
    frozen = gc.get_freeze_count()
    with dg.build_resources({"edgepack": edgepack_resource(tmp_path / "edgepack.yaml")}) as resources:
        assert resources.edgepack.settings.model_types.keys() == {"press"}
        assert sqlite_engines._open is None
    assert gc.get_freeze_count() <= frozen  # fewer, where what was frozen before is gone


def test_a_process_that_is_killed_loses_no_event(tmp_path: Path) -> None:
    share_engines()
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.add_dynamic_partitions("models", ["before"])
    child = os.fork()
    if child == 0:
        with dg.DagsterInstance.local_temp(str(tmp_path)) as instance, kept_open():
            for number in range(20):
                instance.add_dynamic_partitions("models", [f"within-{number}"])
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert len(instance.get_dynamic_partitions("models")) == 21
