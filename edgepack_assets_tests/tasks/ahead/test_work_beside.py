"""Work in a fork, ahead of the step that needs it: what comes of it, and that nothing is left of it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments.interpreters import find_python
from edgepack_assets.environments.lock import generation_for
from edgepack_assets.errors import ModelError
from edgepack_assets.model_types.interface import ModelSource
from edgepack_assets.packaging.worker import PackagingWorker
from edgepack_assets.partitions import ModelKey
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets.tasks.ahead.work_beside import WorkBeside
from edgepack_assets.tasks.context import MadeAhead, TaskContext
from edgepack_assets.tasks.start_environment import start_environment_ahead
from edgepack_assets_tests.environments.plain import plain_settings, store

__all__ = ["plain_settings", "store"]

LOG = logging.getLogger(__name__)
KEY = ModelKey("press", 1)


@pytest.fixture
def beside() -> Iterator[WorkBeside[Any]]:
    work: WorkBeside[Any] = WorkBeside()
    yield work
    work.close()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_result_and_what_was_said_come_from_another_process(
    beside: WorkBeside[Any], caplog: pytest.LogCaptureFixture
) -> None:
    def work(log: Any) -> int:
        log.info("half of it is done")
        return os.getpid()

    beside.start("inputs", work)
    with caplog.at_level(logging.INFO):
        pid = beside.take("inputs", LOG)
    assert pid not in (None, os.getpid())
    assert caplog.messages == ["half of it is done"]
    assert not Path(f"/proc/{pid}").exists()
    assert beside.take("inputs", LOG) is None, "it may be taken once"


def test_a_result_of_other_inputs_is_not_taken(beside: WorkBeside[Any]) -> None:
    beside.start("inputs", lambda log: 1)
    assert beside.take("others", LOG) is None
    assert beside.take("inputs", LOG) == 1


def fails(log: Any) -> None:
    raise ModelError("it holds no model file")


def is_killed(log: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def gives_what_cannot_cross(log: Any) -> Any:
    return lambda: None


@pytest.mark.parametrize("work", [fails, is_killed, gives_what_cannot_cross])
def test_work_that_fails_is_left_to_the_step(
    beside: WorkBeside[Any], work: Callable[[Any], Any], tmp_path: Path
) -> None:
    beside.start("inputs", work, tmp_path / "log")
    assert beside.take("inputs", LOG) is None


def test_work_that_is_not_wanted_any_more_tidies_up_and_ends(beside: WorkBeside[Any], tmp_path: Path) -> None:
    half = tmp_path / "half"

    def work(log: Any) -> None:
        half.write_text(str(os.getpid()))
        try:
            time.sleep(600)
        finally:
            half.unlink()

    beside.start("inputs", work)
    wait_until(half.exists)
    beside.close()
    assert not half.exists()
    beside.close()


def test_work_that_does_not_let_itself_be_interrupted_is_killed(
    beside: WorkBeside[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgepack_assets.tasks.ahead.work_beside._GRACE", 0.1)
    begun = tmp_path / "begun"

    def work(log: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        begun.with_suffix(".new").write_text(str(os.getpid()))
        begun.with_suffix(".new").rename(begun)
        time.sleep(600)

    beside.start("inputs", work)
    wait_until(begun.exists)
    beside.close()
    assert not Path("/proc", begun.read_text()).exists()


OWNER = """
import os, sys, time
from pathlib import Path
from edgepack_assets.tasks.ahead.work_beside import WorkBeside
def work(log):
    Path(sys.argv[1]).write_text(str(os.getpid()))
    print("begun", flush=True)
    time.sleep(600)
beside = WorkBeside()
beside.start(1, work)
time.sleep(600)
"""


def test_it_ends_with_an_owner_that_is_killed(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", OWNER, str(pid)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "begun\n"
        owner.kill()
    wait_until(lambda: not Path("/proc", pid.read_text()).exists())


@dataclass
class Context(TaskContext):
    """Of a model whose files say `source`, or cannot be read."""

    source: ModelSource | Exception = field(default_factory=lambda: ModelSource({}, {}, (), None))

    def entry(self, key: ModelKey) -> Any:
        """A model type without settings."""
        return SimpleNamespace(model_name="press", python_version=None)

    def model_type(self, key: ModelKey) -> Any:
        """A plug-in that reads that source."""

        def read_model(*_: object) -> ModelSource:
            if isinstance(self.source, Exception):
                raise self.source
            return self.source

        return SimpleNamespace(read_model=read_model)


@pytest.fixture
def context(plain_settings: RuntimeSettings, store: ArtefactStore, tmp_path: Path) -> Iterator[Context]:
    settings: Any = SimpleNamespace(
        runtime=plain_settings.model_copy(update={"environments": tmp_path / "environments"})
    )
    registry: Any = SimpleNamespace(get=lambda *_: "press:1", view=lambda model, path: path)
    made = Context(settings, registry, store, Sandbox(settings.runtime), PackagingWorker(), LOG)
    yield made
    made.environment_ahead.close()


def taken(context: Context) -> MadeAhead | None:
    start_environment_ahead(KEY, context)
    return context.environment_ahead.take(KEY, LOG)


def test_the_lock_and_the_environment_are_there_for_the_step(context: Context) -> None:
    made = taken(context)
    assert context.environments == {}, "the step looks the environment over itself"
    runtime = context.settings.runtime
    generation, lock_was_kept = generation_for([], find_python(None)[0], context.store, runtime)
    environment = context.environment(generation.lock)
    assert (lock_was_kept, environment.kept) == (True, True)
    assert made == MadeAhead(generation.lock.digest, lock_was_kept=False, environment_was_kept=False)
    assert taken(context) == MadeAhead(generation.lock.digest, lock_was_kept=True, environment_was_kept=True)


@pytest.mark.parametrize(
    "source",
    [
        ModelError("it holds no model file"),
        ModelSource({}, {}, (), None, packaged_requirements=("onnxruntime",)),
        ModelSource({}, {}, (), None, conversion=object()),  # type: ignore[arg-type]
    ],
)
def test_what_more_than_the_model_decides_about_is_left_to_the_step(
    context: Context, source: ModelSource | Exception
) -> None:
    context.source = source
    assert taken(context) is None
    assert not context.settings.runtime.environments.exists()
