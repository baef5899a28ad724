"""Finding an interpreter of the version that a component runs on."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from edgepack_assets.config import EDGE_PYTHONS
from edgepack_assets.errors import EnvironmentBuildError
from edgepack_assets.runtime.uv import uv_command, uv_environment


def find_python(version: str | None, configured: Mapping[str, Path] | None = None) -> tuple[str, Path]:
    """(version, interpreter) for `version`, or for the first of 3.11 and 3.12 that this machine has.

    `configured` is `runtime.pythons` of edgepack.yaml and is looked at first. Raises EnvironmentBuildError.
    """
    configured = configured or {}
    if version is not None and version not in EDGE_PYTHONS:
        raise EnvironmentBuildError(
            f"Python {version} does not run on the edge, which has {' and '.join(EDGE_PYTHONS)}: save the model "
            "with one of these, or set python_version in edgepack.yaml if it loads there too"
        )
    for candidate in (version,) if version else EDGE_PYTHONS:
        interpreter = _configured(candidate, configured) or _search(candidate)
        if interpreter is not None:
            return candidate, interpreter
    wanted = version or " or ".join(EDGE_PYTHONS)
    raise EnvironmentBuildError(
        f"no Python {wanted} on this machine: install it (e.g. `uv python install {version or EDGE_PYTHONS[0]}`), "
        "or name its interpreter under runtime.pythons in edgepack.yaml"
    )


def _configured(version: str, configured: Mapping[str, Path]) -> Path | None:
    path = configured.get(version)
    if path is None:
        return None
    told = subprocess.run(
        [str(path), "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True, text=True, timeout=60, check=False,
    )
    if told.stdout.strip() != version:
        raise EnvironmentBuildError(f"runtime.pythons names {path} for Python {version}, but it is "
                                    f"{told.stdout.strip() or 'no Python interpreter'}")
    return path


@cache
def _search(version: str) -> Path | None:
    found = subprocess.run(
        uv_command("python", "find", "--system", "--no-python-downloads", "--no-project", version),
        capture_output=True, text=True, env=uv_environment(), timeout=120, check=False,
    )
    if found.returncode == 0:
        return Path(found.stdout.strip())
    # uv does not look into pyenv's versions when their shims are not active
    for path in sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python")):
        return path
    return None
