"""The compute cluster: found as it is, or created; and why it cannot be."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgepack_assets.azure.errors import COMPUTE_OPERATOR, MissingRoleError
from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets_tests.azure.faults import lost_answer, status
from edgepack_assets_tests.azure.http import Response
from edgepack_assets_tests.compute.conftest import Plant

OPERATION = "computeOperationsStatus"
ALREADY = (409, "Conflict", "A compute with that name is being made")


def puts(plant: Plant) -> list[str]:
    return [asked for asked in plant.asked("/computes/") if asked.startswith("PUT")]


def test_a_cluster_that_is_there_is_used_and_never_changed(plant: Plant) -> None:
    plant.azure.azure_ml.compute.add_cluster("edge-cpu")
    before = plant.azure.azure_ml.compute.computes["edge-cpu"].copy()
    jobs = plant.jobs(cluster_size="Standard_F4s_v2", max_instances=2, cluster_region="West Europe", low_priority=True)
    jobs.prepare(plant.log)
    assert [line.partition("kept as it is: ")[2] for line in plant.said if "kept" in line] == [
        "its cluster_size is STANDARD_DS3_V2, edgepack.yaml says Standard_F4s_v2",
        "its max_instances is 4, edgepack.yaml says 2",
        "its low_priority is False, edgepack.yaml says True",
    ]
    assert puts(plant) == []
    assert plant.azure.azure_ml.compute.computes["edge-cpu"] == before


def test_a_cluster_is_created_as_it_is_configured(plant: Plant) -> None:
    user = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/press"
    keys = {"low_priority": True, "min_instances": 1, "max_instances": 2, "idle_time_before_scale_down": 7.5}
    plant.jobs(**keys, cluster_region="northeurope", identity={"resource_id": user}).prepare(plant.log)
    made = plant.azure.azure_ml.compute.computes["edge-cpu"]
    assert made["location"] == "northeurope"
    assert made["identity"]["type"] == "UserAssigned"
    assert list(made["identity"]["userAssignedIdentities"]) == [user]
    assert made["properties"]["computeType"] == "AmlCompute"
    own = made["properties"]["properties"]
    assert (own["vmSize"], own["vmPriority"], own["osType"]) == ("Standard_DS3_v2", "LowPriority", "Linux")
    scale = own["scaleSettings"]
    assert (scale["minNodeCount"], scale["maxNodeCount"]) == (1, 2)
    assert scale["nodeIdleTimeBeforeScaleDown"] == "PT7M30S"
    plant.said.clear()
    plant.jobs(**keys, cluster_region="northeurope").prepare(plant.log)
    assert plant.said == [], "what it made itself is as configured"


def test_without_other_keys_it_has_the_users_defaults_and_an_identity(plant: Plant) -> None:
    plant.jobs().prepare(plant.log)
    made = plant.azure.azure_ml.compute.computes["edge-cpu"]
    scale = made["properties"]["properties"]["scaleSettings"]
    assert made["location"] == "westeurope", "the workspace's"
    assert (scale["minNodeCount"], scale["maxNodeCount"], scale["nodeIdleTimeBeforeScaleDown"]) == (0, 4, "PT2H")
    assert made["identity"]["type"] == "SystemAssigned", "a job that is nobody reads no registry"


def test_creating_takes_its_time_and_survives_a_service_that_is_busy(plant: Plant, hurry: Callable[[], float]) -> None:
    plant.azure.azure_ml.compute.creation_looks = 4
    operation = plant.azure.faults.add(f"GET .*{OPERATION}", status(429, "TooManyRequests", "slow down"), times=99)
    cluster = plant.azure.faults.add("GET .*/computes/edge-cpu", status(503), times=2, after=2)
    plant.jobs().prepare(plant.log)
    assert "waiting until the compute cluster edge-cpu is there" in plant.said
    assert len(operation.hits) == 1, "the SDK gives up, and the cluster itself is looked at"
    assert len(cluster.hits) == 2
    assert hurry() > 0


def test_an_operation_that_is_forgotten_is_no_failure(plant: Plant) -> None:
    plant.azure.azure_ml.compute.creation_looks = 2
    gone = plant.azure.faults.add(f"GET .*{OPERATION}", status(404, "NotFound", "no such operation"), times=99)
    plant.jobs().prepare(plant.log)
    assert gone.hits


def test_a_cluster_that_is_never_there_is_waited_for_no_longer(plant: Plant, hurry: Callable[[], float]) -> None:
    plant.azure.azure_ml.compute.creation_looks = 10**9
    with pytest.raises(TransientError, match="edge-cpu is not there after 900 s; its state is creating"):
        plant.jobs().prepare(plant.log)
    assert hurry() < 1000


def test_an_answer_that_was_lost_creates_no_second_cluster(plant: Plant, hurry: Callable[[], float]) -> None:
    plant.azure.azure_ml.compute.creation_looks = 3
    plant.azure.faults.add("PUT .*/computes/edge-cpu", lost_answer)
    plant.jobs().prepare(plant.log)
    assert len(puts(plant)) == 2, "the second one is refused, as the cluster is being made"
    plant.jobs().prepare(plant.log)
    assert len(puts(plant)) == 2
    assert hurry() > 0


def test_two_who_create_it_at_once_both_get_it(plant: Plant) -> None:
    compute = plant.azure.azure_ml.compute
    compute.creation_refusal = ALREADY
    compute.add_cluster("edge-cpu")
    plant.azure.faults.add("GET .*/computes/edge-cpu", lambda _: Response(404))
    plant.jobs().prepare(plant.log)
    assert len(puts(plant)) == 1


def test_without_a_size_nothing_is_created(plant: Plant) -> None:
    with pytest.raises(
        EdgepackError, match=r"plant-ws .*has no compute cluster edge-cpu: create it, or set compute\.c"
    ):
        plant.jobs(cluster_size=None).prepare(plant.log)
    assert puts(plant) == []


@pytest.mark.parametrize("kind", ["ComputeInstance", "Kubernetes"])
def test_another_kind_of_compute_under_that_name_is_refused(plant: Plant, kind: str) -> None:
    plant.azure.azure_ml.compute.add_cluster("edge-cpu", kind=kind)
    with pytest.raises(EdgepackError, match=rf"edge-cpu .* is a {kind}, not a compute cluster: set compute\.cluster_n"):
        plant.jobs().prepare(plant.log)


def test_a_missing_role_is_named(plant: Plant) -> None:
    plant.azure.principal.roles.discard(COMPUTE_OPERATOR)
    words = "may not create one: give it the role AzureML Compute Operator besides AzureML Data Scientist"
    with pytest.raises(MissingRoleError, match=words):
        plant.jobs().prepare(plant.log)
    plant.azure.azure_ml.compute.add_cluster("edge-cpu")
    plant.jobs().prepare(plant.log)  # to use one, the role is not needed


QUOTA = (
    "The specified subscription has a total vCPU quota of 0 and is less than the requested compute training cluster "
    "and/or compute instance's min nodes of 1 which maps to 4 vCPUs"
)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_missing_quota_is_told_whenever_the_service_says_so(plant: Plant, at_once: bool) -> None:
    compute = plant.azure.azure_ml.compute
    if at_once:
        compute.creation_refusal = (400, "ClusterMinNodesExceedCoreQuota", QUOTA)
    else:
        compute.creation_error = ("ClusterMinNodesExceedCoreQuota", QUOTA)
    words = r"no low-priority quota for 4 nodes of Standard_DS3_v2 in northeurope: ask for more .*total vCPU quota of 0"
    with pytest.raises(EdgepackError, match=words) as caught:
        plant.jobs(low_priority=True, cluster_region="northeurope").prepare(plant.log)
    assert not isinstance(caught.value, TransientError)


def test_a_size_that_the_region_does_not_have_is_told(plant: Plant) -> None:
    words = (
        r"the size Standard_Z1 cannot be used in the workspace's region: .*; set compute\.cluster_size or cluster_reg"
    )
    with pytest.raises(EdgepackError, match=words):
        plant.jobs(cluster_size="Standard_Z1").prepare(plant.log)


def test_a_creation_that_fails_for_another_reason_says_it(plant: Plant) -> None:
    plant.azure.azure_ml.compute.creation_error = ("InternalError", "the network has no room for the nodes")
    with pytest.raises(EdgepackError, match=r"edge-cpu .*could not be created: check the section compute: .*no room"):
        plant.jobs().prepare(plant.log)


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ("Failed", EdgepackError, r"could not be created: the subscription has no quota .*delete the failed cluster"),
        ("Deleting", TransientError, "is being deleted"),
    ],
)
def test_a_cluster_in_a_bad_state_is_told(plant: Plant, state: str, error: type[Exception], words: str) -> None:
    made = plant.azure.azure_ml.compute.add_cluster("edge-cpu", state=state)
    made["properties"]["provisioningErrors"] = [{"error": {"code": "Quota", "message": QUOTA}}]
    with pytest.raises(error, match=words):
        plant.jobs().prepare(plant.log)
