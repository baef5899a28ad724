"""The software-defined assets, one module each, with its check. What they do is in edgepack_assets/tasks."""

from edgepack_assets.defs.assets.config_package import config_package
from edgepack_assets.defs.assets.deployment_package import deployment_package
from edgepack_assets.defs.assets.external import raw_data, registered_model
from edgepack_assets.defs.assets.metrics import metrics
from edgepack_assets.defs.assets.payload_data import payload_data
from edgepack_assets.defs.assets.prepped_data import prepped_data
from edgepack_assets.defs.assets.validation_results import validation_results

ALL_ASSETS = [
    raw_data,
    registered_model,
    payload_data,
    config_package,
    prepped_data,
    validation_results,
    metrics,
    deployment_package,
]
