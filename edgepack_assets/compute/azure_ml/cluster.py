"""The compute cluster: found as it is, or created. A cluster that exists is never changed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from edgepack_assets.azure.calls import Backoff
from edgepack_assets.azure.errors import (
    COMPUTE_OPERATOR,
    DATA_SCIENTIST,
    AbsentError,
    MissingRoleError,
    RefusedError,
    explain,
    where,
)
from edgepack_assets.compute.base import Log
from edgepack_assets.config.compute_settings import ComputeSettings
from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets.masking import without_secrets
from edgepack_assets.registry.azure_ml.client import Assets

_API_VERSION = "2023-08-01-preview"
"""The one that azure-ai-ml asks for the same (1.35)."""
_CREATION_LIMIT = 900.0
"""Seconds until a new cluster must be there. It takes one or two minutes; its nodes come later, with the first job."""
_LONGEST_PAUSE = 10.0
_QUOTA = re.compile(r"(?i)quota|CoreLimit|exceed\w* .{0,40}\bcores?\b")
_SIZE = re.compile(r"(?i)vm ?size|virtual machine size|\bsku\b|SkuNotAvailable")
_PRIORITIES = {"dedicated": "dedicated", "lowpriority": "low priority"}


@dataclass(frozen=True)
class Cluster:
    """What the service says of a cluster. `idle_seconds` is None where it says nothing of it."""

    name: str
    kind: str
    state: str
    size: str
    priority: str
    region: str
    min_instances: int
    max_instances: int
    idle_seconds: float | None
    errors: str
    identity: str
    """SystemAssigned, UserAssigned, or empty."""
    client_ids: tuple[str, ...]
    """Of its user-assigned identities, where the service tells them."""

    @property
    def nodes(self) -> str:
        """Size and kind of its nodes, for people."""
        return f"{self.size}, {_PRIORITIES.get(self.priority, self.priority)}"

    def identity_problem(self, wanted: str | None) -> str:
        """Why a job on it cannot sign in, with the client id that the configuration names; empty if it can."""
        if self.identity in ("", "None"):
            return (
                "it has no managed identity, so a job can read no model: `az ml compute update --name "
                f"{self.name} --identity-type SystemAssigned`, and give that identity its roles"
            )
        if wanted and self.client_ids and wanted.lower() not in self.client_ids:
            return (
                f"it has no identity with compute.identity.client_id {wanted}; it has {', '.join(self.client_ids)}: "
                "assign it, or set another"
            )
        return ""


class Clusters:
    """The clusters of the workspace that runs the jobs."""

    def __init__(self, assets: Assets, compute: ComputeSettings) -> None:
        self._assets = assets
        self._compute = compute
        self._name = str(compute.cluster_name)

    def find(self) -> Cluster | None:
        """The configured cluster as it is now; None if there is none."""
        doing = f"reading the compute cluster {self._name}"
        try:
            found = self._assets.api.ask_workspace(doing, "GET", f"computes/{self._name}", _API_VERSION)
        except AbsentError:
            return None
        return _cluster(self._name, found or {})

    def node_of(self, job_name: str) -> str:
        """The node that runs a job; empty if none is known. What the SDK makes of this answer has no run ids (1.35)."""
        path = f"computes/{self._name}/listNodes"
        answer = self._assets.api.ask_workspace("listing the nodes", "POST", path, _API_VERSION) or {}
        return next(
            (str(node.get("nodeId")) for node in answer.get("nodes") or () if node.get("runId") == job_name), ""
        )

    def obtain(self, log: Log) -> Cluster:
        """The cluster: as it is, or created. Raises EdgepackError if it cannot be used or created."""
        cluster = self.find()
        if cluster is None:
            return self._create(log)
        if cluster.kind != "AmlCompute":
            raise EdgepackError(
                f"{self._name} ({self._where}) is a {cluster.kind or 'compute of an unknown kind'}, not a compute "
                "cluster: set compute.cluster_name to another name"
            )
        if cluster.state != "Succeeded":
            cluster = self._wait_until_made(None, log)
        for difference in self._differences(cluster):
            log(f"compute cluster {self._name}: kept as it is: {difference}")
        if problem := cluster.identity_problem(self._compute.identity.client_id):
            log(f"compute cluster {self._name}: {problem}")
        return cluster

    def _create(self, log: Log) -> Cluster:
        compute = self._compute
        if compute.cluster_size is None:
            raise EdgepackError(
                f"{self._where} has no compute cluster {self._name}: create it, or set compute.cluster_size, so "
                "that it can be created"
            )
        log(
            f"creating the compute cluster {self._name}: {compute.cluster_size}, {compute.min_instances} to "
            f"{compute.max_instances} nodes, {'low priority' if compute.low_priority else 'dedicated'}"
        )
        client = self._assets.client
        entity = self._entity()
        try:
            poller = self._assets.remote.call(self._creating, lambda: client.compute.begin_create_or_update(entity))
        except MissingRoleError as error:
            raise MissingRoleError(
                f"{self._where} has no compute cluster {self._name}, and this identity may not create one: give it the "
                f"role {COMPUTE_OPERATOR} besides {DATA_SCIENTIST}, or have somebody else create it: {error}"
            ) from None
        except RefusedError as error:
            if error.status != 409:  # somebody else creates it at the same time
                raise self._refused(str(error)) from None
            poller = None
        return self._wait_until_made(poller, log)

    def _entity(self) -> Any:
        from azure.ai.ml.entities import AmlCompute, IdentityConfiguration, ManagedIdentityConfiguration

        compute = self._compute
        resource_id = compute.identity.resource_id
        identity = (
            IdentityConfiguration(
                type="user_assigned", user_assigned_identities=[ManagedIdentityConfiguration(resource_id=resource_id)]
            )
            if resource_id
            else IdentityConfiguration(type="system_assigned")
        )
        return AmlCompute(
            name=self._name,
            size=compute.cluster_size,
            location=compute.cluster_region,
            min_instances=compute.min_instances,
            max_instances=compute.max_instances,
            idle_time_before_scale_down=max(1, round(compute.idle_time_before_scale_down * 60)),
            tier="low_priority" if compute.low_priority else "dedicated",
            identity=identity,
        )

    def _wait_until_made(self, poller: Any, log: Log) -> Cluster:
        """Look until the cluster is there. Where the service says why it failed, the poller knows it."""
        backoff, is_logged = Backoff(_CREATION_LIMIT, _LONGEST_PAUSE), False
        while True:
            if poller is not None and poller.done():
                self._raise_if_failed(poller)
                poller = None
            cluster = self.find()
            state = cluster.state.lower() if cluster is not None else ""
            if cluster is not None and state == "succeeded":
                return cluster
            if state in ("failed", "canceled"):
                raise self._refused(f"it is in the state {state}: {cluster.errors if cluster else ''}", is_there=True)
            if state == "deleting":
                raise TransientError(f"{self._where}: the compute cluster {self._name} is being deleted")
            if cluster is None and poller is None:
                raise TransientError(f"{self._where}: the compute cluster {self._name} was accepted and is gone again")
            if not is_logged:
                log(f"waiting until the compute cluster {self._name} is there")
                is_logged = True
            if not backoff.wait():
                raise TransientError(
                    f"{self._where}: the compute cluster {self._name} is not there after {_CREATION_LIMIT:g} s; its "
                    f"state is {state or 'unknown'}"
                )

    def _raise_if_failed(self, poller: Any) -> None:
        from azure.core.exceptions import HttpResponseError

        try:
            poller.result()
        except HttpResponseError as error:
            # If the operation failed, the request that asks for it has status 200. Otherwise it was not answered, or
            # the operation is forgotten, and the cluster itself is looked at.
            refused = isinstance(explain(error, self._creating, self._assets.settings), RefusedError)
            if refused or getattr(error, "status_code", None) in (200, 201, None):
                raise self._refused(without_secrets(str(error.message))) from None
        except Exception:  # noqa: BLE001 - what the SDK cannot read of the cluster is read by find()
            return

    def _refused(self, said: str, is_there: bool = False) -> EdgepackError:
        compute, region = self._compute, self._compute.cluster_region or "the workspace's region"
        said = " ".join(said.split())[:800]
        at = f"the compute cluster {self._name} ({self._where})"
        if _QUOTA.search(said):
            kind = "low-priority " if compute.low_priority else ""
            advice = (
                f"the subscription has no {kind}quota for {compute.max_instances} nodes of {compute.cluster_size} in "
                f"{region}: ask for more (Azure Portal, Quotas, Machine learning), or set other values for "
                "compute.cluster_size, max_instances, min_instances, cluster_region or low_priority"
            )
        elif _SIZE.search(said):
            advice = (
                f"the size {compute.cluster_size} cannot be used in {region}: `az ml compute list-sizes` shows those "
                "that can; set compute.cluster_size or cluster_region"
            )
        else:
            advice = "check the section compute"
        if is_there:
            advice += "; delete the failed cluster, so that it can be created anew"
        return EdgepackError(f"{at} could not be created: {advice}: {without_secrets(said)}")

    def _differences(self, cluster: Cluster) -> list[str]:
        """What is another than the configuration says, of what it says itself."""
        compute = self._compute
        idle = compute.idle_time_before_scale_down
        found: dict[str, tuple[object, object]] = {
            "cluster_size": (cluster.size, compute.cluster_size),
            "cluster_region": (cluster.region, compute.cluster_region),
            "min_instances": (cluster.min_instances, compute.min_instances),
            "max_instances": (cluster.max_instances, compute.max_instances),
            "idle_time_before_scale_down": (
                f"{(cluster.idle_seconds if cluster.idle_seconds is not None else idle * 60) / 60:g}", f"{idle:g}"
            ),
            "low_priority": (cluster.priority == "lowpriority", compute.low_priority),
        }  # fmt: skip
        return [
            f"its {key} is {is_now}, edgepack.yaml says {wanted}"
            for key, (is_now, wanted) in found.items()
            if key in compute.model_fields_set and wanted is not None and _plain(is_now) != _plain(wanted)
        ]

    @property
    def _creating(self) -> str:
        return f"creating the compute cluster {self._name}"

    @property
    def _where(self) -> str:
        return where(self._assets.settings)


def _plain(value: object) -> str:
    return str(value).replace(" ", "").lower()


def _cluster(name: str, body: dict[str, Any]) -> Cluster:
    properties: dict[str, Any] = body.get("properties") or {}
    own: dict[str, Any] = properties.get("properties") or {}
    scale: dict[str, Any] = own.get("scaleSettings") or {}
    identity: dict[str, Any] = body.get("identity") or {}
    users: dict[str, Any] = identity.get("userAssignedIdentities") or {}
    return Cluster(
        name=name,
        kind=str(properties.get("computeType") or ""),
        state=str(properties.get("provisioningState") or "Succeeded"),
        size=str(own.get("vmSize") or ""),
        priority=str(own.get("vmPriority") or "Dedicated").lower(),
        region=str(properties.get("computeLocation") or body.get("location") or ""),
        min_instances=int(scale.get("minNodeCount") or 0),
        max_instances=int(scale.get("maxNodeCount") or 0),
        idle_seconds=_seconds(scale.get("nodeIdleTimeBeforeScaleDown")),
        errors=_errors([*(properties.get("provisioningErrors") or []), *(own.get("errors") or [])]),
        identity=str(identity.get("type") or ""),
        client_ids=tuple(
            sorted(str(each["clientId"]).lower() for each in users.values() if (each or {}).get("clientId"))
        ),
    )


def _errors(errors: list[Any]) -> str:
    inner = [each.get("error", each) for each in errors if isinstance(each, dict)]
    told = [f"{each.get('code', '')}: {each.get('message', '')}" for each in inner]
    return without_secrets("; ".join(dict.fromkeys(told)))[:800]


def _seconds(duration: object) -> float | None:
    """Seconds of an ISO 8601 duration such as PT1H30M or P1D."""
    match = re.fullmatch(
        r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?", str(duration or "-"), re.IGNORECASE
    )
    if match is None:
        return None
    return sum(float(part or 0) * unit for part, unit in zip(match.groups(), (86400, 3600, 60, 1), strict=True))
