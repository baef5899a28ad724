"""What Azure answers when something is wrong, in words for the user: what it is and what to check."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from edgepack_assets.azure.answers import PageError, retry_after
from edgepack_assets.azure.credential import CLIENT_VARIABLES, PASSING_FAULT, managed_identity_client_id, redacted
from edgepack_assets.config.registry_settings import AzureCredentialSettings, AzureMLRegistrySettings
from edgepack_assets.errors import EdgepackError, TransientError

DATA_SCIENTIST = "AzureML Data Scientist"
COMPUTE_OPERATOR = "AzureML Compute Operator"
REGISTRY_USER = "AzureML Registry User"
BLOB_CONTRIBUTOR = "Storage Blob Data Contributor"

TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_BUSY_STATUSES = frozenset({409, 423})
_BUSY = re.compile(
    r"(?i)another operation|operation\b.{0,80}\b(in progress|already running)|"
    r"being (created|updated|deleted|performed)|OperationInProgress|ConcurrencyConflict|ContainerBeingDeleted|"
    r"AccountBeingCreated"
)
"""What a conflict says that passes: "Conflict of operation, another operation on same entity is already running in
workspace" (Azure ML), RequestConflict "Another operation is being performed on the parent resource",
PessimisticConcurrencyConflict "Operation on the API is in progress" (resource providers), and blob storage's codes."""

_SIGN_IN = {
    "AADSTS7000215": "the client secret is wrong: check the variable that holds it (the secret's value, not its id)",
    "AADSTS7000222": "the client secret has expired: make a new one for the application and put it in its variable",
    "AADSTS700016": "the application is unknown in this tenant: check client_id and tenant_id",
    "AADSTS90002": "the tenant is unknown: check tenant_id",
    "Unable to get authority configuration": "the tenant is unknown: check tenant_id",
    "AADSTS900023": "the tenant is unknown: check tenant_id",
    "AADSTS700027": "the certificate is not registered with the application, or has expired",
    "AADSTS70021": "no federated credential of the application matches the token: check its issuer and subject",
    "AADSTS700213": "no federated credential of the application matches the token: check its issuer and subject",
    "AADSTS700024": "the federated token or assertion has expired: check the clock and the token's file",
}
_WRONG_PLACE = {
    "SubscriptionNotFound": "check registry.subscription_id (and that the credential's tenant is the subscription's)",
    "InvalidSubscriptionId": "check registry.subscription_id",
    "ResourceGroupNotFound": "check registry.resource_group",
}
_PROXY_SIGN_IN = re.compile(r"(?i)tunnel connection failed: 407|\b407 (Proxy )?Auth")
_NETWORK = re.compile(
    rf"(?i)connection (reset|refused|aborted|broken)|connect to proxy|timed out|max retries|name resolution|"
    rf"getaddrinfo|unreachable|RemoteDisconnected|{PASSING_FAULT}"
)


@dataclass(frozen=True)
class StoragePlace:
    """A blob container that the configuration names itself. `time_limit` (seconds) is for one remote call; None where
    no setting says it."""

    account: str
    container: str
    credential: AzureCredentialSettings
    time_limit: float | None = None


Place = AzureMLRegistrySettings | StoragePlace
"""What a remote call is made to."""


class RefusedError(EdgepackError):
    """A request that Azure understood and refused (400, 409, 412): what it means depends on what was asked."""

    status = 0


class AbsentError(EdgepackError):
    """What was asked for is not there, in a place that is."""


class AccessError(EdgepackError):
    """Who we are was refused (401, 403), or could not be shown."""

    is_token = False
    """The token itself was not accepted (401). Nothing was done, and the next request may bring a newer one."""


class MissingRoleError(AccessError):
    """Who we are is known, and may not do what was asked (403)."""


def where(settings: Place) -> str:
    """The workspace, registry or container, as a person names it."""
    if isinstance(settings, StoragePlace):
        return f"container {settings.container} of the storage account {settings.account}"
    if settings.registry_name:
        return f"Azure ML registry {settings.registry_name}"
    return (
        f"Azure ML workspace {settings.workspace_name} (resource group {settings.resource_group}, "
        f"subscription {settings.subscription_id})"
    )


def explain(error: BaseException, doing: str, settings: Place) -> EdgepackError:
    """The error of a remote call as one for the user. A TransientError may be tried again."""
    from azure.core import exceptions

    if isinstance(error, EdgepackError):
        return error
    said = redacted(_first_lines(error), settings.credential)
    at = f"{doing} ({where(settings)})"
    if (of_proxy := _of_proxy(error, at)) is not None:
        return of_proxy
    status = _status(error)
    if isinstance(error, exceptions.ClientAuthenticationError) and status not in (401, 403):
        return _sign_in(error, at, said, settings)
    if status is not None and (status in TRANSIENT_STATUSES or status >= 400):
        return _answered(error, status, at, said, settings)
    return _unanswered(error, at, said)


def _unanswered(error: BaseException, at: str, said: str) -> EdgepackError:
    from azure.core import exceptions

    if isinstance(error, (exceptions.HttpResponseError, json.JSONDecodeError)):
        return TransientError(f"{at}: the answer cannot be read; a proxy or gateway may have put its own: {said}")
    if any(_is_network(cause) for cause in _causes(error)):
        return TransientError(f"{at}: Azure cannot be reached; check network, proxy and firewall: {said}")
    return EdgepackError(f"{at}: {type(error).__name__}: {said}")


def _of_proxy(error: BaseException, at: str) -> EdgepackError | None:
    """The error, if a proxy or gateway answered in place of Azure; it may be there no more the next time."""
    for cause in _causes(error):
        if (page := PageError.in_words_of(cause)) is not None:
            return TransientError(
                f"{at}: {page}, not the service's own answer: does a proxy, gateway or sign-in page answer? Open that "
                "address from this machine, and check HTTPS_PROXY and NO_PROXY"
            )
        if _status(cause) == 407 or _PROXY_SIGN_IN.search(str(cause)):
            return TransientError(
                f"{at}: the proxy wants a sign-in (407): write http://USER:PASSWORD@HOST:PORT in HTTPS_PROXY, or have "
                "the proxy let this machine through"
            )
    return None


def _answered(error: BaseException, status: int, at: str, said: str, settings: Place) -> EdgepackError:
    if status in TRANSIENT_STATUSES or (status in _BUSY_STATUSES and _is_busy(error, said)):
        return TransientError(f"{at}: {_overload(status)}: {said}")
    if status == 403:
        return _forbidden(error, at, said, settings)
    if status == 401:
        return _unauthenticated(error, at, said, settings)
    if status == 404:
        return _absent(error, at, said, settings)
    refused = RefusedError(f"{at}: refused with status {status}: {said}")
    refused.status = status
    return refused


def _is_busy(error: BaseException, said: str) -> bool:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    return retry_after(headers) is not None or _BUSY.search(f"{_code(error)} {said}") is not None


def _unauthenticated(error: BaseException, at: str, said: str, settings: Place) -> EdgepackError:
    if "AADSTS" in said:
        return _sign_in(error, at, said, settings)
    refused = AccessError(
        f"{at}: Azure does not accept the credential's token; check that its tenant is the one there: {said}"
    )
    refused.is_token = True
    return refused


def _sign_in(error: BaseException, at: str, said: str, settings: Place) -> EdgepackError:
    whole = str(getattr(error, "message", None) or error)
    for code, advice in _SIGN_IN.items():
        if re.search(rf"\b{code}\b", whole):
            return AccessError(f"{at}: signing in to Azure failed: {advice} ({code})")
    if _NETWORK.search(whole) or any(_is_network(cause) for cause in _causes(error)):
        return TransientError(f"{at}: Azure's sign-in cannot be reached; check network, proxy and firewall: {said}")
    kind = settings.credential.type
    client_id = managed_identity_client_id(settings.credential)
    asked_for = f"asked for: {client_id}, of registry.credential, {' or '.join(CLIENT_VARIABLES)}" if client_id else (
        "asked for: the machine's own")  # fmt: skip
    advice = {
        "default": "no credential was found or accepted: set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, "
        "run `az login`, or name registry.credential",
        "managed_identity": "this machine has no such managed identity: assign one to it, and check client_id "
        f"({asked_for})",
        "workload_identity": "check tenant_id, client_id and the federated token's file",
        "service_principal": "check tenant_id, client_id and the secret or certificate",
    }[kind]
    return AccessError(f"{at}: signing in to Azure failed: {advice}: {said}")


def _forbidden(error: BaseException, at: str, said: str, settings: Place) -> EdgepackError:
    code = _code(error)
    if _is_storage(error):
        if _is_own_identity(error):
            network = (
                "" if code == "AuthorizationPermissionMismatch" else ", and that its firewall lets this machine in"
            )
            scope = "it" if isinstance(settings, StoragePlace) else "the workspace's storage account"
            return AccessError(
                f"{at}: the storage account refuses this identity: check that it has the role {BLOB_CONTRIBUTOR} on "
                f"{scope}{network} ({code})"
            )
        if code == "KeyBasedAuthenticationNotPermitted":
            return AccessError(
                f"{at}: the storage account takes no keys and no signatures made with one: make the datastore "
                f"identity-based and give this identity the role {BLOB_CONTRIBUTOR} on the account ({code})"
            )
        return AccessError(
            f"{at}: the storage account does not accept the key or signature that Azure ML gives for it: it may have "
            "expired or been renewed; update the datastore's credentials, and check this machine's clock "
            f"({code or said})"
        )
    role = BLOB_CONTRIBUTOR
    if isinstance(settings, AzureMLRegistrySettings):
        role = REGISTRY_USER if settings.registry_name else DATA_SCIENTIST
    return MissingRoleError(f"{at}: this identity is not allowed to: give it the role {role} there: {said}")


def _absent(error: BaseException, at: str, said: str, settings: Place) -> EdgepackError:
    code = _code(error)
    if code in _WRONG_PLACE:
        return EdgepackError(f"{at}: {_WRONG_PLACE[code]}: {said}")
    if isinstance(settings, StoragePlace):
        if code == "ContainerNotFound":
            return EdgepackError(f"{at}: there is no such container: check artefacts.root, or create the container")
        return AbsentError(f"{at}: not found: {said}")
    name = re.escape(settings.workspace_name or settings.registry_name or "")
    # That something is missing in the workspace is no reason to take the workspace for missing.
    missing = (
        rf"(workspaces|registries)/{name}'|\b(workspace|registry) '?{name}'? (\w+ )?(not|cannot)\b"
        rf"|\bfind (the )?(workspace|registry) '?{name}\b"
    )
    if re.search(f"(?i){missing}", said):
        key = "registry.registry_name" if settings.registry_name else "registry.workspace_name and resource_group"
        return EdgepackError(f"{at}: there is none of that name: check {key}: {said}")
    return AbsentError(f"{at}: not found: {said}")


def _overload(status: int) -> str:
    if status in _BUSY_STATUSES:
        return f"another operation is under way there ({status})"
    if status == 429:
        return "Azure is throttling (429): too many requests; try again later, or ask less often"
    return f"Azure has a passing fault ({status})"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _is_network(error: BaseException) -> bool:
    from azure.core import exceptions

    if isinstance(
        error, (exceptions.ServiceRequestError, exceptions.ServiceResponseError, ConnectionError, TimeoutError)
    ):
        return True
    return type(error).__module__.split(".")[0] in ("requests", "urllib3") and "SSL" not in type(error).__name__


def _status(error: BaseException) -> int | None:
    status = getattr(error, "status_code", None)
    if status is None:
        status = getattr(getattr(error, "response", None), "status_code", None)
    return int(status) if isinstance(status, int) else None


def _code(error: BaseException) -> str:
    storage = getattr(error, "error_code", None)
    own = getattr(getattr(error, "error", None), "code", None)
    return str(getattr(storage, "value", storage) or own or "")


def _is_storage(error: BaseException) -> bool:
    request = getattr(getattr(error, "response", None), "request", None)
    return bool(re.search(r"\.(blob|dfs)\.", getattr(request, "url", "") or "")) or hasattr(error, "error_code")


def _is_own_identity(error: BaseException) -> bool:
    """Whether storage was asked with a token of our own, not with a key or signature that was given to us."""
    headers = getattr(getattr(getattr(error, "response", None), "request", None), "headers", None) or {}
    return str(headers.get("Authorization", "")).startswith("Bearer")


def _first_lines(error: BaseException) -> str:
    text = getattr(error, "message", None) or str(error)
    return " ".join(str(text).split())[:600]
