"""prepped_data: the packaged model's fitted preprocessing over the payload."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.defs.assets.declare import asset_options, picture, result, user_errors
from edgepack_assets.defs.assets.input_versions import RAW_DATA, raw_data_tags
from edgepack_assets.defs.resources import EdgepackResource
from edgepack_assets.tasks.prepped_data import prepare_data
from edgepack_assets.text_format import format_size

CHECK = "is_sound"


@dg.asset(
    deps=[RAW_DATA],
    description="The packaged model's fitted preprocessing over the payload's records, as a table. Empty, and saying "
    "so, for model types that score answers directly.",
    **asset_options(
        CHECK, "There are rows, with what the packaged model needs to answer them.",
        "prepped_data", kinds={"python", "parquet"}, code_version="1",
    ),
)  # fmt: skip
def prepped_data(
    context: dg.AssetExecutionContext,
    payload_data: Artefact,
    config_package: Artefact,
    edgepack: dg.ResourceParam[EdgepackResource],
) -> Iterator[dg.MaterializeResult[Artefact]]:
    """Prepare the data of a partition."""
    with user_errors(context) as key:
        artefact, report = prepare_data(key, payload_data, config_package, edgepack.task_context(context.log))
        metadata: dict[str, Any] = {"empty": artefact.facts["empty"]} if report.picture is None else {
            "dagster/row_count": report.table_rows,
            **report.metadata,
            "size": format_size(artefact.size),
        }  # fmt: skip
        if report.picture is not None:
            metadata["plot"] = picture(report.picture, "prepared data")
        yield from result(
            context, artefact, CHECK, report.rows, metadata, tags=raw_data_tags(context.instance, key, payload_data)
        )
