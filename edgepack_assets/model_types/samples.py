"""What metrics are made of, record by record: kept beside the numbers, so that a gate can ask how sure they are.

The statistics are in tasks/gates/intervals.py. This is data only: it is stored, and read again in another run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Macro = Literal["precision", "recall", "f1", "adjusted_rand"]
Scaled = tuple[str, float, float]


@dataclass(frozen=True)
class Samples:
    """The records, or windows, that were scored, in their order: all sequences have one entry for each.

    `records` are their numbers, ascending. `values`: metric -> what it is the mean of; of 0 and 1 for a share. `truth`
    and `predicted`: labels, of which `macro` says which metrics are averages over classes (an answer below 0 is none),
    or the adjusted Rand index. `scaled`: metric -> that of `values` which it follows from, a factor, and what is added.
    `follow_each_other`: neighbours are alike because they are close in time, and `overlap` of them share records.
    `slices`: a way to divide the records -> the part that each belongs to."""

    records: Sequence[int]
    values: Mapping[str, Sequence[float]]
    truth: Sequence[int] = ()
    predicted: Sequence[int] = ()
    macro: Mapping[str, Macro] = field(default_factory=dict)
    scaled: Mapping[str, Scaled] = field(default_factory=dict)
    follow_each_other: bool = False
    overlap: int = 1
    slices: Mapping[str, Sequence[str]] = field(default_factory=dict)


class _Slices(BaseModel):
    model_config = ConfigDict(extra="forbid")
    names: list[str]
    of: list[int]


class StoredSamples(BaseModel):
    """Samples as JSON."""

    model_config = ConfigDict(extra="forbid")
    records: list[int]
    values: dict[str, list[float]]
    truth: list[int]
    predicted: list[int]
    macro: dict[str, Macro]
    scaled: dict[str, Scaled] = {}  # metrics of earlier releases have none
    follow_each_other: bool
    overlap: int
    slices: dict[str, _Slices]

    def samples(self) -> Samples:
        """As they were given. Raises IndexError where a slice has no name."""
        slices = {kind: [found.names[at] for at in found.of] for kind, found in self.slices.items()}
        return Samples(**{**dict(self), "slices": slices})


def as_json(samples: Samples) -> dict[str, Any]:
    """What StoredSamples reads."""
    slices = {}
    for kind, of in samples.slices.items():
        names = sorted(set(of))
        places = {name: place for place, name in enumerate(names)}
        slices[kind] = {"names": names, "of": [places[name] for name in of]}
    return {
        "records": [int(record) for record in samples.records],
        "values": {name: [float(value) for value in values] for name, values in samples.values.items()},
        "truth": [int(label) for label in samples.truth],
        "predicted": [int(label) for label in samples.predicted],
        "macro": dict(samples.macro),
        **({"scaled": {name: list(each) for name, each in samples.scaled.items()}} if samples.scaled else {}),
        "follow_each_other": samples.follow_each_other,
        "overlap": int(samples.overlap),
        "slices": slices,
    }
