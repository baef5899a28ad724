"""The main job on an Azure ML registry (`registry_name`): the sensor, and a user's commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from edgepack_assets.config.loader import load_settings
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.base import Kind
from edgepack_assets_tests.azure.loopback import LoopbackAzure
from edgepack_assets_tests.e2e.conftest import Plant
from edgepack_assets_tests.e2e.dev import Dev


def test_a_model_of_a_registry_becomes_a_package_there(plant: Plant, azure: LoopbackAzure, tmp_path: Path) -> None:
    azure.proxy.passes_on = True  # the components' wheels come from an index that is none of Azure's
    azure.azure_ml.lro_polls = 1
    azure.principal.roles = {"AzureML Registry User"}
    known = load_settings(plant.config)
    shared = Plant(tmp_path / "plant")
    shared.folder.mkdir()
    document = yaml.safe_load(plant.config.read_text())
    document["registry"] = {**azure.registry_section("registry"), "credential": {"type": "service_principal"}}
    document["sensors"] = {"interval": 2}
    document["runtime"] = {"environments": str(known.runtime.environments)}
    shared.config.write_text(yaml.safe_dump(document, sort_keys=False))
    shutil.copyfile(plant.folder / "dagster.yaml", shared.folder / "dagster.yaml")
    shared.prepare()
    settings = load_settings(shared.config)
    registry, local = open_registry(settings), open_registry(known)
    model, data = local.get(Kind.MODEL, "state_identifier", 1), local.get(Kind.DATA, "state_identifier_raw", 1)
    registry.register(data.kind, data.name, Path(data.location), data.tags)

    dev = Dev(shared.folder, shared.environment)
    try:
        dev.wait_for_ticks(1, 2)
        registry.register(model.kind, model.name, Path(model.location), model.tags)
        dev.wait_until("the run", lambda: len(runs := dev.runs()) == 1 and all(run.is_finished for run in runs))
        dev.wait_for_ticks(3, 2)  # looks again, and finds nothing new
        [run] = dev.runs()
        assert run.is_success, dev.log.read_text()[-6000:]
    finally:
        dev.stop()
    assert (run.tags["dagster/partition"], run.tags["dagster/sensor_name"]) == (
        "state_identifier:1", "state_identifier_models"
    )  # fmt: skip
    [package] = registry.versions(Kind.MODEL, settings.model_type("state_identifier").registered_package_name)
    assert (package.tags["model_name"], package.tags["model_version"]) == ("state_identifier", "1")
    assert float(package.tags["silhouette"]) >= settings.model_type("state_identifier").gates["silhouette"].min

    # By hand, again: the registry has that content of that model's version already.
    assert "0 of 1 partitions added" in shared.run("edgepack", "sync").stderr
    shared.materialize("state_identifier:1")
    assert registry.versions(Kind.MODEL, package.name) == [package]
    assert azure.azure_ml.workspace.assets == {"models": {}, "data": {}}
