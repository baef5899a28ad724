"""The real six assets as jobs of Azure ML: registry, store and jobs in the loopback Azure, and nothing shared besides.

Each job is a process of its own with an empty home, temporary folder and cache, as on a node that was never used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import yaml

from edgepack_assets.artefacts.store import open_store
from edgepack_assets.config.loader import load_settings
from edgepack_assets.defs.jobs import ASSETS
from edgepack_assets.defs.remote.mailbox import left_mailboxes
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.base import Kind
from edgepack_assets_tests.azure.loopback import LoopbackAzure
from edgepack_assets_tests.e2e.conftest import Plant
from edgepack_assets_tests.e2e.test_hostile_models import harmful

CURIOUS = """
import glob, os
seen = sorted(os.environ)
for path in glob.glob('/proc/[0-9]*/environ'):
    try: seen.append(open(path, 'rb').read().decode(errors='replace'))
    except OSError: pass
raise RuntimeError('SEEN ' + repr(seen))
"""
TYPES = ("state_identifier", "image_classification")


def _on_azure(local: Plant, azure: LoopbackAzure, folder: Path) -> Plant:
    """A plant with the models and data of another one, whose runs are jobs."""
    made = Plant(folder)
    folder.mkdir()
    container = f"{azure.azure_ml.container}@{azure.storage.host.replace('.blob.', '.dfs.')}"
    document = yaml.safe_load(local.config.read_text())
    document["model_types"] = {name: document["model_types"][name] for name in TYPES}
    del document["runtime"]  # this machine's environments
    document["registry"] = {**azure.registry_section(), "credential": {"type": "service_principal"}}
    document["artefacts"] = {"root": f"abfs://{container}/edgepack"}
    document["compute"] = {
        "type": "azure_ml", "cluster_name": "edge-cpu", "environment_image": "plant/edge:1", "output_file": "last_job",
    }  # fmt: skip
    made.config.write_text(yaml.safe_dump(document, sort_keys=False))
    shutil.copyfile(local.folder / "dagster.yaml", folder / "dagster.yaml")
    made.prepare()
    registry, known = open_registry(load_settings(made.config)), open_registry(load_settings(local.config))
    for name in TYPES:
        for version in (known.get(Kind.DATA, f"{name}_raw", 1), known.get(Kind.MODEL, name, 1)):
            registry.register(version.kind, version.name, Path(version.location), version.tags)
    return made


def test_jobs_on_empty_nodes_make_the_packages_of_this_machine(
    plant: Plant, azure: LoopbackAzure, tmp_path: Path
) -> None:
    azure.pass_on()  # the components' wheels come from an index that is none of Azure's
    azure.azure_ml.compute.add_cluster("edge-cpu")
    remote = _on_azure(plant, azure, tmp_path / "remote")
    settings = load_settings(remote.config)
    registry, there, local = open_registry(settings), open_store(settings), open_store(load_settings(plant.config))
    done = remote.run("edgepack", "package", *(f"{name}:1" for name in TYPES), "--json", timeout=1200)
    told = {each["key"]: each for each in json.loads(done.stdout)}
    for name in TYPES:
        [package] = registry.versions(Kind.MODEL, settings.model_type(name).registered_package_name)
        [here] = plant.packages(package.name)
        assert package.tags["content_digest"] == here.tags["content_digest"], told
        differing = {asset for asset in ASSETS if there.load(asset, f"{name}:1") != local.load(asset, f"{name}:1")}
        assert differing <= {"validation_results", "deployment_package"}, "they hold times and places"
    first = set(azure.jobs.jobs)
    assert len(first) == len(TYPES)
    assert (remote.folder / "last_job").read_text().strip() in first

    # Another node, which has nothing either: the environment comes from the store, as the index gives no answer.
    azure.proxy.passes_on = False
    done = remote.run("edgepack", "package", "state_identifier:1", "--from", "metrics", "--output-file", "out.json")
    hand_over = json.loads((remote.folder / "out.json").read_text())
    assert hand_over["registered_before"], done.stdout
    assert [each.number for each in registry.versions(Kind.MODEL, hand_over["package_name"])] == [1]
    [job] = set(azure.jobs.jobs) - first
    bodies = json.dumps([each.properties for each in azure.jobs.jobs.values()])
    assert azure.principal.secret not in bodies
    assert (remote.folder / "last_job").read_text().strip() == job

    # What the node knows of itself never reaches a model's code.
    sound = Path(open_registry(load_settings(plant.config)).get(Kind.MODEL, "state_identifier", 1).location)
    curious = harmful(tmp_path, sound.parent, CURIOUS, sound.name)
    assert remote.add_model("state_identifier", curious) == 2
    done = remote.run("edgepack", "package", "state_identifier:2", check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "SEEN" in done.stdout + done.stderr
    for word in ("MSI_", "IDENTITY", "AZURE", "canary", azure.jobs.node_identity.client_id):
        assert word not in (done.stdout + done.stderr).partition("SEEN")[2], done.stdout + done.stderr

    # No model ran here, and no job left anything behind.
    assert not list(settings.runtime.environments.glob("*/bin/python"))
    assert left_mailboxes(there.backend) == []
