"""Adding partition keys: idempotent, whoever adds the same at the same time; and what a storage raises, in words."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import grpc
import pytest
import sqlalchemy.exc
import yaml
from click.testing import CliRunner

from edgepack_assets.cli.main import main
from edgepack_assets.defs import instance as dagster_home
from edgepack_assets.defs.instance import add_keys
from edgepack_assets.errors import EdgepackError
from edgepack_assets.partitions import PARTITIONS_NAME, ModelKey
from edgepack_assets_tests.defs.sensors.test_new_models import Plant as SensorPlant

KEYS = [ModelKey("press", version) for version in range(1, 31)]
ADDERS = 8


def keys_in(home: Path) -> list[str]:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return sorted(instance.get_dynamic_partitions(PARTITIONS_NAME))


def race(target: Callable[..., Any], home: Path, arguments: tuple[Any, ...] = ()) -> list[Any]:
    """The answers of processes that do the same at the same time."""
    context = multiprocessing.get_context("forkserver")
    # Imported once. With what all tests share: their writes to SQLite do not wait for the disk either.
    context.set_forkserver_preload(["edgepack_assets_tests.conftest", "edgepack_assets_tests.defs.test_instance"])
    barrier, answers = context.Barrier(ADDERS), context.Queue()
    processes = [context.Process(target=target, args=(home, barrier, answers, *arguments)) for _ in range(ADDERS)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=300) for _ in processes]
    for process in processes:
        process.join(60)
    return found


def _add_one_by_one(home: Path, barrier: Any, answers: Any) -> None:
    try:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            for key in KEYS:
                barrier.wait()
                add_keys(instance, [key])
            barrier.wait()
            add_keys(instance, [ModelKey("saw", key.version) for key in KEYS])
        answers.put("added")
    except BaseException as error:  # noqa: BLE001 - what the test is about
        answers.put(repr(error))


def _add_in_a_new_home(home: Path, barrier: Any, answers: Any) -> None:
    os.environ["DAGSTER_HOME"] = str(home)
    barrier.wait()
    try:
        dagster_home.add_partitions(KEYS)
        answers.put("added")
    except BaseException as error:  # noqa: BLE001 - what the test is about
        answers.put(repr(error))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return folder


@pytest.mark.long
def test_processes_that_add_the_same_keys_at_once_all_end_well(home: Path) -> None:
    keys_in(home)
    assert race(_add_one_by_one, home) == ["added"] * ADDERS
    assert keys_in(home) == sorted(f"{name}:{key.version}" for name in ("press", "saw") for key in KEYS)


@pytest.mark.long
def test_processes_that_make_a_new_home_at_once_all_end_well(home: Path) -> None:
    assert race(_add_in_a_new_home, home) == ["added"] * ADDERS
    assert keys_in(home) == sorted(map(str, KEYS))


# One race, step by step ----------------------------------------------------------------------------------


@pytest.fixture
def instance(home: Path, empty_storage: Path) -> Iterator[dg.DagsterInstance]:
    shutil.copytree(empty_storage, home, dirs_exist_ok=True)
    with dg.DagsterInstance.from_config(str(home)) as made:
        yield made


def overtaken(monkeypatch: pytest.MonkeyPatch, home: Path, by: list[list[str]]) -> None:
    """After the storage has looked which keys there are, and before it inserts, another process adds some, as it does
    in a race: the insert then fails by itself."""
    database = home / "history" / "runs" / "index.db"
    if not database.exists():
        [database] = home.rglob("index.db")
    storage = dg._core.storage.event_log.sql_event_log  # type: ignore[attr-defined]
    table = storage.DynamicPartitionsTable
    insert = type(table).insert

    def insert_after_another(this: Any) -> Any:
        if this is table and by:
            with sqlite3.connect(database) as other:
                rows = [(PARTITIONS_NAME, key) for key in by.pop(0)]
                other.executemany("INSERT INTO dynamic_partitions (partitions_def_name, partition) VALUES (?, ?)", rows)
        return insert(this)

    monkeypatch.setattr(type(table), "insert", insert_after_another)


def test_without_it_dagster_fails_the_one_who_comes_second(
    instance: dg.DagsterInstance, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this test fails, Dagster's own add has become idempotent, and add_keys can go."""
    overtaken(monkeypatch, home, [["press:1"]])
    with pytest.raises(sqlalchemy.exc.IntegrityError, match="UNIQUE constraint failed"):
        instance.add_dynamic_partitions(PARTITIONS_NAME, ["press:1", "press:2"])


@pytest.mark.parametrize("others", [
    [["press:1"]], [["press:30"]], [["press:1"], ["press:2"], ["press:3"], ["press:4"], ["press:5"]],
    [[str(key) for key in KEYS]],
])  # fmt: skip
def test_what_others_add_in_between_is_no_error(
    instance: dg.DagsterInstance, home: Path, monkeypatch: pytest.MonkeyPatch, others: list[list[str]]
) -> None:
    overtaken(monkeypatch, home, others)
    assert add_keys(instance, [*KEYS, KEYS[0]]) == KEYS
    assert others == []
    assert sorted(instance.get_dynamic_partitions(PARTITIONS_NAME)) == sorted(map(str, KEYS))
    assert add_keys(instance, KEYS) == []


def test_a_tick_is_overtaken_and_requests_its_runs_all_the_same(
    instance: dg.DagsterInstance, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = SensorPlant(tmp_path, instance)
    plant.add()
    plant.add()
    overtaken(monkeypatch, home, [["press:2"]])
    assert [request.partition_key for request in plant.tick()] == ["press:1", "press:2"]
    assert sorted(instance.get_dynamic_partitions(PARTITIONS_NAME)) == ["press:1", "press:2"]
    assert plant.tick() == []


def test_a_tick_whose_keys_cannot_be_added_loses_nothing(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = SensorPlant(tmp_path, instance)
    plant.add()
    with monkeypatch.context() as patched:
        patched.setattr(dg.DagsterInstance, "add_dynamic_partitions", _failing(RuntimeError("the database is gone")))
        with pytest.raises(RuntimeError, match="the database is gone"):
            plant.tick()
    assert plant.cursor is None
    assert [request.partition_key for request in plant.tick()] == ["press:1"]


# What a storage raises, at a command -----------------------------------------------------------------------


def _failing(error: Exception) -> Callable[..., Any]:
    def fail(*arguments: Any, **named: Any) -> Any:
        raise error

    return fail


ERRORS = [
    sqlalchemy.exc.OperationalError("SELECT secret", {}, Exception("database is locked")),
    sqlalchemy.exc.IntegrityError("INSERT", {}, Exception("UNIQUE constraint failed")),
    sqlalchemy.exc.OperationalError("x", {}, Exception("cannot reach postgresql://user:word@host/db")),
    dg.DagsterInvariantViolationError("a message\nof two lines"),
    grpc.RpcError("unavailable"),
    ModuleNotFoundError("No module named 'dagster_postgres'"),
    PermissionError(13, "Permission denied", "index.db"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(("command", "method"), [
    (["model", "add", "press_model", "model", "--force"], "from_config"),
    (["model", "add", "press_model", "model", "--force"], "add_dynamic_partitions"),
    (["sync"], "get_dynamic_partitions"),
    (["sync"], "add_dynamic_partitions"),
    (["sensors"], "from_config"),
    (["sensors"], "get_daemon_heartbeats"),
])  # fmt: skip
def test_whatever_dagster_raises_a_command_ends_with_a_sentence(  # noqa: PLR0917 - what is combined
    tmp_path: Path, home: Path, empty_storage: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], method: str,
    error: Exception,
) -> None:  # fmt: skip
    shutil.copytree(empty_storage, home, dirs_exist_ok=True)
    entry = {"implementation": "state_identifier", "model_name": "press_model", "package_name": "Press",
             "raw_data": {"name": "press_raw"}}  # fmt: skip
    (tmp_path / "edgepack.yaml").write_text(yaml.safe_dump({"model_types": {"press": entry}}))
    (tmp_path / "model").write_text("x")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    if command[0] != "model":
        with monkeypatch.context() as patched:
            patched.setattr(dagster_home, "add_partitions", lambda keys: [])
            assert CliRunner().invoke(main, ["model", "add", "press_model", "model", "--force"]).exit_code == 0
    monkeypatch.setattr(dg.DagsterInstance, method, _failing(error))
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 3
    assert isinstance(result.exception, SystemExit)
    [line] = result.stderr.splitlines()
    assert f"the Dagster instance in {home} cannot be used: {type(error).__name__}: " in line
    assert "SELECT" not in line
    assert "word" not in line
    if command[0] == "model":
        assert result.stdout == "press_model:1\n"
        assert "press_model:1 is registered, but its partition is not added; `edgepack sync` does that later" in line


def test_errors_of_ours_pass_as_they_are(home: Path) -> None:
    with pytest.raises(EdgepackError, match=r"^mine$"), dagster_home.opened(home):
        raise EdgepackError("mine")
