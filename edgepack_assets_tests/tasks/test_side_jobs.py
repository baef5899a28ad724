"""Jobs with an environment of their own: done once for the same bytes, in real children that may refuse or die."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.errors import ComponentError, ModelError
from edgepack_assets.model_types.conversion import SideJob
from edgepack_assets.operations.garbage import find_garbage
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.side_jobs import KIND, SideJobRunner, tree_digest
from edgepack_assets_tests.tasks.side import KEY, context

CODE = """
import os, pathlib

class Unfit(ValueError):
    is_for_user = True

def shout(arguments):
    text = pathlib.Path(arguments["text"]).read_text()
    pathlib.Path(arguments["loud"]).write_text(text.upper())
    return {"length": len(text), "child": os.urandom(8).hex()}

def refuse(arguments):
    raise Unfit("it is not to be converted")

def break_(arguments):
    return {}["key"]

def die(arguments):
    os._exit(9)

def write_nothing(arguments):
    return 1
"""


@pytest.fixture
def job(tmp_path: Path) -> SideJob:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "helper.py").write_text("x = 1\n")
    (tmp_path / "child.py").write_text(CODE)
    (tmp_path / "text").write_text("quiet")
    return SideJob(
        (), tmp_path / "folder", tmp_path / "child.py", "shout", {"a": 1}, {"text": tmp_path / "text"}, ("loud",)
    )


@pytest.fixture
def tools(tmp_path: Path, plain_settings: RuntimeSettings) -> Iterator[TaskContext]:
    found = context(tmp_path, plain_settings.environments)
    with found.sandbox:
        yield found


def runner(tools: TaskContext, folder: Path) -> SideJobRunner:
    work = folder / os.urandom(4).hex()
    work.mkdir()
    return SideJobRunner(KEY, tools, work)


def test_the_same_job_is_done_once_and_what_it_gave_is_kept(tools: TaskContext, job: SideJob, tmp_path: Path) -> None:
    first = runner(tools, tmp_path).run("shouting", job)
    assert (first.kept, first.returned["length"], first.outputs["loud"].read_text()) == (False, 5, "QUIET")
    again = runner(tools, tmp_path).run("shouting", job)
    assert (again.kept, again.returned, again.outputs["loud"].read_text()) == (True, first.returned, "QUIET")


def test_whatever_the_job_depends_on_makes_it_another_one(tools: TaskContext, job: SideJob, tmp_path: Path) -> None:
    def is_kept(other: SideJob) -> bool:
        return runner(tools, tmp_path).run("shouting", other).kept

    assert not is_kept(job)
    assert not is_kept(replace(job, arguments={"a": 2}))
    (tmp_path / "other").write_text("quiet")
    assert not is_kept(replace(job, inputs={"text": tmp_path / "other"}))  # another name: libraries go by suffixes
    (tmp_path / "text").write_text("other")
    assert not is_kept(job)
    (tmp_path / "folder" / "helper.py").write_text("x = 2\n")
    assert not is_kept(job)
    (tmp_path / "child.py").write_text(CODE + "# another version\n")
    assert not is_kept(job)
    assert is_kept(job)


def test_what_was_lost_is_made_again(tools: TaskContext, job: SideJob, tmp_path: Path) -> None:
    runner(tools, tmp_path).run("shouting", job)
    for blob in (tmp_path / "artefacts" / "blobs").rglob("*"):
        if blob.is_file() and blob.read_bytes() == b"QUIET":
            blob.unlink()
    again = runner(tools, tmp_path).run("shouting", job)
    assert (again.kept, again.outputs["loud"].read_text()) == (False, "QUIET")
    assert runner(tools, tmp_path).run("shouting", job).kept


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("refuse", (ModelError, "shouting failed: it is not to be converted")),
        ("break_", (ModelError, "shouting failed: 'key'")),
        ("die", (ComponentError, "shouting")),
        ("write_nothing", (ComponentError, "loud")),
    ],
)
def test_a_job_that_fails_leaves_nothing_behind(
    tools: TaskContext, job: SideJob, tmp_path: Path, function: str, expected: tuple[type[Exception], str]
) -> None:
    with pytest.raises(expected[0], match=expected[1]):
        runner(tools, tmp_path).run("shouting", replace(job, function=function))
    assert tools.store.named(KIND) == {}


def _run(folder: Path, environments: Path, job: SideJob, returned: multiprocessing.Queue[bool], number: int) -> None:
    tools = context(folder / f"process-{number}", environments)
    tools.store = type(tools.store)(str(folder / "artefacts"), folder / f"cache-{number}")
    with tools.sandbox:
        returned.put(runner(tools, folder).run("shouting", job).kept)


def test_of_two_processes_one_does_the_job(
    tools: TaskContext, job: SideJob, tmp_path: Path, plain_settings: RuntimeSettings
) -> None:
    tools.environment(runner(tools, tmp_path)._lock(()))  # built before: not what is tried here
    method = multiprocessing.get_context("spawn")
    returned: multiprocessing.Queue[bool] = method.Queue()
    for number in range(2):
        (tmp_path / f"process-{number}").mkdir()
    processes = [
        method.Process(target=_run, args=(tmp_path, plain_settings.environments, job, returned, number))
        for number in range(2)
    ]
    for process in processes:
        process.start()
    assert sorted(returned.get(timeout=120) for _ in processes) == [False, True]
    for process in processes:
        process.join()


def test_garbage_collection_spares_what_a_job_gave_lately(tools: TaskContext, job: SideJob, tmp_path: Path) -> None:
    runner(tools, tmp_path).run("shouting", job)
    environments = tmp_path / "none"

    def garbage(grace: float) -> list[str]:
        return [file.path for file in find_garbage(tools.store, tools.registry, environments, grace)]

    assert garbage(3600) == []
    old = garbage(-1)
    assert any(f"/{KIND}/" in path for path in old)
    assert any("/blobs/" in path for path in old)


def test_the_digest_of_a_tree_holds_names_and_bytes(tmp_path: Path) -> None:
    for name, files in {"a": {"x": b"1"}, "b": {"y": b"1"}, "c": {"x": b"2"}, "d": {"x": b"1"}}.items():
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_bytes(content)
    a, b, c, d = (tree_digest(tmp_path / name) for name in "abcd")
    assert a == d
    assert len({a, b, c}) == 3
