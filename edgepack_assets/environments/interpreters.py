"""Finding an interpreter of the version that a component runs on."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgepack_assets.config.schema import EDGE_PYTHONS, EdgePython
from edgepack_assets.environments.subprocesses import run_command
from edgepack_assets.environments.uv import uv_command, uv_environment
from edgepack_assets.errors import EnvironmentBuildError

_TIME_LIMIT = 60.0
# Prints the file behind a shim of pyenv or a venv's link, which changes when the interpreter is replaced.
_PROBE = """
import os, sys
print(sys.implementation.name, '%d.%d' % sys.version_info[:2])
print(os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable))
"""
_found: dict[str, Path] = {}
"""Version -> interpreter. Only those found are kept: others may be installed while this process runs."""


def find_python(version: str | None, configured: Mapping[EdgePython, Path] | None = None) -> tuple[str, Path]:
    """(version, interpreter) for `version`, or for the first of 3.11 and 3.12 that this machine has.

    `configured` is `runtime.pythons` of edgepack.yaml and is looked at first. Raises EnvironmentBuildError.
    """
    if version is not None and version not in EDGE_PYTHONS:
        raise EnvironmentBuildError(
            f"Python {version} does not run on the edge, which has {' and '.join(EDGE_PYTHONS)}: save the model "
            "with one of these, or set python_version in edgepack.yaml if it loads there too"
        )
    named = {str(known): path for known, path in (configured or {}).items()}
    for candidate in (version,) if version else EDGE_PYTHONS:
        interpreter = _configured(candidate, named[candidate]) if candidate in named else _search(candidate)
        if interpreter is not None:
            return candidate, interpreter
    wanted = version or " or ".join(EDGE_PYTHONS)
    raise EnvironmentBuildError(
        f"no Python {wanted} on this machine: install it (e.g. `uv python install {version or EDGE_PYTHONS[0]}`), "
        "or name its interpreter under runtime.pythons in edgepack.yaml"
    )


def _configured(version: str, path: Path) -> Path:
    actual, interpreter = _probe(path)
    if actual != version or interpreter is None:
        raise EnvironmentBuildError(f"runtime.pythons names {path} for Python {version}, but it is {actual}")
    return interpreter


def _search(version: str) -> Path | None:
    known = _found.get(version)
    if known is not None and known.is_file():
        return known
    for candidate in _candidates(version):
        actual, interpreter = _probe(candidate)
        if actual == version and interpreter is not None:
            _found[version] = interpreter
            return interpreter
    return None


def _candidates(version: str) -> Iterator[Path]:
    """Where an interpreter may be, the quickest places first."""
    if "{}.{}".format(*sys.version_info[:2]) == version and sys.executable:
        yield Path(sys.executable)
    on_path = shutil.which(f"python{version}")
    if on_path:
        yield Path(on_path)
    # pyenv's versions, whose shims work only where they are switched on; the newest first
    pyenv = Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"))  # noqa: PTH111 - with no home at all
    yield from sorted((pyenv / "versions").glob(f"{version}.*/bin/python"), key=_numbers, reverse=True)
    # uv knows the interpreters that it installed itself, and more places
    done = run_command(
        uv_command("python", "find", "--system", "--no-python-downloads", "--no-project", version),
        f"looking for Python {version} with `uv python find`", _TIME_LIMIT, uv_environment(),
    )  # fmt: skip
    if done.returncode == 0:
        yield Path(done.stdout.strip())


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.parts[-3])]


def _probe(path: Path) -> tuple[str, Path | None]:
    """(`3.x`, the interpreter that `path` leads to), or (a description of what it is instead, None)."""
    try:
        done = run_command(
            [str(path), "-I", "-c", _PROBE], f"asking {path} for its version", _TIME_LIMIT, uv_environment()
        )
    except EnvironmentBuildError as error:
        return f"no interpreter that works ({error})", None
    lines = done.stdout.splitlines()
    if done.returncode != 0 or len(lines) != 2:
        return "no Python interpreter", None
    implementation, _, version = lines[0].partition(" ")
    return (version, Path(lines[1])) if implementation == "cpython" else (f"{implementation} {version}", None)
