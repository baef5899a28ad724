"""prepped_data: the packaged model's fitted preprocessing over the payload."""

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
    description="The packaged model's fitted preprocessing over the payload's records: a row per window, a column per "
    "feature. Empty, and saying so, for model types that score answers directly.",
    **asset_options(
        CHECK, "There are windows, with as many features as the model's clustering takes.",
        "prepped_data", kinds={"python", "parquet"}, code_version="1",
    ),
)  # fmt: skip
def prepped_data(
    context: dg.AssetExecutionContext,
    payload_data: Artefact,
    config_package: Artefact,
    edgepack: dg.ResourceParam[EdgepackResource],
) -> dg.MaterializeResult:
    """Prepare the data of a partition."""
    with user_errors(context) as key:
        artefact, report = prepare_data(key, payload_data, config_package, edgepack.tools(context.log))
        facts = artefact.facts
        metadata: dict[str, Any] = {"empty": facts["empty"]} if "empty" in facts else {
            "dagster/row_count": facts["windows"],
            "shape": f"{facts['windows']} windows x {facts['features']} features",
            "unfilled_windows": facts["unfilled_windows"],
            "size": format_size(artefact.size),
        }  # fmt: skip
        if report.picture is not None:
            metadata["plot"] = picture(report.picture, "features of every window")
        return result(artefact, CHECK, report.parts, metadata, tags=raw_data_tags(context.instance, key, payload_data))
