"""The local registry and the artefact store with more and more versions: how what is done to them grows.

    python -m benchmarks.registry_growth [--counts 1000 10000] [--blobs 10] [--json FILE]

A registry with one name of so many versions, and a store with a manifest and so many blobs for each (names of a few
files: listings are measured, so one file may serve many). 100,000 versions take some 3 GB of disk or memory
and half a million inodes: `TMPDIR=/dev/shm` spares a slow disk. Each operation runs in a
process of its own: its processor seconds, and the memory it takes beyond its imports.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from edgepack_assets.artefacts.artefact import Artefact, Blob
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.operations.garbage import find_garbage
from edgepack_assets.registry.base import IDENTITY, Kind, latest
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets.registry.tag_index import TagIndex

NAME = "press"
_MOST_NAMES = 50_000
"""Names that one file gets: ext4 allows 65,000."""
GROWS = ("model list", "gc")
"""What must look at every version; all else must cost about the same whatever their number."""


def fill(folder: Path, start: int, count: int, blobs: int) -> None:
    """Put versions `start` to `count` and their artefacts there: to register them would take hours of waiting for the
    disk. What is the same in each is one file with many names."""
    model, numbers = folder / "registry" / "models" / NAME, folder / "registry" / "numbers" / f"models-{NAME}"
    index = TagIndex(folder / "registry" / "index" / f"models-{NAME}")
    manifests = folder / "store" / "manifests" / "config_package" / NAME
    for place in (model, numbers, manifests, *(folder / "store" / "blobs" / f"{each:02x}" for each in range(256))):
        place.mkdir(parents=True, exist_ok=True)
    fixed = {"created": datetime(2025, 1, 1, tzinfo=UTC).isoformat(), "digest": hashlib.sha256(b"x").hexdigest(),
             "size": 1, "is_folder": False, "entry": "model.bin"}  # fmt: skip
    for version in range(start, count + 1):
        if version % (_MOST_NAMES // (blobs + 1)) == 0 or version == start:
            same = {"content/model.bin": b"x", "tags.json": b"{}", "version.json": json.dumps(fixed).encode()}
            originals = {name: folder / f"{version}-{Path(name).name}" for name in same}
            for name, data in same.items():
                originals[name].write_bytes(data)
        (model / str(version)).mkdir()
        (model / str(version) / "content").mkdir()
        for name, original in originals.items():
            os.link(original, model / str(version) / name)
        (numbers / str(version)).touch()
        index.add_if_possible({version: dict.fromkeys(IDENTITY, str(version))})
        parts = {}
        for number in range(blobs):
            data = f"{version} {number}".encode()
            blob = Blob(digest=hashlib.sha256(data).hexdigest(), size=len(data), media_type="text/plain")
            os.link(originals["content/model.bin"], folder / "store" / "blobs" / blob.digest[:2] / blob.digest)
            parts[str(number)] = blob
        artefact = Artefact(asset="config_package", partition=f"{NAME}:{version}", parts=parts)
        (manifests / f"{version}.json").write_bytes(artefact.manifest())


def operations(folder: Path) -> dict[str, Callable[[], object]]:
    """What is measured, by its name."""
    registry = LocalRegistry(folder / "registry")
    store = ArtefactStore(str(folder / "store"), folder / "cache")
    new = folder / "new.bin"
    new.write_bytes(b"new")
    return {
        "model list": lambda: registry.versions(Kind.MODEL, NAME),
        "latest": lambda: latest(registry, Kind.MODEL, NAME),
        "newest number (a tick)": lambda: registry.newest_version(Kind.MODEL, NAME),
        "get": lambda: registry.get(Kind.MODEL, NAME, 500),
        "look for a package": lambda: registry.look_up(Kind.MODEL, NAME, dict.fromkeys(IDENTITY, "500")),
        "add": lambda: registry.register(Kind.MODEL, NAME, new, {}),
        "gc": lambda: find_garbage(store, registry, folder / "environments", -1),
    }


def measure(folder: Path, name: str) -> None:
    """Do one operation and print what it took, as JSON."""
    todo = operations(folder)[name]
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    todo()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    wall = time.perf_counter() - began
    print(json.dumps({"cpu": cpu, "seconds": wall, "mebibytes": (after.ru_maxrss - before.ru_maxrss) / 1024}))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--blobs", type=int, default=10)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure(Path(options.one[0]), options.one[1])
        return 0
    told: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="edgepack-benchmark-") as folder:
        top, filled = Path(folder), 0
        for count in sorted(options.counts):
            fill(top, filled + 1, count, options.blobs)
            filled = count
            for name in operations(top):
                command = [sys.executable, "-m", "benchmarks.registry_growth", "--one", folder, name]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                told.setdefault(name, {})[str(count)] = found = json.loads(done.stdout)
                words = f"{found['cpu']:8.3f} s of processor, {found['seconds']:8.3f} s, {found['mebibytes']:7.1f} MiB"
                print(f"{count:7,} versions  {name:23}{words}", flush=True)
            shutil.rmtree(top / "registry" / "models" / NAME / str(count + 1))  # what "add" has added
            (top / "registry" / "numbers" / f"models-{NAME}" / str(count + 1)).unlink()
    few, many = (str(pick(options.counts)) for pick in (min, max))
    ratios = {name: each[many]["cpu"] / max(each[few]["cpu"], 1e-4) for name, each in told.items()}
    for name, ratio in ratios.items():
        limit = f"of {int(many) / int(few):.0f} times the versions" if name in GROWS else "(1 is constant)"
        print(f"{name:23} {ratio:8.1f} times the processor time {limit}")
    if options.json:
        machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        options.json.write_text(json.dumps({"machine": machine, "measured": told, "ratios": ratios}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
