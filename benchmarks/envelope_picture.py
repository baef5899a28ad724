"""Draws docs/images/envelope.png and docs/images/fault_probes.png: a state identifier with an envelope, made from the
quickstart's sample recordings, and what it notices.

    python -m benchmarks.envelope_picture [FOLDER]

The first picture is a later recording with four faults in it. The second one is the table that `fault_probes` gives.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler

from edgepack_assets.model_types import envelope
from edgepack_assets.model_types.state_identifier import MODEL_TYPE
from edgepack_assets.quickstart import samples

_SIZE = 300
_MINUTES = samples.ROW_MILLISECONDS / 60_000
_COLOURS = ("#4c72b0", "#dd8452", "#55a868")
_RED, _GREY = "#c44e52", "#9aa7b5"
_LATER_SEED, _ROWS = 3, 14_400
Rows = NDArray[np.float64]


def main() -> int:
    """Draw them."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")
    training = Path(samples.__file__).parent / "training"
    folders = [
        envelope.FOLDER,
        *(MODEL_TYPE.folder / name for name in ("component_envelope", "component", ".")),
        training,
    ]
    sys.path[:0] = list(map(str, folders))
    settings = {"file": "model.pkl", "format": "joblib", "input": "array", "columns": list(samples.PHASES)}
    learned_on = _rows(samples.VALIDATION_SEED, samples.ROWS)
    model = _model(_rows(samples.TRAINING_SEED, samples.ROWS))
    inference, windows = (importlib.import_module(name) for name in ("inference", "child_window_envelope"))
    learned = windows.learn(inference.StateIdentifier(model, settings), learned_on, samples.PHASES)
    enveloped = importlib.import_module("enveloped").enveloped

    def make() -> Any:
        return enveloped(model, {**settings, "envelope": learned})

    later, faults = _with_faults(_rows(_LATER_SEED, _ROWS))
    _draw_envelope(later, faults, _distances(make(), later)).savefig(
        target / "envelope.png", dpi=110, metadata={"Software": None}
    )
    probes = windows.probe(make, learned_on, samples.PHASES)["probes"]
    print(json.dumps(probes, indent=1))
    _draw_probes(probes).savefig(target / "fault_probes.png", dpi=110, metadata={"Software": None})
    return 0


def _rows(seed: int, count: int) -> Rows:
    return samples.power_recording(seed, count).frame[list(samples.PHASES)].to_numpy(dtype=np.float64, copy=True)


def _model(rows: Rows) -> Pipeline:
    """The quickstart's model, fitted here."""
    steps = importlib.import_module("si_training.preprocessing")
    preprocessing = Pipeline(
        [
            ("fillmissing", steps.FillMissingValues("ffill")),
            ("summarization", steps.SumColumnsTransformer()),
            ("windowing", steps.WindowTransformer(window_size=_SIZE, window_step=_SIZE)),
            ("featurization", steps.FeatureTransformer()),
            ("scaling", MinMaxScaler()),
        ]
    )
    clustering = KMeans(n_clusters=3, random_state=0, n_init=10)
    return Pipeline([("preprocessing", preprocessing), ("clustering", clustering)]).fit(rows)


def _with_faults(rows: Rows) -> tuple[Rows, list[tuple[int, int, str]]]:
    """A recording with four faults, each for some windows, and (first row, end, name) of each."""
    length, faults = 4 * _SIZE, list[tuple[int, int, str]]()
    names = ("ph1 stuck", "ph1 and ph2 exchanged", "ph1 times 1.25", "ph1 missing")
    for number, name in enumerate(names):
        first = (5 + 10 * number) * _SIZE
        part = rows[first : first + length]
        if number == 0:
            part[:, 0] = part[0, 0]
        elif number == 1:
            part[:, :2] = part[:, 1::-1].copy()
        elif number == 2:
            part[:, 0] *= 1.25
        else:
            part[length // 4 : length // 2, 0] = np.nan
        faults.append((first, first + length, name))
    return rows, faults


def _distances(identifier: Any, rows: Rows) -> Rows:
    found = []
    for row in rows:
        record = {name: None if np.isnan(value) else value for name, value in zip(samples.PHASES, row, strict=True)}
        answer = identifier.process(record)
        if answer is not None:
            found.append(json.loads(answer["envelope_distance"])["value"])
    return np.array(found)


def _draw_envelope(rows: Rows, faults: list[tuple[int, int, str]], distances: Rows) -> Figure:
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    minutes = np.arange(len(rows)) * _MINUTES
    for number, name in enumerate(samples.PHASES):
        upper.plot(minutes, rows[:, number] / 1000, color=_COLOURS[number], linewidth=0.6, label=name)
    ends = (np.arange(len(distances)) + 1) * _SIZE * _MINUTES
    lower.axhline(1, color="black", linewidth=0.8)
    colours = [_RED if distance > 1 else _GREY for distance in distances]
    lower.vlines(ends, 0.05, distances, color=colours, linewidth=1.2)
    lower.scatter(ends, distances, color=colours, s=18, zorder=3)
    lower.set_yscale("log")
    lower.set_ylim(bottom=0.05)
    for first, end, name in faults:
        for axes in (upper, lower):
            axes.axvspan(first * _MINUTES, end * _MINUTES, color=_RED, alpha=0.1, linewidth=0)
        upper.text(
            (first + end) / 2 * _MINUTES, 1.02, name, fontsize=8, ha="center", transform=upper.get_xaxis_transform()
        )
    upper.set_ylabel("power in kW", fontsize=9)
    lower.set_ylabel("envelope_distance", fontsize=9)
    lower.set_xlabel("minutes", fontsize=9)
    lines = [Line2D([], [], color=colour, label=name) for colour, name in zip(_COLOURS, samples.PHASES, strict=True)]
    upper.legend(handles=lines, fontsize=8, loc="upper left", ncols=3)
    for axes in (upper, lower):
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(0, len(rows) * _MINUTES)
    return figure


def _draw_probes(probes: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    counts = [
        (each["changed"] - each["unnoticed"], each["unnoticed"], each["noticed"] + each["unnoticed"] - each["changed"])
        for each in probes
    ]
    shares = np.array(counts) / probes[0]["records"]
    places, left = np.arange(len(probes))[::-1], np.zeros(len(probes))
    labels = ("other answer, noticed", "other answer, unnoticed", "same answer, noticed")
    for column, (label, colour) in enumerate(zip(labels, ("#4c72b0", _RED, "#c6d3e6"), strict=True)):
        axes.barh(places, 100 * shares[:, column], left=100 * left, color=colour, label=label, height=0.7)
        left += shares[:, column]
    small = [place for place, probe in zip(places, probes, strict=True) if probe["kind"] == "small"]
    axes.axhspan(min(small) - 0.5, max(small) + 0.5, color="#eeeeee", zorder=0)
    axes.text(99, max(small) + 0.25, "small changes", fontsize=8, ha="right", va="center", color="#555555")
    axes.set_yticks(places, [probe["name"] for probe in probes], fontsize=8)
    axes.set_xlabel(f"% of {probes[0]['records']} windows", fontsize=9)
    axes.set_xlim(0, 100)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(fontsize=8, loc="outside upper center", ncols=3, frameon=False)
    return figure


if __name__ == "__main__":
    raise SystemExit(main())
