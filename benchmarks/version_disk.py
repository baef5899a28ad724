"""What a further version of an unchanged environment adds to the disk, against the size of its package.

    python -m benchmarks.version_disk [--versions 2] [--json FILE]

Packages a model version, then further ones with the same requirements. A file with several names (hard links) counts
once, where it is met first: in the registry, then in the artefact store, then in the rest of the folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.package_run import TYPE, Bench
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.base import Kind, latest


def sizes(bench: Bench) -> tuple[Counter[str], dict[tuple[str, int, int], tuple[str, int]]]:
    """(bytes by place, every file: (place, device, inode) -> (path, bytes))."""
    store = Path(bench.settings.artefacts.root)
    registry = open_registry(bench.settings)
    location = Path(latest(registry, Kind.DATA, "raw").location)
    root = next(parent.parent for parent in location.parents if parent.name == "data")
    places = {"registry": root, "store": store, "environments": bench.settings.runtime.environments,
              "Dagster": Path(bench.environment["DAGSTER_HOME"])}  # fmt: skip
    seen: set[tuple[int, int]] = set()
    totals: Counter[str] = Counter(dict.fromkeys(places, 0))
    files: dict[tuple[str, int, int], tuple[str, int]] = {}
    for name, top in places.items():
        for parent, _, names in os.walk(top):
            for each in names:
                path = os.path.join(parent, each)  # noqa: PTH118 - a million times
                status = os.lstat(path)
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    totals[name] += status.st_size
                    files[name, status.st_dev, status.st_ino] = (path, status.st_size)
    return totals, files


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", type=int, default=2, help="further versions")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    grown: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="edgepack-benchmark-") as folder:
        bench = Bench(Path(folder), None)
        bench.ours()
        before, known = sizes(bench)
        for _ in range(options.versions):
            bench.ours()
            after, files = sizes(bench)
            registry = open_registry(bench.settings)
            package = latest(registry, Kind.MODEL, bench.settings.model_type(TYPE).registered_package_name).resolve()
            added = {name: after[name] - before[name] for name in after}
            grown.append({"package": package.size, **added})
            largest = sorted(((size, path) for key, (path, size) in files.items() if key not in known), reverse=True)
            for size, path in largest[:10]:
                print(f"  {size:11,} {path.removeprefix(folder)}")
            before, known = after, files
    middle = {name: statistics.median(each[name] for each in grown) for name in grown[0]}
    ratios = {name: middle[name] / middle["package"] for name in middle if name != "package"}
    print(f"package {middle['package']:,.0f} bytes; a further version adds, in bytes and of the package's size:")
    for name, ratio in ratios.items():
        print(f"  {name:13} {middle[name]:13,.0f}  {ratio:.4f}")
    if options.json:
        options.json.write_text(json.dumps({"bytes": middle, "ratios": ratios}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
