"""Starts the code of a job from the wheels beside this file. Copied into the job's code folder; standard library only.

Nothing is installed: the wheels are unpacked into a folder of the job's own, which comes before the environment's
packages. The process replaces itself, so a signal of the service reaches the run.
"""

import os
import sys
import tempfile
import zipfile
from pathlib import Path


def main() -> None:
    """`bootstrap.py MODULE ARGUMENT...`: run a module of the wheels."""
    here, target = Path(__file__).resolve().parent, tempfile.mkdtemp(prefix="edgepack-code-")
    for wheel in sorted(here.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
    path = os.pathsep.join(filter(None, [target, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", *sys.argv[1:]]
    os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": path})  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
