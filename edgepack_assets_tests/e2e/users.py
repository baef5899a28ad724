"""An environment as a user has it who installs another distribution beside this project, and its commands."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from edgepack_assets.environments.uv import uv_command, uv_environment

EDGEPACK = ("-c", "from edgepack_assets.cli.main import main; main()")


def environment_with(source: Path, folder: Path) -> Path:
    """The interpreter of an environment in `folder` with this project and, installed by uv, the project `source`."""

    def uv(*arguments: str) -> None:
        done = subprocess.run(
            uv_command(*arguments), env=uv_environment(), capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr

    uv("venv", "--quiet", f"--python={sys.executable}", str(folder))
    interpreter = folder / "bin/python"
    [site] = (folder / "lib").glob("python*/site-packages")
    # what this project needs is not installed a second time
    (site / "project.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    uv("pip", "install", "--quiet", "--no-deps", f"--python={interpreter}", str(source))
    return interpreter


def commands(python: Path, folder: Path) -> tuple[Callable[..., None], dict[str, str]]:
    """A function that runs the interpreter in a plant's folder and asserts success; the environment variables."""
    shell = {k: v for k, v in os.environ.items() if not k.startswith(("DAGSTER", "EDGEPACK", "SIMATICAI", "PYTHON"))}
    environment = {
        **shell,
        "EDGEPACK_CONFIG": str(folder / "edgepack.yaml"),
        "DAGSTER_HOME": str(folder),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "DAGSTER_MODULE_NAME": "edgepack_assets.definitions",
    }

    def run(*command: str) -> None:
        done = subprocess.run(
            [str(python), *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=500,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}\n{done.stderr[-6000:]}"

    return run, environment
