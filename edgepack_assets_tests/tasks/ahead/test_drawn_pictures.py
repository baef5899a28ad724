"""Pictures that are drawn before they are wanted: taken only as what would be drawn, and nobody's failure."""

from __future__ import annotations

import errno
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.errors import EdgepackError
from edgepack_assets.model_types.interface import Answered, Results
from edgepack_assets.model_types.plugin import Plugin
from edgepack_assets.packaging.component_runs import PackageRun
from edgepack_assets.partitions import ModelKey
from edgepack_assets.tasks import pictures
from edgepack_assets.tasks.ahead import drawn_pictures
from edgepack_assets.tasks.ahead.built_package import BuiltAhead
from edgepack_assets.tasks.ahead.drawn_pictures import DrawnAhead, Picture
from edgepack_assets.tasks.ahead.kept_run import ComparedRun
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.pictures import comparison_picture, draw_ahead, results_picture
from edgepack_assets_tests.tasks.plant import Plant

LARGE = b"x" * (1 << 20)
"""More than a pipe holds."""
KEY = ModelKey("press", 1)


@pytest.fixture
def ahead() -> Iterator[DrawnAhead]:
    """Leaves no process and no open file, whatever became of it."""
    before, ahead = open_files(), DrawnAhead()
    yield ahead
    ahead.close()
    ahead.close()
    assert open_files() == before


def open_files() -> set[str]:
    return {file.name for file in Path("/proc/self/fd").iterdir()}


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def fail() -> bytes:
    raise KeyError("no colours")


def stuck() -> bytes:
    time.sleep(600)
    return b""


def test_each_picture_is_taken_once_for_its_inputs_and_in_any_order(ahead: DrawnAhead) -> None:
    assert ahead.take("first") is None
    ahead.start([("first", lambda: LARGE), ("nothing", lambda: None), ("last", lambda: b"%d" % os.getpid())])
    assert ahead.take("another") is None
    last = ahead.take("last")
    assert last is not None and last.png not in {None, b"%d" % os.getpid()}
    assert ahead.take("first") == Picture(LARGE)
    assert ahead.take("nothing") == Picture(None)
    assert ahead.take("first") is None
    ahead.start([("first", lambda: b"again")])  # a step that is tried again
    assert ahead.take("first") == Picture(b"again")


@pytest.mark.parametrize(
    "broken",
    [fail, lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os._exit(0), lambda: "no bytes", stuck],
    ids=["raises", "is killed", "ends", "draws no bytes", "is stuck"],
)  # fmt: skip
def test_what_is_not_drawn_is_left_to_the_step(
    broken: Callable[[], bytes], ahead: DrawnAhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawn_pictures, "LONGEST", 1.0 if broken is stuck else 60.0)
    ahead.start([("first", lambda: b"first"), ("broken", broken), ("last", lambda: b"last")])
    process = ahead._process
    assert process is not None
    assert ahead.take("first") == Picture(b"first")
    assert ahead.take("last") is None
    assert ahead.take("broken") is None
    assert not is_there(process)


def test_a_run_that_ends_before_ends_it_and_it_keeps_nothing_of_the_run_open(ahead: DrawnAhead) -> None:
    reader, writer = os.pipe()
    ahead.start([("never", stuck)])
    process = ahead._process
    os.close(writer)
    try:
        assert os.read(reader, 1) == b""  # the last end of it: the process has none
    finally:
        os.close(reader)
    ahead.close()
    assert process is not None and not is_there(process)


def test_it_writes_to_no_log_of_the_run(ahead: DrawnAhead, tmp_path: Path) -> None:
    logger, handler = logging.getLogger("of the run"), logging.FileHandler(tmp_path / "log")
    logger.addHandler(handler)

    def draw() -> bytes:
        logger.critical("this would go into Dagster's database")
        return b"drawn"

    try:
        ahead.start([("it", draw)])
        assert ahead.take("it") == Picture(b"drawn")
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert not (tmp_path / "log").read_text()


def test_it_ends_with_the_run_that_is_killed() -> None:
    reader, writer = os.pipe()
    run = os.fork()
    if run == 0:
        try:
            ahead = DrawnAhead()
            ahead.start([("begun", lambda: b"begun"), ("never", stuck)])
            ahead.take("begun")
            os.write(writer, b"%d" % (ahead._process or 0))
            time.sleep(600)
        finally:
            os._exit(1)
    os.close(writer)
    try:
        process = int(os.read(reader, 20))
    finally:
        os.close(reader)
        os.kill(run, signal.SIGKILL)
        os.waitpid(run, 0)
    until = time.monotonic() + 60
    while is_there(process) and "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]:
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("refused", ["fork", "pipe"])
def test_a_machine_that_has_no_room_for_it_is_told(
    refused: str, ahead: DrawnAhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> int:
        raise OSError(errno.EAGAIN, "no more")

    with monkeypatch.context() as patched:
        patched.setattr(os, refused, none)
        with pytest.raises(EdgepackError):
            ahead.start([("it", lambda: b"drawn")])
    assert ahead.take("it") is None


# what a run draws -----------------------------------------------------------------------------------


@pytest.fixture
def run(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[TaskContext, Artefact, Artefact]]:
    """A validated config package whose run is kept, and its payload. Pictures say who drew them."""

    def drawn(*_: object) -> bytes:
        return b"%d" % os.getpid()

    monkeypatch.setattr(Plugin, "results_picture", drawn)
    monkeypatch.setattr(Plugin, "comparison_picture", drawn)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("edgepack_assets.tasks.ahead.background_imports.finish", lambda: None)
    validated, context = plant.validated(1), plant.task_context()
    (plant.folder / "registry").mkdir(exist_ok=True)
    config_package, payload_data = validated.config_package, validated.payload_data
    files = [plant.folder / name for name in ("results", "times")]
    for file in files:
        file.write_bytes(context.store.read_bytes(validated.validation_results.parts["results"]))
    before = Answered("before", Results(context.store.fetch(validated.validation_results.parts["results"])), {"a": 1})
    kept = ComparedRun(payload_data.parts["records"].digest, PackageRun(files[0], files[1], 4, 4, {}), before)
    context.kept_run.keep(config_package, kept, context.log)
    yield context, config_package, payload_data
    context.kept_run.close()
    context.drawn_ahead.close()
    context.built_ahead.close(lambda: None)


def answers(context: TaskContext, config_package: Artefact, payload_data: Artefact) -> tuple[Answered, Answered]:
    kept = context.kept_run.look(config_package, payload_data)
    assert kept is not None and kept.before is not None
    inspection = context.store.read_json(config_package.parts["inspection"])
    return kept.before, Answered(str(KEY), Results(kept.run.results), inspection)


def test_both_pictures_are_drawn_by_another_process(run: tuple[TaskContext, Artefact, Artefact]) -> None:
    context, config_package, payload_data = run
    before, now = answers(*run)
    assert now.inspection is not None
    draw_ahead(KEY, config_package, payload_data, context)
    first = results_picture(KEY, payload_data, now.results, now.inspection, context)
    assert first != b"%d" % os.getpid()
    assert comparison_picture(KEY, payload_data, before, now, context) == first
    assert comparison_picture(KEY, payload_data, before, now, context) == b"%d" % os.getpid()


@pytest.mark.parametrize("other", ["key", "name", "results", "inspection", "payload"])
def test_a_picture_of_anything_else_is_drawn_anew(
    other: str, run: tuple[TaskContext, Artefact, Artefact], tmp_path: Path
) -> None:
    context, config_package, payload_data = run
    before, now = answers(*run)
    draw_ahead(KEY, config_package, payload_data, context)
    key = ModelKey("press", 2) if other == "key" else KEY
    name = "another" if other == "name" else before.name
    results, inspection = before.results, {"a": 2 if other == "inspection" else 1}
    if other == "results":
        (tmp_path / "results").write_bytes(before.results.path.read_bytes() + b"\0")
        results = Results(tmp_path / "results")
    if other == "payload":
        sources = {"sources": context.store.put_bytes(b"others", "x")}
        payload_data = payload_data.model_copy(update={"parts": {**payload_data.parts, **sources}})
    other_before = Answered(name, results, inspection)
    assert comparison_picture(key, payload_data, other_before, now, context) == b"%d" % os.getpid()


@pytest.mark.parametrize("why", ["one processor", "another run", "a plug-in's", "no run", "no fork", "no inspection"])
def test_nothing_is_drawn_ahead_where_that_is_no_use_or_fails(
    why: str, run: tuple[TaskContext, Artefact, Artefact], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    context, config_package, payload_data = run
    _, now = answers(*run)
    assert now.inspection is not None
    if why == "one processor":
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    elif why == "another run":
        other = BuiltAhead()
        request.addfinalizer(lambda: other.close(lambda: None))
        assert other.has_turn(context.settings.registry.path)  # type: ignore[union-attr]
    elif why == "a plug-in's":
        monkeypatch.setattr(pictures, "_OURS", tmp_path)
    elif why == "no run":
        context.kept_run.close()
    elif why == "no fork":
        monkeypatch.setattr(os, "fork", fail_to_fork)
    else:
        missing = config_package.parts["inspection"].model_copy(update={"digest": "0" * 64})
        config_package = config_package.model_copy(update={"parts": {**config_package.parts, "inspection": missing}})
    draw_ahead(KEY, config_package, payload_data, context)
    assert context.drawn_ahead._process is None
    if why != "no run":
        assert results_picture(KEY, payload_data, now.results, now.inspection, context) == b"%d" % os.getpid()


def fail_to_fork() -> int:
    raise OSError(errno.EAGAIN, "no more processes")
