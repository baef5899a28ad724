"""The section `registry` of edgepack.yaml: where models, data and packages are registered, and under whose name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from edgepack_assets.config.section import Number, OptionalPath, Section


def _id(text: str | None) -> str | None:
    # Files from Windows and variables of pipelines bring a space or line end along.
    found = (text or "").strip()
    if not found.isprintable() or any(character.isspace() for character in found):
        raise ValueError("an id or name in Azure holds no space, line end or invisible character")
    return found or None


_OptionalId = Annotated[str | None, AfterValidator(_id)]


def _variable(name: str | None) -> str | None:
    # Whoever writes the secret itself here must not read it again in an error message.
    if name and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,99}", name):
        raise ValueError("must be the name of an environment variable such as AZURE_CLIENT_SECRET, not a secret")
    return name or None


_OptionalVariable = Annotated[str | None, AfterValidator(_variable)]


class LocalRegistrySettings(Section):
    """A registry in a folder of this machine (or a mounted share)."""

    type: Literal["local"] = "local"
    path: Path = Path(".edgepack/registry")


class AzureCredentialSettings(Section):
    """Who the project is in Azure. Secrets stay in environment variables, which are named here, never their values.

    default: what azure-identity's DefaultAzureCredential finds. service_principal: a secret or a certificate.
    managed_identity: of the machine; `client_id` chooses a user-assigned one. workload_identity: a pod's token.
    Unset ids come from AZURE_TENANT_ID and AZURE_CLIENT_ID, a managed identity's also from DEFAULT_IDENTITY_CLIENT_ID.
    """

    type: Literal["default", "service_principal", "managed_identity", "workload_identity"] = "default"
    tenant_id: _OptionalId = None
    client_id: _OptionalId = None
    client_secret_variable: _OptionalVariable = None
    certificate_path: OptionalPath = None
    certificate_password_variable: _OptionalVariable = None
    token_file_path: OptionalPath = None

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
    """An Azure ML workspace, or an Azure ML registry (`registry_name`, which says where it is itself)."""

    type: Literal["azure_ml"]
    subscription_id: _OptionalId = None
    resource_group: _OptionalId = None
    workspace_name: _OptionalId = None
    registry_name: _OptionalId = None
    credential: AzureCredentialSettings = AzureCredentialSettings()
    time_limit: Number = Field(default=120.0, ge=1, description="seconds for one remote call, its retries included")

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
    """Which kind of registry a section is for; local unless it says otherwise."""
    if isinstance(value, dict):
        return str(value.get("type", "local"))
    return str(getattr(value, "type", "local"))


RegistrySettings = Annotated[
    Annotated[LocalRegistrySettings, Tag("local")] | Annotated[AzureMLRegistrySettings, Tag("azure_ml")],
    Discriminator(
        registry_type,
        custom_error_type="registry_type",
        custom_error_message="a registry's type is local or azure_ml",
    ),
]
