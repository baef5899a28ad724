"""Faults of sensors and small changes, tried on the packaged model in the sandbox: which change its answers, and which
of these the package notices, by its envelope or by not answering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from edgepack_assets.checks import CheckRow
from edgepack_assets.errors import ComponentError
from edgepack_assets.model_types.interface import Trial
from edgepack_assets.sandbox.untrusted_values import Text, UntrustedReport, parse_report

_WHAT = "trying faults"
_UNNOTICED = 0.05
"""Share of the records whose answers a fault may change unnoticed."""
_FALSE = 0.05
"""Share of the records as they are that may be noticed."""
_FLIPPED = 0.02
"""Share of the answers that a small change may change."""
_Count = Annotated[int, Field(ge=0)]


class _Probe(UntrustedReport):
    name: Text
    kind: Literal["none", "fault", "small"]
    records: _Count
    answers: _Count
    changed: _Count
    noticed: _Count
    unnoticed: _Count


class _Probes(UntrustedReport):
    probes: Annotated[list[_Probe], Field(min_length=1, max_length=100)]
    what: Text


@dataclass(frozen=True)
class FaultProbes(Trial):
    """`records` are payload records, `count` how many. `warns`: the rows fail nothing."""

    function: ClassVar[str] = "probe_faults"
    records: Path
    count: int
    warns: bool
    arguments: Mapping[str, Any] = field(init=False)
    inputs: Mapping[str, Path] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", {"count": self.count})
        object.__setattr__(self, "inputs", {"records": self.records})

    def rows(self, answer: object) -> tuple[list[CheckRow], list[dict[str, Any]]]:
        """A row for records as they are, one for faults, and one for each small change; a table of all."""
        told = parse_report(_WHAT, _Probes, answer)
        for probe in told.probes:
            if not probe.records or max(probe.answers, probe.changed, probe.noticed) > probe.records:
                raise ComponentError(f"{_WHAT}: {probe.name}: its numbers cannot be")
            if probe.unnoticed > min(probe.changed, probe.records - probe.noticed):
                raise ComponentError(f"{_WHAT}: {probe.name}: its numbers cannot be")
        faults = [probe for probe in told.probes if probe.kind == "fault"]
        missed = [
            f"{probe.name}: {probe.unnoticed} of {probe.records}" for probe in faults
            if probe.unnoticed > _UNNOTICED * probe.records
        ]  # fmt: skip
        rows = [
            CheckRow(
                "faults that change answers are noticed", not missed,
                f"changed unnoticed: {'; '.join(missed)}" if missed else f"all {len(faults)} that were tried",
                f"at most {_UNNOTICED:.0%} of the {told.what} are changed unnoticed, by the envelope or by no answer",
                warns=self.warns,
            )
        ]  # fmt: skip
        for probe in told.probes:
            if probe.kind == "none":
                rows.append(CheckRow(
                    f"{told.what} as they are lie in the envelope", probe.noticed <= _FALSE * probe.records,
                    f"{probe.noticed} of {probe.records} are noticed", f"at most {_FALSE:.0%}", warns=True,
                ))  # fmt: skip
            if probe.kind == "small":
                rows.append(CheckRow(
                    f"answers stay: {probe.name}", probe.changed <= _FLIPPED * probe.records,
                    f"{probe.changed} of {probe.records} change", f"at most {_FLIPPED:.0%}", warns=True,
                ))  # fmt: skip
        table = [
            {
                "what is done": probe.name,
                told.what: probe.records,
                "answered": probe.answers,
                "other answer": probe.changed,
                "noticed": probe.noticed,
                "other answer, unnoticed": probe.unnoticed,
            }
            for probe in told.probes
        ]
        return rows, table
