"""The confusion matrix as a picture: rows are the true classes, columns the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgepack_assets.model_types.figures import png
from edgepack_assets.model_types.image_classification.figure_labels import airy_figure, class_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle

_MOST = 50  # classes that are drawn in full
_CHOSEN = 30  # of more classes, the most confused ones
OTHER = -2
"""The column of the answers that have none of their own."""


@dataclass(frozen=True)
class Matrix:
    """What is drawn: the true classes, the answers (OTHER and the mark of no answer last) and their counts."""

    rows: list[int]
    columns: list[int]
    cells: list[list[int]]


def tabulate(truth: Sequence[int], predicted: Sequence[int], no_answer: int) -> Matrix:
    """Count. Of many classes, those with most mistakes; answers without a column of their own share one."""
    counts = Counter(zip(truth, predicted, strict=True))
    rows = _true_classes(counts)
    columns = _answers(counts, rows, no_answer)
    own = {*columns, no_answer}
    cells: Counter[tuple[int, int]] = Counter()
    for (true, answer), count in counts.items():
        cells[true, answer if answer in own else OTHER] += count
    columns += [special for special in (OTHER, no_answer) if any(cells[row, special] for row in rows)]
    return Matrix(rows, columns, [[cells[row, column] for column in columns] for row in rows])


def draw(truth: Sequence[int], predicted: Sequence[int], names: Mapping[int, str], no_answer: int) -> bytes:
    """A PNG with a count in each cell."""
    matrix = tabulate(truth, predicted, no_answer)
    special = {OTHER: "other answers", no_answer: "no answer"}
    classes = len(set(truth))
    title = f"{classes} class{'es' if classes > 1 else ''}"
    if len(matrix.rows) < classes:
        title = f"The {len(matrix.rows)} most confused of {title}"
    return _picture(
        matrix,
        [class_label(row, names) for row in matrix.rows],
        [special.get(column) or class_label(column, names) for column in matrix.columns],
        f"{title}, {sum(map(sum, matrix.cells))} images",
    )


def _true_classes(counts: Counter[tuple[int, int]]) -> list[int]:
    labels = sorted({true for true, _ in counts})
    if len(labels) <= _MOST:
        return labels
    mistakes: Counter[int] = Counter()
    for (true, answer), count in counts.items():
        mistakes[true] += count if true != answer else 0
    return sorted(sorted(labels, key=lambda label: -mistakes[label])[:_CHOSEN])


def _answers(counts: Counter[tuple[int, int]], rows: list[int], no_answer: int) -> list[int]:
    """Each shown class has a column, and so have the commonest other answers, as long as there is room."""
    others: Counter[int] = Counter()
    for (true, answer), count in counts.items():
        if true in rows and answer not in rows and answer != no_answer:
            others[answer] += count
    room = max(_MOST - len(rows), 5) if len(rows) < _CHOSEN else 5
    if len(others) <= room:
        extra = list(others)
    else:
        extra = [label for label, _ in sorted(others.items(), key=lambda item: (-item[1], item[0]))[:room]]
    return sorted([*rows, *extra])


def _picture(matrix: Matrix, rows: list[str], columns: list[str], title: str) -> bytes:
    cell = 0.62 if len(columns) <= 12 else 0.44 if len(columns) <= 25 else 0.34
    margin = 0.085 * max(map(len, [*rows, *columns])) + 0.9
    figure = airy_figure(max(cell * len(columns) + margin, 4.6), max(cell * len(rows) + margin, 3.4))
    axes = figure.subplots()
    size = 13 if len(columns) <= 4 else 11 if cell > 0.6 else 9 if cell > 0.4 else 7.5
    # Colour is the share of the row, so that a class with few images shows its mistakes as one with many does.
    shares = [[count / max(sum(row), 1) for count in row] for row in matrix.cells]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.15, aspect="equal")
    for i, row in enumerate(matrix.cells):
        for j, count in enumerate(row):
            if matrix.rows[i] == matrix.columns[j]:
                axes.add_patch(_frame(i, j))
            if count:
                colour = "white" if shares[i][j] > 0.6 else "#1b1e23"
                axes.text(j, i, str(count), ha="center", va="center", color=colour, fontsize=size)
    _name_axes(axes, rows, columns, size)
    axes.set_title(title, fontsize=12, loc="left", pad=10)
    return png(figure)


def _frame(row: int, column: int) -> Rectangle:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#4269d0", linewidth=1.5, zorder=3)


def _name_axes(axes: Axes, rows: list[str], columns: list[str], size: float) -> None:
    axes.set_xticks(range(len(columns)), columns, fontsize=size, rotation=90 if len(columns) > 4 else 0)
    axes.set_yticks(range(len(rows)), rows, fontsize=size)
    axes.set_xlabel("answer", fontsize=11)
    axes.set_ylabel("true class", fontsize=11)
    axes.set_xticks([x - 0.5 for x in range(len(columns) + 1)], minor=True)
    axes.set_yticks([y - 0.5 for y in range(len(rows) + 1)], minor=True)
    axes.grid(which="minor", color="#dfe3e8", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_color("#dfe3e8")
