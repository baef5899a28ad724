"""Pictures of a state identifier: features of the windows, states over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgepack_assets.filesystem.parquet import read_columns
from edgepack_assets.model_types.figures import STATE_COLOURS, WIDTH, name_text, new_figure, png
from edgepack_assets.model_types.interface import Payload, Prepped, Results, read_lines
from edgepack_assets.model_types.state_identifier.scoring import FIXED_COLUMNS, class_names
from edgepack_assets.model_types.state_identifier.settings import PHASES
from edgepack_assets.model_types.state_identifier.state_names import names_of
from edgepack_assets.text_format import counted

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_MOST_POINTS = 4_000
_MOST_FEATURES = 40
_MOST_STATES = 20
_MOST_CHANNELS = 12
_LONGEST_NAME = 40


def features(prepped: Prepped) -> bytes:
    """A map: one row per feature, one column per window, each feature from its smallest to its largest value."""
    import numpy as np

    columns = read_columns(prepped.file)
    names = [name for name in columns if name not in FIXED_COLUMNS]
    values = np.vstack([columns[name] for name in names[:_MOST_FEATURES]])
    # These pass over missing values like nanmin and nanmax, but don't warn of a feature that has no value at all.
    low, high = np.fmin.reduce(values, axis=1, keepdims=True), np.fmax.reduce(values, axis=1, keepdims=True)
    span = np.where(high > low, high - low, 1.0)
    figure = new_figure(WIDTH, 1.4 + 0.24 * len(values))
    axes = figure.add_subplot()
    image = axes.imshow((values - low) / span, aspect="auto", interpolation="nearest", cmap="viridis", vmin=0, vmax=1)
    shown = [name_text(name, _LONGEST_NAME) for name in names[:_MOST_FEATURES]]
    axes.set_yticks(range(len(values)), shown, fontsize=8)
    axes.set_xlabel("window")
    hidden = len(names) - len(values)
    axes.set_title(
        f"Prepped data: {counted(len(names), 'feature')} of {values.shape[1]} windows"
        + (f" (the first {_MOST_FEATURES} shown)" if hidden > 0 else ""),
        fontsize=10,
    )
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01, ticks=[0, 1])
    bar.ax.set_yticklabels(["smallest", "largest"], fontsize=8)
    return png(figure)


def states(
    payload: Payload, results: Results, inspection: Mapping[str, Any], channels: Sequence[str], period_ms: int
) -> bytes:
    """The channels over time, on bands in the colour of the state that was answered: the total of three phases of
    power, and of other channels, which need not have one unit, each from its smallest to its largest value."""
    minutes, lines = recorded_lines(payload, channels, period_ms)
    shown = list(channels)[:_MOST_CHANNELS]
    is_power = tuple(channels) == PHASES
    figure = new_figure(WIDTH, 3.8)
    axes = figure.add_subplot()
    bands, seen = state_bands(results, inspection["window_size"], period_ms)
    draw(axes, bands, minutes, lines)
    axes.set_xlim(0, payload.count * period_ms / 60_000)
    axes.set_xlabel("minutes")
    if is_power:
        axes.set_ylabel("ph1 + ph2 + ph3")
    elif len(channels) == 1:
        axes.set_ylabel(name_text(channels[0], _LONGEST_NAME))
    else:
        # each channel has a strip of its own
        names = [name_text(name, _LONGEST_NAME) for name in shown]
        axes.set_yticks([at + 0.45 for at in range(len(shown))], names, fontsize=8)
        if len(shown) < len(channels):
            axes.set_ylabel(f"the first {len(shown)} of {len(channels)} channels")
    axes.set_title("Answered states over time", fontsize=10)
    add_legend(figure, {state: f"{state_name(state, inspection)}: {counted(n, 'window')}" for state, n in seen.items()})
    return png(figure)


def recorded_lines(
    payload: Payload, channels: Sequence[str], period_ms: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(minutes of the points that are drawn, their values with a column for each line). Two pictures of one payload
    follow each other, so those that were read last are kept."""
    wanted = payload.digest(), payload.count, tuple(channels), period_ms
    lines = _last_lines.get(wanted)
    if lines is None:
        lines = _read_lines(payload, channels, period_ms)
        _last_lines.clear()
        _last_lines[wanted] = lines
    return lines


_last_lines: dict[tuple[str, int, tuple[str, ...], int], tuple[NDArray[np.float64], NDArray[np.float64]]] = {}


def _read_lines(
    payload: Payload, channels: Sequence[str], period_ms: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    import numpy as np

    every = max(1, payload.count // _MOST_POINTS)
    shown = list(channels)[:_MOST_CHANNELS]
    values = np.array(
        [
            [math.nan if record[name] is None else record[name] for name in shown]
            for record in read_lines(payload.records, every=every)
        ],
        dtype=np.float64,
    )
    lines = values.sum(axis=1)[:, None] if tuple(channels) == PHASES else _scaled(values)
    return np.arange(len(lines)) * every * period_ms / 60_000, lines


def state_bands(results: Results, window: int, period_ms: int) -> tuple[list[list[float]], dict[int, int]]:
    """([start, end, state] in minutes, neighbours of one state as one band; state -> its number of windows)."""
    seen: dict[int, int] = {}
    bands: list[list[float]] = []
    for answer in results.answers():
        state = int(answer.outputs["prediction"])
        seen[state] = seen.get(state, 0) + 1
        end = (answer.record + 1) * period_ms / 60_000
        start = max(bands[-1][1] if bands else 0.0, end - window * period_ms / 60_000)
        if bands and bands[-1][2] == state and bands[-1][1] >= start:
            bands[-1][1] = end
        else:
            bands.append([start, end, state])
    return bands, seen


def draw(
    axes: Axes, bands: Sequence[Sequence[float]], minutes: NDArray[np.float64], lines: NDArray[np.float64]
) -> None:
    """Lines over time on bands in the colours of their states."""
    add_bands(axes, bands, [STATE_COLOURS[int(state) % len(STATE_COLOURS)] for _, _, state in bands], alpha=0.45)
    for at in range(lines.shape[1]):
        axes.plot(minutes, lines[:, at], color="#222222", linewidth=0.7, alpha=1.0 if lines.shape[1] == 1 else 0.6)


def add_bands(
    axes: Axes, bands: Sequence[Sequence[float]], colours: Sequence[str] | str, alpha: float | None = None
) -> None:
    """Bands from their first to their second number, as high as the axes. One collection: `axvspan` adds a patch for
    each, which takes longer than all else in the picture."""
    from matplotlib.collections import PolyCollection

    corners = [[(start, 0), (start, 1), (end, 1), (end, 0)] for start, end, *_ in bands]
    spans = PolyCollection(corners, facecolors=colours, alpha=alpha, linewidths=0)
    spans.set_transform(axes.get_xaxis_transform())
    spans.set_in_layout(False)
    axes.add_collection(spans, autolim=False)


def add_legend(figure: Figure, labels: Mapping[int, str]) -> None:
    """State -> its label, below the axes; of many states the first."""
    from matplotlib.patches import Patch

    if not labels:
        return
    handles = [
        Patch(color=STATE_COLOURS[state % len(STATE_COLOURS)], alpha=0.45, label=label)
        for state, label in sorted(labels.items())[:_MOST_STATES]
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4), fontsize=8, frameon=False)


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """One channel as it is; several in strips above each other, each from its smallest to its largest value."""
    import numpy as np

    if values.shape[1] == 1:
        return values
    known = np.isfinite(values)
    low = np.where(known, values, np.inf).min(axis=0)
    high = np.where(known, values, -np.inf).max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    strips: NDArray[np.float64] = (values - low) / span * 0.9 + np.arange(values.shape[1])
    return strips


def state_name(state: int, inspection: Mapping[str, Any]) -> str:
    """`state 2`, or its number with its name."""
    names = names_of(inspection) or class_names(inspection)
    return (
        f"state {state}"
        if names is None or state not in names
        else name_text(f"{state}: {names.get(state, '')}", _LONGEST_NAME)
    )
