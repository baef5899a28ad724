"""The package_model job: everything from a registered model to its registered package, for one partition."""

import dagster as dg

from edgepack_assets.defs.asset_names import ASSETS, JOB
from edgepack_assets.defs.model_partitions import MODELS

package_model = dg.define_asset_job(
    JOB,
    selection=dg.AssetSelection.assets(*ASSETS),
    partitions_def=MODELS,
    description="Payload, config package, validation, metrics and the registered deployment package of one model "
    "version.",
)
