"""Before a config package is built: which numbers its states get, so that they are those of the package before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepack_assets.checks import CheckRow
from edgepack_assets.environments.environment import Environment
from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets.model_types.interface import Answered, Results
from edgepack_assets.model_types.renumbering import shipped
from edgepack_assets.partitions import ModelKey
from edgepack_assets.tasks.ahead.kept_run import ComparedRun
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.package_run import run_package
from edgepack_assets.tasks.payload_data import make_payload, open_payload
from edgepack_assets.tasks.predecessor.answers import answers_to
from edgepack_assets.tasks.predecessor.find import NO_PREDECESSOR, Predecessor, find_predecessor, recorded
from edgepack_assets.tasks.predecessor.numbering import Category, contingency, contingency_table, match_numbers, ordered

NUMBERED_LIKE = "numbered_like"
"""In the inspection of a config package: the package before, in words, that its numbers were compared with."""
_ROW = "states get the numbers of the package before"


@dataclass(frozen=True)
class Renumbering:
    """State of the model -> its number in the package before. Empty where nothing is changed.

    `predecessor` is that package in words, or why there is none. `table` shows the answers of both,
    `compared` is the run of the package that gave them."""

    predecessor: str
    numbers: Mapping[Category, Category] = field(default_factory=dict)
    rows: tuple[CheckRow, ...] = ()
    table: tuple[Mapping[str, Any], ...] = ()
    compared: ComparedRun | None = None

    @property
    def is_compared(self) -> bool:
        """Whether there is a package before, whatever comparing gave."""
        return bool(self.rows)


def plan_renumbering(  # noqa: PLR0917 - what is run, and where
    key: ModelKey, package: Path, inspection: Mapping[str, Any], environment: Environment, work: Path,
    context: TaskContext,
) -> Renumbering:  # fmt: skip
    """Compare the answers of a config package, as its model numbers them, with those of the package before.

    A comparison that cannot be made, or is not clear, changes no number: its row warns, and metrics.pass_gates decides.
    Raises TransientError."""
    implementation = context.model_type(key)
    if context.entry(key).numbering != "map" or implementation.category_output is None:
        return Renumbering("")
    if not implementation.numbers_are_free(inspection):
        return Renumbering("")
    predecessor = None
    try:
        predecessor = find_predecessor(key, context)
        if predecessor is None:
            return Renumbering(NO_PREDECESSOR)
        return _compare(key, package, inspection, environment, work, predecessor, context)
    except TransientError:
        raise
    except EdgepackError as error:
        named = str(predecessor) if predecessor else "not known"
        row = CheckRow(_ROW, False, f"cannot be compared: {error}", "a clear match", named, warns=True)
        return Renumbering(named, rows=(row,))


def _compare(  # noqa: PLR0917 - what is run, and where
    key: ModelKey, package: Path, inspection: Mapping[str, Any], environment: Environment, work: Path,
    predecessor: Predecessor, context: TaskContext,
) -> Renumbering:  # fmt: skip
    implementation, entry = context.model_type(key), context.entry(key)
    assert implementation.category_output is not None
    known = recorded(predecessor, context)
    # The payload that the package before was validated on: what it answered is known then. Any that both answer will
    # do, and metrics compares both on the payload of this version.
    payload_data = known.payload_data if known is not None else make_payload(key, context)[0]
    payload = open_payload(payload_data, context)
    with answers_to(payload_data, predecessor, key, context) as before:
        run, _ = run_package(f"comparing {key}", package, environment, payload, key, work, context)
        cross_table = contingency(before, Results(run.results), implementation.category_output)
    earlier: list[Any] = []
    recorded_answers = None
    if known is not None:
        there = context.store.read_json(known.config_package.parts["inspection"])
        earlier = shipped(implementation.categories(there), there)
        answers = context.results_of(known.validation_results)
        recorded_answers = Answered(str(predecessor.package), answers, there)
    compared = ComparedRun(payload_data.parts["records"].digest, run, recorded_answers)
    match = match_numbers(cross_table, earlier, implementation.categories(inspection) or (), entry.numbering_agreement)
    table = tuple(contingency_table(cross_table))
    wanted = f"a clear match: at least {entry.numbering_agreement:.4g} of the records agree"
    if match.unclear:
        row = CheckRow(_ROW, False, match.unclear, wanted, str(predecessor), warns=True)
        return Renumbering(str(predecessor), rows=(row,), table=table, compared=compared)
    moved = ", ".join(f"{now} becomes {match.moved[now]}" for now in ordered(match.moved)) or "they have them"
    row = CheckRow(_ROW, True, f"{moved}; {match.share}", wanted, str(predecessor))
    # In one order, so that the same comparison gives the same package.
    numbers = {now: match.before[now] for now in ordered(match.before)} if match.moved else {}
    return Renumbering(str(predecessor), numbers, (row,), table, compared)
