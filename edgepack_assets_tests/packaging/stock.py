"""The SDK's own runner of packages, which ours is compared with."""

from __future__ import annotations

import shutil
import venv
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgepack_assets.packaging.sdk import quiet_import


def stock_runner(package: Path, folder: Path, patch: pytest.MonkeyPatch) -> Any:
    """simaticai's LocalPipelineRunner, to be entered. It makes an environment for each component with `venv` and pip,
    which it gets anew from the index that this machine uses. That they get a copy of this environment's pip in place
    of a bundled one, that nothing is compiled before it is imported, and that no file of them is counted for telemetry
    takes two thirds of its time away."""
    with quiet_import():
        from simaticai.testing.pipeline_runner import LocalPipelineRunner

    patch.setattr(venv.EnvBuilder, "_setup_pip", _copy_pip)
    patch.setattr(LocalPipelineRunner, "update_telemetry_data", lambda _: None)
    patch.setenv("PIP_NO_COMPILE", "1")
    return LocalPipelineRunner(package, path=folder)


def _copy_pip(_builder: venv.EnvBuilder, context: SimpleNamespace) -> None:
    pip = distribution("pip")
    [packages] = Path(context.env_dir).glob("lib/python*/site-packages")
    for name in {file.parts[0] for file in pip.files or () if file.parts[0] != ".."}:
        shutil.copytree(str(pip.locate_file(name)), packages / name)
