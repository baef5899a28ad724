"""Draws docs/images/intervals.png: two classifiers of scikit-learn's handwritten digits, held against each other on
more and more images.

    python -m benchmarks.gate_picture [FILE]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from edgepack_assets.model_types.samples import Samples
from edgepack_assets.tasks.gates.intervals import differences, intervals
from edgepack_assets.tasks.gates.resampling import Difference, Interval

_COUNTS = (40, 100, 300, 900)
_NAMES = ("version 1", "version 2")
_COLOURS = ("#4c72b0", "#dd8452")


def main() -> int:
    """Draw it."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/intervals.png")
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order] / 16, labels[order]
    test, truth = images[-900:], labels[-900:]
    answers = [
        LogisticRegression(max_iter=2000).fit(images[:count], labels[:count]).predict(test) for count in (800, 150)
    ]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, count in enumerate(_COUNTS):
        pair = [Samples(range(count), {"accuracy": (each == truth)[:count]}) for each in answers]
        for at, samples in enumerate(pair):
            found = intervals(samples, 0.95)["accuracy"]
            assert isinstance(found, Interval)
            _bar(left, place + 0.2 * at - 0.1, found, _COLOURS[at], _NAMES[at] if not place else None)
        change = differences(pair[0], pair[1], 0.95)["accuracy"]
        assert isinstance(change, Difference)
        told = "fails" if change.interval.high < 0 else "too few to tell"
        _bar(right, place, change.interval, "#c44e52" if told == "fails" else "#777777", None)
        text = f"{told}\n{len(change.worse)} worse\n{len(change.better)} better"
        right.text(place, 0.07, text, fontsize=8, ha="center")
    left.set_title("accuracy with its 95 % interval", fontsize=10)
    right.set_title("version 2 less version 1, on the same images", fontsize=10)
    right.set_ylim(top=0.105)
    right.axhline(0, color="black", linewidth=0.8)
    left.legend(fontsize=8, loc="lower right")
    for axes in (left, right):
        axes.set_xticks(range(len(_COUNTS)), [f"{count} images" for count in _COUNTS], fontsize=8)
        axes.set_xlim(-0.5, len(_COUNTS) - 0.5)
        axes.tick_params(axis="y", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, dpi=110, metadata={"Software": None})
    return 0


def _bar(axes: object, place: float, found: Interval, colour: str, label: str | None) -> None:
    axes.errorbar(  # type: ignore[attr-defined]  # an Axes of matplotlib
        [place], [found.value], [[found.value - found.low], [found.high - found.value]],
        fmt="o", color=colour, capsize=4, label=label,
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
