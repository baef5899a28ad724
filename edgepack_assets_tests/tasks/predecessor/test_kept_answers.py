"""The answers of a registered package that no run in the store has recorded: it is run once."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.environments.lock import LOCKS, Lock
from edgepack_assets.errors import ComponentError, PackageError
from edgepack_assets.operations.garbage import find_garbage
from edgepack_assets.packaging.component_runs import PackageRun
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind, RegisteredVersion
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.predecessor import answers as module
from edgepack_assets.tasks.predecessor.answers import answers_to
from edgepack_assets.tasks.predecessor.find import Predecessor
from edgepack_assets.tasks.predecessor.kept_answers import KIND
from edgepack_assets_tests.tasks.predecessor.test_kept_numbers import STATES, Plant

KEY = ModelKey("press", 9)


class Runs:
    """Stands in for the sandbox: each run writes these answers and is counted."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.answers = 0, list(STATES)
        self.fails = False
        self._folder = folder
        monkeypatch.setattr(module, "run_registered", self._run)

    @contextmanager
    def _run(self, *_: Any) -> Iterator[PackageRun]:
        self.count += 1
        if self.fails:
            raise ComponentError("it fails")
        file = self._folder / "results"
        lines = (json.dumps({"record": i, "outputs": {"prediction": a}}) for i, a in enumerate(self.answers))
        file.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0))
        yield PackageRun(file, file, len(self.answers), len(self.answers), {})
        file.unlink()


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(tmp_path, monkeypatch)


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    return Plant(tmp_path)


def package(plant: Plant, content: bytes = b"PK", python: str = "3.11") -> RegisteredVersion:
    lock = Lock(key="a" * 64, python=python, platform="x86_64-manylinux_2_31", requirements=(), packages=())
    store = plant.context().store
    numbers = {"3.11": "", "3.12": ".2"}
    store.put_named(LOCKS, f"{lock.key}{numbers[python]}", lock.model_dump(mode="json"))
    file = plant.folder / "package.zip"
    file.write_bytes(content)
    return plant.registry.register(
        Kind.MODEL, "Press-edge", file, {"lock_key": lock.key, "lock_digest": lock.digest, "model_version": "1"}
    )


def payload(plant: Plant, raw: str = "1") -> Artefact:
    _, made, _ = plant.ran(9, STATES, {}, {}, raw)
    return made


def ask(payload_data: Artefact, registered: RegisteredVersion, context: TaskContext) -> Sequence[Any]:
    with answers_to(payload_data, Predecessor(registered, 1), KEY, context) as results:
        return [answer.outputs["prediction"] for answer in results.answers()]


def test_it_is_run_once_for_each_package_lock_and_payload(plant: Plant, runs: Runs) -> None:
    one, data = package(plant), payload(plant)
    for _ in range(3):  # steps of a run, and later runs
        assert ask(data, one, plant.context()) == STATES
    assert runs.count == 1
    runs.answers = [5, *STATES[1:]]
    assert ask(payload(plant, raw="2"), one, plant.context()) == runs.answers
    assert ask(data, package(plant, b"PK other"), plant.context()) == runs.answers
    assert ask(data, package(plant, python="3.12"), plant.context()) == runs.answers
    assert runs.count == 4
    assert ask(data, one, plant.context()) == STATES


@pytest.mark.parametrize("damage", ["blob", "gone", "document"])
def test_kept_answers_that_are_damaged_are_made_again(plant: Plant, runs: Runs, damage: str) -> None:
    one, data, store = package(plant), payload(plant), plant.context().store
    ask(data, one, plant.context())
    (document,) = (plant.folder / "artefacts" / KIND).iterdir()
    ((_, value),) = store.named(KIND).items()
    (blob,) = (plant.folder / "artefacts" / "blobs").rglob(value["outputs"]["results"]["digest"])
    if damage == "document":
        document.write_text('{"outputs": {"other": 1}}')
    else:
        blob.chmod(0o600)
        blob.write_bytes(gzip.compress(b'{"record": 0, "outputs": {"prediction": 7}}\n'))
    if damage == "gone":
        blob.unlink()
    assert ask(data, one, plant.context()) == STATES
    assert runs.count == 2


def test_a_run_that_fails_keeps_nothing(plant: Plant, runs: Runs) -> None:
    one, data = package(plant), payload(plant)
    runs.fails = True
    for _ in range(2):
        with pytest.raises(ComponentError):
            ask(data, one, plant.context())
    runs.fails = False
    assert ask(data, one, plant.context()) == STATES
    assert runs.count == 3


def test_answers_do_not_stand_in_for_a_lock_that_is_gone(plant: Plant, runs: Runs) -> None:
    """What cannot be run any more is said, whatever is kept."""
    one, data = package(plant), payload(plant)
    ask(data, one, plant.context())
    for file in (plant.folder / "artefacts" / LOCKS).iterdir():
        file.unlink()
    with pytest.raises(PackageError, match=r"its lock .* is not in the artefact store"):
        ask(data, one, plant.context())


def test_gc_keeps_them_while_they_are_used(plant: Plant, runs: Runs) -> None:
    one, data, context = package(plant), payload(plant), plant.context()
    ask(data, one, context)
    (value,) = context.store.named(KIND).values()
    digest = value["outputs"]["results"]["digest"]

    def garbage(grace: float) -> set[str]:
        found = find_garbage(context.store, plant.registry, plant.folder / "none", grace)
        return {Path(file.path).parent.name if KIND in file.path else Path(file.path).name for file in found}

    assert not {KIND, digest} & garbage(3600)
    assert {KIND, digest} <= garbage(-1)
