"""Packaging a large ONNX model: time of each step against `cp` and `sha256sum` of the same bytes, and memory.

    python -m benchmarks.large_model [--mebibytes 300] [--kind dense] [--external] [--json FILE]

`--kind`: dense (eight matrices), conv (convolutions of 9 MiB) or one (a single tensor). Memory is the most that one
process had resident at a time (VmHWM in /proc), of the run's own process and of each that it started: to be within
the model and 500 MB. How often the model is read and written counts what these processes read and write (/proc), less
what they do for the small model before it. The same holds for the processor time, which does not depend on what else
the machine does. A first run, which locks and builds the component's environment, is not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

BIN = Path(sys.executable).parent
NAME = "large"
COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250)}


def write_model(path: Path, mebibytes: int, kind: str, external: bool) -> None:
    """A classifier with weights of that size; what it answers is of no meaning."""
    rng = np.random.default_rng(0)
    weights: dict[str, Any] = {}
    nodes = []
    last = "image"
    if kind == "conv":
        side, count = 512, max(1, mebibytes // 9)
        weights["in"] = rng.standard_normal((side, 3, 1, 1), np.float32)
        nodes.append(helper.make_node("Conv", ["image", "in"], ["c"]))
        last = "c"
        for i in range(count):
            weights[f"w{i}"] = rng.standard_normal((side, side, 3, 3), np.float32) / 64
            nodes.append(helper.make_node("Conv", [last, f"w{i}"], [f"c{i}"], pads=[1] * 4))
            last = f"c{i}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    last = "flat"
    if kind != "conv":
        count = 1 if kind == "one" else 8
        side = int((mebibytes * 2**18 / count) ** 0.5)
        weights["in"] = rng.standard_normal((3, side), np.float32)
        nodes.append(helper.make_node("MatMul", [last, "in"], ["d"]))
        last = "d"
        for i in range(count):
            weights[f"w{i}"] = rng.standard_normal((side, side), np.float32) / np.float32(side**0.5)
            nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"d{i}"]))
            last = f"d{i}"
    weights["out"] = rng.standard_normal((side, len(COLOURS)), np.float32) / np.float32(side)
    nodes.append(helper.make_node("MatMul", [last, "out"], ["logits"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["scores"]))
    graph = helper.make_graph(
        nodes, "large", [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, len(COLOURS)])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path, save_as_external_data=external, location="weights.data")


class Bench:
    """A folder with a registry and photos."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        entry = {
            "implementation": "image_classification",
            "model_name": NAME,
            "package_name": "Large Model",
            "raw_data": {"name": "photos"},
            "input": {"range": [0, 1]},
            "gates": {},
            "numbering": "warn",  # each network answers as it was drawn
        }
        (folder / "edgepack.yaml").write_text(yaml.safe_dump({"model_types": {NAME: entry}}))
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("DAGSTER", "EDGEPACK", "PYTHONDONT"))}
        self.environment = {**clean, "EDGEPACK_CONFIG": str(folder / "edgepack.yaml")}
        exports = self.run([BIN / "edgepack", "env"])
        told = subprocess.run(
            ["bash", "-c", f"{exports}\nenv -0"], env=self.environment, capture_output=True, check=True
        ).stdout
        self.environment = dict(item.decode().split("=", 1) for item in told.split(b"\0") if item)
        for name, colour in COLOURS.items():
            (folder / "photos" / name).mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (20 + number, 15), colour).save(folder / "photos" / name / f"{number}.png")
        tags = [option for label, name in enumerate(COLOURS) for option in ("--tag", f"{name}={label}")]
        self.run([BIN / "edgepack", "data", "add", "photos", folder / "photos", *tags])

    def run(self, command: list[Any]) -> str:
        """What the command says."""
        done = subprocess.run(
            [str(part) for part in command], cwd=self.folder, env=self.environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise SystemExit(f"{command} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def package(self, model: Path) -> tuple[dict[str, float], Used]:
        """(seconds of each step, what the processes used) of a new version with this model."""
        version = self.run([BIN / "edgepack", "model", "add", NAME, model]).strip().rpartition(":")[2]
        command = [BIN / "dagster", "asset", "materialize", "--select", "*", "--partition", f"{NAME}:{version}"]
        with (self.folder / "log").open("wb") as log:
            before = processor_seconds()
            process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)
            with peaks(process.pid) as resident:
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            # Of a process that has ended, with its children.
            used = Used(resident, read=_number(process.pid, "io", "rchar"), written=_number(process.pid, "io", "wchar"))
            process.wait()
            used.processor = processor_seconds() - before
        if process.returncode != 0:
            raise SystemExit((self.folder / "log").read_text()[-6000:])
        import dagster as dg

        with dg.DagsterInstance.from_config(self.environment["DAGSTER_HOME"]) as instance:
            (record,) = instance.get_run_records(limit=1)
            steps = instance.get_run_step_stats(record.dagster_run.run_id)
        assert record.start_time is not None and record.end_time is not None
        seconds = {step.step_key: (step.end_time or 0) - (step.start_time or 0) for step in steps}
        return {"run": record.end_time - record.start_time, **seconds}, used


@dataclass
class Used:
    """The most resident bytes of a process, by what it runs. Of all together: the bytes that they read and wrote, and
    the processor seconds."""

    resident: dict[str, int]
    read: int
    written: int
    processor: float = 0


@contextlib.contextmanager
def peaks(pid: int) -> Iterator[dict[str, int]]:
    """The most resident bytes of the process and of those that it starts, by what they run."""
    found: dict[str, int] = {}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.02):
            for each in descendants(pid):
                with contextlib.suppress(OSError, StopIteration, IndexError):
                    line = Path(f"/proc/{each}/cmdline").read_bytes().decode(errors="replace")
                    kind = next((k for k in ("child_main", "packaging.worker", "dagster") if k in line), "others")
                    peak = _number(each, "status", "VmHWM") * 1024
                    found[kind] = max(found.get(kind, 0), peak)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def _number(pid: int, file: str, name: str) -> int:
    rows = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith(name))


def processor_seconds() -> float:
    """Of all processes that were started from here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def descendants(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def reference(folder: Path) -> tuple[float, float]:
    """(seconds, processor seconds) of `cp` and `sha256sum` of the same bytes."""
    copy = folder.with_name("copy")
    began, before = time.perf_counter(), processor_seconds()
    subprocess.run(["cp", "-r", folder, copy], check=True)
    for file in folder.iterdir():
        subprocess.run(["sha256sum", file], check=True, capture_output=True)
    seconds = time.perf_counter() - began, processor_seconds() - before
    shutil.rmtree(copy)
    return seconds


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=300)
    parser.add_argument("--kind", choices=("dense", "conv", "one"), default="dense")
    parser.add_argument("--external", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgepack-benchmark-") as name:
        bench = Bench(Path(name))
        small, large = Path(name) / "small", Path(name) / "model"
        small.mkdir(), large.mkdir()
        write_model(small / "m.onnx", 1, "dense", False)
        bench.package(small)
        _, before = bench.package(small)
        write_model(large / "m.onnx", options.mebibytes, options.kind, options.external)
        size = sum(file.stat().st_size for file in large.iterdir())
        unit, unit_processor = reference(large)
        seconds, used = bench.package(large)
    print(f"model of {size / 1e6:.0f} MB; cp and sha256sum of it: {unit:.2f} s")
    for step, taken in seconds.items():
        print(f"  {step:<20} {taken:7.2f} s  {taken / unit:6.1f} of these")
    more = used.processor - before.processor
    print(f"  {'processor':<20} {used.processor:7.2f} s, {more:.2f} s more than for a small model")
    print(f"  {'':<20} {more / unit_processor:.1f} times that of cp and sha256sum, {unit_processor:.2f} s")
    for kind, peak in sorted(used.resident.items()):
        print(f"  {kind:<20} {peak / 1e6:7.0f} MB resident, {(peak - size) / 1e6:+.0f} MB against the model")
    read, written = (used.read - before.read) / size, (used.written - before.written) / size
    print(f"  the model is read {read:.1f} times, written {written:.1f} times")
    if options.json:
        result = {
            "size": size, "cp and sha256sum": unit, "seconds": seconds, "resident": used.resident,
            "processor": {"cp and sha256sum": unit_processor, "run": used.processor, "small model": before.processor},
            "times read and written": [read, written],
        }  # fmt: skip
        options.json.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
