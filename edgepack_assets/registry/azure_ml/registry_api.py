"""What is asked of an Azure ML registry directly: where bytes are written and read, and to put a version.

azure-ai-ml asks for the first only within its own up- and downloads. It can put a version, but as one call with all
the waiting until the registry has copied the bytes to its regions; here each look is a remote call of its own, so that
a stalled one is told from a long copy."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from edgepack_assets.errors import EdgepackError, TransientError, VersionTakenError
from edgepack_assets.registry.azure_ml.clouds import current_cloud
from edgepack_assets.registry.azure_ml.credential import redacted
from edgepack_assets.registry.azure_ml.faults import AbsentError, RefusedError, where
from edgepack_assets.registry.azure_ml.remote import Remote, retry_after
from edgepack_assets.registry.base import Kind
from edgepack_assets.settings import AzureMLRegistrySettings

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.pipeline import Pipeline
    from azure.storage.blob import ContainerClient

_VERSION = "2021-10-01-dataplanepreview"
_LIMITS = 10
"""How many times `time_limit` a registry may take to copy a version's files to its regions."""
_LONGEST_PAUSE = 5.0
_KEPT = (
    "description", "properties", "tags", "isAnonymous", "isArchived", "flavors", "modelType", "modelUri", "stage",
    "dataType", "dataUri",
)  # fmt: skip
"""The properties of a version that are written; the others are the service's own."""
_log = logging.getLogger(__name__)


class UnfinishedError(TransientError):
    """The registry accepted a version and has not said that it is done with it."""


class RegistryApi:
    """Requests to one registry, as `credential` (called when the first is made)."""

    def __init__(self, remote: Remote[AzureMLRegistrySettings], credential: Callable[[], TokenCredential]) -> None:
        self._remote = remote
        self._credential = credential
        self._name = quote(str(remote.settings.registry_name), safe="")
        self._pipeline: Pipeline[Any, Any] | None = None
        self._base = ""

    # bytes ------------------------------------------------------------------------------------------------

    def writable(self, kind: Kind, name: str, version: int) -> ContainerClient:
        """A container for the bytes of a version that is still to be; the same one when asked again.

        Raises VersionTakenError."""
        body = {
            "assetId": self._asset_id(kind, name, version),
            "temporaryDataReferenceType": "TemporaryBlobReference",
        }
        doing = f"asking where to upload {kind} {name}:{version}"
        try:
            return self._opened(doing, "PUT", f"tempdatarefs/{name}/versions/{version}", body)
        except RefusedError as error:
            if "status 409" in str(error) or _is_deleted(error):
                raise _taken(kind, name, version, error) from None
            raise

    def readable(self, kind: Kind, name: str, version: str, uri: str) -> ContainerClient:
        """The container of a version's bytes, which lie at `uri`."""
        body = {"assetId": self._asset_id(kind, name, version), "blobUri": uri}
        doing = f"asking for the files of {kind} {name}:{version}"
        return self._opened(doing, "POST", f"datarefs/{name}/versions/{version}", body)

    def _opened(self, doing: str, method: str, path: str, body: dict[str, str]) -> ContainerClient:
        from azure.storage.blob import ContainerClient

        response = self._remote.call(doing, lambda: self._ask(method, path, body))
        found = response.json()["blobReferenceForConsumption"]
        given = found.get("credential") or {}
        url = urlsplit(given.get("sasUri") or found["blobUri"])
        credential: Any = url.query or self._credential()
        container = unquote(url.path).strip("/").split("/")[0]
        account_url = f"https://{url.netloc.removesuffix(':443')}"
        return ContainerClient(account_url, container, credential=credential, **self._remote.client_options())

    # versions ---------------------------------------------------------------------------------------------

    def put(self, kind: Kind, name: str, version: int, *, uri: str, is_folder: bool, tags: Mapping[str, str]) -> None:
        """Create a version whose bytes lie at `uri` already: one attempt, as it may count without an answer.

        Raises RefusedError, VersionTakenError, UnfinishedError."""
        properties: dict[str, Any] = {"properties": {}, "tags": dict(tags), "isAnonymous": False, "isArchived": False}
        if kind is Kind.MODEL:
            properties |= {"modelType": "custom_model", "modelUri": uri}
        else:
            properties |= {"dataType": "uri_folder" if is_folder else "uri_file", "dataUri": uri}
        self._put(kind, name, version, properties)

    def change_tags(
        self, kind: Kind, name: str, version: int, tags: Mapping[str, str], without: Collection[str]
    ) -> bool:
        """Remove the tags `without`, then add or replace `tags`, leaving the rest of a version as it is; False if there
        is no such version."""
        path = _path(kind, name, version)
        try:
            response = self._remote.call(f"reading {kind} {name}:{version}", lambda: self._ask("GET", path))
        except AbsentError:
            return False
        found: dict[str, Any] = response.json()["properties"]
        kept = {key: found[key] for key in _KEPT if found.get(key) is not None}
        left = {tag: value for tag, value in (kept.get("tags") or {}).items() if tag not in without}
        self._put(kind, name, version, {**kept, "tags": {**left, **tags}})
        return True

    def _put(self, kind: Kind, name: str, version: int, properties: dict[str, Any]) -> None:
        doing = f"registering {kind} {name}:{version}"
        path, body = _path(kind, name, version), {"properties": properties}
        try:
            response = self._remote.call(doing, lambda: self._ask("PUT", path, body), attempts=1)
            self._finish(doing, response)
        except RefusedError as error:
            if _is_deleted(error):
                raise _taken(kind, name, version, error) from None
            raise

    def _finish(self, doing: str, response: Any) -> None:
        """Wait until what was accepted is done. Raises RefusedError if it failed, UnfinishedError."""
        told_by_status = response.headers.get("Azure-AsyncOperation")
        url = told_by_status or (response.headers.get("Location") if response.status_code == 202 else None)
        limit = _LIMITS * self._remote.limit
        end, pause, told = time.monotonic() + limit, 0.25, False
        while url:
            try:
                response = self._remote.call(doing, lambda: self._json("GET", url))
            except AbsentError:
                return  # the operation is forgotten; reading the version says what came of it
            state = _state(response)
            if state in ("failed", "canceled"):
                said = redacted(response.text()[:600], self._remote.settings.credential)
                raise RefusedError(f"{doing} ({where(self._remote.settings)}): the registry could not do it: {said}")
            if response.status_code != 202 and (not told_by_status or state in ("", "succeeded")):
                return
            wait = retry_after(response.headers)
            wait = pause if wait is None else wait
            if time.monotonic() + wait > end:
                raise UnfinishedError(
                    f"{doing} ({where(self._remote.settings)}): not done after {limit:g} s ({_LIMITS} times "
                    "registry.time_limit); see whether it appears before it is tried again"
                )
            if wait > 1 and not told:
                _log.info("%s: waiting until the registry has copied its files", doing)
                told = True
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)

    # requests ---------------------------------------------------------------------------------------------

    def _asset_id(self, kind: Kind, name: str, version: int | str) -> str:
        return f"azureml://registries/{self._name}/{_path(kind, name, version)}"

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        if not self._base:
            self._base = self._find()
        return self._json(method, f"{self._base}/{path}", body, {"api-version": _VERSION})

    def _find(self) -> str:
        url = f"{current_cloud().discovery}/registrymanagement/v1.0/registries/{self._name}/discovery"
        found = self._json("GET", url).json()
        return (
            f"{found['primaryRegionResourceProviderUri'].rstrip('/')}/mferp/managementfrontend/subscriptions/"
            f"{found['subscriptionId']}/resourceGroups/{found['resourceGroup']}/providers/"
            f"Microsoft.MachineLearningServices/registries/{self._name}"
        )

    def _json(self, method: str, url: str, body: Any = None, query: Mapping[str, str] | None = None) -> Any:
        from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, map_error
        from azure.core.exceptions import ResourceNotFoundError as Missing
        from azure.core.rest import HttpRequest

        if self._pipeline is None:
            self._pipeline = self._make_pipeline()
        request = HttpRequest(method, url, params=query, json=body, headers={"Accept": "application/json"})
        response = self._pipeline.run(request).http_response
        if response.status_code >= 400:
            map_error(response.status_code, response, {401: ClientAuthenticationError, 404: Missing})
            raise HttpResponseError(response=response)
        return response

    def _make_pipeline(self) -> Pipeline[Any, Any]:
        from azure.core import PipelineClient
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RetryPolicy, UserAgentPolicy

        management = current_cloud().management
        options = self._remote.client_options()
        policies = [
            UserAgentPolicy(base_user_agent="edgepack-assets"),
            RetryPolicy(**options),
            BearerTokenCredentialPolicy(self._credential(), f"{management}/.default"),
        ]
        client: Any = PipelineClient(base_url=management, policies=policies, **options)
        pipeline: Pipeline[Any, Any] = client._pipeline
        return pipeline


def _path(kind: Kind, name: str, version: int | str) -> str:
    return f"{'models' if kind is Kind.MODEL else 'data'}/{name}/versions/{version}"


def _state(response: Any) -> str:
    """What an operation's answer says of it, in lower case; empty if it says nothing."""
    try:
        found = response.json()
    except ValueError:
        return ""
    if not isinstance(found, dict):
        return ""
    return "failed" if found.get("error") else str(found.get("status") or "").lower()


def _is_deleted(error: EdgepackError) -> bool:
    return "was deleted at" in str(error) or "cannot be recreated" in str(error)


def _taken(kind: Kind, name: str, version: int, error: EdgepackError) -> VersionTakenError:
    if _is_deleted(error):
        return VersionTakenError(
            f"{kind} {name}:{version} was deleted, and a registry gives no number out again; take the next version"
        )
    return VersionTakenError(f"{kind} {name}:{version} is registered already; take the next version")
