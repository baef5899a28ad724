"""A backlog that the sensor finds: seconds and processor seconds for each version, under a real daemon.

    python -m benchmarks.sensor_backlog [--versions 20] [--data recording.parquet] [--pickup 5] [--holes] [--json FILE]

A project on the defaults with `sensors.start: all`. One version is packaged before, so that the environment is kept.
Then so many versions lie in the registry when the daemon starts: what each costs is counted from the third package to
the last one. After that `--pickup` versions are added one by one, at moments that have nothing to do with the ticks:
how long each takes from `edgepack model add` to the registered package.

A package of the sample model has 73 MB of wheels. With --holes those that are not among the newest lose their bytes on
the disk and keep their size: a thousand versions need a few GB then, not 73. Nothing reads them.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.package_run import BIN, TYPE, Bench
from benchmarks.processor_time import adopt_orphans, used_by_descendants, used_by_ended
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.base import Kind
from edgepack_assets.tasks.packages.tags import MODEL_VERSION

_LONGEST = 120
_HUNDRED = 100
_NEWEST = 20
"""Of so many packages the bytes are kept: the one before is compared with, and several runs are under way."""


class Backlog(Bench):
    """A project whose sensor packages every version."""

    def __init__(self, folder: Path, data: Path | None) -> None:
        super().__init__(folder, data)
        file = folder / "edgepack.yaml"
        file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "sensors": {"start": "all"}}))
        self.registry = open_registry(self.settings)
        self.name = self.settings.model_type(TYPE).registered_package_name

    def packaged(self) -> dict[str, float]:
        """When the package of each model version was registered, by the version's partition."""
        found = self.registry.versions(Kind.MODEL, self.name)
        return {f"{TYPE}:{each.tags[MODEL_VERSION]}": each.created.timestamp() for each in found}

    @contextlib.contextmanager
    def daemon(self) -> Iterator[None]:
        """A daemon with its code server and runs; what they print is in daemon.log."""
        with (self.folder / "daemon.log").open("w") as log:
            process = subprocess.Popen([BIN / "dagster-daemon", "run"], cwd=self.folder, env=self.environment,
                                       start_new_session=True, stdout=log, stderr=log)  # fmt: skip
            try:
                yield
            finally:
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(60)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def register_versions(self, number: int) -> list[str]:
        """The partitions of so many new versions of the model, added without a command for each."""
        added = []
        for _ in range(number):
            (self.model / "note.txt").write_text(f"{time.time_ns()}")
            added.append(f"{TYPE}:{self.registry.register(Kind.MODEL, TYPE, self.model, {}).number}")
        return added

    def wait_for(self, partitions: list[str], holes: bool = False) -> Waited:
        """Until all have a package."""
        last, number, spent = time.monotonic(), 0, [(0, used_by_descendants())]
        while not set(partitions) <= (packaged := self.packaged()).keys():
            began = time.monotonic()
            done = len(set(partitions) & packaged.keys())
            if done > number:
                last, number = began, done
            if done >= spent[-1][0] + _HUNDRED:
                spent.append((done, used_by_descendants()))
                print(f"{done} versions, {spent[-1][1] - spent[0][1]:.0f} processor seconds", flush=True)
            if began - last > _LONGEST:
                raise SystemExit(f"no package in {_LONGEST} s:\n{(self.folder / 'daemon.log').read_text()[-4000:]}")
            if holes:
                self._remove_bytes()
            # a list of a thousand versions takes 0.1 s of the cores that are measured
            time.sleep(max(0.2, 20 * (time.monotonic() - began)))
        spent.append((len(partitions), used_by_descendants()))
        return Waited(sorted(packaged[each] for each in partitions), spent)

    def _remove_bytes(self) -> None:
        """Give the blocks of all packages but the newest back to the file system."""
        registered = (self.folder / ".edgepack" / "registry" / "models" / self.name).glob("*/content/*.zip")
        packages = sorted(registered, key=lambda file: file.stat().st_mtime)
        for package in packages[:-_NEWEST]:
            size = package.stat()
            if size.st_blocks * 512 > 1_000_000:
                command = ["fallocate", "--punch-hole", "--offset", "0", "--length", str(size.st_size), str(package)]
                subprocess.run(command, check=True)


@dataclass(frozen=True)
class Waited:
    """What was seen while versions were packaged."""

    registered: list[float]
    """When each was, earliest first."""
    spent: list[tuple[int, float]]
    """Processor seconds of all processes, at the start and after each hundred versions."""

    def by_hundred(self) -> list[tuple[int, float, float]]:
        """(versions so far, seconds a version, processor seconds a version) for each hundred."""
        return [
            (now, (self.registered[now - 1] - self.registered[max(before, 1) - 1]) / (now - max(before, 1)),
             (later - earlier) / (now - before))
            for (before, earlier), (now, later) in itertools.pairwise(self.spent) if now > before + 1
        ]  # fmt: skip


def _all_have_ended() -> bool:
    """Whether all children have, those without a parent among them, within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.1)
        except ChildProcessError:
            return True
    return False


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", type=int, default=20)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--pickup", type=int, default=5)
    parser.add_argument("--holes", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    adopt_orphans()
    chance = random.Random(19)  # noqa: S311 - no secret
    with tempfile.TemporaryDirectory(prefix="edgepack-benchmark-") as folder:
        bench = Backlog(Path(folder), options.data)
        bench.run_command([BIN / "edgepack", "package", bench.add_version()])
        partitions = bench.register_versions(options.versions)
        before, began = used_by_ended(), time.time()
        with bench.daemon():
            waited = bench.wait_for(partitions, options.holes)
            times = waited.registered
            waits = []
            for _ in range(options.pickup):
                time.sleep(chance.uniform(0, bench.settings.sensor_interval))
                added = time.time()
                waits.append(bench.wait_for([bench.add_version()]).registered[0] - added)
        assert _all_have_ended(), "a process outlived the daemon"
        spent = used_by_ended() - before
    third = times[2]
    found = {
        "versions": options.versions,
        "seconds until the first package": times[0] - began,
        "seconds a version": (times[-1] - third) / (options.versions - 3),
        "processor seconds a version, with the daemon": spent / (options.versions + options.pickup),
        "so far, seconds and processor seconds a version": [
            tuple(round(value, 2) for value in each) for each in waited.by_hundred()
        ],
        "from model add to the package, median": statistics.median(waits) if waits else None,
        "from model add to the package, each": [round(wait, 1) for wait in waits],
    }
    for name, value in found.items():
        print(f"{name:<46} {value if not isinstance(value, float) else round(value, 2)}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
