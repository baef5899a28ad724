"""Who the project is in Azure: a credential of azure-identity made from the configuration.

Secrets come from environment variables when the credential is made, and go nowhere else."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from edgepack_assets.azure.answers import refuse_pages
from edgepack_assets.azure.clouds import AUTHORITY_VARIABLE, current_cloud
from edgepack_assets.config.registry_settings import AzureCredentialSettings
from edgepack_assets.errors import ConfigError

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

PASSING_FAULT = "sign-in answered with status"
"""What an error of azure-identity holds when trying again may help."""
CLIENT_VARIABLES = ("AZURE_CLIENT_ID", "DEFAULT_IDENTITY_CLIENT_ID")
"""Where a managed identity's id may stand beside the configuration, the first one that is set: azure-identity's own
variable, and the one that computes of Azure ML set, to "clientid" where they have no identity."""
SECRET_VARIABLES = ("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PASSWORD", "AZURE_PASSWORD")


def make_credential(settings: AzureCredentialSettings, timeout: float) -> TokenCredential:
    """The configured credential; no request is made yet. `timeout` (seconds) is for one request of it.

    Raises ConfigError naming the setting or variable that is missing or wrong."""
    try:
        return _credential(settings, timeout)
    except ValueError as error:  # azure-identity's word for ids and addresses that it cannot use
        raise ConfigError(f"registry.credential: {redacted(str(error), settings)}") from None


def _credential(settings: AzureCredentialSettings, timeout: float) -> TokenCredential:
    from azure import identity

    kwargs: dict[str, Any] = {
        "connection_timeout": timeout,
        "read_timeout": timeout,
        "retry_total": 0,
        "raw_response_hook": _raise_passing_faults,
    }
    if AUTHORITY_VARIABLE not in os.environ:
        kwargs["authority"] = current_cloud().authority
    if settings.type == "managed_identity":
        kwargs["raw_response_hook"] = _raise_passing_faults_of_a_machine
        return identity.ManagedIdentityCredential(client_id=managed_identity_client_id(settings), **kwargs)
    if settings.type == "workload_identity":
        file = settings.token_file_path or os.environ.get("AZURE_FEDERATED_TOKEN_FILE")
        if not file:
            raise _missing("token_file_path", "AZURE_FEDERATED_TOKEN_FILE")
        return identity.WorkloadIdentityCredential(
            tenant_id=_id(settings.tenant_id, "tenant_id", "AZURE_TENANT_ID"),
            client_id=_id(settings.client_id, "client_id", "AZURE_CLIENT_ID"),
            token_file_path=str(file),
            **kwargs,
        )
    if settings.type == "service_principal":
        return _service_principal(settings, kwargs)
    _refuse_spaces_in_variables()
    # Given as None it would keep azure-identity from looking into the environment.
    if (client_id := managed_identity_client_id(settings)) is not None:
        kwargs["managed_identity_client_id"] = client_id
    return identity.DefaultAzureCredential(**kwargs)


def managed_identity_client_id(settings: AzureCredentialSettings) -> str | None:
    """The client id of the managed identity: of the configuration, else of the environment, else None (the machine's
    own, or its only one)."""
    if settings.client_id:
        return settings.client_id
    azure, compute = (os.environ.get(name, "").strip() for name in CLIENT_VARIABLES)
    return azure or (compute if _GUID.fullmatch(compute) else None) or None


def _refuse_spaces_in_variables() -> None:
    # azure-identity reads these itself, and says of such a value only that it is not valid.
    for name in _READ_BY_IDENTITY:
        if (value := os.environ.get(name, "")) != value.strip():
            raise ConfigError(
                f"registry.credential: the environment variable {name} begins or ends with a space or line end; write "
                "it without (a file from Windows ends its lines with one)"
            )


def _raise_passing_faults_of_a_machine(response: Any) -> None:
    # A machine's identity service says 404 and 410 while it starts or is updated, for up to 70 seconds.
    _raise_passing_faults(response, (404, 410))


def _raise_passing_faults(response: Any, more: tuple[int, ...] = ()) -> None:
    # What azure-identity makes of such an answer cannot be distinguished from a refusal.
    from azure.core.exceptions import ServiceResponseError

    refuse_pages(response)
    status = response.http_response.status_code
    if status in (429, 500, 502, 503, 504, *more):
        raise ServiceResponseError(f"{PASSING_FAULT} {status}")


def _service_principal(settings: AzureCredentialSettings, kwargs: dict[str, Any]) -> TokenCredential:
    from azure import identity

    tenant = _id(settings.tenant_id, "tenant_id", "AZURE_TENANT_ID")
    client = _id(settings.client_id, "client_id", "AZURE_CLIENT_ID")
    certificate = str(settings.certificate_path) if settings.certificate_path else None
    secret_variable = settings.client_secret_variable or "AZURE_CLIENT_SECRET"
    if certificate is None and settings.client_secret_variable is None:
        certificate = os.environ.get("AZURE_CLIENT_CERTIFICATE_PATH") if secret_variable not in os.environ else None
    if certificate is None:
        secret = os.environ.get(secret_variable, "").strip()
        if not secret:
            raise ConfigError(
                f"registry.credential: the environment variable {secret_variable}, which holds the service principal's "
                "secret, is not set"
            )
        return identity.ClientSecretCredential(tenant, client, secret, **kwargs)
    variable = settings.certificate_password_variable
    if variable is not None and variable not in os.environ:
        raise ConfigError(
            f"registry.credential: the environment variable {variable} (certificate_password_variable) is not set"
        )
    password = os.environ.get(variable or "AZURE_CLIENT_CERTIFICATE_PASSWORD")
    try:
        return identity.CertificateCredential(tenant, client, certificate, password=password, **kwargs)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"registry.credential: {certificate} cannot be used as a certificate with its private key "
            f"(PEM or PKCS12): {redacted(str(error), settings)}"
        ) from None


def _id(value: str | None, key: str, variable: str) -> str:
    given = value or os.environ.get(variable, "").strip()
    if not given:
        raise _missing(key, variable)
    return given


def _missing(key: str, variable: str) -> ConfigError:
    return ConfigError(f"registry.credential: set {key}, or the environment variable {variable}")


_READ_BY_IDENTITY = (
    "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_USERNAME",
    "AZURE_AUTHORITY_HOST", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_TOKEN_CREDENTIALS", "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER", "MSI_ENDPOINT", "MSI_SECRET",
)  # fmt: skip
_GUID = re.compile(r"(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SIGNATURE = re.compile(r"(?i)\b(sig|sv|se|st|sp|skoid|sktid)=[^&\s'\"]+")
_TOKEN = re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*)?")
_KEY = re.compile(r"(?i)(AccountKey|client_secret|SharedAccessSignature)=[^;&\s'\"]+")


def redacted(text: str, settings: AzureCredentialSettings) -> str:
    """`text` without the configured secrets, tokens, account keys and signatures of shared access."""
    names = (settings.client_secret_variable, settings.certificate_password_variable, *SECRET_VARIABLES)
    for name in names:
        secret = os.environ.get(name or "", "").strip()
        if secret and len(secret) > 3:
            text = text.replace(secret, "***")
    text = _TOKEN.sub("***", text)
    text = _KEY.sub(lambda match: f"{match[1]}=***", text)
    return _SIGNATURE.sub(lambda match: f"{match[1]}=***", text)
