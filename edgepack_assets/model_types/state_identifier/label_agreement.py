"""How well answered states agree with the labels of a recording: a window's label, adjusted Rand index, accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack_assets.checks import CheckRow
from edgepack_assets.model_types.interface import Payload, read_lines

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_NAMED = 10


@dataclass(frozen=True)
class Agreement:
    """Share of labelled windows that are answered rightly, adjusted Rand index (Hubert and Arabie 1985); NaN without a
    labelled window. `table` has a row for each label, `right` a 1 or 0 for each labelled window."""

    accuracy: float
    adjusted_rand_index: float
    rows: tuple[CheckRow, ...]
    table: list[dict[str, Any]]
    right: Sequence[float] = ()


def window_labels(payload: Payload, last_records: NDArray[np.int64], size: int) -> list[str | None]:
    """The label of each window of `size` records: the one that most of its records have, of those the one that comes
    first in the alphabet. None for a window without any."""
    import numpy as np

    codes: dict[str, int] = {}
    by_record = np.full(payload.count, -1, dtype=np.int32)
    for source in read_lines(payload.sources):
        if source["label"] is not None:
            by_record[source["record"]] = codes.setdefault(str(source["label"]), len(codes))
    most, winner = np.zeros(len(last_records), dtype=np.int64), np.full(len(last_records), -1, dtype=np.int64)
    names = sorted(codes)
    for place, name in enumerate(names):
        before = np.concatenate([[0], np.cumsum(by_record == codes[name])])
        count = before[last_records + 1] - before[last_records + 1 - size]
        more = count > most
        most[more], winner[more] = count[more], place
    return [names[place] if place >= 0 else None for place in winner.tolist()]


def agreement(
    states: NDArray[np.int64], labels: Sequence[str | None], class_names: Mapping[int, str] | None
) -> Agreement:
    """Compare the states of windows with their labels.

    A classifier's state means its class (`class_names`). The states of a clustering mean nothing by themselves: each is
    taken for at most one label, so that as many windows as possible are right."""
    import numpy as np
    from sklearn.metrics import adjusted_rand_score

    labelled = [at for at, label in enumerate(labels) if label is not None]
    known = [str(labels[at]) for at in labelled]
    answered = states[labelled]
    rows = [CheckRow("labelled windows", bool(labelled), f"{len(labelled)} of {len(labels)}", "at least 1")]
    if not labelled:
        return Agreement(math.nan, math.nan, tuple(rows), [])
    if class_names is None:
        meaning = _best_assignment(answered, known)
    else:
        meaning = dict(class_names)
        unknown = sorted(set(known) - set(meaning.values()))
        shown = ", ".join(unknown[:_MOST_NAMED]) + (", ..." if len(unknown) > _MOST_NAMED else "")
        rows.append(
            CheckRow(
                "labels that the classifier knows", not unknown, f"not {shown}" if unknown else "all",
                f"all; it knows {', '.join(sorted(set(meaning.values()))[:_MOST_NAMED])}: register the classifier of "
                "these labels, correct them in the recording, or leave those rows without one",
            )
        )  # fmt: skip
    right = np.array([meaning.get(state) == label for state, label in zip(answered.tolist(), known, strict=True)])
    names = np.array(known)
    state_of = {label: state for state, label in meaning.items()}
    table = [
        {
            "label": label,
            "state": state_of.get(label, ""),
            "windows": int((names == label).sum()),
            "right": round(float(right[names == label].mean()), 4),
        }
        for label in sorted(set(known))
    ]
    rand_index = float(adjusted_rand_score(known, answered))
    return Agreement(float(right.mean()), rand_index, tuple(rows), table, right.astype(float).tolist())


def _best_assignment(states: NDArray[np.int64], labels: Sequence[str]) -> dict[int, str]:
    import numpy as np
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]  # scipy has no types

    known, state_codes = np.unique(states, return_inverse=True)
    names, label_codes = np.unique(np.array(labels), return_inverse=True)
    both = np.zeros((len(known), len(names)), dtype=np.int64)
    np.add.at(both, (state_codes, label_codes), 1)
    rows, columns = linear_sum_assignment(both, maximize=True)
    return {int(known[row]): str(names[column]) for row, column in zip(rows, columns, strict=True)}
