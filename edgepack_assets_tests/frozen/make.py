"""Makes the frozen sample: `python -m edgepack_assets_tests.frozen.make`.

The sample is what a user has: a registry with two versions of a model and one package, the artefacts of both
versions, their lock, a Dagster instance with runs, events, checks and a sensor's cursor. The model is the tiny
component of packaging/tiny.py, so nothing is trained and the only wheel has a few hundred bytes.

Do not run this to make a failing test pass: the sample in the repository was made by the code before the modules were
moved to their present folders (with the module names of that time in the imports below), and stands for what users
have. Add a second sample for a later release instead.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from edgepack_assets import __file__ as package_file
from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.definitions import build_defs
from edgepack_assets.environments.environment import environment_for
from edgepack_assets.environments.interpreters import find_python
from edgepack_assets.environments.lock import lock_for
from edgepack_assets.new_models.cursor import Baseline, RequestedRun, State
from edgepack_assets.registry.base import Kind
from edgepack_assets_tests.defs.assets.recorded import record
from edgepack_assets_tests.environments.wheels import Index
from edgepack_assets_tests.frozen.state import SAMPLE, freeze, names, tick
from edgepack_assets_tests.packaging import tiny
from edgepack_assets_tests.packaging.conftest import HELPER, Built
from edgepack_assets_tests.tasks.plant import Plant

CONFIG = {
    "registry": {"type": "local", "path": "registry"},
    "artefacts": {"root": ".edgepack/artefacts"},
    "run": {"environment": "plant", "build_reference": "2026.7"},
    "model_types": {
        "press": {
            "implementation": "state_identifier",
            "model_name": "press_model",
            "package_name": tiny.NAME,
            "raw_data": {"name": "press_raw"},
            "gates": {"silhouette": {"min": 0.2}},
        }
    },
}
PYTHON = "3.11"


def main() -> None:
    """Make the sample anew."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make(folder)
        freeze(folder)
    size = sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file())
    print(f"{SAMPLE}: {size / 1000:.0f} kB")


def _make(folder: Path) -> None:
    built = _built(folder)
    plant = Plant(built, folder)
    validated = {version: plant.validated(version) for version in (1, 2)}
    config = folder / "edgepack.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    os.environ["EDGEPACK_CONFIG"] = str(config)
    (folder / "dagster.yaml").write_bytes((Path(package_file).parent / "default_dagster.yaml").read_bytes())
    for version in (1, 2):
        (folder / "model.txt").write_text(f"model {version}\n")
        plant.registry.register(Kind.MODEL, "press_model", folder / "model.txt", {"trained_by": f"run {version}"})
    (folder / "raw.csv").write_text("x\n1.0\n")
    plant.registry.register(Kind.DATA, "press_raw", folder / "raw.csv", {})
    (folder / "names.json").write_text(json.dumps(names(build_defs(config)), indent=1))
    (folder / "cursor.json").write_text(_every_field().to_cursor())
    home = folder / ".edgepack" / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_bytes((folder / "dagster.yaml").read_bytes())
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.add_dynamic_partitions("models", ["press:1", "press:2"])
        for made in validated.values():
            prepped = Artefact(
                asset="prepped_data", partition=made.payload_data.partition, parts={},
                made_from={"payload_data": made.payload_data.digest, "config_package": made.config_package.digest},
            )  # fmt: skip
            for artefact in [*made.inputs().values(), prepped]:
                built.store.save(artefact)
                record(instance, artefact)
                _report_checks(instance, config, artefact)
        _package(instance, config)
        _sensor_tick(instance, config)
    for left in [*folder.glob("*.txt"), *folder.glob("*.csv"), *folder.glob("records-*")]:
        left.unlink()
    for work in [*folder.glob("package-*"), *folder.glob("run-*")]:
        shutil.rmtree(work)


def _built(folder: Path) -> Built:
    store = ArtefactStore(str(folder / ".edgepack" / "artefacts"), folder / ".edgepack" / "cache")
    with Index() as index, pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as work:
        patch.setenv("UV_CACHE_DIR", f"{work}/uv-cache")
        patch.setenv("NO_PROXY", "127.0.0.1")
        index.add(HELPER)
        settings = RuntimeSettings(environments=folder / "environments", index_url=index.url, time_limit=60.0)
        lock, _ = lock_for(["echo-helper"], find_python(PYTHON)[0], store, settings)
        environment = environment_for(lock, store, settings)
    config = tiny.build_config(folder / "environments" / "work", lock)
    return Built(lock, store, environment, settings, config, config)


def _report_checks(instance: dg.DagsterInstance, config: Path, artefact: Artefact) -> None:
    for key in build_defs(config).resolve_asset_graph().asset_check_keys:
        if key.asset_key.to_user_string() == artefact.asset:
            instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(
                    asset_key=key.asset_key,
                    check_name=key.name,
                    passed=True,
                    metadata={"partition": artefact.partition},
                )
            )


def _package(instance: dg.DagsterInstance, config: Path) -> None:
    """A run of a person, who launched deployment_package of press:1 alone."""
    job = build_defs(config).resolve_implicit_global_asset_job_def()
    done = job.execute_in_process(
        instance=instance, partition_key="press:1", asset_selection=[dg.AssetKey("deployment_package")]
    )
    assert done.success


def _sensor_tick(instance: dg.DagsterInstance, config: Path) -> None:
    """A tick of the sensor, which requests press:2, and the run that the daemon makes of it."""
    sensor, asked = tick(config, instance, None)
    assert isinstance(asked, dg.SensorResult)
    [request] = asked.run_requests or []
    instance.add_run(
        dg.DagsterRun(
            job_name="package_model", run_id="6f0c1a52-0d5e-4c1b-9a3e-5b0d3f6c7a11", status=dg.DagsterRunStatus.SUCCESS,
            tags={**request.tags, "dagster/partition": str(request.partition_key), "dagster/sensor_name": sensor.name,
                  "dagster/run_key": str(request.run_key)},
        )
    )  # fmt: skip
    location = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="edgepack_assets.definitions"))
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), sensor.name)
    data = SensorInstigatorData(last_tick_timestamp=time.time(), last_run_key=request.run_key, cursor=asked.cursor)
    instance.add_instigator_state(
        InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.DECLARED_IN_CODE, data)
    )
    instance.create_tick(
        TickData(origin.get_id(), sensor.name, InstigatorType.SENSOR, TickStatus.SUCCESS, time.time(),
                 run_ids=["6f0c1a52-0d5e-4c1b-9a3e-5b0d3f6c7a11"], selector_id=origin.get_selector().get_id())
    )  # fmt: skip


def _every_field() -> State:
    """A cursor with something in every field."""
    state = State("press_model", 1_780_000_000, Baseline(3, 1_779_999_999_000))
    state.record.add(1, 1_779_000_000_000)
    state.pending.add(4)
    state.waiting = {5: 1_780_000_100_000}
    state.runs = {6: RequestedRun(1_780_000_200_000, 2, 1_780_000_300)}
    state.top, state.missing, state.missing_tries = 7, 8, 2
    state.sweep_due, state.turn = 1_780_000_400, 1
    return state


if __name__ == "__main__":
    main()
