"""Scoring the package's answers."""

from __future__ import annotations

import math

from edgepack_assets.artefacts import Artefact, check_chain
from edgepack_assets.errors import StaleError
from edgepack_assets.evidence import Part
from edgepack_assets.gates import gate_parts
from edgepack_assets.model_types.base import Results, Score
from edgepack_assets.partitions import ModelKey
from edgepack_assets.tasks import ahead
from edgepack_assets.tasks.packages import references
from edgepack_assets.tasks.payload_data import open_payload
from edgepack_assets.tasks.prepped_data import open_prepped
from edgepack_assets.tasks.tools import Tools


def make_metrics(
    key: ModelKey, payload_data: Artefact, prepped_data: Artefact, validation_results: Artefact, tools: Tools
) -> tuple[Artefact, Score]:
    """The metrics of validation results over the payload and prepped data they belong to.

    Raises StaleError if the inputs were not made from each other.
    """
    check_chain(validation_results, {"payload_data": payload_data})
    check_chain(prepped_data, {"payload_data": payload_data})
    if prepped_data.made_from["config_package"] != validation_results.made_from["config_package"]:
        raise StaleError(
            f"prepped_data and validation_results of {key} were made from different config packages: "
            f"materialize both again"
        )
    ahead.finish()
    score = tools.model_type(key).score(
        open_payload(payload_data, tools),
        Results(tools.store.fetch(validation_results.parts["results"])),
        open_prepped(prepped_data, tools),
        tools.store.read_json(validation_results.parts["inspection"]),
    )
    # JSON has no NaN: a metric that is not defined is null
    numbers = {name: value if math.isfinite(value) else None for name, value in score.metrics.items()}
    facts = {
        "metrics": numbers,
        "parts": [_as_row(part) for part in score.parts],
    }
    artefact = Artefact(
        asset="metrics", partition=str(key), parts={"metrics": tools.store.put_json(facts)}, facts=facts,
        made_from={"payload_data": payload_data.digest, "prepped_data": prepped_data.digest,
                   "validation_results": validation_results.digest},
    )  # fmt: skip
    return artefact, score


def _as_row(part: Part) -> list[str | bool]:
    row: list[str | bool] = [part.name, part.passed, part.found, part.wanted]
    return [*row, part.reference, part.margin, part.warns] if part.warns else row


def sound_parts(metrics: Artefact) -> list[Part]:
    """The rows of metrics.pass_gates that no configuration changes, such as as many answers as windows."""
    return [Part(*row) for row in metrics.facts["parts"]]


def configured_parts(metrics: Artefact, key: ModelKey, tools: Tools) -> list[Part]:
    """The gates' rows, recomputed from the artefact, today's configuration and today's registry."""
    numbers, gates = metrics.facts["metrics"], tools.entry(key).gates
    return gate_parts(numbers, gates, tools.model_type(key).lower_is_better, references(metrics, key, tools))
