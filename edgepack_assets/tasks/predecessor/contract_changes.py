"""The rows of metrics.pass_gates that hold a package's interface against that of the package before.

A change that breaks what is connected to the package fails, an addition passes and is said. Computed for the check and
once more before the package is registered. A person's reason may override them as it may gates, and so does the tag
`interface_change` of the model version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.checks import CheckRow
from edgepack_assets.errors import EdgepackError, NotFoundError, StaleError, TransientError
from edgepack_assets.packaging.contract import Contract, read_contract
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.packages.download import registered_zip
from edgepack_assets.tasks.packages.tags import INTERFACE_CHANGE, LONGEST_TAG
from edgepack_assets.tasks.predecessor.find import Predecessor, find_predecessors, recorded

_ROW = "interface"


def contract_rows(key: ModelKey, config_package: Artefact, context: TaskContext) -> list[CheckRow]:
    """A row for each part of the interface, of several lines for each of their packages. Raises TransientError."""
    try:
        predecessors = find_predecessors(key, context)
    except TransientError:
        raise
    except EdgepackError as error:
        rows = [_not_compared(error, "not known")]
    else:
        if not predecessors:
            return []
        now = read_contract(context.store.fetch(config_package.parts["package"]))
        rows = [row for predecessor in predecessors for row in _rows_against(predecessor, now, context)]
    if all(row.passed or row.warns for row in rows):
        return rows
    reason = change_reason(key, context)
    return [replace(row, warns=True, reference=f"{row.reference}; {reason}") for row in rows] if reason else rows


def _rows_against(predecessor: Predecessor, now: Contract, context: TaskContext) -> list[CheckRow]:
    try:
        return compare(_contract_of(predecessor, context), now, predecessor.in_use)
    except TransientError:
        raise
    except EdgepackError as error:
        return [_not_compared(error, predecessor.in_use)]


def _not_compared(error: EdgepackError, where: str) -> CheckRow:
    wanted = "the interface of the package before to compare with"
    return CheckRow(_ROW, False, f"cannot be compared: {error}", wanted, where)


def change_reason(key: ModelKey, context: TaskContext) -> str:
    """Why the interface of a model version's package differs: a tag of the model version; empty if there is none."""
    try:
        model = context.registry.get(Kind.MODEL, context.entry(key).model_name, key.version)
    except NotFoundError:
        return ""  # it has left the registry meanwhile
    return model.tags.get(INTERFACE_CHANGE, "").strip()[:LONGEST_TAG]


def config_package_of(key: ModelKey, validation_results: Artefact, context: TaskContext) -> Artefact:
    """The config package that results are of, which metrics does not take. Raises StaleError."""
    package = context.store.load("config_package", str(key))
    if validation_results.made_from.get(package.asset) != package.digest:
        raise StaleError(
            f"validation_results of {key} was made from another config_package than the one in the store: materialize "
            f"validation_results of {key} again"
        )
    return package


def _contract_of(predecessor: Predecessor, context: TaskContext) -> Contract:
    known = recorded(predecessor, context)
    if known is not None:
        return read_contract(context.store.fetch(known.config_package.parts["package"]))
    with context.work_folder() as work:
        return read_contract(registered_zip(predecessor.package, work, context.registry))


def compare(before: Contract, now: Contract, reference: str = "") -> list[CheckRow]:
    """What changed: a row for each part of the interface. Another Python only warns: it breaks no connection, but the
    device must have it."""
    names = [dict.fromkeys(each.components, "") for each in (before, now)]
    periods = [{"": _milliseconds(each.periodicity)} for each in (before, now)]
    shown = {
        "inputs": _changes(before.inputs, now.inputs, new_breaks=True),
        "outputs": _changes(before.outputs, now.outputs),
        "metrics": _changes(before.metrics, now.metrics),
        "parameters": _changes(_with_default(before.parameters), _with_default(now.parameters)),
        "periodicity": _changes(periods[0], periods[1]),
        # Topics of metrics and the server's settings name the component.
        "components": _changes(names[0], names[1], new_breaks=True),
    }
    rows = []
    for part, (breaking, added) in shown.items():
        found = "; ".join([*breaking, *added]) or "as before"
        rows.append(CheckRow(f"{_ROW}: {part}", not breaking, found, "what is connected finds it as before", reference))
    common = before.components.keys() & now.components.keys()
    moved = [f"{name}: {now.components[name]}, was {before.components[name]}"
             for name in sorted(common) if now.components[name] != before.components[name]]  # fmt: skip
    rows.append(
        CheckRow(
            f"{_ROW}: Python", not moved, "; ".join(moved) or "as before", "as before", reference, warns=bool(moved)
        )
    )
    return rows


def _changes(
    before: Mapping[str, str], now: Mapping[str, str], new_breaks: bool = False
) -> tuple[list[str], list[str]]:
    """(what breaks a consumer, what is only added). A new input breaks: nothing provides it."""
    removed = [f"{name} is gone" for name in sorted(before.keys() - now.keys())]
    changed = [
        f"{name} is {now[name]}, was {before[name]}".strip()
        for name in sorted(before.keys() & now.keys()) if now[name] != before[name]
    ]  # fmt: skip
    added = [f"{name} is new" for name in sorted(now.keys() - before.keys())]
    return ([*removed, *changed, *added], []) if new_breaks else ([*removed, *changed], added)


def _with_default(parameters: Mapping[str, tuple[str, Any]]) -> dict[str, str]:
    return {name: f"{kind} with default {default!r:.100}" for name, (kind, default) in parameters.items()}


def _milliseconds(periodicity: int | None) -> str:
    return "none" if periodicity is None else f"{periodicity} ms"
