"""Pictures of what a package answered, drawn ahead where that can be.

They are what takes longest of showing results: the run that compared numbers has the answers that two later steps show,
so both pictures are drawn beside what comes between.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import edgepack_assets
from edgepack_assets.artefacts.artefact import Artefact, canonical_json
from edgepack_assets.config.registry_settings import LocalRegistrySettings
from edgepack_assets.errors import EdgepackError
from edgepack_assets.model_types.interface import Answered, Results
from edgepack_assets.partitions import ModelKey
from edgepack_assets.tasks.ahead import background_imports
from edgepack_assets.tasks.ahead.drawn_pictures import Draw
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.payload_data import open_payload

_OURS = Path(edgepack_assets.__file__).parent


def results_picture(
    key: ModelKey, payload_data: Artefact, results: Results, inspection: Mapping[str, Any], context: TaskContext
) -> bytes:
    """See ModelType."""
    drawn = context.drawn_ahead.take(_of_results(key, payload_data, results, inspection))
    if drawn is not None and drawn.png is not None:
        return drawn.png
    return context.model_type(key).results_picture(open_payload(payload_data, context), results, inspection)


def comparison_picture(
    key: ModelKey, payload_data: Artefact, before: Answered, now: Answered, context: TaskContext
) -> bytes | None:
    """See ModelType."""
    drawn = context.drawn_ahead.take(_of_comparison(key, payload_data, before, now))
    if drawn is not None:
        return drawn.png
    return context.model_type(key).comparison_picture(open_payload(payload_data, context), before, now)


def draw_ahead(key: ModelKey, config_package: Artefact, payload_data: Artefact, context: TaskContext) -> None:
    """Begin to draw what validation_results and metrics will most likely show of this package, if it was run over this
    payload already.

    Only what we draw ourselves: what a plug-in draws with may not survive a fork. Whatever is wrong is no reason to
    fail here: the step that shows the picture meets it again."""
    compared, implementation = context.kept_run.look(config_package, payload_data), context.model_type(key)
    if compared is None or not implementation.folder.is_relative_to(_OURS) or len(os.sched_getaffinity(0)) < 2:
        return
    registry = context.settings.registry
    if isinstance(registry, LocalRegistrySettings) and not context.built_ahead.has_turn(registry.path):
        return
    background_imports.finish()
    try:
        results, payload = Results(compared.run.results), open_payload(payload_data, context)
        inspection = context.store.read_json(config_package.parts["inspection"])
        wanted: list[tuple[Hashable, Draw]] = [
            (
                _of_results(key, payload_data, results, inspection),
                lambda: implementation.results_picture(payload, results, inspection),
            )
        ]
        if compared.before is not None:
            before, now = compared.before, Answered(str(key), results, inspection)
            wanted.append(
                (
                    _of_comparison(key, payload_data, before, now),
                    lambda: implementation.comparison_picture(payload, before, now),
                )
            )
        context.drawn_ahead.start(wanted)
    except (EdgepackError, OSError) as error:
        context.log.debug(f"no picture of {key} is drawn ahead: {error}")


def _of_results(key: ModelKey, payload_data: Artefact, results: Results, inspection: Mapping[str, Any]) -> Hashable:
    """All that decides about the picture."""
    return key, _of_payload(payload_data), _of_answers(results, inspection)


def _of_comparison(key: ModelKey, payload_data: Artefact, before: Answered, now: Answered) -> Hashable:
    """All that decides about the picture."""
    answered = ((each.name, _of_answers(each.results, each.inspection)) for each in (before, now))
    return key, _of_payload(payload_data), tuple(answered)


def _of_payload(payload_data: Artefact) -> Hashable:
    records, sources = (payload_data.parts[part].digest for part in ("records", "sources"))
    return records, sources, payload_data.facts["records"]


def _of_answers(results: Results, inspection: Mapping[str, Any] | None) -> Hashable:
    return results.digest(), canonical_json(inspection)
