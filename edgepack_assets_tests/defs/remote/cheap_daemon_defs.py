"""The cheap assets as a code location for a real daemon: runs are jobs, and the project's sensor requests them."""

import dagster as dg

from edgepack_assets.config.loader import find_config, load_settings
from edgepack_assets.defs.jobs import package_model
from edgepack_assets.defs.sensors import registry_sensor
from edgepack_assets_tests.defs.remote.cheap_assets import load, remote

SETTINGS = load_settings(find_config())
defs = dg.Definitions.merge(
    load(SETTINGS.file, remote(SETTINGS.file.parent / "jobs")),
    dg.Definitions(sensors=[registry_sensor(SETTINGS, "press", package_model)]),
)
