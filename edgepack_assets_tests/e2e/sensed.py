"""A code location with the project's sensor on a job that takes no time: for tests with a real daemon.

A model version with the tag `fate=dies` kills its run's process at the first attempt, one with `fate=bad` fails on
the model, the first run of one with `fate=hangs` never ends.
"""

import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import dagster as dg

from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import Settings
from edgepack_assets.defs.model_partitions import MODELS
from edgepack_assets.defs.sensors import bounded_registry, registry_sensor
from edgepack_assets.errors import ModelError
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.base import DamagedVersion, Kind, RegisteredVersion

SETTINGS = load_settings()
FOLDER = Path(os.environ["EDGEPACK_TEST_FOLDER"])


class Unruly:
    """The registry in the mood that the file `mood` names: dead, empty, or (always) shuffled with repeats."""

    def __init__(self, settings: Settings) -> None:
        self.registry = open_registry(settings)

    def versions(self, kind: Kind, name: str) -> list[RegisteredVersion]:
        found = self._answer(self.registry.versions(kind, name), [])
        found += found[::3]
        random.shuffle(found)
        return found

    def newest_version(self, kind: Kind, name: str) -> int | None:
        return self._answer(self.registry.newest_version(kind, name), None)

    def get(self, kind: Kind, name: str, version: int) -> RegisteredVersion:
        return self._answer(self.registry.get(kind, name, version), None)

    def damaged(self, kind: Kind, name: str, above: int = 0) -> list[DamagedVersion]:
        return self._answer(self.registry.damaged(kind, name, above), [])

    def versions_and_damaged(self, kind: Kind, name: str) -> tuple[list[RegisteredVersion], list[DamagedVersion]]:
        return self.versions(kind, name), self.damaged(kind, name)

    @staticmethod
    def _answer(well: Any, empty: Any) -> Any:
        mood = (FOLDER / "mood").read_text()
        if mood == "dead":
            raise ConnectionRefusedError("connection refused")
        return empty if mood == "empty" else well


bounded_registry.open_registry = Unruly  # what the sensor opens; the runs have the registry itself


@dg.asset(partitions_def=MODELS)
def deployment_package(context: dg.AssetExecutionContext) -> None:
    """Fail as the model's tag says."""
    key = ModelKey.parse(context.partition_key)
    attempt = context.run.tags["edgepack/attempt"]
    found = open_registry(SETTINGS).get(Kind.MODEL, SETTINGS.model_type(key.model_type).model_name, key.version)
    if found.tags.get("fate") == "dies" and attempt == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    if found.tags.get("fate") == "hangs" and attempt == "1":
        (FOLDER / "hangs").write_text(str(os.getpid()))
        threading.Event().wait()
    if found.tags.get("fate") == "bad":
        raise dg.Failure("not a model", metadata={"error": ModelError.__name__}, allow_retries=False)


package_model = dg.define_asset_job("package_model", selection=[deployment_package], partitions_def=MODELS)
defs = dg.Definitions(
    assets=[deployment_package],
    jobs=[package_model],
    sensors=[registry_sensor(SETTINGS, name, package_model) for name in SETTINGS.model_types],
    executor=dg.in_process_executor,
)
