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
from edgepack_assets.tasks.payload_data import open_payload
from edgepack_assets.tasks.predecessor.answers import answers_to
from edgepack_assets.tasks.predecessor.find import NO_PREDECESSOR, Predecessor, Recorded, find_predecessors, recorded
from edgepack_assets.tasks.predecessor.numbering import (
    Contingency,
    contingency,
    contingency_table,
    listed,
    match_numbers,
    moved_classes,
    ordered,
)
from edgepack_assets.tasks.predecessor.renumbering import NUMBERED_LIKE

STATES, CLASSES = "states keep their numbers", "classes keep their numbers"
NAMES = "states keep their names"


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
    """Compare validation results with the answers of the package before to the same payload; of several lines, with
    each of theirs. `with_answers` gets those of the first one while they are at hand, so that whoever shows them need
    not run that package once more. Raises TransientError, and OvertakenError if the numbers are not those of the first
    one, but config_package knew another one or none."""
    output = context.model_type(key).category_output
    first = next(context.results_of(validation_results).answers(), None)
    if output is None or first is None or output not in first.outputs:
        return NumbersReport("not compared: the answers are no states or classes")
    inspection = context.store.read_json(validation_results.parts["inspection"])
    name = STATES if context.model_type(key).numbers_are_free(inspection) else CLASSES
    try:
        predecessors = find_predecessors(key, context)
    except TransientError:
        raise
    except EdgepackError as error:
        return NumbersReport("not known", (_not_compared(name, error, "not known", key, context),))
    if not predecessors:
        return NumbersReport(NO_PREDECESSOR)
    rows: list[CheckRow] = []
    table: list[dict[str, Any]] = []
    for predecessor in predecessors:
        is_first = predecessor is predecessors[0]
        try:
            with answers_to(payload_data, predecessor, key, context) as before:
                cross_table = contingency(before, context.results_of(validation_results), output)
                if with_answers is not None and is_first:
                    with_answers(predecessor, before)
            known = recorded(predecessor, context)
            if name == STATES:
                found = _rows_of_states(key, cross_table, inspection, known, predecessor, context)
                found += _rows_of_names(key, inspection, payload_data, known, predecessor, context)
            else:
                found = _rows_of_classes(key, cross_table, inspection, payload_data, known, predecessor, context)
        except TransientError:
            raise
        except EdgepackError as error:
            rows.append(_not_compared(name, error, predecessor.in_use, key, context))
            continue
        if is_first:
            table = contingency_table(cross_table)
            if name == STATES and not all_pass(found):
                _check_not_overtaken(key, predecessor, inspection, context)
        rows += found
    return NumbersReport(str(predecessors[0]), tuple(rows), tuple(table))


def _not_compared(name: str, error: EdgepackError, where: str, key: ModelKey, context: TaskContext) -> CheckRow:
    wanted = "answers of the package before to compare with, or `numbering: warn`"
    warns = context.entry(key).numbering == "warn"
    return CheckRow(name, False, f"cannot be compared: {error}", wanted, where, warns=warns)


def _check_not_overtaken(
    key: ModelKey, predecessor: Predecessor, inspection: Mapping[str, Any], context: TaskContext
) -> None:
    """Raises OvertakenError if config_package gave the states the numbers of another package than this one."""
    seen = inspection.get(NUMBERED_LIKE)
    if context.entry(key).numbering == "map" and seen != str(predecessor):
        raise OvertakenError(
            f"the states of {key} are not numbered like those of {predecessor}, which has become the package before "
            f"since config_package was made (it knew {seen or 'none'}): package {key} again"
        )


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
    warns, where = entry.numbering == "warn", predecessor.in_use
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


def _rows_of_names(  # noqa: PLR0917 - both packages, and what is known of them
    key: ModelKey, inspection: Mapping[str, Any], payload_data: Artefact, known: Recorded | None,
    predecessor: Predecessor, context: TaskContext,
) -> list[CheckRow]:  # fmt: skip
    """What states are called may be corrected, so another name only warns."""
    if known is None:
        return []
    implementation = context.model_type(key)
    names = implementation.category_names(open_payload(payload_data, context), inspection)
    there = context.store.read_json(known.config_package.parts["inspection"])
    earlier = implementation.category_names(open_payload(known.payload_data, context), there)
    changed = [
        f"state {state} is {names[state]} now, was {earlier[state]}"
        for state in sorted(names.keys() & earlier.keys()) if names[state] != earlier[state]
    ]  # fmt: skip
    wanted = "the names of the package before"
    return [CheckRow(NAMES, False, "; ".join(changed[:20]), wanted, predecessor.in_use, warns=True)] if changed else []


def _rows_of_classes(  # noqa: PLR0917 - both packages, and what is known of them
    key: ModelKey, cross_table: Contingency, inspection: Mapping[str, Any], payload_data: Artefact,
    known: Recorded | None, predecessor: Predecessor, context: TaskContext,
) -> list[CheckRow]:  # fmt: skip
    implementation, where = context.model_type(key), predecessor.in_use
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
