"""A real `edgepack ui`: web server, daemon and code location, started, watched through its instance, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType

PATIENCE = 600.0


class Dev:
    """`edgepack ui` or another command in a folder, all it starts in one process group; environment as it is given."""

    def __init__(
        self,
        folder: Path,
        environment: dict[str, str],
        *arguments: str,
        command: Sequence[str] = ("edgepack", "ui"),
    ) -> None:
        self.home = environment["DAGSTER_HOME"]
        self.log = folder / "dagster-dev.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self._watching = self.instance()
        # Two processes that make the tables at once get in each other's way.
        self._watching.get_runs()
        self._watching.all_instigator_state()
        self._watching.get_dynamic_partitions("models")
        # A shell has SIGINT ignored by what it starts in the background: a test run, and what that starts, which then
        # would not end by it.
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name(command[0])), *command[1:], "--port", str(port), *arguments],
                cwd=folder, env=environment, stdout=stream, stderr=stream, start_new_session=True,
            )  # fmt: skip

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(self.home)

    def answers(self) -> bool:
        """Whether the web server does by now."""
        try:
            with urllib.request.urlopen(f"{self.address}/server_info", timeout=2):
                return True
        except OSError:
            return False

    def runs(self) -> list[dg.DagsterRun]:
        return list(self._watching.get_runs())

    def ticks(self) -> dict[str, list[str]]:
        """For each of the registry sensors, what its ticks that have ended said."""
        return {
            state.instigator_name: [
                tick.tick_data.skip_reason or str(tick.status.value)
                for tick in self._watching.get_ticks(state.instigator_origin_id, state.selector_id)
                if tick.is_completed
            ]
            for state in self._watching.all_instigator_state(instigator_type=InstigatorType.SENSOR)
            if state.instigator_name.endswith("_models")
        }

    def wait_until(self, what: str, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not holds():
            assert self.process.poll() is None, self.log.read_text()[-6000:]
            assert time.monotonic() < until, f"{what}: not within {PATIENCE} s\n{self.log.read_text()[-6000:]}"
            time.sleep(0.5)

    def wait_for_ticks(self, more: int, sensors: int) -> None:
        """Until each registry sensor has looked so many more times."""
        before = {name: len(ticks) for name, ticks in self.ticks().items()}
        self.wait_until(
            f"{more} ticks",
            lambda: (
                len(ticks := self.ticks()) == sensors
                and all(len(ticks[name]) >= before.get(name, 0) + more for name in ticks)
            ),
        )

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        # What it started may outlive it: a code server, a run.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self._watching.dispose()
