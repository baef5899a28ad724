"""The SDK's own runner of packages, which ours is compared with."""

from __future__ import annotations

import shutil
import subprocess
import venv
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgepack_assets.packaging.sdk import quiet_import


def stock_runner(package: Path, folder: Path, patch: pytest.MonkeyPatch) -> Any:
    """simaticai's LocalPipelineRunner, to be entered. It makes an environment for each component, installs there what
    the package asks for, and runs the component.

    Two thirds of its time went into what no answer depends on, and are left out: installing a bundled pip and looking
    for a newer one (it gets this environment's), compiling what is never imported, resolving everything once more for
    a report, and counting the environments' files for telemetry."""
    with quiet_import():
        from simaticai.testing import pipeline_runner

    patch.setattr(venv.EnvBuilder, "_setup_pip", _copy_pip)
    patch.setattr(pipeline_runner, "subprocess", SimpleNamespace(**{**vars(subprocess), "run": _run}))
    patch.setattr(pipeline_runner.LocalPipelineRunner, "update_telemetry_data", lambda _: None)
    patch.setenv("PIP_NO_COMPILE", "1")
    return pipeline_runner.LocalPipelineRunner(package, path=folder)


def _copy_pip(_builder: venv.EnvBuilder, context: SimpleNamespace) -> None:
    pip = distribution("pip")
    [packages] = Path(context.env_dir).glob("lib/python*/site-packages")
    for name in {file.parts[0] for file in pip.files or () if file.parts[0] != ".."}:
        shutil.copytree(str(pip.locate_file(name)), packages / name)


def _run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    if "--upgrade" in command or "--dry-run" in command:
        return subprocess.CompletedProcess(command, 0, "", "")
    done: subprocess.CompletedProcess[str] = subprocess.run(command, check=False, **options)
    return done
