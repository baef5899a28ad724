"""Silhouette and Dunn index of a step-1 recording's windows: ours against scikit-learn's chunked silhouette_score.

    python -m benchmarks.scoring [--windows 40000] [--features 6] [--clusters 3] [--rounds 3] [--json FILE]

Ours computes both metrics, scikit-learn's the silhouette alone. In turn, each in a process of its own, whose peak
memory is told beside its seconds (importing is not timed).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

_CHILD = """
import json, resource, sys, time
import numpy as np

how, windows, features, clusters = sys.argv[1], *map(int, sys.argv[2:])
random = np.random.RandomState(0)
labels = random.randint(0, clusters, windows)
points = random.normal(size=(clusters, features))[labels] + 0.2 * random.normal(size=(windows, features))
if how == "ours":
    from edgepack_assets.model_types.state_identifier.cluster_separation import separation
    separation(points[:1000], labels[:1000])  # imports what it needs
    def score():
        return separation(points, labels).silhouette
else:
    from sklearn import config_context
    from sklearn.metrics import silhouette_score
    def score():
        with config_context(working_memory=128):
            return float(silhouette_score(points, labels))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
silhouette = score()
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": seconds, "added_mib": (peak - before) / 1024, "peak_mib": peak / 1024,
                  "silhouette": silhouette}))
"""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("windows", 40_000), ("features", 6), ("clusters", 3), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    shape = [str(options.windows), str(options.features), str(options.clusters)]
    found: dict[str, list[dict[str, float]]] = {"ours": [], "sklearn": []}
    for number in range(options.rounds):
        for how, runs in found.items():
            told = subprocess.run(
                [sys.executable, "-c", _CHILD, how, *shape], capture_output=True, text=True, check=True
            )
            runs.append(json.loads(told.stdout))
        told_now = ", ".join(f"{how} {runs[-1]['seconds']:.2f} s" for how, runs in found.items())
        print(f"round {number + 1}: {told_now}", flush=True)
    median = {
        how: {name: statistics.median(run[name] for run in runs) for name in runs[0]} for how, runs in found.items()
    }
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "windows": options.windows, "features": options.features, "clusters": options.clusters,
        "medians": median,
        "ratio": median["ours"]["seconds"] / median["sklearn"]["seconds"],
        "difference": abs(median["ours"]["silhouette"] - median["sklearn"]["silhouette"]),
    }  # fmt: skip
    for how, told_median in median.items():
        print(
            f"{how:8} {told_median['seconds']:6.2f} s, peak {told_median['peak_mib']:.0f} MiB, of these "
            f"{told_median['added_mib']:.0f} MiB for scoring"
        )
    print(f"ours (silhouette and Dunn) / scikit-learn (silhouette alone)  {result['ratio']:.3f}   (to reach: 1)")
    print(f"the silhouettes differ by {result['difference']:.1e}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
