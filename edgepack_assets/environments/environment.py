"""Kept environments: one virtual environment per lock and interpreter, built once, compiled, then only read.

An environment holds exactly the wheels of its lock: no index, no pip, nothing from the host. Its files are made
read-only and synced before the marker that says it is ready; the marker tells their sizes and times, so that one in
which anything changed since is not served but built anew. Its folders stay writable: `rm -r` must work.

Who uses one marks it as used and holds its folder, by a shared lock, until the process ends; one that nobody holds and
that was not used for long may be removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from edgepack_assets.artefacts.artefact import canonical_json
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments.compile_modules import KILLED
from edgepack_assets.environments.interpreters import find_python
from edgepack_assets.environments.lock import Lock, fetch_wheels
from edgepack_assets.environments.subprocesses import ran_out, run_command, shown
from edgepack_assets.environments.uv import uv_command, uv_environment
from edgepack_assets.errors import EnvironmentBuildError, TransientError
from edgepack_assets.filesystem.atomic_files import disk_errors, sync_tree, writing
from edgepack_assets.filesystem.temp_folders import scratch_folder
from edgepack_assets.text_format import counted, format_size

_COMPILE = Path(__file__).with_name("compile_modules.py")
"""Run by the interpreter of an environment."""
_READY = "edgepack-lock.json"
_UNPACKED = ".unpacked"
"""uv unpacks wheels into this folder of a new environment, and gives the files a second name where they belong: written
once, and never removed, only their first names are. A file system without hard links costs a copy."""
_held: dict[Path, int] = {}
"""Folder -> the descriptor by which this process holds it."""


@dataclass(frozen=True)
class Environment:
    """A ready environment: its folder, its interpreter, the lock it was built from, whether it was kept. `note` says
    why one that was there could not be kept."""

    folder: Path
    python: Path
    lock: Lock
    kept: bool
    note: str = ""


@dataclass(frozen=True)
class IdleEnvironment:
    """An environment that nobody uses: its folder, its bytes, and when it was last used (seconds since the epoch)."""

    folder: Path
    size: int
    used: float


class _Marker(BaseModel):
    """The marker file of a ready environment: its lock, and the `_state` of its files when it was built."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    lock: Lock
    state: str


def environment_for(
    lock: Lock, store: ArtefactStore, settings: RuntimeSettings, tell: Callable[[str], object] = lambda _: None
) -> Environment:
    """The environment of a lock, built if it is not there yet. Safe from several processes at once. `tell` gets a line
    before it is built, or another process's work is waited for.

    Raises EnvironmentBuildError if there is no such Python or a wheel cannot be installed, CorruptError if a
    wheel is gone or damaged.
    """
    environment, interpreter = _place(lock, settings)
    folder = environment.folder
    with disk_errors(folder):
        _hold(folder)
        if _fault(environment) is None:
            return environment
        settings.environments.mkdir(parents=True, exist_ok=True)
        size = format_size(sum(package.size for package in lock.packages))
        tell(f"building the environment {folder.name}: {counted(len(lock.packages), 'package')}, {size}")
        with FileLock(f"{folder}.lock"):
            fault = _fault(environment)
            if fault is None:
                return environment
            _build(environment, interpreter, store, settings)
            _hold(folder)
    return replace(environment, kept=False, note=fault)


def kept_environment(lock: Lock, settings: RuntimeSettings) -> Environment | None:
    """The environment of a lock, if it is ready; it is not built. Raises EdgepackError."""
    environment, _ = _place(lock, settings)
    with disk_errors(environment.folder, "read"):
        _hold(environment.folder)
        return environment if _fault(environment) is None else None


def _place(lock: Lock, settings: RuntimeSettings) -> tuple[Environment, Path]:
    """Where the environment of a lock is, or will be, and the interpreter that it is for."""
    _, interpreter = find_python(lock.python, settings.pythons)
    folder = settings.environments / f"{lock.key}-{_identity(lock, interpreter)[:16]}"
    return Environment(folder, folder / "bin" / "python", lock, kept=True), interpreter


def lock_of_environment(folder: Path) -> Lock | None:
    """The lock of the kept environment in `folder`, None where there is none that is ready. Raises EdgepackError."""
    with disk_errors(folder, "read"):
        marker = _read_marker(folder)
    return marker.lock if marker else None


def idle_environments(environments: Path, seconds: float) -> list[IdleEnvironment]:
    """Environments in that folder that were not used for so many seconds: ready ones, and unfinished ones that a crash
    left. Other files there are ignored. Raises EdgepackError."""
    newest = time.time() - seconds
    idle = []
    with disk_errors(environments, "listed"):
        for folder in sorted(environments.iterdir()) if environments.is_dir() else ():
            used = _last_used(folder)
            if used is not None and used <= newest and not _is_in_use(folder):
                idle.append(IdleEnvironment(folder, _size(folder), used))
    return idle


def remove_environment(idle: IdleEnvironment) -> bool:
    """Remove an environment, unless it is in use, was used since, or is being built. Raises EdgepackError."""
    with disk_errors(idle.folder, "removed"), _alone(idle.folder) as alone:
        if not alone or _last_used(idle.folder) != idle.used:
            return False
        (idle.folder / _READY).unlink(
            missing_ok=True
        )  # first: without it the rest is no environment, should this crash
        shutil.rmtree(idle.folder)
    return True


def _last_used(folder: Path) -> float | None:
    """When an environment was last used, or begun if it never got ready; None if the folder is none."""
    try:
        return (folder / _READY).stat().st_mtime
    except NotADirectoryError:
        return None
    except FileNotFoundError:
        # a build begins with a lock file beside the folder
        begun = folder.is_dir() and Path(f"{folder}.lock").is_file()
        return folder.stat().st_mtime if begun else None


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether nobody uses or builds the environment, which holds until the block ends."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(FileLock(f"{folder}.lock", timeout=0))
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            stack.callback(os.close, held)
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (Timeout, FileNotFoundError, BlockingIOError):
            yield False
        else:
            yield True


def _is_in_use(folder: Path) -> bool:
    with _alone(folder) as alone:
        return not alone


def _hold(folder: Path) -> None:
    """Mark an environment as used and hold it until this process ends. If another process is removing it, wait for
    that; if it does not exist, or not any more, nothing is held."""
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return
    before = _held.pop(folder, None)
    if before is not None:
        os.close(before)
    _held[folder] = held
    # A share may know no locks, and of another user's folder only the owner sets times: then it may be removed too
    # early, which costs the next run a build.
    with contextlib.suppress(OSError):
        fcntl.flock(held, fcntl.LOCK_SH)
    with contextlib.suppress(OSError):
        os.utime(folder / _READY)


def _identity(lock: Lock, interpreter: Path) -> str:
    # An interpreter that was replaced at its path gets new environments: those of the old one may be in use, and
    # packages that were compiled against it may not run with the new one.
    status = interpreter.stat()
    identity = [str(interpreter), status.st_size, status.st_mtime_ns]
    return hashlib.sha256(canonical_json([lock.digest, identity])).hexdigest()


def _fault(environment: Environment) -> str | None:
    """None if the environment can be served; else why not, "" if it was never ready."""
    marker = _read_marker(environment.folder)
    if marker is None:
        return ""
    # its interpreter is a link to the machine's, which may be gone
    if not environment.python.exists():
        return "its interpreter is gone"
    if marker.lock.digest != environment.lock.digest:
        return "it was built from another lock"
    try:
        same = marker.state == _state(environment.folder)
    except FileNotFoundError:  # another process is building it again right now
        same = False
    return None if same else "its files were changed after it was built"


def _read_marker(folder: Path) -> _Marker | None:
    try:
        return _Marker.model_validate_json((folder / _READY).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def _state(folder: Path) -> str:
    """Digest over name, size, mode and times of every file. The kernel sets the time of the last change (ctime): it
    shows any later write, rename or chmod, whatever times a program gave the file afterwards."""
    files, folders = [], [str(folder)]
    marker = str(folder / _READY)
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.path != marker:
                    status = entry.stat(follow_symlinks=False)
                    files.append((entry.path, status.st_size, status.st_mode, status.st_mtime_ns, status.st_ctime_ns))
    files.sort()
    return hashlib.sha256(repr(files).encode(errors="surrogateescape")).hexdigest()


def _make_read_only(folder: Path) -> None:
    """Nobody writes to the files, and anybody may read them: model code is another user's where we are root."""
    for top, _, files in os.walk(folder):
        os.chmod(top, 0o755)  # noqa: PTH101, S103 - what lies there is published wheels
        for name in files:
            path = os.path.join(top, name)  # noqa: PTH118 - ten thousand files
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode):
                os.chmod(path, 0o555 if mode & stat.S_IXUSR else 0o444)  # noqa: PTH101


def _build(environment: Environment, interpreter: Path, store: ArtefactStore, settings: RuntimeSettings) -> None:
    folder, lock = environment.folder, environment.lock
    if folder.exists():
        shutil.rmtree(folder)  # left by a crash: the marker is written last, so without it the folder is nobody's
    try:
        with scratch_folder() as work:
            wheels, pins = work / "wheels", work / "requirements.txt"
            fetch_wheels(lock, store, wheels)
            pins.write_text(lock.as_requirements(hashes=True), encoding="utf-8")
            _uv(folder, settings, work, "venv", "--quiet", "--no-project", "--python", str(interpreter), str(folder))
            if lock.packages:
                _uv(
                    folder, settings, work, "pip", "install", "--quiet", "--python", str(environment.python),
                    "--offline", "--cache-dir", str(folder / _UNPACKED), "--no-index", "--find-links", str(wheels),
                    "--no-deps", "--no-build", "--require-hashes", "--no-compile-bytecode", "--link-mode", "hardlink",
                    "--requirement", str(pins),
                )  # fmt: skip
                shutil.rmtree(folder / _UNPACKED)
                _compile(folder, interpreter, settings, work)
        _make_read_only(folder)
        sync_tree(folder)  # a marker that outlives a power failure must not outlive the files
        marker = _Marker(lock=lock, state=_state(folder))
        with writing(folder / _READY) as stream:
            stream.write(marker.model_dump_json(indent=1).encode())
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # what remains is cleared by the next build
        raise


def _compile(folder: Path, interpreter: Path, settings: RuntimeSettings, work: Path) -> None:
    """Compile what was installed: importing scikit-learn takes three times as long without.

    By the machine's interpreter and without `site`, not by the environment's, as uv would: that one runs what
    packages have put into .pth files, and what a model asks for runs nowhere but in a sandbox.
    """
    done = run_command(
        [str(interpreter), "-I", "-S", str(_COMPILE), str(folder / "lib")],
        "compiling the component's environment", settings.time_limit, uv_environment(work),
    )  # fmt: skip
    if done.returncode != 0:
        kind = TransientError if ran_out(done) or done.returncode == KILLED else EnvironmentBuildError
        raise kind(f"the modules in {folder} cannot be compiled:\n{shown(done.stderr)}")


def _uv(folder: Path, settings: RuntimeSettings, work: Path, *arguments: str) -> None:
    done = run_command(
        uv_command(*arguments), "building the component's environment", settings.time_limit, uv_environment(work)
    )
    if done.returncode != 0:
        ended = f" (ended by signal {-done.returncode})" if done.returncode < 0 else ""
        kind = TransientError if ran_out(done) else EnvironmentBuildError
        raise kind(f"the component's environment cannot be built in {folder}{ended}:\n{shown(done.stderr)}")
