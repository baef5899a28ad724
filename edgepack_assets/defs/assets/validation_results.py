"""validation_results: what the package answered to every payload record."""

from collections.abc import Iterator

import dagster as dg

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.defs.assets.declare import asset_options, picture, result, table, user_errors
from edgepack_assets.defs.assets.input_versions import RAW_DATA, raw_data_tags
from edgepack_assets.defs.resources import EdgepackResource
from edgepack_assets.tasks.reports.package_page import with_shown
from edgepack_assets.tasks.validation_results import validate

CHECK = "are_complete"
PACE = "keep_up_with_cycle"


@dg.asset(
    deps=[RAW_DATA],
    description="What the package answers to every payload record, run in its own environment as the inference server "
    "would run it: outputs or none, and the time taken.",
    **asset_options(
        CHECK, "Every payload record is accounted for, in order, and some are answered.",
        "validation_results", kinds={"python", "json"}, code_version="1",
        only_warn={PACE: "Records are done before the next one comes, by the cycle time that the package declares, "
                  "measured on this machine: 99 % of them, so that one slow record on a busy machine does not warn."},
    ),
)  # fmt: skip
def validation_results(
    context: dg.AssetExecutionContext,
    payload_data: Artefact,
    config_package: Artefact,
    edgepack: dg.ResourceParam[EdgepackResource],
) -> Iterator[dg.MaterializeResult[Artefact]]:
    """Run the package of a partition over its payload."""
    with user_errors(context) as key:
        task_context = edgepack.task_context(context.log)
        artefact, report = validate(key, payload_data, config_package, task_context)
        tables = {title: rows for title, rows in (
            ("Tried with other inputs", report.tried), ("Changed by the conversion", report.changed)
        ) if rows}  # fmt: skip
        artefact = with_shown(
            artefact, task_context.store, rows={"pace": report.pace}, pictures={"answers": report.picture},
            tables=tables, isolation=report.isolation,
        )  # fmt: skip
        records, answered = artefact.facts["records"], artefact.facts["answered"]
        yield from result(context, artefact, CHECK, report.rows, {
            "dagster/row_count": records,
            "answered": answered,
            "unanswered": records - answered,
            "plot": picture(report.picture, "answers"),
            "latency_p50_ms": round(report.latency["p50"] * 1000, 4),
            "latency_p95_ms": round(report.latency["p95"] * 1000, 4),
            "latency_p99_ms": round(report.latency["p99"] * 1000, 4),
            "latency_max_ms": round(report.latency["max"] * 1000, 4),
            "isolation": report.isolation,
            "preview": table(report.preview),
            **({"latency_of_components": table(report.components)} if report.components else {}),
            **({"tried": table(report.tried)} if report.tried else {}),
            **({"faults": table(report.faults)} if report.faults else {}),
            **({"changed_by_conversion": table(report.changed)} if report.changed else {}),
        }, only_warn={PACE: report.pace}, tags=raw_data_tags(context.instance, key, payload_data))  # fmt: skip
