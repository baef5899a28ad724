"""The rows of metrics.pass_gates that say whether states and classes keep the numbers of the package before.

They are computed from the answers of both on the payload of this version, once for the check and once more before the
package is registered, since another package may be the one before by then. A person's reason may override them, as it
may override gates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.checks import CheckRow, all_pass
from edgepack_assets.errors import EdgepackError, OvertakenError, TransientError
from edgepack_assets.model_types.interface import Results
from edgepack_assets.model_types.renumbering import shipped
from edgepack_assets.partitions import ModelKey
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.numbering import (
    Contingency,
    contingency,
    contingency_table,
    listed,
    match_numbers,
    moved_classes,
    ordered,
)
from edgepack_assets.tasks.payload_data import open_payload
from edgepack_assets.tasks.predecessor import (
    NO_PREDECESSOR,
    Predecessor,
    Recorded,
    answers_to,
    find_predecessor,
    recorded,
)
from edgepack_assets.tasks.renumbering import NUMBERED_LIKE

STATES, CLASSES = "states keep their numbers", "classes keep their numbers"


@dataclass(frozen=True)
class NumbersReport:
    """`predecessor` is the package before in words, or why nothing is compared. `table` has the answers of both."""

    predecessor: str
    rows: tuple[CheckRow, ...] = ()
    table: tuple[Mapping[str, Any], ...] = ()


def numbers_report(
    key: ModelKey, payload_data: Artefact, validation_results: Artefact, context: TaskContext,
    with_answers: Callable[[Predecessor, Results], None] | None = None,
) -> NumbersReport:  # fmt: skip
    """Compare validation results with the answers of the package before to the same payload. `with_answers` gets these
    while they are at hand, so that whoever shows them need not run that package once more. Raises TransientError, and
    OvertakenError if the numbers are not those of the package before, but config_package knew another one or none."""
    implementation, entry = context.model_type(key), context.entry(key)
    output = implementation.category_output
    now = Results(context.store.fetch(validation_results.parts["results"]))
    first = next(now.answers(), None)
    if output is None or first is None or output not in first.outputs:
        return NumbersReport("not compared: the answers are no states or classes")
    inspection = context.store.read_json(validation_results.parts["inspection"])
    name = STATES if implementation.numbers_are_free(inspection) else CLASSES
    predecessor, warns = None, entry.numbering == "warn"
    try:
        predecessor = find_predecessor(key, context)
        if predecessor is None:
            return NumbersReport(NO_PREDECESSOR)
        with answers_to(payload_data, predecessor, key, context) as before:
            cross_table = contingency(before, now, output)
            if with_answers is not None:
                with_answers(predecessor, before)
        known = recorded(predecessor, context)
        if name == STATES:
            rows = _rows_of_states(key, cross_table, inspection, known, predecessor, context)
        else:
            rows = _rows_of_classes(key, cross_table, inspection, payload_data, known, predecessor, context)
    except TransientError:
        raise
    except EdgepackError as error:
        named = str(predecessor) if predecessor else "not known"
        wanted = "answers of the package before to compare with, or `numbering: warn`"
        return NumbersReport(
            named, (CheckRow(name, False, f"cannot be compared: {error}", wanted, named, warns=warns),)
        )
    seen = inspection.get(NUMBERED_LIKE)
    if name == STATES and entry.numbering == "map" and seen != str(predecessor) and not all_pass(rows):
        raise OvertakenError(
            f"the states of {key} are not numbered like those of {predecessor}, which has become the package before "
            f"since config_package was made (it knew {seen or 'none'}): package {key} again"
        )
    return NumbersReport(str(predecessor), tuple(rows), tuple(contingency_table(cross_table)))


def _rows_of_states(  # noqa: PLR0917 - both packages, and what is known of them
    key: ModelKey, cross_table: Contingency, inspection: Mapping[str, Any], known: Recorded | None,
    predecessor: Predecessor, context: TaskContext,
) -> list[CheckRow]:  # fmt: skip
    implementation, entry = context.model_type(key), context.entry(key)
    earlier: list[Any] = []
    if known is not None:
        there = context.store.read_json(known.config_package.parts["inspection"])
        earlier = shipped(implementation.categories(there), there)
    categories = shipped(implementation.categories(inspection), inspection)
    match = match_numbers(cross_table, earlier, categories, entry.numbering_agreement)
    warns, where = entry.numbering == "warn", str(predecessor)
    if match.unclear:
        wanted = f"the states of the package before, in at least {entry.numbering_agreement:.4g} of the records"
        return [CheckRow(STATES, False, match.unclear, wanted, where, warns=warns)]
    if match.moved:
        moved = ", ".join(f"{now} was {match.moved[now]}" for now in ordered(match.moved))
        wanted = "the numbers of the package before" + (
            f"; materialize config_package of {key} again, and what follows" if entry.numbering == "map" else ""
        )
        return [CheckRow(STATES, False, f"state {moved}; {match.share} then", wanted, where, warns=warns)]
    rows = [CheckRow(STATES, True, match.share, "the numbers of the package before", where)]
    if len(match.unproven) > 1:
        wanted = "a recording that shows every state"
        rows.append(
            CheckRow("states that both answer", False, f"none for {listed(match.unproven)}", wanted, where, warns=True)
        )
    return rows


def _rows_of_classes(  # noqa: PLR0917 - both packages, and what is known of them
    key: ModelKey, cross_table: Contingency, inspection: Mapping[str, Any], payload_data: Artefact,
    known: Recorded | None, predecessor: Predecessor, context: TaskContext,
) -> list[CheckRow]:  # fmt: skip
    implementation, where = context.model_type(key), str(predecessor)
    names = implementation.category_names(open_payload(payload_data, context), inspection)
    earlier: Mapping[str, str] = {}
    if known is not None:
        there = context.store.read_json(known.config_package.parts["inspection"])
        earlier = implementation.category_names(open_payload(known.payload_data, context), there)
    changed = {now: (earlier[now], names[now]) for now in names.keys() & earlier.keys() if names[now] != earlier[now]}
    wrong = [f"index {now} is {changed[now][1]} now, was {changed[now][0]}" for now in map(str, ordered(changed))]
    moved = moved_classes(cross_table)
    for now in ordered(moved):
        called = f" ({earlier[str(moved[now])]})" if str(moved[now]) in earlier else ""
        wrong.append(f"index {now} answers what index {moved[now]}{called} answered")
    warns = context.entry(key).numbering == "warn"
    agreeing = sum(count for (old, new), count in cross_table.counts.items() if old == new)
    if wrong or cross_table.records:
        same = f"{agreeing} of {cross_table.records} answers are the same"
        wanted = "no index means another class than in the package before"
        rows = [CheckRow(CLASSES, not wrong, "; ".join(wrong[:20]) or same, wanted, where, warns=warns)]
    else:
        rows = [
            CheckRow(CLASSES, False, "no record is answered by both", "records that both answer", where, warns=warns)
        ]
    if names and not earlier:
        lost = "its payload is not in the artefact store: only answers are compared"
        rows.append(CheckRow("classes before have names", False, lost, "names to compare with", where, warns=True))
    return rows
