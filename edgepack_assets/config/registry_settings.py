"""The section `registry` of edgepack.yaml: where models, data and packages are registered, and with which identity."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from edgepack_assets.config.section import Number, OptionalPath, Section


def _id(text: str | None) -> str | None:
    # Files from Windows and variables of pipelines often end with a space or line end.
    stripped = (text or "").strip()
    if not stripped.isprintable() or any(character.isspace() for character in stripped):
        raise ValueError("an id or name in Azure holds no space, line end or invisible character")
    return stripped or None


OptionalId = Annotated[str | None, AfterValidator(_id)]


def _variable(name: str | None) -> str | None:
    # A user may write the secret itself here by mistake. The error message must not repeat it.
    if name and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,99}", name):
        raise ValueError("must be the name of an environment variable such as AZURE_CLIENT_SECRET, not a secret")
    return name or None


_OptionalVariable = Annotated[str | None, AfterValidator(_variable)]


class LocalRegistrySettings(Section):
    """A registry in a folder of this machine (or a mounted share)."""

    type: Literal["local"] = Field(default="local", description="The kind of registry: a folder.")
    path: Path = Field(default=Path(".edgepack/registry"), description="The folder that holds models, data, packages.")


class AzureCredentialSettings(Section):
    """The identity that is used in Azure. Secrets stay in environment variables; only their names are written here.

    default: what azure-identity's DefaultAzureCredential finds. service_principal: a secret or a certificate.
    managed_identity: of the machine; `client_id` chooses a user-assigned one. workload_identity: a pod's token.
    Ids that are not set come from AZURE_TENANT_ID and AZURE_CLIENT_ID, a managed identity's also from
    DEFAULT_IDENTITY_CLIENT_ID.
    """

    type: Literal["default", "service_principal", "managed_identity", "workload_identity"] = Field(
        default="default", description="How to sign in. default: whatever DefaultAzureCredential finds."
    )
    tenant_id: OptionalId = Field(default=None, description="The directory (tenant); else AZURE_TENANT_ID.")
    client_id: OptionalId = Field(
        default=None,
        description="The application, or the user-assigned managed identity; else AZURE_CLIENT_ID.",
    )
    client_secret_variable: _OptionalVariable = Field(
        default=None,
        description="Name of the environment variable that holds the client secret; else AZURE_CLIENT_SECRET.",
    )
    certificate_path: OptionalPath = Field(
        default=None, description="A certificate with its private key (PEM or PKCS12), in place of a secret."
    )
    certificate_password_variable: _OptionalVariable = Field(
        default=None, description="Name of the environment variable that holds the certificate's password."
    )
    token_file_path: OptionalPath = Field(
        default=None, description="Workload identity: the file with the token; else AZURE_FEDERATED_TOKEN_FILE."
    )

    @model_validator(mode="after")
    def _only_what_its_type_uses(self) -> AzureCredentialSettings:
        used = {
            "default": {"client_id"},
            "service_principal": set(type(self).model_fields) - {"token_file_path"},
            "managed_identity": {"client_id"},
            "workload_identity": {"tenant_id", "client_id", "token_file_path"},
        }[self.type]
        given = {name for name in type(self).model_fields if getattr(self, name) is not None} - {"type"}
        if given - used:
            raise ValueError(f"a credential of type {self.type} does not use {', '.join(sorted(given - used))}")
        if self.certificate_path and self.client_secret_variable:
            raise ValueError("a service principal has a certificate_path or a client_secret_variable, not both")
        if self.certificate_password_variable and not self.certificate_path:
            raise ValueError("certificate_password_variable goes with certificate_path")
        return self


class AzureMLRegistrySettings(Section):
    """An Azure ML workspace, or an Azure ML registry (`registry_name` alone is enough to find it)."""

    type: Literal["azure_ml"] = Field(description="The kind of registry: Azure ML.")
    subscription_id: OptionalId = Field(default=None, description="The workspace's subscription.")
    resource_group: OptionalId = Field(default=None, description="The workspace's resource group.")
    workspace_name: OptionalId = Field(default=None, description="The workspace.")
    registry_name: OptionalId = Field(default=None, description="An Azure ML registry, in place of a workspace.")
    credential: AzureCredentialSettings = Field(
        default=AzureCredentialSettings(), description="The identity that is used in Azure."
    )
    time_limit: Number = Field(default=120.0, ge=1, description="Seconds for one remote call, its retries included.")

    @model_validator(mode="after")
    def _names_one_place(self) -> AzureMLRegistrySettings:
        if (self.workspace_name is None) == (self.registry_name is None):
            raise ValueError("name a workspace_name (with subscription_id and resource_group) or a registry_name")
        if self.workspace_name and not (self.subscription_id and self.resource_group):
            raise ValueError("workspace_name needs subscription_id and resource_group")
        if self.registry_name and (self.subscription_id or self.resource_group):
            raise ValueError("registry_name needs no subscription_id and no resource_group: a registry knows its own")
        return self


def registry_type(value: object) -> str:
    """The kind of registry that a section describes; local by default."""
    if isinstance(value, dict):
        return str(value.get("type", "local"))
    return str(getattr(value, "type", "local"))


REGISTRIES: dict[str, type[Section]] = {"local": LocalRegistrySettings, "azure_ml": AzureMLRegistrySettings}
"""The types of registry by their names in edgepack.yaml, those of the union below."""

RegistrySettings = Annotated[
    Annotated[LocalRegistrySettings, Tag("local")] | Annotated[AzureMLRegistrySettings, Tag("azure_ml")],
    Discriminator(
        registry_type,
        custom_error_type="registry_type",
        custom_error_message=f"a registry's type is {' or '.join(REGISTRIES)}",
    ),
]
