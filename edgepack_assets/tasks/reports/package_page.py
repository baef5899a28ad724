"""The report of a package: one HTML page for a person, kept with the package's artefact.

Pictures, tables and rows are kept by the assets that make them, as observations of their artefacts (REPORT), so that
nothing is computed or run again for the page. Neither they nor the page are part of what identifies a package.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.checks import CheckRow
from edgepack_assets.errors import EdgepackError, NotFoundError, TransientError
from edgepack_assets.packaging.contract import read_contract
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.approval import approval_of
from edgepack_assets.registry.base import Kind, ResolvedVersion
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.deployment_package import Validated
from edgepack_assets.tasks.metrics import open_metrics
from edgepack_assets.tasks.packages import tags as package_tags
from edgepack_assets.tasks.pages.render import as_shown, render
from edgepack_assets.tasks.payload_data import raw_data_of
from edgepack_assets.tasks.reports.comparison import Comparison
from edgepack_assets.tasks.reports.facts import latency_of
from edgepack_assets.text_format import format_size

REPORT = "report"
"""The name of these observations."""
HTML = "text/html; charset=utf-8"
_MOST_ROWS = 200
"""Rows of a table that are kept."""


def with_shown(
    artefact: Artefact, store: ArtefactStore, *, rows: Mapping[str, Iterable[CheckRow]],
    tables: Mapping[str, Iterable[Mapping[str, Any]]] = {}, pictures: Mapping[str, bytes] = {},
    comparison: Comparison | None = None, isolation: str = "",
) -> Artefact:  # fmt: skip
    """The artefact with what a person is shown of it kept for the report. Its digest stays what it is."""
    shown = {
        "rows": {title: [asdict(row) for row in listed] for title, listed in rows.items()},
        "tables": {title: as_shown(list(table)[:_MOST_ROWS]) for title, table in tables.items()},
        "pictures": {title: base64.b64encode(png).decode() for title, png in pictures.items()},
        "comparison": _compared(comparison),
        "isolation": isolation,
    }
    # Not `put_json`, which sorts: columns and pictures have an order.
    text = json.dumps(as_shown(shown), allow_nan=False)
    return _with_observation(artefact, store.put_bytes(text.encode(), "application/json"))


def _with_observation(artefact: Artefact, blob: Any) -> Artefact:
    return artefact.model_copy(update={"observations": {**artefact.observations, REPORT: blob}})


def _compared(comparison: Comparison | None) -> dict[str, Any] | None:
    """What parts.html.j2 shows of a comparison."""
    if comparison is None:
        return None
    answers = comparison.answers
    return {
        "before": {"name": comparison.before.name}, "now": {"name": comparison.now.name},
        "rows": [asdict(row) for row in comparison.rows],
        "answers_in_words": comparison.answers_in_words,
        "answers": None if answers is None else {
            "table": list(answers.table), "differing": answers.differing, "has_files": answers.has_files,
            "first": [{"file": "", **each.as_json()} for each in answers.first[:50]],
        },
        "picture": None if comparison.picture is None else base64.b64encode(comparison.picture).decode(),
    }  # fmt: skip


def with_report(
    artefact: Artefact, registered: ResolvedVersion, key: ModelKey, validated: Validated, context: TaskContext
) -> Artefact:
    """The artefact of a registered package with its report. The package is registered by then: a report that cannot
    be made is a warning. Raises TransientError."""
    try:
        page = report_page(registered, key, validated, artefact, context)
    except TransientError:
        raise
    except EdgepackError as error:
        context.log.warning(f"{registered} has no report: {error}")
        return artefact
    return _with_observation(artefact, context.store.put_bytes(page, HTML))


def report_page(
    registered: ResolvedVersion, key: ModelKey, validated: Validated, artefact: Artefact, context: TaskContext
) -> bytes:
    """The page of a registered package, from artefacts that were made from each other."""
    store, tags = context.store, dict(registered.tags)
    results, metrics = _shown_of(validated.validation_results, store), _shown_of(validated.metrics, store)
    model = validated.config_package.facts["model"]
    lock = context.lock_of(validated.config_package)
    raw = raw_data_of(validated.payload_data)
    contract = read_contract(store.fetch(validated.config_package.parts["package"]))
    latency = latency_of(validated.validation_results, context)
    own = {*package_tags.PACKAGE_TAGS, *context.model_type(key).metric_names}
    return render(
        "package",
        title=str(registered),
        key=str(key),
        overridden=tags.get(package_tags.GATES_OVERRIDDEN),
        overridden_failed=tags.get(package_tags.GATES_OVERRIDDEN_FAILED, ""),
        gates=metrics["rows"].get("gates", []),
        facts_of_package={
            "Package": str(registered),
            "Package id": tags.get(package_tags.PACKAGE_ID, "-"),
            "Registered": f"{registered.created:%Y-%m-%d %H:%M}Z",
            "Size": format_size(registered.size),
            "sha256 of the zip": registered.digest,
            "Content digest": tags.get(package_tags.CONTENT_DIGEST, "-"),
            "Place": registered.location,
        },
        lineage={
            "Model": f"{model['name']}:{model['version']}",
            "sha256 of the model": model["digest"],
            "Approved": _approval(key, context),
            "Raw data": f"{raw['name']}:{raw['version']}",
            "sha256 of the raw data": raw["digest"],
            "Records": validated.payload_data.facts["records"],
            "Numbers of the states": tags.get(package_tags.NUMBERS_OF, "the model's own"),
            "Dagster run": tags.get(package_tags.RUN_ID, "-"),
            "Written by": f"edgepack {tags.get(package_tags.EDGEPACK_VERSION, '?')}",
            **{f"Digest of {asset}": each.digest for asset, each in validated.inputs().items()},
        },
        metrics=open_metrics(validated.metrics, context).numbers,
        results=results,
        scored=metrics,
        latency={name: f"{latency[name] * 1000:.4g} ms" for name in ("p50", "p95", "p99", "max") if name in latency},
        cycle=contract.periodicity,
        interface=[dict(zip(("Part", "Name", "Type"), row, strict=True)) for row in contract.as_table()],
        python=lock.python,
        requirements=[{"Distribution": each.name, "Version": each.version} for each in lock.packages],
        comparison=metrics["comparison"],
        tags={name: value for name, value in sorted(tags.items()) if name not in own},
        file=f"{registered.name}_{registered.version}.zip",
    )


def _shown_of(artefact: Artefact, store: ArtefactStore) -> dict[str, Any]:
    """What was kept of an artefact; nothing of one that was made before there were reports."""
    nothing: dict[str, Any] = {"rows": {}, "tables": {}, "pictures": {}, "comparison": None, "isolation": ""}
    blob = artefact.observations.get(REPORT)
    return {**nothing, **(store.read_json(blob) if blob is not None and store.has(blob.digest) else {})}


def _approval(key: ModelKey, context: TaskContext) -> str:
    try:
        model = context.registry.get(Kind.MODEL, context.entry(key).model_name, key.version)
    except NotFoundError:
        return "not known: the model version is not in the registry any more"
    approval = approval_of(model.tags)
    return f"by {approval}" if approval is not None else "no"


def read_report(registered: ResolvedVersion, model_version: int, store: ArtefactStore) -> bytes:
    """The report that is kept of a registered package. Raises EdgepackError if there is none."""
    partition = f"{registered.tags.get(package_tags.MODEL_TYPE, '')}:{model_version}"
    try:
        artefact = store.load("deployment_package", partition)
    except TransientError:
        raise
    except EdgepackError as error:
        raise EdgepackError(f"{registered} has no report in the artefact store: {error}") from error
    if (artefact.facts.get("name"), artefact.facts.get("version")) != (registered.name, registered.version):
        raise EdgepackError(
            f"{registered} has no report in the artefact store: {partition} was packaged again as "
            f"{artefact.facts.get('name')}:{artefact.facts.get('version')}"
        )
    return report_of(artefact, store)


def report_of(deployed: Artefact, store: ArtefactStore) -> bytes:
    """The report that is kept with a package's artefact. Raises EdgepackError if there is none."""
    blob = deployed.observations.get(REPORT)
    if blob is None or not store.has(blob.digest):
        raise EdgepackError(
            f"the package of {deployed.partition} has no report in the artefact store: "
            f"edgepack package {deployed.partition} --from validation_results makes it"
        )
    return store.read_bytes(blob)
