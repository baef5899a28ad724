"""The section compute of edgepack.yaml: for all model types, for one, and what cannot work with the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepack_assets.config.compute_settings import DEFAULT_IMAGE, ComputeSettings, as_experiment_name
from edgepack_assets.config.digest import config_digest
from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import Settings
from edgepack_assets.errors import ConfigError

REGISTRY = """\
registry: {type: azure_ml, subscription_id: s, resource_group: g, workspace_name: w, time_limit: 33}
artefacts: {root: "abfs://box@plant.dfs.core.windows.net/artefacts"}
"""
ENTRIES = """\
model_types:
  press:
    implementation: state_identifier
    model_name: press_model
    package_name: Press Line 4
    raw_data: {name: press_raw}
  images:
    implementation: image_classification
    model_name: images
    package_name: Images
    raw_data: {name: images}
"""


def load(folder: Path, text: str) -> Settings:
    file = folder / "edgepack.yaml"
    file.write_text(text, encoding="utf-8")
    return load_settings(file)


def test_without_the_section_work_is_done_here(tmp_path: Path) -> None:
    compute = load(tmp_path, ENTRIES).compute_of("press")
    assert not compute.is_remote
    assert compute.wait_for_completion


def test_the_users_defaults_and_labels_of_the_run_are_taken(tmp_path: Path) -> None:
    run = "run: {environment: prod, build_reference: '0012', experiment_name: Press line 4}\n"
    settings = load(tmp_path, REGISTRY + run + "compute: {type: azure_ml, cluster_name: edge-cpu}\n" + ENTRIES)
    compute = settings.compute_of("press")
    assert (compute.min_instances, compute.max_instances, compute.idle_time_before_scale_down) == (0, 4, 120)
    assert compute.image == DEFAULT_IMAGE
    assert (compute.experiment_name, compute.build_reference) == ("Press-line-4", "0012")
    assert compute.deploy_environment == "prod"
    workspace = settings.compute_workspace_of("press")
    assert (workspace.workspace_name, workspace.time_limit) == ("w", 33)


def test_a_model_type_replaces_single_keys(tmp_path: Path) -> None:
    (tmp_path / "conda.yml").touch()
    text = (
        REGISTRY
        + "compute: {type: azure_ml, cluster_name: edge-cpu, max_instances: 2, conda_path: conda.yml, "
        + "identity: {client_id: one}}\n"
        + ENTRIES
        + "    compute: {cluster_name: edge-gpu, environment_image: 'plant.azurecr.io/gpu:1', output_file: job.txt}\n"
    )
    settings = load(tmp_path, text)
    images, press = settings.compute_of("images"), settings.compute_of("press")
    assert (press.cluster_name, press.max_instances, press.image) == ("edge-cpu", 2, DEFAULT_IMAGE)
    assert (images.cluster_name, images.max_instances, images.is_remote) == ("edge-gpu", 2, True)
    assert images.conda_path == tmp_path / "conda.yml"
    assert images.output_file == tmp_path / "job.txt"
    assert images.job_credential.client_id == "one"


def test_one_model_type_may_work_here_and_another_there(tmp_path: Path) -> None:
    there = load(tmp_path, REGISTRY + ENTRIES + "    compute: {type: azure_ml, cluster_name: edge-gpu}\n")
    assert (there.compute_of("press").is_remote, there.compute_of("images").is_remote) == (False, True)
    text = REGISTRY + "compute: {type: azure_ml, cluster_name: a}\n" + ENTRIES + "    compute: {type: local}\n"
    here = load(tmp_path, text)
    assert (here.compute_of("press").is_remote, here.compute_of("images").is_remote) == (True, False)


def test_one_variable_switches_between_here_and_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = "{type: '${WHERE:-local}', cluster_name: edge-cpu, max_instances: '${NODES:-3}', low_priority: '${LOW:-no}'}"
    here = load(tmp_path, f"compute: {keys}\n{ENTRIES}").compute_of("press")
    assert not here.is_remote
    monkeypatch.setenv("WHERE", "azure_ml")
    monkeypatch.setenv("LOW", "true")
    there = load(tmp_path, f"{REGISTRY}compute: {keys}\n{ENTRIES}").compute_of("press")
    assert (there.is_remote, there.max_instances, there.low_priority) == (True, 3, True)
    with pytest.raises(ConfigError, match="cannot reach the local registry"):
        load(tmp_path, f"compute: {keys}\n{ENTRIES}")


def test_an_azure_ml_registry_needs_a_workspace_for_the_jobs(tmp_path: Path) -> None:
    registry = REGISTRY.replace("subscription_id: s, resource_group: g, workspace_name: w", "registry_name: r")
    compute = "compute: {type: azure_ml, cluster_name: c%s}\n"
    with pytest.raises(ConfigError, match=r"edgepack\.yaml:3: compute: jobs run in a workspace"):
        load(tmp_path, registry + compute % "" + ENTRIES)
    own = compute % ", subscription_id: s, resource_group: g, workspace_name: other"
    workspace = load(tmp_path, registry + own + ENTRIES).compute_workspace_of("press")
    assert (workspace.workspace_name, workspace.registry_name, workspace.time_limit) == ("other", None, 33)


AZURE_ML = "compute: {type: azure_ml, cluster_name: c%s}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (AZURE_ML % "" + ENTRIES, "1: compute: a job of Azure ML cannot reach artefacts.root "),
        (AZURE_ML % "" + ENTRIES, "; a job of Azure ML cannot reach the local registry"),
        (REGISTRY + "compute: {type: azure_ml}\n" + ENTRIES, "3: compute: type azure_ml needs a cluster_name"),
        (ENTRIES + "    compute: {type: azure_ml, cluster_name: c}\n", "12: model_types.images.compute: a job of"),
        (
            REGISTRY.replace("abfs://box@plant.dfs.core.windows.net", "file:///srv") + AZURE_ML % "" + ENTRIES,
            "3: compute: a job of Azure ML cannot reach artefacts.root file:///srv/artefacts",
        ),
        (REGISTRY + AZURE_ML % ", cluster_nodes: 3" + ENTRIES, "unknown key 'compute.cluster_nodes'; allowed here: "),
        (REGISTRY + AZURE_ML % ", max_instances: true" + ENTRIES, "3: compute.max_instances: must be a number"),
        (REGISTRY + AZURE_ML % ", max_instances: 0" + ENTRIES, "3: compute.max_instances: "),
        (REGISTRY + AZURE_ML % ", min_instances: 9" + ENTRIES, "3: compute: max_instances 4 is below min_instances 9"),
        (
            REGISTRY + AZURE_ML % "" + ENTRIES + "    compute: {min_instances: 3, max_instances: 2}\n",
            "model_types.images.compute: max_instances 2 is below",
        ),
        (
            REGISTRY + AZURE_ML % ", max_instances: 2" + ENTRIES + "    compute: {min_instances: 3}\n",
            "model_types.images.compute: max_instances 2 is below min_instances 3",
        ),
        (REGISTRY + AZURE_ML % ", conda_path: absent.yml" + ENTRIES, "3: compute.conda_path: no such file: "),
        (REGISTRY + AZURE_ML % ", workspace_name: w" + ENTRIES, "needs subscription_id, resource_group too"),
        (REGISTRY + AZURE_ML % ", idle_time_before_scale_down: 0" + ENTRIES, "compute.idle_time_before_scale_down: "),
        (REGISTRY + AZURE_ML % ", experiment_name: a b" + ENTRIES, "compute.experiment_name: an experiment's name"),
        (REGISTRY + AZURE_ML % ", environment_name: AzureML-x" + ENTRIES, "those of Microsoft's own environments"),
        (
            REGISTRY + AZURE_ML % ", docker_args: [--cap-add=SYS_ADMIN --privileged]" + ENTRIES,
            "each argument is an item of its own",
        ),
        (REGISTRY + AZURE_ML % ", identity: {resource_id: mine}" + ENTRIES, "compute.identity.resource_id: must be"),
        (REGISTRY + "compute: {type: azure_ml, cluster_name: a_b}\n" + ENTRIES, "compute.cluster_name: a cluster's"),
    ],
)
def test_what_cannot_work_is_refused_at_load_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)


def test_where_work_is_done_changes_no_digest_of_the_configuration(tmp_path: Path) -> None:
    without = load(tmp_path, REGISTRY + ENTRIES)
    remote = load(tmp_path, REGISTRY + AZURE_ML % "" + ENTRIES + "    compute: {max_instances: 2}\n")
    assert config_digest(without) == config_digest(remote)


@pytest.mark.parametrize(("text", "name"), [("", "edgepack"), ("\u00fc!", "edgepack"), ("Press 4/7", "Press-4-7")])
def test_any_text_becomes_the_name_of_an_experiment(text: str, name: str) -> None:
    assert as_experiment_name(text) == name
    ComputeSettings(experiment_name=as_experiment_name(text))
