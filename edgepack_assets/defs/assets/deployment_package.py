"""deployment_package: the stamped package, executed and registered."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.checks import all_pass
from edgepack_assets.defs.assets.declare import asset_options, result, run_config, run_config_schema, user_errors
from edgepack_assets.defs.assets.input_versions import RAW_DATA, raw_data_tags
from edgepack_assets.defs.resources import EdgepackResource
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import ResolvedVersion
from edgepack_assets.tasks.deployment_package import DeploymentReport, Validated, deploy
from edgepack_assets.tasks.hand_over import output_file, write_hand_over
from edgepack_assets.tasks.packages import tags as package_tags
from edgepack_assets.tasks.reports.package_page import REPORT, with_report
from edgepack_assets.text_format import format_size

CHECK = "is_registered_as_built"
POOL = "registration"
"""Its limit is in dagster.yaml: how many runs that register may be in progress at once."""


@dg.asset(
    deps=[RAW_DATA],
    config_schema=run_config_schema(
        output_file="Where to tell a calling pipeline the package's name and version, as JSON or, if it ends in .env, "
        "as KEY=VALUE lines: a file in one of `run.output_folders`. Default: $EDGEPACK_OUTPUT_FILE.",
        override_gates_reason="Why the package is registered although its gates do not hold; kept in the package's "
        "tags.",
    ),
    pool=POOL,
    description="The deployment package: built from the validated files and locked wheels, stamped with its version, "
    "run once more as it is, and registered as a model of its own name with the metrics as tags.",
    **asset_options(
        CHECK, "What the registry gives back is what was built, and holds exactly the validated files.",
        "deployment_package", kinds={"python"}, code_version="1",
    ),
)  # fmt: skip
def deployment_package(
    context: dg.AssetExecutionContext,
    config_package: Artefact,
    payload_data: Artefact,
    validation_results: Artefact,
    metrics: Artefact,
    edgepack: dg.ResourceParam[EdgepackResource],
) -> Iterator[dg.MaterializeResult[Artefact]]:
    """Register the package of a partition."""
    with user_errors(context) as key:
        target = output_file(run_config(context, "output_file"), edgepack.settings)
        run = edgepack.settings.run
        run_tags = {
            package_tags.RUN_ID: context.run_id,
            package_tags.ENVIRONMENT: run.environment,
            package_tags.BUILD_REFERENCE: run.build_reference,
            package_tags.EXPERIMENT_NAME: run.experiment_name,
            package_tags.DISPLAY_NAME: run.display_name,
        }
        task_context = edgepack.task_context(context.log)
        validated = Validated(config_package, payload_data, validation_results, metrics)
        artefact, report = deploy(
            key, validated, run_tags, run_config(context, "override_gates_reason"), task_context
        )  # fmt: skip
        registered = report.registered
        artefact = with_report(artefact, registered, key, validated, task_context)
        if target is not None and all_pass(report.rows):
            write_hand_over(target, _told(key, artefact, report), report.metrics)
            context.log.info(f"name and version of the package are in {target.path}")
        context.log.info(
            f"this content of {key} is registered as {registered} already, nothing new is registered: "
            f"{registered.location}" if report.was_registered_before
            else f"{key} is registered as {registered}: {registered.location}"
        )  # fmt: skip
        yield from result(context, artefact, CHECK, report.rows, {
            "package": str(registered),
            "name": registered.name,
            "version": registered.version,
            "package_id": report.package_id,
            "content_digest": report.content_digest,
            "registered_digest": registered.digest,
            "size": format_size(registered.size),
            "location": registered.location,
            "registered_before": report.was_registered_before,
            **({"delta": str(report.delta.registered or "none"), "delta_size": report.delta.words}
               if report.delta else {}),
            **_report_link(registered, key, artefact),
            "tags": dg.MetadataValue.json(dict(registered.tags)),
        }, tags=raw_data_tags(context.instance, key, payload_data))  # fmt: skip


def _report_link(registered: ResolvedVersion, key: ModelKey, artefact: Artefact) -> dict[str, Any]:
    """Where the report is: in `edgepack ui` at a link, everywhere by a command."""
    if REPORT not in artefact.observations:
        return {}
    return {
        "report": dg.MetadataValue.url(f"/edgepack/report/{key}"),
        "report_command": f"edgepack package show {registered} --html",
    }


def _told(key: ModelKey, artefact: Artefact, report: DeploymentReport) -> dict[str, Any]:
    tags = report.registered.tags
    return {
        "package_name": report.registered.name,
        "package_version": report.registered.version,
        "package_id": report.package_id,
        "content_digest": report.content_digest,
        "digest": artefact.facts["digest"],
        "model_type": key.model_type,
        "model_name": tags[package_tags.MODEL_NAME],
        "model_version": int(tags[package_tags.MODEL_VERSION]),
        "registered_before": report.was_registered_before,
    }
