"""Packaging a Keras model: `config_package` when the model is converted, against when it was converted before.

    python -m benchmarks.keras_conversion [--size 224] [--to float] [--json FILE]

Not among those of `python -m benchmarks`: it builds environments with TensorFlow (1.6 GB). A small network is packaged
first, so that locking and building them is not measured. Then a MobileNetV2 is packaged, and the same file again, as
the next version: both times with all six assets and their checks. What the second one does not do is the conversion.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from benchmarks.large_model import COLOURS, NAME, Bench
from edgepack_assets.environments.interpreters import find_python
from edgepack_assets.environments.uv import uv_command, uv_environment

_MAKE = """
import sys, keras
from keras import layers
size, classes = int(sys.argv[1]), int(sys.argv[2])
keras.utils.set_random_seed(1)
small = keras.Sequential([keras.Input((32, 32, 3)), layers.Rescaling(1 / 255), layers.Conv2D(8, 3),
                          layers.GlobalAveragePooling2D(), layers.Dense(classes, activation="softmax")])
small.save(sys.argv[3])
base = keras.applications.MobileNetV2((size, size, 3), include_top=False, weights=None, pooling="avg")
large = keras.Sequential([keras.Input((size, size, 3)), layers.Rescaling(1 / 127.5, -1), base,
                          layers.Dense(classes, activation="softmax")])
large.save(sys.argv[4])
"""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="pixels of MobileNetV2's input")
    parser.add_argument("--to", choices=("float", "float16", "dynamic_range", "full_integer"), default="float")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgepack-benchmark-") as name:
        folder = Path(name)
        bench = Bench(folder)
        _configure(folder / "edgepack.yaml", options.to)
        small, large = folder / "small.keras", folder / "large.keras"
        _make(options.size, small, large)
        bench.package(small)
        first, _ = bench.package(large)
        again, _ = bench.package(large)
    rows = {"config_package": "config_package", "whole run": "run"}
    print(f"MobileNetV2, {options.size}x{options.size}, to {options.to}; seconds")
    for title, key in rows.items():
        share = again[key] / first[key]
        print(f"{title:>15}: converted {first[key]:.1f}, converted before {again[key]:.1f}, ratio {share:.2f}")
    if options.json:
        machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        options.json.write_text(json.dumps({"machine": machine, "to": options.to, "first": first, "again": again}))
    return 0


def _configure(file: Path, to: str) -> None:
    document = yaml.safe_load(file.read_text())
    entry = document["model_types"][NAME]
    del entry["input"]  # the model's own Rescaling tells it
    # What Keras itself rounds differently is of no meaning in a network that was not trained.
    entry["conversion"] = {"to": to, "tolerance": 0.5, "max_changed": 1.0}
    file.write_text(yaml.safe_dump(document))


def _make(size: int, small: Path, large: Path) -> None:
    _, interpreter = find_python(None)
    subprocess.run(
        uv_command("run", "--no-project", "--no-python-downloads", "--quiet", f"--python={interpreter}",
                   "--with", "tensorflow-cpu>=2.18,<2.22", "python", "-c", _MAKE, str(size), str(len(COLOURS)),
                   str(small), str(large)),
        env=uv_environment(), check=True,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
