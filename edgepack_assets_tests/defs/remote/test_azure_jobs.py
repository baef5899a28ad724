"""A run as a job of Azure ML: the real client, the loopback Azure, artefacts in its storage, the node's identity."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from edgepack_assets.artefacts.store import open_store
from edgepack_assets.azure.errors import COMPUTE_OPERATOR
from edgepack_assets.config.loader import CONFIG_VARIABLE, load_settings
from edgepack_assets.defs.jobs import ASSETS, JOB
from edgepack_assets.defs.remote.dagster_internals import execute_run_of
from edgepack_assets.defs.remote.executor import Remote
from edgepack_assets.defs.remote.mailbox import left_mailboxes
from edgepack_assets.partitions import ModelKey
from edgepack_assets_tests.azure.loopback import LoopbackAzure
from edgepack_assets_tests.defs.remote import cheap_assets as cheap

PROJECT = Path(__file__).parents[3]
CANARY = "canary-of-the-index"


@pytest.fixture
def home(azure: LoopbackAzure, tmp_path: Path, empty_storage: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    azure.principal.roles.add(COMPUTE_OPERATOR)
    # The cheap assets are no part of the wheel that goes along.
    monkeypatch.setattr(azure.jobs, "_environ", lambda: {**azure.node_environ, "PYTHONPATH": str(PROJECT)})
    folder = tmp_path / "home"
    shutil.copytree(empty_storage, folder)
    container = f"{azure.azure_ml.container}@{azure.storage.host.replace('.blob.', '.dfs.')}"
    document = {
        "registry": {**azure.registry_section(), "credential": {"type": "service_principal"}, "time_limit": 30},
        "artefacts": {"root": f"abfs://{container}/edgepack"},
        "runtime": {"isolation": "best_effort", "index_url": "https://user:${INDEX_PASSWORD}@index.example/simple"},
        "compute": {"type": "azure_ml", "cluster_name": "edge-cpu", "cluster_size": "Standard_DS3_v2",
                    "environment_image": "plant/edge:1"},
        "model_types": {"press": {"implementation": "state_identifier", "model_name": "press_model",
                                  "package_name": "Press", "raw_data": {"name": "press_raw"}}},
    }  # fmt: skip
    (folder / "edgepack.yaml").write_text(yaml.safe_dump(document))
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv(CONFIG_VARIABLE, str(folder / "edgepack.yaml"))
    monkeypatch.setenv("INDEX_PASSWORD", CANARY)
    yield folder


def test_a_run_is_one_job_of_azure_ml(home: Path, azure: LoopbackAzure) -> None:
    config = home / "edgepack.yaml"
    remote = Remote(module=cheap.__name__, timing=cheap.TIMING)
    run_id = str(uuid.uuid4())
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.add_dynamic_partitions("models", [f"press:{cheap.GOOD}"])
        job = cheap.load(config, remote).resolve_job_def(JOB)
        run = execute_run_of(job, instance, ModelKey("press", cheap.GOOD), ASSETS, {}, run_id)
        told = "\n".join(str(entry) for entry in instance.all_logs(run_id))
        assert run.status is dg.DagsterRunStatus.SUCCESS, told[-5000:]
        [done] = azure.jobs.jobs.values()
        assert done.name == f"edgepack-{run_id}-1"
        assert "https://ml.azure.com/runs/" in told
        assert CANARY not in str(done.properties)
        assert azure.principal.secret not in str(done.properties)
        assert CANARY not in told
    store = open_store(load_settings(config))
    assert left_mailboxes(store.backend) == []
    assert store.load("deployment_package", f"press:{cheap.GOOD}").made_from
