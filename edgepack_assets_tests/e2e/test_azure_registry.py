"""The main job on an Azure ML registry (`registry_name`): the sensor, and a user's commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import pytest
import yaml

from edgepack_assets.config.loader import load_settings
from edgepack_assets.definitions import build_defs
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.base import Kind
from edgepack_assets_tests.azure.loopback import LoopbackAzure
from edgepack_assets_tests.e2e.conftest import Plant


@pytest.mark.usefixtures("kept_helpers")
def test_a_model_of_a_registry_becomes_a_package_there(plant: Plant, azure: LoopbackAzure, tmp_path: Path) -> None:
    azure.pass_on()  # the components' wheels come from an index that is none of Azure's
    azure.azure_ml.lro_polls = 1
    azure.principal.roles = {"AzureML Registry User"}
    known = load_settings(plant.config)
    shared = Plant(tmp_path / "plant")
    shared.folder.mkdir()
    document = yaml.safe_load(plant.config.read_text())
    document["registry"] = {**azure.registry_section("registry"), "credential": {"type": "service_principal"}}
    document["runtime"] = {"environments": str(known.runtime.environments)}
    shared.config.write_text(yaml.safe_dump(document, sort_keys=False))
    shutil.copyfile(plant.folder / "dagster.yaml", shared.folder / "dagster.yaml")
    shared.prepare()
    settings = load_settings(shared.config)
    registry, local = open_registry(settings), open_registry(known)
    model, data = local.get(Kind.MODEL, "state_identifier", 1), local.get(Kind.DATA, "state_identifier_raw", 1)
    registry.register(data.kind, data.name, Path(data.location), data.tags)

    with shared.shell(), dg.DagsterInstance.from_config(shared.environment["DAGSTER_HOME"]) as instance:

        def tick(cursor: str | None) -> dg.SensorResult:
            sensor = build_defs(shared.config).resolve_sensor_def("state_identifier_models")
            answer = sensor(dg.build_sensor_context(instance, cursor=cursor))
            assert isinstance(answer, dg.SensorResult)
            return answer

        before = tick(None)
        assert not before.run_requests
        registry.register(model.kind, model.name, Path(model.location), model.tags)
        asked = tick(before.cursor)
        [request] = asked.run_requests or []
        assert request.partition_key == "state_identifier:1"
        assert not tick(asked.cursor).run_requests  # looks again, and finds nothing new
    shared.materialize(request.partition_key)
    [package] = registry.versions(Kind.MODEL, settings.model_type("state_identifier").registered_package_name)
    assert (package.tags["model_name"], package.tags["model_version"]) == ("state_identifier", "1")
    assert float(package.tags["silhouette"]) >= settings.model_type("state_identifier").gates["silhouette"].min

    # By hand, again: the registry has that content of that model's version already.
    assert "0 of 1 partition added" in shared.run("edgepack", "sync").stderr
    shared.materialize("state_identifier:1")
    assert registry.versions(Kind.MODEL, package.name) == [package]
    assert azure.azure_ml.workspace.assets == {"models": {}, "data": {}}
