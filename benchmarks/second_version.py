"""A second model version with the same requirements: our run against the stock SDK's sequence, as ratios.

    python -m benchmarks.second_version [--rounds 3] [--data recording.parquet] [--json FILE]

Both work on the same model, payload and requirements, in turn, on this machine. Ours is measured twice: the Dagster
run itself (all six assets with their checks, and the execution of the deployment package), and the whole
`dagster asset materialize` command around it. The stock sequence (save, run the config package, convert) does less.
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

from edgepack_assets.artefact_store import ArtefactStore
from edgepack_assets.config import load_settings
from edgepack_assets.model_types.registered_model import merge_requirements, saved_environment
from edgepack_assets.quickstart import samples
from edgepack_assets.quickstart.train import Trainer
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.base import Kind

BIN = Path(sys.executable).parent
TYPE = "state_identifier"


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
        exports = self._run([BIN / "edgepack", "env"], clean)
        told = subprocess.run(["bash", "-c", f"{exports}\nenv -0"], env=clean, capture_output=True, check=True).stdout
        self.environment = dict(item.decode().split("=", 1) for item in told.split(b"\0") if item)
        self.settings = load_settings(config)
        here = f"{sys.version_info.major}.{sys.version_info.minor}"  # the stock runner runs no other
        self.model = Trainer.find(self.settings.runtime, here).state_identifier(folder)
        if data is None:
            data = folder / "recording.parquet"
            samples.power_recording(samples.VALIDATION_SEED).frame.to_parquet(data)
        open_registry(self.settings).register(Kind.DATA, "raw", data, {})

    def _run(self, command: list[str | Path], environment: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            [str(part) for part in command], cwd=self.folder, env=environment or self.environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise SystemExit(f"{command} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def ours(self) -> tuple[float, float]:
        """(seconds of the Dagster run, seconds of the whole command) for a new version of the model."""
        (self.model / "note.txt").write_text(f"{time.time_ns()}")
        version = self._run([BIN / "edgepack", "model", "add", TYPE, self.model]).strip().rpartition(":")[2]
        began = time.perf_counter()
        self._run([BIN / "dagster", "asset", "materialize", "--select", "*", "--partition", f"{TYPE}:{version}"])
        whole = time.perf_counter() - began
        import dagster as dg

        with dg.DagsterInstance.from_config(self.environment["DAGSTER_HOME"]) as instance:
            (record,) = instance.get_run_records(limit=1)
        assert record.start_time is not None and record.end_time is not None
        return record.end_time - record.start_time, whole

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
        return found, requirements, store.fetch(store.load("payload_data", f"{TYPE}:1").parts["records"])

    def stock(self, inputs: tuple[Path, Path, Path], number: int) -> float:
        """Seconds of the stock sequence, without the start of its interpreter."""
        work = self.folder / f"stock{number}"
        work.mkdir()
        self._run([BIN / "python", Path(__file__).with_name("stock_sequence.py"), *inputs, work])
        told = json.loads((work / "told.json").read_text())
        shutil.rmtree(work)
        return float(told["save"] + told["run"] + told["convert"])


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgepack-benchmark-") as folder:
        bench = Bench(Path(folder), options.data)
        first_run, first_whole = bench.ours()
        inputs = bench.stock_inputs()
        runs, wholes, stocks = [], [], []
        for number in range(options.rounds):
            stocks.append(bench.stock(inputs, number))
            run, whole = bench.ours()
            runs.append(run)
            wholes.append(whole)
            print(
                f"round {number + 1}: stock {stocks[-1]:.1f} s, our run {run:.1f} s, our command {whole:.1f} s",
                flush=True,
            )
    median = {name: statistics.median(found) for name, found in
              {"stock": stocks, "run": runs, "command": wholes}.items()}  # fmt: skip
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "rounds": options.rounds,
        "seconds": {**median, "first_run": first_run, "first_command": first_whole},
        "ratios": {"run/stock": median["run"] / median["stock"], "command/stock": median["command"] / median["stock"]},
        "all": {"stock": stocks, "run": runs, "command": wholes},
    }
    print(
        f"medians: stock {median['stock']:.1f} s, our run {median['run']:.1f} s, our command {median['command']:.1f} s"
    )
    print(f"our first version, nothing built yet: run {first_run:.1f} s, command {first_whole:.1f} s")
    print(f"run / stock      {result['ratios']['run/stock']:.3f}   (to reach: 0.25)")  # type: ignore[index]
    print(f"command / stock  {result['ratios']['command/stock']:.3f}   (to reach: 0.5)")  # type: ignore[index]
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
