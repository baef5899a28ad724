"""The registry sensor under a real daemon, which is killed in the middle of its work and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.run_request import InstigatorType

from edgepack_assets.registry.base import Kind
from edgepack_assets.registry.local import LocalRegistry

PATIENCE = 600.0
VERSIONS = 8


class Daemon:
    """`dagster-daemon run` on a home of its own, with everything it starts in one process group."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.registry = LocalRegistry(folder / "registry")
        self.home.mkdir()
        self.registry_is("well")
        shipped = yaml.safe_load((Path(__file__).parents[2] / "dagster.yaml").read_text())
        (self.home / "dagster.yaml").write_text(
            yaml.safe_dump({
                **shipped,
                "concurrency": {"runs": {"max_concurrent_runs": 4}},
                # A run that was killed while it started is given up after so long.
                "run_monitoring": {
                    **shipped["run_monitoring"], "poll_interval_seconds": 2, "start_timeout_seconds": 45,
                },
            })
        )  # fmt: skip
        (folder / "edgepack.yaml").write_text(
            yaml.safe_dump({
                "registry": {"path": "registry"},
                "sensors": {"start": "all", "interval": 1, "sweep_interval": 5, "batch": 8},
                "model_types": {
                    "press": {
                        "implementation": "state_identifier", "model_name": "press_model", "package_name": "Press",
                        "raw_data": {"name": "raw"},
                    }
                },
            })
        )  # fmt: skip
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("DAGSTER", "EDGEPACK"))} | {
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "EDGEPACK_CONFIG": str(folder / "edgepack.yaml"),
            "EDGEPACK_TEST_FOLDER": str(folder),
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.instance = dg.DagsterInstance.from_config(str(self.home))
        # Two processes that make the tables at once get in each other's way.
        self.instance.get_runs()
        self.instance.all_instigator_state()
        self.instance.get_dynamic_partitions("models")

    def start(self) -> None:
        command = [str(Path(sys.executable).with_name("dagster-daemon")), "run", "-m"]
        with (self.folder / "daemon.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "edgepack_assets_tests.e2e.sensed"], cwd=Path(__file__).parents[2], env=self.environment,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL to the daemon, its code server and the runs."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def add(self, version: int, **tags: str) -> None:
        content = self.folder / "model.bin"
        content.write_bytes(b"x")
        self.registry.register(Kind.MODEL, "press_model", content, tags, version=version)

    def registry_is(self, mood: str) -> None:
        (self.folder / "mood").write_text(mood)

    def ticks(self) -> list[str]:
        """What the ticks that requested no run said."""
        [state] = self.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
        ticks = self.instance.get_ticks(state.instigator_origin_id, state.selector_id)
        return [tick.tick_data.skip_reason or "" for tick in ticks]

    def runs(self) -> list[dg.DagsterRun]:
        return list(self.instance.get_runs())

    def wait_until(self, what: str, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not holds():
            assert self.process is None or self.process.poll() is None, self.log()
            assert time.monotonic() < until, f"{what}: not within {PATIENCE} s\n{self.log()}"
            time.sleep(0.5)

    def log(self) -> str:
        return (self.folder / "daemon.log").read_text()[-3000:]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    try:
        yield made
    finally:
        made.kill()
        made.instance.dispose()


def test_nothing_is_missed_or_run_twice_across_a_killed_daemon(daemon: Daemon) -> None:
    for version in range(1, VERSIONS + 1):
        if version != 7:
            daemon.add(version, **({"fate": {3: "dies", 4: "bad"}[version]} if version in (3, 4) else {}))
    daemon.start()
    daemon.wait_until("the first runs", lambda: len(daemon.runs()) >= 3)
    daemon.kill()
    daemon.add(VERSIONS + 1)
    daemon.add(7)
    daemon.registry_is("dead")
    daemon.start()
    daemon.wait_until("a tick without an answer", lambda: "ConnectionRefusedError" in "".join(daemon.ticks()))
    daemon.registry_is("empty")
    answered = len(daemon.ticks())
    daemon.wait_until("ticks with an empty answer", lambda: len(daemon.ticks()) > answered + 1)
    daemon.registry_is("well")
    expected = {*range(1, VERSIONS + 2)}

    def is_done() -> bool:
        runs = daemon.runs()
        ended = {run.tags["edgepack/model_version"] for run in runs if run.is_finished}
        third = [run.is_success for run in runs if run.tags["edgepack/model_version"] == "3"]
        return len(ended) == len(expected) and all(run.is_finished for run in runs) and any(third)

    daemon.wait_until("every version's run", is_done)
    answered = len(daemon.ticks())
    daemon.wait_until("ticks after it", lambda: len(daemon.ticks()) > answered + 2)
    runs = daemon.runs()
    assert {int(run.tags["edgepack/model_version"]) for run in runs} == expected  # missed: 0
    assert set(Counter(run.tags["dagster/run_key"] for run in runs).values()) == {1}  # duplicated: 0
    by_version: dict[int, list[dg.DagsterRun]] = {}
    for run in runs:
        by_version.setdefault(int(run.tags["edgepack/model_version"]), []).append(run)
    for version, its in by_version.items():
        well = [run for run in its if run.is_success]
        assert len(well) == (0 if version == 4 else 1), (version, its)
        # More than one run only after a run whose process died.
        assert len(its) <= 3
    assert len(by_version[4]) == 1
    assert len(by_version[3]) >= 2
    assert len(daemon.instance.get_dynamic_partitions("models")) == len(expected)


def test_a_run_that_was_cut_off_with_everything_around_it_is_failed_and_made_again(daemon: Daemon) -> None:
    daemon.add(1, fate="hangs")
    daemon.start()
    daemon.wait_until("a run that hangs", (daemon.folder / "hangs").exists)
    daemon.kill()
    [cut_off] = daemon.runs()
    assert cut_off.status is dg.DagsterRunStatus.STARTED
    daemon.start()
    daemon.wait_until("the second attempt", lambda: any(run.is_success for run in daemon.runs()))
    made = {run.tags["edgepack/attempt"]: run.status for run in daemon.runs()}
    assert made == {"1": dg.DagsterRunStatus.FAILURE, "2": dg.DagsterRunStatus.SUCCESS}
    told = [event.message for event in daemon.instance.all_logs(cut_off.run_id)]
    assert any("its process is gone" in message for message in told), told
