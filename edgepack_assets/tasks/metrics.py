"""Scoring the package's answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.checks import CheckRow
from edgepack_assets.errors import CorruptError
from edgepack_assets.model_types.interface import Score
from edgepack_assets.model_types.samples import as_json
from edgepack_assets.partitions import ModelKey
from edgepack_assets.tasks.ahead import background_imports
from edgepack_assets.tasks.chain import check_chain
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.failed_checks import failed_inputs
from edgepack_assets.tasks.gates.certainty import SAMPLES, find_certainties
from edgepack_assets.tasks.gates.compare import compare_with_gates
from edgepack_assets.tasks.gates.references import references
from edgepack_assets.tasks.gates.slices import slice_rows
from edgepack_assets.tasks.payload_data import open_payload
from edgepack_assets.tasks.prepped_data import open_prepped


def make_metrics(
    key: ModelKey, payload_data: Artefact, prepped_data: Artefact, validation_results: Artefact, context: TaskContext
) -> tuple[Artefact, Score]:
    """The metrics of validation results over the payload and prepped data they belong to.

    Raises StaleError if the inputs were not made from each other.
    """
    check_chain("metrics", key, (payload_data, prepped_data, validation_results))
    background_imports.finish()
    score = context.model_type(key).score(
        open_payload(payload_data, context),
        context.results_of(validation_results),
        open_prepped(prepped_data, context),
        context.store.read_json(validation_results.parts["inspection"]),
    )
    # JSON has no NaN: a metric that is not defined is null
    numbers = {name: value if math.isfinite(value) else None for name, value in score.metrics.items()}
    facts = {
        "metrics": numbers,
        "parts": [_as_row(row) for row in score.parts],
        **failed_inputs((payload_data, prepped_data, validation_results)),
    }
    parts = {"metrics": context.store.put_json(facts)}
    if score.samples is not None:
        parts[SAMPLES] = context.store.put_json(as_json(score.samples))
    artefact = Artefact(
        asset="metrics", partition=str(key), parts=parts, facts=facts,
        made_from={"payload_data": payload_data.digest, "prepped_data": prepped_data.digest,
                   "validation_results": validation_results.digest,
                   "config_package": validation_results.made_from["config_package"]},
    )  # fmt: skip
    return artefact, score


def _as_row(row: CheckRow) -> list[str | bool]:
    return [row.name, row.passed, row.found, row.wanted, *([True] if row.warns else [])]


@dataclass(frozen=True)
class Scored:
    """What a metrics artefact holds, read from its verified bytes: `numbers` (None where a metric is not defined), and
    the rows of metrics.pass_gates that no configuration changes, such as that nothing is unanswered."""

    artefact: Artefact
    numbers: Mapping[str, float | None]
    consistency_rows: list[CheckRow]


def open_metrics(artefact: Artefact, context: TaskContext) -> Scored:
    """The numbers of a metrics artefact. Raises CorruptError if its manifest shows others than its bytes hold."""
    held = context.store.read_json(artefact.parts["metrics"])
    if held != artefact.facts:
        raise CorruptError(
            f"metrics of {artefact.partition}: the numbers in the manifest differ from those in the blob "
            f"{artefact.parts['metrics'].digest}; materialize metrics of {artefact.partition} again"
        )
    rows = [replace(CheckRow(*row[:4]), warns=bool(row[4:])) for row in held["parts"]]
    return Scored(artefact, held["metrics"], rows)


def gate_rows(metrics: Scored, key: ModelKey, context: TaskContext) -> list[CheckRow]:
    """The gates' rows, recomputed from the artefact, today's configuration and today's registry."""
    gates, lower_is_better = context.entry(key).gates, context.model_type(key).lower_is_better
    compared = references(metrics.artefact, key, context)
    certainties = find_certainties(metrics.artefact, compared, key, context)
    rows = compare_with_gates(metrics.numbers, gates, lower_is_better, compared, certainties)
    return [*rows, *slice_rows(metrics.artefact, compared, key, context)]
