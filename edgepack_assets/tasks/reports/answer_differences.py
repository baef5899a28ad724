"""In which records the answers of two packages to the same payload differ. A pure function of the answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgepack_assets.errors import ComponentError
from edgepack_assets.model_types.interface import Answer, Payload, Results, read_lines
from edgepack_assets.tasks.final_run import equal
from edgepack_assets.tasks.predecessor.numbering import contingency, contingency_table, side_by_side
from edgepack_assets.text_format import counted, plain

MOST_KEPT = 1_000
"""Records that are named one by one."""


@dataclass(frozen=True)
class DifferingAnswer:
    """What two packages answered to a record, and the file of the raw data that it comes from, if it is one."""

    record: int
    before: Any
    now: Any
    file: str = ""

    def as_json(self) -> dict[str, Any]:
        """With the file only if there is one."""
        file = {"file": self.file} if self.file else {}
        return {"record": self.record, **file, "before": plain(self.before), "now": plain(self.now)}


@dataclass(frozen=True)
class AnswerDifferences:
    """`both` records were answered by both packages, `differing` of them differently; `only_before` and `only_now` by
    one of them alone. `output` is the state or class that is compared, empty if all outputs are. `first` has the first
    records that differ, `table` how often each answer before goes with each answer now."""

    output: str
    both: int
    differing: int
    only_before: int
    only_now: int
    first: tuple[DifferingAnswer, ...] = ()
    table: tuple[Mapping[str, Any], ...] = ()

    @property
    def has_files(self) -> bool:
        """Whether records are files."""
        return any(each.file for each in self.first)

    def with_files(self, payload: Payload) -> AnswerDifferences:
        """The same, with the files of the records."""
        wanted = {each.record for each in self.first}
        files = {
            source["record"]: source["file"]
            for source in (read_lines(payload.sources) if wanted else ())
            if source["record"] in wanted and source["file"]
        }
        first = tuple(replace(each, file=files.get(each.record, "")) for each in self.first)
        return replace(self, first=first)

    def __str__(self) -> str:
        """In words."""
        alone = f"; {counted(self.only_before, 'record')} answered by the one before alone" * (self.only_before > 0)
        alone += f"; {counted(self.only_now, 'record')} answered by the one now alone" * (self.only_now > 0)
        if not self.both:
            return f"no record is answered by both{alone}"
        share = f" ({100 * self.differing / self.both:.2g} %)" if self.differing else ""
        return f"{self.differing} of {counted(self.both, 'answer')} differ{share}{alone}"

    def as_json(self) -> dict[str, Any]:
        """All of it; values that are not JSON as text."""
        return {
            "output": self.output or None, "both": self.both, "differing": self.differing,
            "only_before": self.only_before, "only_now": self.only_now, "table": [dict(row) for row in self.table],
            "first": [each.as_json() for each in self.first],
        }  # fmt: skip


def answer_differences(before: Results, now: Results, output: str | None) -> AnswerDifferences:
    """Compare answers record by record: the state or class if `output` names one, else all outputs."""
    both = differing = only_before = only_now = 0
    first: list[DifferingAnswer] = []
    is_category = False
    for old, new in side_by_side(before.answers(), now.answers()):
        if new is None:
            only_before += 1
            continue
        if old is None:
            only_now += 1
            continue
        is_category = _has(old, output) and _has(new, output) and (is_category or not both)
        both += 1
        values = (old.outputs[output], new.outputs[output]) if is_category and output else (old.outputs, new.outputs)
        if not equal(*values):
            differing += 1
            if len(first) < MOST_KEPT:
                first.append(DifferingAnswer(old.record, *values))
    table: tuple[Mapping[str, Any], ...] = ()
    if is_category and output:
        try:
            table = tuple(contingency_table(contingency(before, now, output)))
        except ComponentError:
            table = ()  # no categories, or too many of them for a table
    return AnswerDifferences(
        output if is_category and output else "", both, differing, only_before, only_now, tuple(first), table
    )


def _has(answer: Answer, output: str | None) -> bool:
    return output is not None and output in answer.outputs
