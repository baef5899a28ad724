"""metrics: the numbers, and the gates that they must pass."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.defs.assets.declare import asset_options, picture, result, table, user_errors
from edgepack_assets.defs.assets.input_versions import RAW_DATA, raw_data_tags
from edgepack_assets.defs.resources import EdgepackResource
from edgepack_assets.tasks.gates.certainty import certainty_report
from edgepack_assets.tasks.metrics import gate_rows, make_metrics, open_metrics
from edgepack_assets.tasks.predecessor.contract_changes import config_package_of, contract_rows
from edgepack_assets.tasks.predecessor.find import Recorded
from edgepack_assets.tasks.predecessor.kept_numbers import numbers_report
from edgepack_assets.tasks.reports.comparison import Comparison, as_cells
from edgepack_assets.tasks.reports.package_page import with_shown
from edgepack_assets.tasks.reports.side_by_side import PredecessorComparison

CHECK = "pass_gates"


@dg.asset(
    deps=[RAW_DATA],
    description="The metrics of the package's answers, matched to the payload's records by number.",
    **asset_options(
        CHECK, "Answers match what was to be answered; every metric is finite and passes its gates.",
        "metrics", kinds={"python", "scikitlearn"}, code_version="1",
    ),
)  # fmt: skip
def metrics(
    context: dg.AssetExecutionContext,
    payload_data: Artefact,
    prepped_data: Artefact,
    validation_results: Artefact,
    edgepack: dg.ResourceParam[EdgepackResource],
) -> Iterator[dg.MaterializeResult[Artefact]]:
    """Score the answers of a partition."""
    with user_errors(context) as key:
        task_context = edgepack.task_context(context.log)
        artefact, score = make_metrics(key, payload_data, prepped_data, validation_results, task_context)
        scored = open_metrics(artefact, task_context)
        numbers: dict[str, Any] = {
            name: value if value is not None else "not defined" for name, value in scored.numbers.items()
        }
        tables = {title: table(rows) for title, rows in score.tables.items()}
        pictures = {title: picture(png, title) for title, png in score.pictures.items()}
        config_package = config_package_of(key, validation_results, task_context)
        recorded = Recorded(config_package, payload_data, validation_results)
        before = PredecessorComparison(key, recorded, artefact, task_context)
        numbering = numbers_report(key, payload_data, validation_results, task_context, before.add_answers)
        if numbering.table:
            tables["Answers before and now"] = table(numbering.table)
        sure = certainty_report(artefact, payload_data, key, task_context)
        tables |= {title: table(rows) for title, rows in sure.tables.items()}
        comparison = before.comparison()
        compared = _compared(comparison)
        kept = [*numbering.rows, *contract_rows(key, config_package, task_context)]
        rows = [*gate_rows(scored, key, task_context), *kept, *scored.consistency_rows, *sure.rows]
        # What does not hold first, then gates: their numbers are what a person looks for.
        rows.sort(key=lambda row: (row.passed, not row.name.startswith("gate")))
        artefact = with_shown(
            artefact, task_context.store, rows={"gates": rows}, tables={**score.tables, **sure.tables},
            pictures=score.pictures,
            comparison=comparison,
        )  # fmt: skip
        tags = raw_data_tags(context.instance, key, payload_data)
        numbers |= {f"{name} (interval)": text for name, text in sure.texts.items()}
        metadata = {**numbers, "predecessor": numbering.predecessor, **compared, **tables, **pictures}
        yield from result(context, artefact, CHECK, rows, metadata, tags=tags)


def _compared(comparison: Comparison | None) -> dict[str, Any]:
    """The comparison with the package before, as metadata; nothing where there is none."""
    if comparison is None:
        return {}
    shown: dict[str, Any] = {
        "answers that differ from before": comparison.answers_in_words,
        "Compared with the package before": table(as_cells(comparison.rows)),
    }
    if comparison.picture is not None:
        title = "Answers of the package before and now"
        shown[title] = picture(comparison.picture, title)
    return shown
