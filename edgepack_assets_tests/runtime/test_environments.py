"""Kept environments: exactly the lock's wheels, built once whoever asks, never half of one."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgepack_assets.artefact_store import ArtefactStore
from edgepack_assets.errors import CorruptError, EdgepackError, EnvironmentBuildError
from edgepack_assets.runtime import environments
from edgepack_assets.runtime.environments import Environment, environment_for
from edgepack_assets.runtime.lock import Lock, lock_for
from edgepack_assets.runtime.pythons import find_python
from edgepack_assets.settings import RuntimeSettings
from edgepack_assets_tests.crashes import full_disk, killed_at_each_step
from edgepack_assets_tests.runtime.wheels import Index, wheel

LIST = """
import importlib.metadata, json, sys
names = sorted(d.metadata['Name'] for d in importlib.metadata.distributions())
print(json.dumps([names, sys.prefix, '%d.%d' % sys.version_info[:2]]))
"""


@pytest.fixture
def settings(index: Index, tmp_path: Path) -> RuntimeSettings:
    return RuntimeSettings(environments=tmp_path / "environments", index_url=index.url, time_limit=60.0)


@pytest.fixture
def lock(index: Index, store: ArtefactStore, settings: RuntimeSettings) -> Lock:
    index.add(wheel("app", "1.0", requires=["base"]), wheel("base", "2.0"))
    return lock_for(["app"], find_python(None)[0], store, settings)[0]


def held_by(environment: Environment) -> list[str]:
    told = subprocess.run([environment.python, "-I", "-c", LIST], capture_output=True, text=True, check=True)
    names, prefix, version = json.loads(told.stdout)
    assert (prefix, version) == (str(environment.folder), environment.lock.python)
    return [str(name) for name in names]


def test_it_holds_exactly_the_lock_s_packages_compiled(
    lock: Lock, store: ArtefactStore, settings: RuntimeSettings, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(settings.environments.parent))
    monkeypatch.setenv("UV_SYSTEM_PYTHON", "1")
    monkeypatch.setenv("VIRTUAL_ENV", "/nowhere")
    index.stop()
    environment = environment_for(lock, store, settings)
    assert not environment.kept
    assert held_by(environment) == ["app", "base"]
    assert len(list(environment.folder.rglob("app.*.pyc"))) == 1
    assert environment.folder.name.startswith(f"{lock.key}-")
    assert Lock.model_validate_json((environment.folder / "edgepack-lock.json").read_bytes()) == lock


def test_it_is_kept_and_asks_nobody(lock: Lock, store: ArtefactStore, settings: RuntimeSettings) -> None:
    first = environment_for(lock, store, settings)
    shutil.rmtree(store.root_url)
    again = environment_for(lock, store, settings)
    assert again.kept
    assert (again.folder, again.python) == (first.folder, first.python)


def test_what_a_crash_left_is_built_anew(lock: Lock, store: ArtefactStore, settings: RuntimeSettings) -> None:
    folder = environment_for(lock, store, settings).folder
    (folder / "edgepack-lock.json").unlink()
    (folder / "lib" / "half").write_text("written")
    environment = environment_for(lock, store, settings)
    assert not environment.kept
    assert not (folder / "lib" / "half").exists()
    assert held_by(environment) == ["app", "base"]


def test_a_build_that_is_killed_at_any_step_leaves_nothing_in_the_way(
    environment: Environment, store: ArtefactStore, tmp_path: Path
) -> None:
    settings = RuntimeSettings(environments=tmp_path / "killed", time_limit=60.0)
    lock, steps = environment.lock, 0
    for _ in killed_at_each_step(lambda step: environment_for(lock, store, settings)):
        steps += 1
        assert held_by(environment_for(lock, store, settings)) == []  # from what the killed one left
        shutil.rmtree(settings.environments)
    assert steps > 3


def _build_in_a_process(
    lock: Lock, store: ArtefactStore, settings: RuntimeSettings, kept: multiprocessing.Queue[bool]
) -> None:
    kept.put(environment_for(lock, store, settings).kept)


def test_two_processes_build_it_once(lock: Lock, store: ArtefactStore, settings: RuntimeSettings) -> None:
    context = multiprocessing.get_context("spawn")
    kept = context.Queue()
    processes = [context.Process(target=_build_in_a_process, args=(lock, store, settings, kept)) for _ in range(3)]
    for process in processes:
        process.start()
    assert sorted(kept.get(timeout=60) for _ in processes) == [False, True, True]
    for process in processes:
        process.join()


def test_an_interpreter_that_is_replaced_gets_an_environment_of_its_own(
    environment: Environment, store: ArtefactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "interpreter"
    shutil.copy2(find_python(None)[1], copy)
    monkeypatch.setattr(environments, "find_python", lambda *_: (environment.lock.python, copy))
    monkeypatch.setattr(environments, "_build", lambda built, *_: built.folder.mkdir())
    settings = RuntimeSettings(environments=tmp_path / "environments")
    before = environment_for(environment.lock, store, settings).folder
    os.utime(copy, (1, 1))
    after = environment_for(environment.lock, store, settings).folder
    assert before != after
    assert before.is_dir()


def test_a_kept_environment_whose_interpreter_is_gone_is_built_anew(
    lock: Lock, store: ArtefactStore, settings: RuntimeSettings
) -> None:
    environment = environment_for(lock, store, settings)
    environment.python.unlink()
    environment.python.symlink_to("/nowhere/python3")
    again = environment_for(lock, store, settings)
    assert not again.kept
    assert held_by(again) == ["app", "base"]


def test_a_damaged_wheel_is_refused_and_nothing_is_kept(
    lock: Lock, store: ArtefactStore, settings: RuntimeSettings
) -> None:
    blob = store.fetch(lock.packages[0].blob)
    blob.chmod(0o644)
    blob.write_bytes(b"another wheel")
    with pytest.raises(CorruptError, match="bytes differ from their sha256"):
        environment_for(lock, store, settings)
    assert [path.suffix for path in settings.environments.iterdir()] == [".lock"]


def test_a_wheel_that_cannot_be_installed_is_told(
    index: Index, store: ArtefactStore, settings: RuntimeSettings
) -> None:
    name, data = wheel("broken", "1.0")
    index.add((name, data.replace(b"TAG", b"GAT", 1)))  # its bytes are those that the index tells, but damaged inside
    lock, _ = lock_for(["broken"], find_python(None)[0], store, settings)
    with pytest.raises(EnvironmentBuildError, match=r"(?s)environment cannot be built:.*broken"):
        environment_for(lock, store, settings)
    assert [path.suffix for path in settings.environments.iterdir()] == [".lock"]


def test_a_build_that_takes_too_long_is_stopped(lock: Lock, store: ArtefactStore, settings: RuntimeSettings) -> None:
    hurried = settings.model_copy(update={"time_limit": 0.001})
    with pytest.raises(EnvironmentBuildError, match=r"building the component's environment took longer than 0.001 s"):
        environment_for(lock, store, hurried)


def test_a_disk_that_is_full_is_told(lock: Lock, store: ArtefactStore, settings: RuntimeSettings) -> None:
    with full_disk(10), pytest.raises(EdgepackError):
        environment_for(lock, store, settings)
    assert not environment_for(lock, store, settings).kept


def test_a_folder_that_cannot_be_made_is_named(lock: Lock, store: ArtefactStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EdgepackError, match=r"/file/environments/.* cannot be written: Not a directory"):
        environment_for(lock, store, RuntimeSettings(environments=tmp_path / "file" / "environments"))
