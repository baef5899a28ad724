"""The package_model job: everything from a registered model to its registered package, for one partition."""

import dagster as dg

from edgepack_assets.defs.model_partitions import MODELS

JOB = "package_model"
ASSETS = ("payload_data", "config_package", "prepped_data", "validation_results", "metrics", "deployment_package")
"""Of the job, in an order in which they can be made."""

package_model = dg.define_asset_job(
    JOB,
    selection=dg.AssetSelection.assets(*ASSETS),
    partitions_def=MODELS,
    description="Payload, config package, validation, metrics and the registered deployment package of one model "
    "version.",
)
