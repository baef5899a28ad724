"""What a tick of a registry sensor costs, with few and with many versions in the registry.

    python -m benchmarks.sensor_ticks [--few 50] [--many 5000] [--ticks 30] [--json FILE]

On a local registry and a Dagster instance on SQLite: the first tick, which looks at every version; ticks with nothing
new, which ask for the newest version only; and a tick that finds one new version. Starting runs is Dagster's.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import yaml

from edgepack_assets.config.loader import load_settings
from edgepack_assets.defs.sensors import registry_sensor

SETTLED = 5.5
"""Seconds after which the registry trusts its folder's time of change."""


def add(model: Path, version: int) -> None:
    """Put a version into the registry's folder: registering thousands would take minutes of waiting for the disk."""
    folder = model / str(version)
    (folder / "content").mkdir(parents=True)
    (folder / "content" / "model.bin").write_bytes(b"x")
    (folder / "tags.json").write_text("{}")
    created = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=version)
    fixed = {"created": created.isoformat(), "digest": "0" * 64, "size": 1, "is_folder": False, "entry": "model.bin"}
    (folder / "version.json").write_text(json.dumps(fixed))


class Bench:
    """A registry with `count` versions, and the sensor that watches it."""

    def __init__(self, folder: Path, count: int) -> None:
        entry = {"implementation": "state_identifier", "model_name": "press", "package_name": "Press",
                 "raw_data": {"name": "raw"}}  # fmt: skip
        folder.mkdir()
        file = folder / "edgepack.yaml"
        file.write_text(yaml.safe_dump({"registry": {"path": "registry"}, "model_types": {"press": entry}}))
        self.model = folder / "registry" / "models" / "press"
        for version in range(1, count + 1):
            add(self.model, version)
        self.count = count
        self.sensor = registry_sensor(load_settings(file), "press")
        self.instance = dg.DagsterInstance.local_temp(str(folder))
        self.cursor: str | None = None
        self.first = self.tick(1)

    def tick(self, requests: int) -> float:
        """Seconds of one tick, which requests so many runs. They are taken for done: the benchmark starts none."""
        context = dg.build_sensor_context(self.instance, cursor=self.cursor)
        began = time.perf_counter()
        result = self.sensor(context)
        took = time.perf_counter() - began
        assert isinstance(result, dg.SensorResult)
        assert len(result.run_requests or ()) == requests, result
        self.cursor = json.dumps({**json.loads(result.cursor or ""), "runs": {}})
        return took

    def new(self) -> float:
        """Seconds of a tick that finds a new version."""
        self.count += 1
        add(self.model, self.count)
        return self.tick(1)


def main() -> int:
    """Measure and print."""
    logging.disable(logging.INFO)  # what each tick did is in the sensor's own log
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=50)
    parser.add_argument("--many", type=int, default=5000)
    parser.add_argument("--ticks", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgepack-benchmark-") as folder:
        benches = {name: Bench(Path(folder) / name, getattr(options, name)) for name in ("few", "many")}
        found = {name: statistics.median([bench.new() for _ in range(5)]) for name, bench in benches.items()}
        time.sleep(SETTLED)
        probes: dict[str, list[float]] = {"few": [], "many": []}
        for _ in range(options.ticks + 1):
            for name, bench in benches.items():
                probes[name].append(bench.tick(0))
        median = {name: statistics.median(took[1:]) for name, took in probes.items()}  # the first lists the folder
        cursors = {name: len(bench.cursor or "") for name, bench in benches.items()}
        for bench in benches.values():
            bench.instance.dispose()
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "versions": {"few": options.few, "many": options.many},
        "seconds": {
            "first_tick": {name: bench.first for name, bench in benches.items()},
            "nothing_new": median,
            "one_new": found,
        },
        "cursor_characters": cursors,
        "ratios": {"nothing_new": median["many"] / median["few"], "one_new": found["many"] / found["few"]},
    }
    for name, bench in benches.items():
        costs = f"nothing new {median[name] * 1000:.1f} ms, one new {found[name] * 1000:.1f} ms"
        count = getattr(options, name)
        print(f"{count:5} versions: first tick {bench.first:.2f} s, {costs}, cursor {cursors[name]} characters")
    print(f"{options.many} / {options.few} versions, nothing new  {median['many'] / median['few']:.2f}")
    print(f"{options.many} / {options.few} versions, one new      {found['many'] / found['few']:.2f}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
