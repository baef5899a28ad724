"""Kept environments: one virtual environment per lock and interpreter, built once, compiled, then only read.

An environment holds exactly the wheels of its lock: no index, no pip, nothing from the host.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from edgepack_assets.artefact_store import ArtefactStore
from edgepack_assets.artefacts import canonical_json
from edgepack_assets.errors import EnvironmentBuildError
from edgepack_assets.files import disk_errors, writing
from edgepack_assets.runtime.commands import run_command, shown
from edgepack_assets.runtime.lock import Lock, fetch_wheels
from edgepack_assets.runtime.pythons import find_python
from edgepack_assets.runtime.uv import uv_command, uv_environment
from edgepack_assets.settings import RuntimeSettings

_READY = "edgepack-lock.json"


@dataclass(frozen=True)
class Environment:
    """A ready environment: its folder, its interpreter, the lock it was built from, whether it was kept."""

    folder: Path
    python: Path
    lock: Lock
    kept: bool


def environment_for(lock: Lock, store: ArtefactStore, settings: RuntimeSettings) -> Environment:
    """The environment of a lock, built if it is not there yet. Safe from several processes at once.

    Raises EnvironmentBuildError if there is no such Python or a wheel cannot be installed, CorruptError if a
    wheel is gone or damaged.
    """
    _, interpreter = find_python(lock.python, settings.pythons)
    folder = settings.environments / f"{lock.key}-{_identity(lock, interpreter)[:16]}"
    environment = Environment(folder, folder / "bin" / "python", lock, kept=True)
    if _is_ready(environment):
        return environment
    with disk_errors(folder):
        settings.environments.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if _is_ready(environment):
                return environment
            _build(environment, interpreter, store, settings)
    return replace(environment, kept=False)


def _identity(lock: Lock, interpreter: Path) -> str:
    # An interpreter that was replaced under its path gets environments of its own: those of the old one may be in
    # use, and what is compiled against it need not run.
    told = interpreter.stat()
    which = [str(interpreter), told.st_size, told.st_mtime_ns]
    return hashlib.sha256(canonical_json([lock.digest, which])).hexdigest()


def _is_ready(environment: Environment) -> bool:
    # its interpreter is a link to the machine's, which may be gone
    return (environment.folder / _READY).is_file() and environment.python.exists()


def _build(environment: Environment, interpreter: Path, store: ArtefactStore, settings: RuntimeSettings) -> None:
    folder, lock = environment.folder, environment.lock
    if folder.exists():
        shutil.rmtree(folder)  # left by a crash: the marker is written last, so without it the folder is nobody's
    try:
        with tempfile.TemporaryDirectory(prefix="edgepack-wheels-") as work:
            wheels, pins = Path(work) / "wheels", Path(work) / "requirements.txt"
            fetch_wheels(lock, store, wheels)
            pins.write_text(lock.as_requirements(hashes=True), encoding="utf-8")
            _uv(settings, "venv", "--quiet", "--no-project", "--python", str(interpreter), str(folder))
            if lock.packages:
                _uv(
                    settings, "pip", "install", "--quiet", "--python", str(environment.python), "--offline",
                    "--no-cache", "--no-index", "--find-links", str(wheels), "--no-deps", "--no-build",
                    "--require-hashes", "--compile-bytecode", "--link-mode", "copy", "--requirement", str(pins),
                )  # fmt: skip
        with writing(folder / _READY) as stream:
            stream.write(lock.model_dump_json(indent=1).encode())
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # what remains is cleared by the next build
        raise


def _uv(settings: RuntimeSettings, *arguments: str) -> None:
    done = run_command(
        uv_command(*arguments), "building the component's environment", settings.time_limit, uv_environment()
    )
    if done.returncode != 0:
        raise EnvironmentBuildError(f"the component's environment cannot be built:\n{shown(done.stderr)}")
