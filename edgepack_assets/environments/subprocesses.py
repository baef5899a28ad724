"""Commands that we run ourselves (uv, pip, an interpreter): without a shell, without input, bounded in time. They end
with this process, in whatever way it ends."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgepack_assets.errors import EnvironmentBuildError, TransientError
from edgepack_assets.filesystem.atomic_files import is_transient

_SHOWN = 4_000
_OUT_OF_SPACE = re.compile(r"(?i)no space left on device|disk quota exceeded|\(os error (28|122)\)|\[Errno (28|122)\]")
_EXIT_WITH_PARENT = (sys.executable, "-I", "-S", str(Path(__file__).with_name("exit_with_parent.py")))


def run_command(
    command: Sequence[str], subject: str, time_limit: float, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command and return its output, whatever its exit code. `subject` names it in errors.

    Raises EnvironmentBuildError if it cannot be started or takes longer than `time_limit` seconds."""
    program = shutil.which(command[0], path=environment.get("PATH"))
    if program is None:
        raise EnvironmentBuildError(f"{subject}: {command[0]} cannot be started: No such file, or it may not be run")
    read_end, write_end = os.pipe()
    try:
        process = subprocess.Popen(
            [*_EXIT_WITH_PARENT, program, *command[1:]], env=dict(environment), stdin=read_end,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace",
            start_new_session=True,
        )  # fmt: skip
        with process:
            try:
                out, err = process.communicate(timeout=time_limit)
            except subprocess.TimeoutExpired:
                _kill_group(process)
                raise EnvironmentBuildError(
                    f"{subject} took longer than {time_limit:g} s and was stopped (runtime.time_limit in edgepack.yaml)"
                ) from None
            except BaseException:
                _kill_group(process)
                raise
    except OSError as error:
        kind = TransientError if is_transient(error) else EnvironmentBuildError
        raise kind(f"{subject}: {command[0]} cannot be started: {error.strerror or error}") from error
    finally:
        os.close(read_end)
        os.close(write_end)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def shown(text: str) -> str:
    """The end of a command's output, short enough for an error message."""
    text = text.strip()
    return text if len(text) <= _SHOWN else f"...{text[-_SHOWN:]}"


def ran_out(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether a command failed because the disk was full or it was killed. Then its input is not at fault."""
    return done.returncode < 0 or _OUT_OF_SPACE.search(done.stderr) is not None


def _kill_group(process: subprocess.Popen[str]) -> None:
    # Only before the leader is waited for: until then no other process can get its number.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
