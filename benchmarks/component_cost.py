"""What one record costs our component, against a straightforward one, and whether that grows with the records seen.

    python -m benchmarks.component_cost [--records 3000 300000 3000000] [--rounds 3] [--limit 10] [--json FILE]

On a model that the quickstart's training code fits (windows of 300 records, 300 apart), in this process, in turn:

- ours: model_types/state_identifier/component/inference.py, as it ships;
- straightforward: appends each record to a numpy array, keeps all of them, and lets the whole model predict the last
  300 rows whenever a window is complete. Each append copies the array, so its cost grows with every record; it is
  stopped after `--limit` seconds, and what is told then is the cost of its last records;
- batch: one `predict` over all records at once.

What a record may cost: the batch prediction's cost per record plus 10 microseconds. Records are made outside of the
time that is measured. The answers of all three must be the same.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = Path(__file__).parents[1] / "edgepack_assets"
BUDGET = 10.0
"""Microseconds that a record may cost beyond its share of the batch prediction."""
WINDOW = 300
_CHUNK = 3_000
Record = dict[str, float]
Answers = list[tuple[int, int]]


def recording(rows: int) -> np.ndarray:
    """Rows x 3: three levels of power with noise."""
    random = np.random.RandomState(0)
    levels = random.choice([120.0, 900.0, 4000.0], size=rows // 900 + 1).repeat(900)[:rows]
    return levels[:, None] * random.uniform(0.95, 1.05, size=(rows, 3))


def fitted() -> Any:
    """The quickstart's state identifier."""
    sys.path.insert(0, str(PACKAGE / "quickstart" / "training"))
    parts = importlib.import_module("si_training.preprocessing")
    from sklearn.cluster import KMeans
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import MinMaxScaler

    preprocessing = Pipeline([
        ("fillmissing", parts.FillMissingValues("ffill")),
        ("summarization", parts.SumColumnsTransformer()),
        ("windowing", parts.WindowTransformer(window_size=WINDOW, window_step=WINDOW)),
        ("featurization", parts.FeatureTransformer()),
        ("scaling", MinMaxScaler()),
    ])  # fmt: skip
    clustering = KMeans(n_clusters=3, random_state=0, n_init=10)
    return Pipeline([("preprocessing", preprocessing), ("clustering", clustering)]).fit(recording(60_000))


class Straightforward:
    """A component as one would first write it."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.rows = np.empty((0, 3))

    def process(self, record: Record) -> dict[str, Any] | None:
        """Take one record; answer when it completes a window."""
        self.rows = np.append(self.rows, [[record["ph1"], record["ph2"], record["ph3"]]], axis=0)
        if len(self.rows) % WINDOW:
            return None
        window = self.rows[-WINDOW:]
        return {
            "prediction": int(self.model.predict(window)[0]),
            "inertia": float(self.model.named_steps["clustering"].inertia_),
            "model_input_min": json.dumps({"value": float(window.min())}),
            "model_input_max": json.dumps({"value": float(window.max())}),
            "model_input_mean": json.dumps({"value": float(window.mean())}),
        }


def chunks(rows: np.ndarray) -> Iterator[list[Record]]:
    """The rows as the server hands them over."""
    for start in range(0, len(rows), _CHUNK):
        yield [{"ph1": a, "ph2": b, "ph3": c} for a, b, c in rows[start : start + _CHUNK].tolist()]


def feed(process: Callable[[Record], Any], rows: np.ndarray, limit: float) -> tuple[dict[str, float], Answers]:
    """Microseconds per record over all and over the last ones, how many there were, and the answers."""
    answers: Answers = []
    costs: list[float] = []
    seen = 0
    for records in chunks(rows):
        started = time.perf_counter()
        answered = [process(record) for record in records]
        costs.append((time.perf_counter() - started) / len(records) * 1e6)
        answers += [(seen + i, answer["prediction"]) for i, answer in enumerate(answered) if answer is not None]
        seen += len(records)
        if sum(costs) * _CHUNK / 1e6 > limit:
            break
    last = costs[-max(1, len(costs) // 10) :]
    return {"mean": statistics.mean(costs), "last": statistics.median(last), "records": seen}, answers


def measured(model: Any, inference: Any, rows: np.ndarray, limit: float) -> dict[str, dict[str, float]]:
    """One round on these records."""
    started = time.perf_counter()
    predicted = model.predict(rows)
    batch = (time.perf_counter() - started) / len(rows) * 1e6
    expected = [(i * WINDOW + WINDOW - 1, int(state)) for i, state in enumerate(predicted)]
    ours, answers = feed(inference.StateIdentifier(model, {}).process, rows, float("inf"))
    assert answers == expected, "our component answers otherwise than the batch prediction"
    naive, answers = feed(Straightforward(model).process, rows, limit)
    assert answers == expected[: len(answers)], "the straightforward component answers otherwise"
    return {"ours": ours, "straightforward": naive, "batch": {"mean": batch}}


def each_record(model: Any, inference: Any, rows: np.ndarray) -> tuple[float, float]:
    """Microseconds of a record that completes a window, as each does with a step of 1: ours, and the model's own
    `predict` of the window."""
    component = inference.StateIdentifier(model, {})
    component.update_parameters({"step_size": 1})
    records = next(chunks(rows))
    for record in records[:WINDOW]:
        component.process(record)
    ours, predicted = [], []
    for number in range(WINDOW, 1_000):
        started = time.perf_counter()
        component.process(records[number])
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        model.predict(rows[number - WINDOW + 1 : number + 1])
        predicted.append(time.perf_counter() - started)
    return statistics.median(ours) * 1e6, statistics.median(predicted) * 1e6


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[3_000, 300_000, 3_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=5.0, help="seconds of the straightforward component, a round")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sys.path.insert(0, str(PACKAGE / "model_types" / "state_identifier" / "component"))
    inference, model, rows = importlib.import_module("inference"), fitted(), recording(max(options.records))
    measured(model, inference, rows[:_CHUNK], 1.0)  # what is imported late is imported
    found: dict[int, list[dict[str, dict[str, float]]]] = {count: [] for count in options.records}
    for _ in range(options.rounds):
        for count, rounds in found.items():
            rounds.append(measured(model, inference, rows[:count], options.limit))

    def median(count: int, who: str, what: str) -> float:
        return statistics.median(each[who][what] for each in found[count])

    table = {
        count: {
            "ours": median(count, "ours", "mean"),
            "ours_last_tenth": median(count, "ours", "last"),
            "straightforward_last_tenth": median(count, "straightforward", "last"),
            "straightforward_records": median(count, "straightforward", "records"),
            "batch": median(count, "batch", "mean"),
            "budget": median(count, "batch", "mean") + BUDGET,
        }
        for count in options.records
    }
    print(f"microseconds per record, medians of {options.rounds} rounds")
    for count, row in table.items():
        stopped = row["straightforward_records"] < count
        told = f"stopped after {row['straightforward_records']:,.0f}" if stopped else "all of them"
        print(
            f"{count:>9,} records: ours {row['ours']:.2f} (last tenth {row['ours_last_tenth']:.2f}), batch "
            f"{row['batch']:.3f}, budget {row['budget']:.2f}; straightforward {row['straightforward_last_tenth']:.1f} "
            f"({told}), ours/straightforward {row['ours_last_tenth'] / row['straightforward_last_tenth']:.3f}"
        )
    first, last = min(options.records), max(options.records)
    flatness = table[last]["ours_last_tenth"] / table[first]["ours"]
    worst = max(row["ours"] / row["budget"] for row in table.values())
    answer, predict = each_record(model, inference, rows)
    print(f"a record that completes a window (step 1): ours {answer:.0f}, the model's own predict of it {predict:.0f}")
    print(f"cost at {last:,} / cost at {first:,}   {flatness:.2f}   (to reach: 1, flat)")
    print(f"cost / (batch + {BUDGET:.0f} us)   {worst:.2f}   (to reach: at most 1)")
    if options.json:
        machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        result = {"machine": machine, "rounds": options.rounds, "microseconds": table, "flatness": flatness,
                  "step_1": {"ours": answer, "predict": predict},
                  "of_the_budget": worst}  # fmt: skip
        options.json.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
