"""How often a gate with a confidence is wrong: on equal models, and on one that is worse by three points.

    python -m benchmarks.gate_errors [--trials 1000] [--records 2000] [--json FILE]

Each trial draws two models' answers to the same records, and holds the later one to the earlier one at 95 %. Models
that were trained alike are wrong on many of the same records. `shared` is the share of the earlier model's mistakes
that the later one makes too; at `chance` both are wrong independently, the hardest case. A trial is an alarm if the
gate does not hold. Processor seconds are those of all intervals of a run and its reference.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgepack_assets.config.gate_settings import GateSettings
from edgepack_assets.model_types.samples import Samples
from edgepack_assets.tasks.gates.compare import Certainty, Reference, compare_with_gates
from edgepack_assets.tasks.gates.intervals import differences, intervals

_CLASSES = 10
_WINDOWS = 40
"""Windows of one state of the machine."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    cases = [("accuracy", 0.6, 0.05), ("accuracy", None, 0.05), ("accuracy", 0.6, 0.2), ("accuracy", None, 0.2)]
    cases += [("f1", 0.6, 0.05), ("f1", None, 0.05), ("windows", None, 0.0)]
    for metric, shared, wrong in cases:
        for drop in (0.0, 0.03):
            found.append(_trials(metric, shared, wrong, drop, options))
            print(json.dumps(found[-1]), flush=True)
    cost = _cost(options.records)
    print(json.dumps(cost))
    if options.json:
        options.json.write_text(json.dumps({"gates": found, "cost": cost}, indent=1) + "\n")
    return 0


def _trials(metric: str, shared: float | None, wrong: float, drop: float, options: Any) -> dict[str, Any]:
    trials, records = options.trials, options.records
    random = np.random.default_rng(0)
    alarms = undecided = passed_worse = 0
    gate = {"m": GateSettings.model_validate({"reference": "previous", "confidence": "95%"})}
    for _ in range(trials):
        before, now = (
            _windows(random, records, drop)
            if metric == "windows"
            else _images(random, records, shared, (wrong, drop), metric)
        )
        found = [intervals(each, 0.95)["m"] for each in (before, now)]
        # Windows of which neighbouring stretches happen to be alike have no interval.
        old, value = (
            float(np.mean(each.values["m"])) if isinstance(of, str) else of.value
            for each, of in zip((before, now), found, strict=True)
        )
        certainty = Certainty(found[1], differences(before, now, 0.95)["m"])
        row = compare_with_gates({"m": value}, gate, (), {"m": Reference("before", old)}, {"m": certainty})[-1]
        alarms += not row.passed and not row.warns
        undecided += row.warns
        passed_worse += row.passed
    return {
        "metric": metric, "mistakes shared": "by chance" if shared is None else shared, "wrong before": wrong,
        "drop": drop, "trials": trials, "alarms in 100": 100 * alarms / trials,
        "too few in 100": 100 * undecided / trials,
        "passed in 100": 100 * passed_worse / trials,
    }  # fmt: skip


def _images(
    random: np.random.Generator, records: int, shared: float | None, mistakes: tuple[float, float], metric: str
) -> tuple[Samples, Samples]:
    """Two classifiers, of which the earlier one is wrong on a share of all such images and the later one on more."""
    wrong, drop = mistakes
    truth = random.integers(0, _CLASSES, records)
    before = random.random(records) < wrong
    again = wrong + drop if shared is None else shared
    new = wrong + drop if shared is None else (wrong + drop - wrong * shared) / (1 - wrong)
    now = random.random(records) < np.where(before, again, new)
    found = []
    for missed in (before, now):
        predicted = np.where(missed, (truth + random.integers(1, _CLASSES, records)) % _CLASSES, truth)
        right = (~missed).astype(float)
        if metric == "f1":
            found.append(Samples(range(records), {}, truth, predicted, {"m": "f1"}))
        else:
            found.append(Samples(range(records), {"m": right}))
    return found[0], found[1]


def _windows(random: np.random.Generator, records: int, drop: float) -> tuple[Samples, Samples]:
    """Silhouettes of windows: those of one stretch of the recording are alike."""

    def alike(spread: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        stretches = random.normal(0, spread, records // _WINDOWS + 1)
        each: np.ndarray[Any, np.dtype[np.float64]] = np.repeat(stretches, _WINDOWS)[:records]
        return each

    common = 0.6 + alike(0.1) + random.normal(0, 0.1, records)
    found = []
    for less in (0.0, drop):
        values = common - less + alike(0.02) + random.normal(0, 0.03, records)
        found.append(Samples(range(records), {"m": values}, follow_each_other=True, overlap=2))
    return found[0], found[1]


def _cost(records: int) -> dict[str, float]:
    before, now = _images(np.random.default_rng(0), records, None, (0.05, 0.0), "f1")
    windows = _windows(np.random.default_rng(0), records, 0.0)
    intervals(now, 0.95), intervals(windows[0], 0.95)  # imports what it needs
    seconds = {}
    for name, pair in (("averages over classes", (before, now)), ("windows", windows)):
        start = time.process_time()
        intervals(pair[1], 0.95), differences(pair[0], pair[1], 0.95)
        seconds[f"processor seconds, {name}"] = time.process_time() - start
    return seconds


if __name__ == "__main__":
    raise SystemExit(main())
