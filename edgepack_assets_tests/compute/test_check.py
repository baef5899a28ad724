"""What `edgepack doctor` and `edgepack config check` say of jobs of Azure ML."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from edgepack_assets.azure.errors import COMPUTE_OPERATOR, DATA_SCIENTIST, AccessError
from edgepack_assets.compute.azure_ml import check_compute
from edgepack_assets.compute.azure_ml.check import is_allowed
from edgepack_assets.errors import ConfigError
from edgepack_assets.operations import doctor
from edgepack_assets.operations.config_check import check_config
from edgepack_assets_tests.azure.compute import ROLES
from edgepack_assets_tests.azure.faults import status
from edgepack_assets_tests.compute.conftest import Plant

PROVIDER = "Microsoft.MachineLearningServices/workspaces"


def found(plant: Plant, **keys: object) -> dict[str, tuple[bool, str]]:
    return {step.step: (step.ok, step.words) for step in check_compute(plant.compute(**keys), plant.workspace)}


def test_what_is_there_is_shown_and_nothing_is_made(plant: Plant) -> None:
    plant.ready()
    plant.azure.principal.roles.discard(COMPUTE_OPERATOR)
    plant.azure.proxy.seen.clear()
    steps = found(plant)
    assert steps["compute cluster edge-cpu"] == (True, "STANDARD_DS3_V2, dedicated, 0 to 4 nodes, Succeeded")
    ok, words = steps["environment"]
    assert ok
    assert words.endswith(": registered")
    assert steps["roles"] == (True, "this identity may start jobs and register environments")
    assert {asked.partition(" ")[0] for asked in plant.asked("management.azure.com")} == {"GET"}


def test_what_the_first_run_makes_is_said_with_the_role_that_it_needs(plant: Plant) -> None:
    steps = found(plant)
    assert steps["compute cluster edge-cpu"] == (
        True,
        "there is none yet; the first run creates it: Standard_DS3_v2, 0 to 4 nodes",
    )
    assert "will be registered with the first job" in steps["environment"][1]
    assert steps["roles"][1].endswith("and create the compute cluster")
    plant.azure.principal.roles.discard(COMPUTE_OPERATOR)
    ok, words = found(plant)["roles"]
    assert not ok
    assert words.endswith(f"{PROVIDER}/computes/write: give it the role AzureML Compute Operator on the workspace")


def test_every_step_that_fails_says_why(plant: Plant) -> None:
    compute = plant.azure.azure_ml.compute
    assert "set compute.cluster_size" in found(plant, cluster_size=None)["compute cluster edge-cpu"][1]
    compute.add_cluster("edge-cpu", kind="ComputeInstance")
    assert found(plant)["compute cluster edge-cpu"] == (
        False,
        "is a ComputeInstance, not a compute cluster: set compute.cluster_name to another name",
    )
    compute.add_cluster("edge-cpu", state="Failed", errors=[{"error": {"code": "Q", "message": "no quota"}}])
    compute.computes["edge-cpu"]["properties"]["provisioningErrors"] = [{"error": {"code": "Q", "message": "no quota"}}]
    assert found(plant)["compute cluster edge-cpu"] == (False, "is in the state Failed: Q: no quota")
    plant.azure.faults.add("Microsoft.Authorization/permissions", status(403, "AuthorizationFailed"))
    ok, words = found(plant)["roles"]
    assert ok
    assert "Azure does not say" in words


def test_a_cluster_whose_jobs_could_not_sign_in_is_told(plant: Plant) -> None:
    made = plant.azure.azure_ml.compute.add_cluster("edge-cpu")
    assert found(plant)["identity of the nodes"] == (True, "SystemAssigned")
    made["identity"] = None
    ok, words = found(plant)["identity of the nodes"]
    assert not ok
    assert words.startswith("it has no managed identity, so a job can read no model: `az ml compute update")
    plant.jobs().prepare(plant.log)
    assert any("it has no managed identity" in line for line in plant.said)
    made["identity"] = {"type": "UserAssigned", "userAssignedIdentities": {"/u/one": {"clientId": "AB-1"}}}
    assert found(plant, identity={"client_id": "ab-1"})["identity of the nodes"] == (True, "UserAssigned, ab-1")
    ok, words = found(plant, identity={"client_id": "cd-2"})["identity of the nodes"]
    assert not ok
    assert words == "it has no identity with compute.identity.client_id cd-2; it has ab-1: assign it, or set another"


def test_who_may_only_read_starts_no_job(plant: Plant) -> None:
    jobs = plant.ready()
    plant.azure.principal.roles = {"Reader", "Storage Blob Data Contributor"}
    ok, words = found(plant)["roles"]
    assert not ok
    assert "jobs/write" in words
    assert words.endswith(f"give it the role {DATA_SCIENTIST} on the workspace")
    with pytest.raises(AccessError, match=f"is not allowed to: give it the role {DATA_SCIENTIST}"):
        jobs.start(plant.request("true"), plant.log)


@pytest.mark.parametrize(
    ("roles", "action", "expected"),
    [
        ({DATA_SCIENTIST}, "jobs/write", True),
        ({DATA_SCIENTIST}, "computes/write", False),
        ({DATA_SCIENTIST}, "write", False),
        ({DATA_SCIENTIST, COMPUTE_OPERATOR}, "computes/write", True),
        ({COMPUTE_OPERATOR}, "jobs/write", False),
        ({"Contributor"}, "computes/write", True),
        ({"Reader"}, "jobs/write", False),
        (set(), "jobs/read", False),
    ],
)
def test_what_the_built_in_roles_allow(roles: set[str], action: str, expected: bool) -> None:
    assert is_allowed(f"{PROVIDER}/{action}", [ROLES[role] for role in roles]) is expected


def write_config(plant: Plant, folder: Path, **compute: object) -> Path:
    host = plant.azure.storage.host.replace(".blob.", ".dfs.")
    entry = {
        "implementation": "state_identifier", "model_name": "press", "package_name": "Press",
        "raw_data": {"name": "press_raw"},
    }  # fmt: skip
    document = {
        "registry": plant.azure.registry_section(),
        "artefacts": {"root": f"abfs://{plant.azure.azure_ml.container}@{host}/artefacts"},
        "compute": {"type": "azure_ml", "cluster_name": "edge-cpu", "environment_image": "plant/edge:1", **compute},
        "model_types": {
            "press": entry,
            "same": {**entry, "model_name": "same", "package_name": "Same"},
            "here": {**entry, "model_name": "here", "package_name": "Here", "compute": {"type": "local"}},
        },
    }
    file = folder / "edgepack.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return file


def test_doctor_examines_each_compute_once(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = check_config(write_config(plant, tmp_path))
    for other in ("_isolation", "_pythons", "_index", "_registry", "_authorities", "_model_types"):
        monkeypatch.setattr(doctor, other, lambda _: iter(()))
    rows = [row for row in doctor.examine(settings) if row.section == "compute"]
    assert [(row.name, row.holds) for row in rows] == [
        ("compute cluster edge-cpu", False),
        ("identity of the nodes", True),
        ("environment", True),
        ("roles", True),
    ]
    assert rows[0].vital


def test_config_check_reads_the_conda_file(plant: Plant, tmp_path: Path) -> None:
    (tmp_path / "conda.yml").write_text("dependencies: nothing\n")
    with pytest.raises(
        ConfigError, match=r"edgepack\.yaml:\d+: .*conda\.yml \(compute\.conda_path\): is no conda file"
    ):
        check_config(write_config(plant, tmp_path, conda_path="conda.yml"))
