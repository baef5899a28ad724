"""How long `edgepack package` takes until the first step begins, against `dagster asset materialize`.

    python -m benchmarks.command_start [--rounds 20] [--json FILE]

Both commands run in turn on the same definitions, instance and partition. The raw data is no Parquet file, so the first
step fails at once:

- start: seconds from the start of the process to the STEP_START event of the first step;
- work: processor seconds of the whole command with its children, which is the start and the report of that failure.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

BIN = Path(sys.executable).parent
TYPE = "state_identifier"
KEY = f"{TYPE}:1"
COMMANDS = {
    "edgepack package": [str(BIN / "edgepack"), "package", KEY],
    "dagster asset materialize": [str(BIN / "dagster"), "asset", "materialize", "--select", "*", "--partition", KEY],
}
TO_REACH = 2 / 3


class Bench:
    """A folder with a model version that no run gets further than the first step with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        entry = {"implementation": TYPE, "model_name": TYPE, "package_name": "Start", "raw_data": {"name": "raw"}}
        (folder / "edgepack.yaml").write_text(yaml.safe_dump({"model_types": {TYPE: entry}}))
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("DAGSTER", "EDGEPACK", "PYTHONDONT"))}
        exports = self._run([str(BIN / "edgepack"), "env"], clean).stdout
        told = subprocess.run(["bash", "-c", f"{exports}\nenv -0"], env=clean, capture_output=True, check=True).stdout
        self.environment = dict(item.decode().split("=", 1) for item in told.split(b"\0") if item)
        (folder / "no.parquet").write_bytes(b"PAR1")
        (folder / "model.pkl").write_bytes(b"no pickle")
        for kind, name, file in (("data", "raw", "no.parquet"), ("model", TYPE, "model.pkl")):
            self._run([str(BIN / "edgepack"), kind, "add", name, file, "--force"], self.environment)

    def _run(self, command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)

    def measure(self, command: list[str]) -> dict[str, float]:
        """One run of a command."""
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
        done = self._run(command, self.environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "start": self._first_step(f"{done.stdout}\n{done.stderr}", began) - began,
            "work": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        }

    def _first_step(self, output: str, since: float) -> float:
        import dagster as dg

        with dg.DagsterInstance.from_config(self.environment["DAGSTER_HOME"]) as instance:
            (record,) = instance.get_run_records(limit=1)
            wanted = {dg.DagsterEventType.STEP_START}
            logged = instance.get_records_for_run(record.dagster_run.run_id, of_type=wanted, limit=1).records
        if not logged or logged[0].timestamp < since:
            raise SystemExit(f"no step began:\n{output[-4000:]}")
        return float(logged[0].timestamp)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory(prefix="edgepack-benchmark-") as folder:
        bench = Bench(Path(folder))
        for command in COMMANDS.values():
            bench.measure(command)  # files that the second one would find in the cache
        for _ in range(options.rounds):
            for name, command in COMMANDS.items():
                found[name].append(bench.measure(command))
    ours, stock = found.values()
    ratios = {}
    for what in ("start", "work"):
        medians = {name: statistics.median(row[what] for row in rows) for name, rows in found.items()}
        each = [a[what] / b[what] for a, b in zip(ours, stock, strict=True)]
        ratios[what] = statistics.median(each)
        seconds = ", ".join(f"{name} {value:.2f} s" for name, value in medians.items())
        print(f"{what}: {seconds}; ratio {ratios[what]:.3f} ({min(each):.3f} to {max(each):.3f})")
    print(f"to reach: {TO_REACH:.3f}, in the median of {options.rounds} rounds")
    if options.json:
        options.json.write_text(json.dumps({"ratios": ratios, "to_reach": TO_REACH, "all": found}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
