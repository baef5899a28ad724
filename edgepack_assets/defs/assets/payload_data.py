"""payload_data: the records that the inference server would receive."""

from collections.abc import Iterator

import dagster as dg

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.defs.assets.declare import (
    asset_options,
    result,
    run_config,
    run_config_schema,
    table,
    user_errors,
)
from edgepack_assets.defs.assets.input_versions import RAW_DATA, current_raw_data, data_version, raw_data_tags
from edgepack_assets.defs.resources import EdgepackResource
from edgepack_assets.tasks.output_files import allowed_file
from edgepack_assets.tasks.payload_data import make_payload, raw_data_of
from edgepack_assets.text_format import format_size

CHECK = "is_sound"


@dg.asset(
    deps=[RAW_DATA],
    op_tags={"dagster/priority": "1"},  # before config_package: meanwhile the sandbox's child imports its libraries
    config_schema=run_config_schema(
        payload_path="Where to write a copy of the records (gzipped JSON lines), if anywhere: a file in one of "
        "`run.output_folders`."
    ),
    description="The records that the inference server would receive, made from the raw data, each with its number "
    "and, where there is one, its source file and what is known of it.",
    **asset_options(
        CHECK, "The payload has records, of exactly the declared columns, and each column holds values.",
        "payload_data", kinds={"python", "json"}, code_version="1",
    ),
)  # fmt: skip
def payload_data(
    context: dg.AssetExecutionContext, edgepack: dg.ResourceParam[EdgepackResource]
) -> Iterator[dg.MaterializeResult[Artefact]]:
    """Make the payload of a partition."""
    with user_errors(context) as key:
        task_context = edgepack.task_context(context.log)
        named = run_config(context, "payload_path")
        copy_to = allowed_file("payload_path", named, task_context.settings) if named else None
        artefact, report = make_payload(key, task_context, copy_to)
        raw, newest = (
            raw_data_of(artefact),
            current_raw_data(key.model_type, task_context.settings, task_context.registry),
        )
        current = data_version(newest.name, newest.version, newest.resolve().digest)
        tags = raw_data_tags(context.instance, key, artefact, current)
        preview = [
            {"record": i, **{k: v if len(str(v)) < 120 else f"{str(v)[:117]}..." for k, v in row.items()}}
            for i, row in enumerate(report.preview)
        ]
        other = {k: v for k, v in artefact.facts.items() if k not in ("records", "raw_data", "columns")}
        yield from result(context, artefact, CHECK, report.rows, {
            "dagster/row_count": artefact.facts["records"],
            "columns": ", ".join(report.preview[0]) if report.preview else "none",
            "raw_data": f"{raw['name']}:{raw['version']}",
            "size": format_size(artefact.size),
            "preview": table(preview),
            "facts": dg.MetadataValue.json(other),
        }, tags=tags)  # fmt: skip
