"""A code location with the project's sensor on a job that takes no time: for tests with a real daemon.

`package_model` writes the partition, attempt and process of each run into a folder. A model version with the tag
`fate=dies` kills its run's process at the first attempt, one with `fate=bad` fails on the model.
"""

import os
import signal
from pathlib import Path

import dagster as dg

from edgepack_assets.assets.common import MODELS
from edgepack_assets.config import load_settings
from edgepack_assets.errors import ModelError
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.base import Kind
from edgepack_assets.sensors import registry_sensor

SETTINGS = load_settings()


@dg.asset(partitions_def=MODELS)
def deployment_package(context: dg.AssetExecutionContext) -> None:
    """Leave a trace of the run; fail as the model's tag says."""
    key = ModelKey.parse(context.partition_key)
    attempt = context.run.tags["edgepack/attempt"]
    traces = Path(os.environ["EDGEPACK_TEST_TRACES"])
    (traces / f"{key.version}.{attempt}.{context.run_id}").touch()
    found = open_registry(SETTINGS).get(Kind.MODEL, SETTINGS.model_type(key.model_type).model_name, key.version)
    if found.tags.get("fate") == "dies" and attempt == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    if found.tags.get("fate") == "bad":
        raise dg.Failure("not a model", metadata={"error": ModelError.__name__}, allow_retries=False)


package_model = dg.define_asset_job("package_model", selection=[deployment_package], partitions_def=MODELS)
defs = dg.Definitions(
    assets=[deployment_package],
    jobs=[package_model],
    sensors=[registry_sensor(SETTINGS, name, package_model) for name in SETTINGS.model_types],
    executor=dg.in_process_executor,
)
