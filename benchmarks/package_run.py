"""Packaging a model version: our run against the stock SDK's sequence, as ratios.

    python -m benchmarks.package_run [--rounds 3] [--data recording.parquet] [--json FILE]

In turn, on this machine, on the same model, payload, requirements and wheels:

- stock: Pipeline.save, LocalPipelineRunner on the config package over the whole payload, convert_package;
- cold: our first version: no lock, no wheels, no environment, an empty cache of uv's;
- warm: a new version of the model with the same requirements;
- dagster: the same, with `dagster asset materialize`;
- split: the same once more, and where its time goes;
- alone, further: processor seconds, with all children, of `edgepack package` for one version, and for each version
  beyond two in one command.

Ours is measured twice: the Dagster run itself (all six assets with their checks, and the execution of the deployment
package), and the whole `edgepack package` command around it. So is a run of `dagster asset materialize`, which takes
longer to start. The stock sequence does less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import yaml

from benchmarks.processor_time import adopt_orphans, used_by_ended
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.loader import load_settings
from edgepack_assets.model_types.model_folder.model_file import merge_requirements, saved_environment
from edgepack_assets.quickstart import samples
from edgepack_assets.quickstart.train import Trainer
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.base import Kind

BIN = Path(sys.executable).parent
TYPE = "state_identifier"
FURTHER = 4
"""Versions beyond two in the command that is compared with one of two."""


class Bench:
    """A folder with a registry, a model and a payload."""

    def __init__(self, folder: Path, data: Path | None) -> None:
        self.folder = folder
        config = folder / "edgepack.yaml"
        entry = {
            "implementation": TYPE,
            "model_name": TYPE,
            "package_name": "State Identifier",
            "raw_data": {"name": "raw"},
        }
        config.write_text(yaml.safe_dump({"model_types": {TYPE: entry}}))
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("DAGSTER", "EDGEPACK", "PYTHONDONT"))}
        clean["EDGEPACK_CONFIG"] = str(config)
        exports = self.run_command([BIN / "edgepack", "env"], clean)
        told = subprocess.run(["bash", "-c", f"{exports}\nenv -0"], env=clean, capture_output=True, check=True).stdout
        self.environment = dict(item.decode().split("=", 1) for item in told.split(b"\0") if item)
        self.settings = load_settings(config)
        here = f"{sys.version_info.major}.{sys.version_info.minor}"  # the stock runner runs no other
        self.model = Trainer.find(self.settings.runtime, here).state_identifier(folder)
        if data is None:
            data = folder / "recording.parquet"
            samples.power_recording(samples.VALIDATION_SEED).frame.to_parquet(data)
        open_registry(self.settings).register(Kind.DATA, "raw", data, {})

    def run_command(self, command: list[str | Path], environment: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            [str(part) for part in command], cwd=self.folder, env=environment or self.environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise SystemExit(f"{command} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def add_version(self) -> str:
        """The partition of a new version of the model."""
        (self.model / "note.txt").write_text(f"{time.time_ns()}")
        version = self.run_command([BIN / "edgepack", "model", "add", TYPE, self.model]).strip().rpartition(":")[2]
        return f"{TYPE}:{version}"

    def ours(self, *, by_dagster: bool = False) -> dict[str, float]:
        """Seconds of a new version: the Dagster run, the whole command, and validation alone."""
        partition = self.add_version()
        command: list[str | Path] = [BIN / "edgepack", "package", partition]
        if by_dagster:
            command = [BIN / "dagster", "asset", "materialize", "--select", "*", "--partition", partition]
        began = time.perf_counter()
        self.run_command(command)
        whole = time.perf_counter() - began
        import dagster as dg

        with dg.DagsterInstance.from_config(self.environment["DAGSTER_HOME"]) as instance:
            (record,) = instance.get_run_records(limit=1)
            (step,) = instance.get_run_step_stats(record.dagster_run.run_id, ["validation_results"])
        assert record.start_time is not None and record.end_time is not None
        assert step.start_time is not None and step.end_time is not None
        return {
            "run": record.end_time - record.start_time,
            "command": whole,
            "validation": step.end_time - step.start_time,
        }

    def cold(self) -> dict[str, float]:
        """As `ours`, with nothing locked, downloaded or built.

        What was there is put aside and not removed: for some minutes after thousands of files were removed, ext4 looks
        at each of them whenever it makes a new one, which made a cold run on the same disk 3 s longer."""
        aside = Path(tempfile.mkdtemp(dir=self.folder))
        for folder in (Path(self.settings.artefacts.root), self.settings.runtime.environments):
            folder.rename(aside / folder.name)
        self.environment["UV_CACHE_DIR"] = tempfile.mkdtemp(dir=self.folder)
        try:
            return self.ours()
        finally:
            del self.environment["UV_CACHE_DIR"]

    def split(self) -> dict[str, float]:
        """Where the time of a run goes, in seconds."""
        told = self.folder / "split.json"
        self.run_command([BIN / "python", Path(__file__).with_name("split.py"), self.add_version(), told])
        found: dict[str, float] = json.loads(told.read_text())
        return found

    def work(self) -> dict[str, float]:
        """Processor seconds of `edgepack package`: of one version alone, and of each beyond two."""
        alone, two, more = (self._processor_seconds(number) for number in (1, 2, 2 + FURTHER))
        return {"alone": alone, "further": (more - two) / FURTHER}

    def _processor_seconds(self, versions: int) -> float:
        partitions = [self.add_version() for _ in range(versions)]
        before = used_by_ended()
        self.run_command([BIN / "edgepack", "package", *partitions])
        return used_by_ended() - before

    def stock_inputs(self) -> tuple[Path, Path, Path]:
        """(component folder, requirements, payload) of the first version, for the stock sequence."""
        store = ArtefactStore(self.settings.artefacts.root, self.settings.artefacts.cache)
        component = self.folder / "component"
        with zipfile.ZipFile(store.fetch(store.load("config_package", f"{TYPE}:1").parts["package"])) as archive:
            archive.extractall(component)
        (found,) = component.glob("*/inference")
        for name in ("requirements.txt", "requirements.lock"):
            (found / name).unlink()
        requirements = self.folder / "requirements.txt"
        entry = self.settings.model_type(TYPE)
        lines = merge_requirements(
            saved_environment(self.model).requirements, entry, ["numpy", "scikit-learn", "joblib"]
        )
        requirements.write_text("\n".join(lines) + "\n")
        payload = self.folder / "payload.jsonl.gz"
        shutil.copyfile(store.fetch(store.load("payload_data", f"{TYPE}:1").parts["records"]), payload)
        return found, requirements, payload

    def stock(self, inputs: tuple[Path, Path, Path], number: int) -> float:
        """Seconds of the stock sequence, without the start of its interpreter."""
        work = self.folder / f"stock{number}"
        work.mkdir()
        self.run_command([BIN / "python", Path(__file__).with_name("stock_sequence.py"), *inputs, work])
        told = json.loads((work / "told.json").read_text())
        return float(told["save"] + told["run"] + told["convert"])


TO_REACH = {
    "warm run / stock": 0.10,
    "edgepack package / stock": 0.15,
    "warm run of dagster's command / stock": 0.10,
    "dagster asset materialize / stock": 1 / 3,
    "validation / stock": 1 / 12,
    "cold run / stock": 0.30,
    "processor seconds, one alone": 4.0,
    "processor seconds, a further one": 3.0,
}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    # Processes that a sandbox's end leaves without a parent come here, so that what they used is counted.
    adopt_orphans()
    kinds = ("stock", "cold", "warm", "dagster", "split", "work")
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="edgepack-benchmark-") as folder:
        bench = Bench(Path(folder), options.data)
        bench.ours()
        inputs = bench.stock_inputs()
        for number in range(options.rounds):
            found["stock"].append({"sequence": bench.stock(inputs, number)})
            found["cold"].append(bench.cold())
            found["warm"].append(bench.ours())
            found["dagster"].append(bench.ours(by_dagster=True))
            found["split"].append(bench.split())
            found["work"].append(bench.work())
            last = {who: rows[-1] for who, rows in found.items()}
            print(
                f"round {number + 1}: stock {last['stock']['sequence']:.1f} s, our run {last['warm']['run']:.1f} s "
                f"(cold {last['cold']['run']:.1f} s), our command {last['warm']['command']:.1f} s",
                flush=True,
            )
    median = {
        who: {name: statistics.median(row[name] for row in rows) for name in rows[0]} for who, rows in found.items()
    }
    stock, split = median["stock"]["sequence"], median["split"]
    ratios = {
        "warm run / stock": median["warm"]["run"] / stock,
        "edgepack package / stock": median["warm"]["command"] / stock,
        "warm run of dagster's command / stock": median["dagster"]["run"] / stock,
        "dagster asset materialize / stock": median["dagster"]["command"] / stock,
        "validation / stock": median["warm"]["validation"] / stock,
        "cold run / stock": median["cold"]["run"] / stock,
        "processor seconds, one alone": median["work"]["alone"],
        "processor seconds, a further one": median["work"]["further"],
    }
    print(f"medians of {options.rounds} rounds: stock {stock:.1f} s; where a warm run of {split['whole']:.1f} s goes:")
    for name, seconds in split.items():
        if name != "whole":
            print(f"  {name:<24} {seconds:5.2f} s")
    for name, ratio in ratios.items():
        print(f"{name:<38} {ratio:.3f}   (to reach: {TO_REACH[name]:.3f})")
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "rounds": options.rounds, "medians": median, "ratios": ratios, "to_reach": TO_REACH, "all": found,
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
