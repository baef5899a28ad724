"""Makes a GPU component of a package one that the sandbox can run, with the SDK's own reader of its settings."""

from __future__ import annotations

import shutil
from importlib.metadata import distribution
from pathlib import Path

from edgepack_assets.filesystem.atomic_files import disk_errors
from edgepack_assets.sandbox import child_main

_MESSAGES = "simaticai/model_config_pb2.py"
_STAGE = Path(child_main.__file__).with_name("child_gpu.py")


def lay_out_gpu_stage(folder: Path) -> str:
    """Put what runs the component into its `folder`, once; the name of the module."""
    for file in (_STAGE, Path(str(distribution("simaticai").locate_file(_MESSAGES)))):
        with disk_errors(folder / file.name):
            shutil.copyfile(file, folder / file.name)
    return _STAGE.stem
