"""Commands of our own: what they tell, and that they end when nobody waits for them any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgepack_assets.environments.subprocesses import run_command
from edgepack_assets.errors import EnvironmentBuildError

SHELL = ["/bin/sh", "-c"]


def test_output_and_exit_code_are_the_command_s_own() -> None:
    done = run_command([*SHELL, "echo out; echo err >&2; cat; exit 7"], "it", 60, {"PATH": os.defpath})
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV", "XFSZ", "PIPE"])
def test_a_signal_that_ended_it_is_told(name: str) -> None:
    done = run_command([*SHELL, f"kill -{name} $$"], "it", 60, {"PATH": os.defpath})
    assert done.returncode == -signal.Signals[f"SIG{name}"]


@pytest.mark.parametrize("held_off", ["signal.signal(15, signal.SIG_IGN)", "signal.pthread_sigmask(0, [15])"])
def test_it_starts_with_every_signal_s_default(held_off: str) -> None:
    """Whatever the process that asks ignores or blocks, as Dagster does with SIGTERM where a shell ignores SIGINT."""
    asks = (
        "import os, signal; from edgepack_assets.environments.subprocesses import run_command; "
        f"{held_off}; print(run_command(['/bin/sh', '-c', 'kill -TERM $$'], 'it', 60, {{}}).returncode)"
    )
    told = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True)
    assert told.stdout == f"{-signal.SIGTERM}\n"


def test_it_gets_the_given_environment_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "hush")
    told = run_command([sys.executable, "-I", "-S", "-c", "import os; print(sorted(os.environ))"], "it", 60, {"A": "b"})
    # what a Python adds to its own environment where no locale is named
    assert set(told.stdout.strip("[]\n").replace("'", "").split(", ")) - {"LC_CTYPE"} == {"A"}


@pytest.mark.parametrize("name", ["/nowhere/at-all", "no-such-program-7f3a"])
def test_a_program_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(EnvironmentBuildError, match=f"^asking it: {name} cannot be started: No such file"):
        run_command([name], "asking it", 60, {"PATH": os.defpath})


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_it_ends_with_all_it_started_when_this_process_is_killed(tmp_path: Path) -> None:
    """A resolver that asks a slow index must not go on for a run that nobody waits for."""
    pids = tmp_path / "pids"
    script = f"sleep 600 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; wait"
    host = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from edgepack_assets.environments.subprocesses import run_command\n"
            f"run_command({[*SHELL, script]!r}, 'it', 600, {{'PATH': '/usr/bin:/bin'}})",
        ]
    )
    end = time.monotonic() + 60
    while not pids.exists():
        assert host.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    host.kill()
    host.wait()
    started = [int(pid) for pid in pids.read_text().split()]
    while not all(map(is_gone, started)):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_nothing_stays_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    run_command([*SHELL, "exit 0"], "it", 60, {})
    with pytest.raises(EnvironmentBuildError, match=r"took longer than 0\.05 s"):
        run_command([*SHELL, "sleep 600"], "it", 0.05, {"PATH": os.defpath})
    with pytest.raises(EnvironmentBuildError, match="No such file"):
        run_command(["no-such-program-7f3a"], "it", 60, {})
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
