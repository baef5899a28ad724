"""Kept environments: one virtual environment per lock and interpreter, built once, compiled, then only read.

An environment holds exactly the wheels of its lock: no index, no pip, nothing from the host.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from edgepack_assets.artefacts import ArtefactStore, canonical_json
from edgepack_assets.config import RuntimeSettings
from edgepack_assets.errors import EnvironmentBuildError
from edgepack_assets.runtime.lock import Lock, fetch_wheels
from edgepack_assets.runtime.pythons import find_python
from edgepack_assets.runtime.uv import uv_command, uv_environment

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

    Raises EnvironmentBuildError if there is no such Python or a wheel cannot be installed.
    """
    _, interpreter = find_python(lock.python, settings.pythons)
    identity = hashlib.sha256(canonical_json([lock.digest, str(interpreter.resolve())])).hexdigest()
    folder = settings.environments / f"{lock.key}-{identity[:16]}"
    python = folder / "bin" / "python"
    if (folder / _READY).is_file():
        return Environment(folder, python, lock, kept=True)
    settings.environments.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if (folder / _READY).is_file():
            return Environment(folder, python, lock, kept=True)
        _build(folder, interpreter, lock, store, settings)
    return Environment(folder, python, lock, kept=False)


def _build(folder: Path, interpreter: Path, lock: Lock, store: ArtefactStore, settings: RuntimeSettings) -> None:
    # Left over by a crash: the marker is written last, so without it the folder is nobody's.
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="edgepack-wheels-") as work:
        wheels, pins = Path(work) / "wheels", Path(work) / "requirements.txt"
        fetch_wheels(lock, store, wheels)
        pins.write_text(lock.as_requirements(hashes=True), encoding="utf-8")
        _uv(settings, "venv", "--quiet", "--no-project", "--python", str(interpreter), str(folder))
        if lock.packages:
            _uv(settings, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), "--offline",
                "--no-cache", "--no-index", "--find-links", str(wheels), "--no-deps", "--no-build",
                "--require-hashes", "--compile-bytecode", "--link-mode", "copy", "--requirement", str(pins))
    (folder / _READY).write_text(lock.model_dump_json(indent=1), encoding="utf-8")


def _uv(settings: RuntimeSettings, *arguments: str) -> None:
    done = subprocess.run(uv_command(*arguments), capture_output=True, text=True, env=uv_environment(),
                          timeout=settings.time_limit, check=False)
    if done.returncode != 0:
        raise EnvironmentBuildError(f"the component's environment cannot be built:\n{done.stderr.strip()}")
