"""Kept environments: exactly the lock's wheels, built once whoever asks, never half of one."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from filelock import FileLock

from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments import compile_modules, subprocesses
from edgepack_assets.environments import environment as environments
from edgepack_assets.environments.environment import (
    Environment,
    environment_for,
    idle_environments,
    lock_of_environment,
    remove_environment,
)
from edgepack_assets.environments.interpreters import find_python
from edgepack_assets.environments.lock import Lock
from edgepack_assets.errors import CorruptError, EdgepackError, EnvironmentBuildError
from edgepack_assets.filesystem.atomic_files import sync_tree
from edgepack_assets_tests.crashes import full_disk, killed_at_each_step
from edgepack_assets_tests.environments.locks import locked
from edgepack_assets_tests.environments.wheels import Index, wheel

LIST = """
import importlib.metadata, json, sys
names = sorted(d.metadata['Name'] for d in importlib.metadata.distributions())
print(json.dumps([names, sys.prefix, '%d.%d' % sys.version_info[:2]]))
"""


@pytest.fixture
def settings(index: Index, tmp_path: Path) -> RuntimeSettings:
    return RuntimeSettings(environments=tmp_path / "environments", index_url=index.url, time_limit=60.0)


@pytest.fixture
def lock(store: ArtefactStore, settings: RuntimeSettings) -> Lock:
    return locked("app", wheel("app", "1.0", requires=["base"]), wheel("base", "2.0"), store=store, settings=settings)


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
    assert lock_of_environment(environment.folder) == lock
    # what wheels were unpacked into is gone, and nobody else has these files
    assert not (environment.folder / ".unpacked").exists()
    assert {file.lstat().st_nlink for file in environment.folder.rglob("*") if not file.is_dir()} == {1}


def test_a_process_that_is_killed_while_it_compiles_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tests/all.py", "app.py", "base.py", "template.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{{ name }} = 1" if name == "template.py" else "")
    monkeypatch.setattr(compile_modules.os, "sched_getaffinity", lambda pid: set(range(8)))
    assert compile_modules.main(str(tmp_path)) == 0
    assert {file.name.split(".")[0] for file in tmp_path.rglob("*.pyc")} == {"app", "base"}
    ours = os.getpid()

    def is_killed(files: list[str]) -> None:
        if os.getpid() != ours:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(compile_modules, "_compile", is_killed)
    assert compile_modules.main(str(tmp_path)) == compile_modules.KILLED


def test_building_runs_nothing_of_what_is_installed(
    store: ArtefactStore, settings: RuntimeSettings, tmp_path: Path
) -> None:
    """A line of a .pth file is run by any start of the environment's interpreter: a sandbox is to be around it."""
    harm = {"app.py": "", "app.pth": f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"}
    lock = locked("app", wheel("app", "1.0", files=harm), store=store, settings=settings)
    environment = environment_for(lock, store, settings)
    environment_for(lock, store, settings)
    assert not (tmp_path / "ran").exists()
    assert len(list(environment.folder.rglob("app.*.pyc"))) == 1
    assert held_by(environment) == ["app"]
    assert (tmp_path / "ran").exists()


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


@pytest.mark.parametrize("word", ["install", "compile_modules.py"])
def test_a_build_ends_with_its_process_and_the_next_one_removes_what_it_left(  # noqa: PLR0917 - fixtures
    word: str, lock: Lock, store: ArtefactStore, settings: RuntimeSettings, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """uv is stopped in the middle, as by a wheel that takes long, and the process that builds is killed then."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    stopping = tmp_path / "stopping.sh"
    # the command itself goes on, having told of the temporary folder that it uses, only after 600 s
    stopping.write_text(
        f'case "$* " in *"{word} "*) touch "${{TMPDIR:-/nowhere}}/.tmp-of-uv"; '
        f'echo $$ > {tmp_path}/pid; sleep 600;; esac\nexec "$@"\n'
    )
    monkeypatch.setattr(subprocesses, "_EXIT_WITH_PARENT", (*subprocesses._EXIT_WITH_PARENT, "/bin/sh", str(stopping)))
    child = os.fork()
    if child == 0:
        environment_for(lock, store, settings)
        os._exit(0)
    end = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while is_running(int((tmp_path / "pid").read_text())):
        assert time.monotonic() < end
        time.sleep(0.01)
    monkeypatch.setattr(subprocesses, "_EXIT_WITH_PARENT", subprocesses._EXIT_WITH_PARENT[:-2])
    assert not environment_for(lock, store, settings).kept
    assert list((tmp_path / "tmp").iterdir()) == []


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


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
    assert (again.kept, again.note) == (False, "its interpreter is gone")
    assert held_by(again) == ["app", "base"]


def test_a_damaged_wheel_is_refused_and_nothing_is_kept(
    lock: Lock, store: ArtefactStore, settings: RuntimeSettings
) -> None:
    blob = store.fetch(lock.packages[0].blob)
    blob.chmod(0o644)
    blob.write_bytes(b"another wheel")
    with pytest.raises(CorruptError, match=r"wheel app-1.0-py3-none-any.whl: .*bytes differ from their sha256"):
        environment_for(lock, store, settings)
    assert [path.suffix for path in settings.environments.iterdir()] == [".lock"]


def test_a_wheel_that_cannot_be_installed_is_told(store: ArtefactStore, settings: RuntimeSettings) -> None:
    name, data = wheel("broken", "1.0")
    # its bytes are those that the lock tells, but damaged inside
    lock = locked("broken", (name, data.replace(b"TAG", b"GAT", 1)), store=store, settings=settings)
    with pytest.raises(EnvironmentBuildError, match=r"(?s)environment cannot be built in .*broken"):
        environment_for(lock, store, settings)
    assert [path.suffix for path in settings.environments.iterdir()] == [".lock"]


def test_a_build_that_takes_too_long_is_stopped(lock: Lock, store: ArtefactStore, settings: RuntimeSettings) -> None:
    hurried = settings.model_copy(update={"time_limit": 0.001})
    with pytest.raises(EnvironmentBuildError, match=r"building the component's environment took longer than 0.001 s"):
        environment_for(lock, store, hurried)


@pytest.mark.parametrize(("room", "told"), [(10, "cannot be"), (50_000, "cannot be built in .*")])
def test_a_disk_that_is_full_is_told_and_leaves_nothing(
    store: ArtefactStore, settings: RuntimeSettings, room: int, told: str
) -> None:
    big = wheel("big", "1.0", files={"big.py": "# " + "x" * 100_000})
    lock = locked("big", big, store=store, settings=settings)
    with full_disk(room), pytest.raises(EdgepackError, match=told):
        environment_for(lock, store, settings)
    assert [path.suffix for path in settings.environments.iterdir()] == [".lock"]
    assert held_by(environment_for(lock, store, settings)) == ["big"]


# Ones that nobody uses ---------------------------------------------------------------------------------

DAY = 24 * 3600.0


def unused_since(folder: Path, seconds: float) -> None:
    """As if nobody had used it since: in particular, not held by this process."""
    os.close(environments._held.pop(folder))
    used = (folder / "edgepack-lock.json").stat().st_mtime - seconds
    os.utime(folder / "edgepack-lock.json", (used, used))


def test_one_is_idle_when_it_was_not_used_for_long(lock: Lock, store: ArtefactStore, settings: RuntimeSettings) -> None:
    folder = environment_for(lock, store, settings).folder
    unused_since(folder, 2 * DAY)
    assert idle_environments(settings.environments, 3 * DAY) == []
    [idle] = idle_environments(settings.environments, DAY)
    assert idle.folder == folder
    assert idle.size > 1000
    assert environment_for(lock, store, settings).kept  # which marks it as used, and holds it
    assert idle_environments(settings.environments, DAY) == []
    assert idle_environments(settings.environments, -1) == []
    assert not remove_environment(idle)
    unused_since(folder, 0)
    assert not remove_environment(idle)
    assert environment_for(lock, store, settings).kept


def test_an_idle_one_is_removed_and_built_again(lock: Lock, store: ArtefactStore, settings: RuntimeSettings) -> None:
    folder = environment_for(lock, store, settings).folder
    unused_since(folder, 2 * DAY)
    [idle] = idle_environments(settings.environments, DAY)
    assert remove_environment(idle)
    assert not folder.exists()
    assert not remove_environment(idle)
    again = environment_for(lock, store, settings)
    assert (again.kept, again.note) == (False, "")
    assert held_by(again) == ["app", "base"]


def _holds(lock: Lock, store: ArtefactStore, settings: RuntimeSettings, ready: Event, done: Event) -> None:
    environment_for(lock, store, settings)
    ready.set()
    done.wait()


def test_one_that_another_process_uses_is_not_removed_however_old(
    lock: Lock, store: ArtefactStore, settings: RuntimeSettings
) -> None:
    folder = environment_for(lock, store, settings).folder
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    run = context.Process(target=_holds, args=(lock, store, settings, ready, done))
    run.start()
    assert ready.wait(60)
    unused_since(folder, 2 * DAY)
    assert idle_environments(settings.environments, DAY) == []
    run.kill()
    run.join()
    [idle] = idle_environments(settings.environments, DAY)
    with FileLock(f"{folder}.lock"):  # somebody builds it anew
        assert not remove_environment(idle)
    assert remove_environment(idle)


def test_a_build_that_a_crash_cut_off_is_idle_and_what_else_lies_there_is_not_ours(
    lock: Lock, store: ArtefactStore, settings: RuntimeSettings
) -> None:
    folder = environment_for(lock, store, settings).folder
    (folder / "edgepack-lock.json").unlink()
    (settings.environments / "somebody-else-s" / "work").mkdir(parents=True)
    (settings.environments / "notes.txt").touch()
    os.close(environments._held.pop(folder))
    os.utime(folder, (0, 0))
    [idle] = idle_environments(settings.environments, DAY)
    assert idle.folder == folder
    assert remove_environment(idle)
    assert {path.name for path in settings.environments.iterdir()} == {
        f"{folder.name}.lock", "somebody-else-s", "notes.txt",
    }  # fmt: skip


def test_removing_is_killed_at_any_step_and_nothing_is_in_the_way(
    lock: Lock, store: ArtefactStore, settings: RuntimeSettings
) -> None:
    folder = environment_for(lock, store, settings).folder
    unused_since(folder, 2 * DAY)
    steps = 0
    for _ in killed_at_each_step(lambda step: [remove_environment(i) for i in idle_environments(folder.parent, DAY)]):
        steps += 1
        if steps == 9:  # well among the files
            break
        again = environment_for(lock, store, settings)
        assert held_by(again) == ["app", "base"]
        assert not again.note
        unused_since(folder, 2 * DAY)
    assert steps == 9


# Integrity ---------------------------------------------------------------------------------------------


def _append(file: Path) -> None:
    file.chmod(0o644)
    file.write_text("evil = 1\n")


def _replace_unseen(file: Path) -> None:
    """As long as before, with the times it had."""
    before = file.stat()
    text = file.read_bytes()
    file.unlink()
    file.write_bytes(text.replace(b"TAG", b"GAT"))
    file.chmod(before.st_mode)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _add(file: Path) -> None:
    file.with_name("sitecustomize.py").touch()


@pytest.mark.parametrize("tamper", [_append, _replace_unseen, _add, Path.unlink])
def test_an_environment_that_was_changed_is_noticed_and_built_anew(
    lock: Lock, store: ArtefactStore, settings: RuntimeSettings, tamper: Callable[[Path], object]
) -> None:
    folder = environment_for(lock, store, settings).folder
    [file] = folder.rglob("app.py")
    text = file.read_text()
    assert file.stat().st_mode & 0o222 == 0
    tamper(file)
    again = environment_for(lock, store, settings)
    assert (again.kept, again.note) == (False, "its files were changed after it was built")
    assert file.read_text() == text
    assert list(folder.rglob("sitecustomize.py")) == []
    assert environment_for(lock, store, settings).kept


def test_one_that_is_being_built_anew_is_waited_for(
    lock: Lock, store: ArtefactStore, settings: RuntimeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our reading the marker and looking at the files another process has begun to delete them."""
    environment_for(lock, store, settings)
    state = environments._state

    def gone(folder: Path) -> str:
        monkeypatch.setattr(environments, "_state", state)
        raise FileNotFoundError(folder)

    monkeypatch.setattr(environments, "_state", gone)
    assert environment_for(lock, store, settings).kept


def test_a_marker_of_another_lock_or_none_that_can_be_read_serves_nothing(
    lock: Lock, store: ArtefactStore, settings: RuntimeSettings
) -> None:
    other_lock = locked("other", wheel("other", "1.0"), store=store, settings=settings)
    other = environment_for(other_lock, store, settings).folder
    folder = environment_for(lock, store, settings).folder
    (folder / "edgepack-lock.json").write_bytes((other / "edgepack-lock.json").read_bytes())
    assert environment_for(lock, store, settings).note == "it was built from another lock"
    (folder / "edgepack-lock.json").write_bytes(b"\0" * 100)
    assert lock_of_environment(folder) is None
    assert not environment_for(lock, store, settings).kept


def test_files_are_on_the_disk_before_the_marker_is(
    lock: Lock, store: ArtefactStore, settings: RuntimeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[tuple[bool, bool]] = []

    def look(folder: Path) -> None:
        sync_tree(folder)
        held.append((any(folder.rglob("app.*.pyc")), (folder / "edgepack-lock.json").exists()))

    monkeypatch.setattr(environments, "sync_tree", look)
    environment_for(lock, store, settings)
    assert held == [(True, False)]


def test_an_environment_can_be_deleted_as_any_folder(
    lock: Lock, store: ArtefactStore, settings: RuntimeSettings
) -> None:
    folder = environment_for(lock, store, settings).folder
    assert all(path.stat().st_mode & 0o200 for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())
    subprocess.run(["rm", "-r", "-f", folder], check=True)
    assert not folder.exists()


def test_a_folder_that_cannot_be_made_is_named(lock: Lock, store: ArtefactStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EdgepackError, match=r"/file/environments/.* cannot be written: Not a directory"):
        environment_for(lock, store, RuntimeSettings(environments=tmp_path / "file" / "environments"))
