"""config_package: the pipeline configuration package, its lock, and what inspecting the model reported."""

from collections.abc import Iterator

import dagster as dg

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.defs.assets.declare import asset_options, result, table, user_errors
from edgepack_assets.defs.assets.input_versions import REGISTERED_MODEL, data_version, input_tags
from edgepack_assets.defs.resources import EdgepackResource
from edgepack_assets.registry.approval import RUN_TAG
from edgepack_assets.tasks.config_package import make_config_package
from edgepack_assets.text_format import format_size

CHECK = "is_fit"


@dg.asset(
    deps=["registered_model"],
    description="The pipeline configuration package of the registered model, not yet stamped with a version; the full "
    "lock of its component's environment; and what inspecting the model reported.",
    **asset_options(
        CHECK, "The package has the structure of the SDK's schema, its size is within the server's limits, and its "
        "libraries have the versions that the model was saved with (which only warns, unless configured otherwise).",
        "config_package", kinds={"python"}, code_version="1",
    ),
)  # fmt: skip
def config_package(
    context: dg.AssetExecutionContext, edgepack: dg.ResourceParam[EdgepackResource]
) -> Iterator[dg.MaterializeResult[Artefact]]:
    """Make the config package of a partition."""
    with user_errors(context) as key:
        artefact, report = make_config_package(
            key, edgepack.task_context(context.log), was_approved=RUN_TAG in context.run.tags
        )
        model = artefact.facts["model"]
        version = data_version(model["name"], model["version"], model["digest"])
        tags = input_tags(context.instance, REGISTERED_MODEL, key, used=version, current=version)
        wheels = [
            {"package": p.name, "version": p.version, "size": format_size(p.size), "sha256": p.digest}
            for p in report.lock.packages
        ]
        yield from result(context, artefact, CHECK, report.rows, {
            "model": f"{model['name']}:{model['version']}",
            "size": format_size(artefact.parts["package"].size),
            "package_digest": artefact.parts["package"].digest,
            "python": report.lock.python,
            "requirements": ", ".join(report.lock.requirements),
            "constraints": ", ".join(report.lock.constraints)[:2_000] or "none",
            "lock": table(wheels),
            "lock_key": report.lock.key,
            "lock_generation": report.generation.number,
            "lock_resolved": report.generation.resolved_text,
            "lock_reused": report.lock_was_kept,
            "environment_reused": report.environment_was_kept,
            "files": table(report.files),
            "inspection": dg.MetadataValue.json(report.inspection),
            **({"server": ", ".join(f"{p.name} {p.version}" for p in report.server.packages)} if report.server else {}),
            **({"predecessor": report.renumbering.predecessor} if report.renumbering.predecessor else {}),
            **({"answers_before_and_now": table(report.renumbering.table)} if report.renumbering.table else {}),
            **({"suggested_alerts": dg.MetadataValue.md(report.alerts)} if report.alerts else {}),
            **report.conversion,
        }, tags=tags)  # fmt: skip
