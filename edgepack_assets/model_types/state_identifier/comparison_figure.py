"""A picture of two packages: the states of both over the same recording, and where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgepack_assets.model_types.figures import WIDTH, name_text, new_figure, png
from edgepack_assets.model_types.interface import Answered, Payload, Results
from edgepack_assets.model_types.state_identifier.figures import (
    add_bands,
    add_legend,
    draw,
    recorded_lines,
    state_bands,
    state_name,
)
from edgepack_assets.text_format import counted

_LONGEST_TITLE = 90
_DIFFERS = "#c8102e"


def states_of_both(payload: Payload, before: Answered, now: Answered, channels: Sequence[str], period_ms: int) -> bytes:
    """The states of the one above those of the other, and below them the times of answers that differ. The windows of
    a package whose inspection is not at hand are drawn as long as those of the other one."""
    minutes, lines = recorded_lines(payload, channels, period_ms)
    figure = new_figure(WIDTH, 5.8)
    upper, lower, strip = figure.subplots(3, 1, sharex=True, height_ratios=[5, 5, 1])
    known: Mapping[str, Any] = now.inspection or before.inspection or {}
    windows: dict[int, list[int]] = {}
    for at, (axes, one) in enumerate(((upper, before), (lower, now))):
        inspection = one.inspection or known
        bands, seen = state_bands(one.results, inspection["window_size"], period_ms)
        draw(axes, bands, minutes, lines)
        axes.set_yticks([])
        axes.set_title(name_text(one.name, _LONGEST_TITLE), fontsize=10)
        for state, count in seen.items():
            windows.setdefault(state, [0, 0])[at] = count
    window = known["window_size"] * period_ms / 60_000
    add_bands(strip, _differing(before.results, now.results, window, period_ms), _DIFFERS)
    strip.set_yticks([])
    strip.set_title("Answers that differ", fontsize=9)
    strip.set_xlim(0, payload.count * period_ms / 60_000)
    strip.set_xlabel("minutes")
    add_legend(
        figure,
        {
            state: f"{state_name(state, known)}: {old}, then {counted(new, 'window')}"
            for state, (old, new) in windows.items()
        },
    )
    return png(figure)


def _differing(before: Results, now: Results, window: float, period_ms: int) -> list[list[float]]:
    """[start, end] in minutes of the windows that both answered, with different states; neighbours are one."""
    olds = {answer.record: answer.outputs["prediction"] for answer in before.answers()}
    found: list[list[float]] = []
    for answer in now.answers():
        if answer.record in olds and olds[answer.record] != answer.outputs["prediction"]:
            end = (answer.record + 1) * period_ms / 60_000
            start = max(0.0, end - window)
            if found and start <= found[-1][1]:
                found[-1][1] = end
            else:
                found.append([start, end])
    return found
