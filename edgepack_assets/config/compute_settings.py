"""The section `compute` of edgepack.yaml: where a run's work is done, on this machine or as a job of Azure ML.

It stands at the top level, for all model types, and under a model type, whose keys replace those of the top level."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from edgepack_assets.config.registry_settings import AzureCredentialSettings, AzureMLRegistrySettings, OptionalId
from edgepack_assets.config.section import Count, Number, OptionalPath, OptionalText, Section

if TYPE_CHECKING:
    from edgepack_assets.config.schema import Settings

DEFAULT_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:20250601.v1"
"""Azure ML's own base image for computes without a GPU: Ubuntu 22.04 with conda, by a tag that never moves."""
DEFAULT_EXPERIMENT = "edgepack"

_LOCAL_SCHEMES = ("file://", "local://", "memory://")
_WORKSPACE_KEYS = ("subscription_id", "resource_group", "workspace_name")


def _cluster_name(name: str | None) -> str | None:
    if name and not re.fullmatch(r"[A-Za-z](?:[A-Za-z0-9-]{0,22}[A-Za-z0-9])?", name):
        raise ValueError("a cluster's name has at most 24 letters, digits and -, starts with a letter, ends with no -")
    return name or None


def _environment_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}", name):
        raise ValueError("an environment's name starts with a letter or digit and holds letters, digits, _, . and -")
    if name.lower().startswith(("microsoft", "azureml")):
        raise ValueError("names that start with Microsoft or AzureML are those of Microsoft's own environments")
    return name


def _experiment_name(name: str | None) -> str | None:
    if name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,255}", name):
        raise ValueError("an experiment's name starts with a letter or digit and holds letters, digits, _ and - only")
    return name or None


def _docker_args(arguments: tuple[str, ...]) -> tuple[str, ...]:
    for argument in arguments:
        if not argument.startswith("-") or re.search(r"\s-", argument):
            raise ValueError(f"each argument is an item of its own, such as --cap-add=SYS_ADMIN (found {argument!r})")
    return arguments


def _identity_id(text: str | None) -> str | None:
    if text and not re.fullmatch(
        r"(?i)/subscriptions/[^/\s]+/resourceGroups/[^/\s]+/providers/Microsoft\.ManagedIdentity/"
        r"userAssignedIdentities/[^/\s]+",
        text,
    ):
        raise ValueError(
            "must be the resource id of a user-assigned managed identity: /subscriptions/.../resourceGroups/.../"
            "providers/Microsoft.ManagedIdentity/userAssignedIdentities/NAME"
        )
    return text or None


class ComputeIdentitySettings(Section):
    """The managed identity of the nodes, with which a job reads and writes registry and artefacts."""

    client_id: OptionalId = Field(
        default=None,
        description="Client id of the user-assigned identity that the job uses (AZURE_CLIENT_ID in the job). Default: "
        "the cluster's own, which the node names in DEFAULT_IDENTITY_CLIENT_ID.",
    )
    resource_id: Annotated[OptionalId, AfterValidator(_identity_id)] = Field(
        default=None,
        description="Resource id of the user-assigned identity of a new cluster. Default: a system-assigned one.",
    )


class ComputeSettings(Section):
    """Where a run's work is done. With `type: local` the other keys are not used, so that one variable can switch."""

    type: Literal["local", "azure_ml"] = Field(
        default="local", description="local: on the machine where Dagster runs. azure_ml: as one job of Azure ML."
    )
    subscription_id: OptionalId = Field(
        default=None, description="Subscription of the workspace that runs the jobs. Default: the registry's workspace."
    )
    resource_group: OptionalId = Field(default=None, description="Resource group of the workspace that runs the jobs.")
    workspace_name: OptionalId = Field(default=None, description="The workspace that runs the jobs.")
    cluster_name: Annotated[str | None, AfterValidator(_cluster_name)] = Field(
        default=None, description="The compute cluster. It is created if there is none of that name."
    )
    cluster_size: OptionalText = Field(
        default=None, description="Size of the nodes of a new cluster, e.g. Standard_DS3_v2."
    )
    cluster_region: OptionalText = Field(
        default=None, description="Region of a new cluster, e.g. westeurope. Default: the workspace's."
    )
    min_instances: Count = Field(default=0, ge=0, description="Nodes that a new cluster always keeps.")
    max_instances: Count = Field(default=4, ge=1, description="Nodes that a new cluster has at most.")
    idle_time_before_scale_down: Number = Field(
        default=120.0, gt=0, le=1440 * 7, description="Minutes after which a new cluster removes an idle node."
    )
    low_priority: bool = Field(
        default=False, description="A new cluster has low-priority nodes: cheaper, and may be taken away at any time."
    )
    identity: ComputeIdentitySettings = Field(
        default=ComputeIdentitySettings(), description="The managed identity that a job uses."
    )
    environment_name: Annotated[str, AfterValidator(_environment_name)] = Field(
        default="edgepack", description="Name under which the jobs' environment is registered in Azure ML."
    )
    environment_image: OptionalText = Field(
        default=None,
        description="Container image of the environment. Without conda_path it is used as it is, with its own Python.",
    )
    conda_path: OptionalPath = Field(
        default=None, description="A conda file for the environment, in place of the one that is made from this one."
    )
    env_description: str = Field(default="", description="Description of the environment in Azure ML.")
    docker_args: Annotated[tuple[str, ...], AfterValidator(_docker_args)] = Field(
        default=(), description="Arguments of docker run for the job's container, each an item of its own."
    )
    experiment_name: Annotated[OptionalText, AfterValidator(_experiment_name)] = Field(
        default=None, description="Experiment that the jobs belong to. Default: run.experiment_name, else edgepack."
    )
    display_name: OptionalText = Field(
        default=None, description="The jobs' name for people. Default: run.display_name, else what is packaged."
    )
    build_reference: OptionalText = Field(
        default=None, description="Tag of the jobs: the build that started them. Default: run.build_reference."
    )
    deploy_environment: OptionalText = Field(
        default=None, description="Tag of the jobs: the environment they work for. Default: run.environment."
    )
    wait_for_completion: bool = Field(
        default=True, description="Whether edgepack package waits for the end. Without it, Dagster's daemon does."
    )
    output_file: OptionalPath = Field(
        default=None, description="File that the name of the job that was started last is written to."
    )
    start_time_limit: Number = Field(
        default=3600.0,
        ge=60,
        description="Seconds until a job must run: queue, a node's start, the environment's build.",
    )
    time_limit: Number = Field(
        default=14400.0,
        ge=60,
        le=21 * 86400,
        description="Seconds that a job may run. Azure ML ends it after that, and any job after 21 days.",
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> ComputeSettings:
        if self.max_instances < self.min_instances:
            raise ValueError(f"max_instances {self.max_instances} is below min_instances {self.min_instances}")
        given = [key for key in _WORKSPACE_KEYS if getattr(self, key) is not None]
        if given and len(given) < len(_WORKSPACE_KEYS):
            missing = ", ".join(key for key in _WORKSPACE_KEYS if key not in given)
            raise ValueError(f"a workspace of its own needs {missing} too")
        return self

    @property
    def is_remote(self) -> bool:
        """Whether a run's work is done somewhere else than on this machine."""
        return self.type != "local"

    @property
    def image(self) -> str:
        """The container image of the environment."""
        return self.environment_image or DEFAULT_IMAGE

    @property
    def job_credential(self) -> AzureCredentialSettings:
        """Who the job is: the managed identity of its node. No secret goes into a job."""
        return AzureCredentialSettings(type="managed_identity", client_id=self.identity.client_id)

    def with_keys_of(self, own: ComputeSettings | None) -> ComputeSettings:
        """These settings with the keys that a model type names itself. Raises ValidationError if they do not fit."""
        if own is None:
            return self
        named = {**_named(self), **_named(own)}
        if isinstance(named.get("identity"), dict):
            named["identity"] = {**_named(self).get("identity", {}), **named["identity"]}
        return ComputeSettings.model_validate(named)


def _named(section: ComputeSettings) -> dict[str, Any]:
    return section.model_dump(exclude_unset=True)


def as_experiment_name(text: str) -> str:
    """`text` as the name of an experiment in Azure ML, which takes fewer characters; edgepack if nothing is left."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")[:256] or DEFAULT_EXPERIMENT


def compute_workspace(compute: ComputeSettings, registry: object) -> AzureMLRegistrySettings | None:
    """The workspace that runs the jobs, with the registry's credential: its own keys, else the registry's workspace.
    None if neither names one."""
    of_registry = registry if isinstance(registry, AzureMLRegistrySettings) else None
    common: dict[str, Any] = (
        {"credential": of_registry.credential, "time_limit": of_registry.time_limit} if of_registry else {}
    )
    if compute.workspace_name:
        own = {key: getattr(compute, key) for key in _WORKSPACE_KEYS}
        return AzureMLRegistrySettings(type="azure_ml", **own, **common)
    return of_registry if of_registry is not None and of_registry.workspace_name else None


def compute_problems(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """(place, problem) of each `compute` section that cannot work with registry and artefacts. Those of model types
    count with the keys that they take over from the top level."""
    sections: dict[tuple[str, ...], ComputeSettings] = {}
    if any(entry.compute is None for entry in settings.model_types.values()):
        sections["compute",] = settings.compute
    for name, entry in settings.model_types.items():
        place = ("model_types", name, "compute")
        if entry.compute is None:
            continue
        try:
            sections[place] = settings.compute.with_keys_of(entry.compute)
        except ValidationError as error:
            for fault in error.errors():
                yield place, f"{'.'.join(place)}: {fault['msg'].removeprefix('Value error, ')}"
    for at, section in sections.items():
        problems = list(_problems(section, settings.registry, settings.artefacts.root)) if section.is_remote else []
        if problems:
            yield at, f"{'.'.join(at)}: {'; '.join(problems)}"


def _problems(compute: ComputeSettings, registry: object, root: str) -> Iterator[str]:
    if not compute.cluster_name:
        yield "type azure_ml needs a cluster_name"
    if "://" not in root or root.startswith(_LOCAL_SCHEMES):
        yield (
            f"a job of Azure ML cannot reach artefacts.root {root}, which is a folder of this machine: set "
            "artefacts.root to abfs://container@account.dfs.core.windows.net/path"
        )
    if not isinstance(registry, AzureMLRegistrySettings):
        yield (
            "a job of Azure ML cannot reach the local registry, which is a folder of this machine: set registry.type "
            "to azure_ml"
        )
    elif compute_workspace(compute, registry) is None:
        yield (
            "jobs run in a workspace, and registry names an Azure ML registry: set subscription_id, resource_group "
            "and workspace_name here"
        )
