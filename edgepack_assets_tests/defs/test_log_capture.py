"""What a run prints is captured in files and passed on, by the run's own process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

_RUN = """
import os, subprocess, sys, threading
import psutil
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from edgepack_assets.defs import log_capture

log_capture.pass_on_by_thread()
log_capture._PATIENCE = 1.0
with LocalComputeLogManager(sys.argv[1]).capture_logs(["a", "run"]):
    print("begun", flush=True)
    assert psutil.Process().children() == []
    sys.stdin.readline()
    subprocess.run(["echo", "of a child"])
    for number in range(int(sys.argv[2])):
        print(f"line {number}", file=(sys.stdout, sys.stderr)[number % 2])
print("after it", flush=True)
os._exit(threading.active_count() - 1)
"""


def _started(folder: Path, lines: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _RUN, str(folder), str(lines)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_all_of_it_is_passed_on_as_it_is_written_and_nothing_else_is_started(tmp_path: Path) -> None:
    with _started(tmp_path, 20_000) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "begun\n"  # while the run waits for a word
        printed, errors = run.communicate("go on\n", timeout=60)
    assert run.returncode == 0, errors
    even, odd = ([f"line {number}" for number in range(first, 20_000, 2)] for first in (0, 1))
    assert printed.splitlines() == ["of a child", *even, "after it"]
    assert errors.splitlines() == odd
    assert (tmp_path / "a" / "run.out").read_text().splitlines() == ["begun", "of a child", *even]


@pytest.mark.parametrize(("lines", "is_closed"), [(40_000, False), (10, True)])
def test_a_run_whose_lines_nobody_takes_ends_all_the_same(tmp_path: Path, lines: int, is_closed: bool) -> None:
    """A pipe that is full, and one that is closed: all lines are captured."""
    with _started(tmp_path, lines) as run:
        assert run.stdin is not None and run.stdout is not None
        if is_closed:
            run.stdout.close()
        run.stdin.write("go on\n")
        run.stdin.flush()
        until = time.monotonic() + 60
        while not (tmp_path / "a" / "run.complete").exists() and time.monotonic() < until:
            time.sleep(0.05)
        run.kill()
    assert (tmp_path / "a" / "run.complete").exists()
    assert len((tmp_path / "a" / "run.out").read_text().splitlines()) == 2 + lines // 2
