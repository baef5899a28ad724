"""deployment_package: the stamped package, executed and registered."""

import dagster as dg

from edgepack_assets.artefacts import Artefact
from edgepack_assets.assets.common import declared, result, size_text, user_errors
from edgepack_assets.resources import EdgepackResource
from edgepack_assets.tasks.deployment_package import Validated, deploy

CHECK = "is_registered_as_built"


@dg.asset(
    description="The deployment package: built from the validated files and locked wheels, stamped with its version, "
    "run once more as it is, and registered as a model of its own name with the metrics as tags.",
    **declared(
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
    edgepack: EdgepackResource,
) -> dg.MaterializeResult:
    """Register the package of a partition."""
    with user_errors(context) as key:
        run = edgepack.settings.run
        run_tags = {
            "run_id": context.run_id,
            "environment": run.environment,
            "build_reference": run.build_reference,
            "experiment_name": run.experiment_name,
            "display_name": run.display_name,
        }
        artefact, report = deploy(
            key,
            Validated(config_package, payload_data, validation_results, metrics),
            run_tags,
            edgepack.tools(context.log),
        )
        registered = report.registered
        if report.was_registered_before:
            context.log.info(f"this content of {key} is registered as {registered} already: nothing new is registered")
        return result(artefact, CHECK, report.parts, {
            "package": str(registered),
            "name": registered.name,
            "version": registered.version,
            "package_id": report.package_id,
            "content_digest": report.content_digest,
            "registered_digest": registered.digest,
            "size": size_text(registered.size),
            "location": registered.location,
            "registered_before": report.was_registered_before,
            "tags": dg.MetadataValue.json(dict(registered.tags)),
        })  # fmt: skip
