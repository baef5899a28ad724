"""The checks of `edgepack doctor` for jobs of Azure ML: the cluster, the environment, and the roles for both."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from edgepack_assets.azure.calls import Remote
from edgepack_assets.azure.errors import (
    COMPUTE_OPERATOR,
    DATA_SCIENTIST,
    AbsentError,
    AccessError,
    MissingRoleError,
    RefusedError,
)
from edgepack_assets.compute.azure_ml.cluster import Cluster, Clusters
from edgepack_assets.compute.azure_ml.environment import Environments, job_environment
from edgepack_assets.config.compute_settings import ComputeSettings
from edgepack_assets.config.registry_settings import AzureMLRegistrySettings
from edgepack_assets.errors import EdgepackError
from edgepack_assets.registry.azure_ml.client import Assets
from edgepack_assets.registry.azure_ml.connection_check import Step

_LONGEST_STEP = 30.0
"""Seconds for one call."""
_PERMISSIONS_VERSION = "2022-04-01"
_PROVIDER = "Microsoft.MachineLearningServices/workspaces"
_START_JOBS = f"{_PROVIDER}/jobs/write"
_REGISTER_ENVIRONMENTS = f"{_PROVIDER}/environments/versions/write"
_CREATE_CLUSTERS = f"{_PROVIDER}/computes/write"


def check_compute(
    compute: ComputeSettings, workspace: AzureMLRegistrySettings, plug_ins: Sequence[str] = ()
) -> Iterator[Step]:
    """Check what jobs need, yielding each step when it is done. Nothing is created or changed."""
    remote = Remote(workspace, min(workspace.time_limit, _LONGEST_STEP))
    assets = Assets(remote)
    clusters, environments = Clusters(assets, compute), Environments(assets)
    found: list[Cluster | None] = []

    def cluster() -> str:
        found.append(clusters.find())
        return _cluster(compute, found[0])

    def identity() -> str:
        if not found or found[0] is None:
            return compute.identity.resource_id or "the new cluster gets a system-assigned one, which needs its roles"
        if problem := found[0].identity_problem(compute.identity.client_id):
            raise EdgepackError(problem)
        return ", ".join((found[0].identity, *found[0].client_ids))

    def environment() -> str:
        wanted = job_environment(compute, plug_ins)
        name = f"{wanted.name}:{wanted.version}"
        if environments.is_registered(wanted):
            return f"{name}: registered"
        return f"{name}: will be registered with the first job, and built then ({wanted.image})"

    def roles() -> str:
        may_create = bool(found) and found[0] is None
        return _roles(assets, may_create)

    steps: list[tuple[str, Callable[[], str]]] = [
        (f"compute cluster {compute.cluster_name}", cluster),
        ("identity of the nodes", identity),
        ("environment", environment),
        ("roles", roles),
    ]
    for name, step in steps:
        try:
            yield Step(name, True, step())
        except EdgepackError as error:
            yield Step(name, False, str(error))


def _cluster(compute: ComputeSettings, cluster: Cluster | None) -> str:
    if cluster is None:
        if compute.cluster_size is None:
            raise EdgepackError("there is none: create it, or set compute.cluster_size, so that it can be created")
        return (
            f"there is none yet; the first run creates it: {compute.cluster_size}, {compute.min_instances} to "
            f"{compute.max_instances} nodes"
        )
    if cluster.kind != "AmlCompute":
        raise EdgepackError(f"is a {cluster.kind}, not a compute cluster: set compute.cluster_name to another name")
    if cluster.state not in ("Succeeded", "Creating", "Updating"):
        raise EdgepackError(f"is in the state {cluster.state}: {cluster.errors or 'the service says no reason'}")
    errors = f"; it reports {cluster.errors}" if cluster.errors else ""
    return f"{cluster.nodes}, {cluster.min_instances} to {cluster.max_instances} nodes, {cluster.state}{errors}"


def _roles(assets: Assets, creates_cluster: bool) -> str:
    path = "providers/Microsoft.Authorization/permissions"
    try:
        answer = assets.api.ask_workspace("reading this identity's permissions", "GET", path, _PERMISSIONS_VERSION)
    except (AbsentError, AccessError, MissingRoleError, RefusedError):
        return "Azure does not say what this identity may do; the first run shows it"
    grants = answer.get("value") if isinstance(answer, dict) else None
    grants = grants if isinstance(grants, list) else []
    wanted = {_START_JOBS: DATA_SCIENTIST, _REGISTER_ENVIRONMENTS: DATA_SCIENTIST}
    if creates_cluster:
        wanted[_CREATE_CLUSTERS] = COMPUTE_OPERATOR
    missing = [action for action in wanted if not is_allowed(action, grants)]
    if missing:
        roles = " and ".join(dict.fromkeys(wanted[action] for action in missing))
        raise EdgepackError(f"this identity may not do {', '.join(missing)}: give it the role {roles} on the workspace")
    return "this identity may start jobs and register environments" + (
        ", and create the compute cluster" if creates_cluster else ""
    )


def is_allowed(action: str, grants: Iterable[dict[str, Any]]) -> bool:
    """Whether one of the grants, as Azure lists them, allows an action: in its actions and not in its notActions."""
    return any(
        _matches(action, grant.get("actions")) and not _matches(action, grant.get("notActions")) for grant in grants
    )


def _matches(action: str, patterns: Any) -> bool:
    # `computes/*/write` is meant for the action computes/write too, as Microsoft's own roles use it.
    parts = (re.escape(str(pattern)).replace(r"/\*/", "/(.*/)?").replace(r"\*", ".*") for pattern in patterns or ())
    return any(re.fullmatch(part, action, re.IGNORECASE) for part in parts)
