"""What is asked of Azure ML directly: to put versions and tags, and of a registry, where bytes are written and read.

azure-ai-ml asks for places only within its own up- and downloads. It can put a version, but does not look what became
of one that is accepted first and made afterwards; here each look is a remote call of its own, so that a stalled one is
distinguished from a long copy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from edgepack_assets.azure.answers import refuse_pages, retry_after
from edgepack_assets.azure.calls import Backoff, Remote, sleep
from edgepack_assets.azure.clouds import current_cloud
from edgepack_assets.azure.credential import redacted
from edgepack_assets.azure.errors import AbsentError, RefusedError, where
from edgepack_assets.config.registry_settings import AzureMLRegistrySettings
from edgepack_assets.config.versions import Version
from edgepack_assets.errors import EdgepackError, TransientError, VersionTakenError
from edgepack_assets.registry.base import Kind

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.pipeline import Pipeline
    from azure.storage.blob import ContainerClient

_REGISTRY_VERSION = "2021-10-01-dataplanepreview"
_WORKSPACE_VERSIONS = {Kind.MODEL: "2023-08-01-preview", Kind.DATA: "2023-04-01-preview"}
"""The versions of the API that azure-ai-ml asks for the same (1.35)."""
FAILED_STATES = frozenset({"failed", "canceled"})
DONE_STATES = frozenset({"", "succeeded"})
"""Of `provisioningState` or an operation's `status`, in lower case; others (Creating, Updating, ...) will change."""
_LIMITS = 10
"""How many times `time_limit` a registry may take to copy a version's files to its regions."""
_LONGEST_PAUSE = 5.0
"""Seconds between two looks at what is not done yet."""
_KEPT = (
    "description", "properties", "tags", "isAnonymous", "isArchived", "flavors", "modelType", "modelUri", "stage",
    "dataType", "dataUri", "jobName", "referencedUris", "autoDeleteSetting", "intellectualProperty",
)  # fmt: skip
"""The properties of a version that are written; the others are the service's own."""
_log = logging.getLogger(__name__)


class UnfinishedError(TransientError):
    """A version was accepted, and nothing says yet that it is done."""


class FailedError(RefusedError):
    """A version was accepted, and Azure ML says that it could not make it, whatever can be read of it now."""


class AssetApi:
    """Requests to one workspace or registry, as `credential` (called when the first is made)."""

    def __init__(self, remote: Remote[AzureMLRegistrySettings], credential: Callable[[], TokenCredential]) -> None:
        self._remote = remote
        self._credential = credential
        self._is_registry = remote.settings.registry_name is not None
        self._name = quote(str(remote.settings.registry_name), safe="")
        self._pipeline: Pipeline[Any, Any] | None = None
        self._base = ""

    # bytes ------------------------------------------------------------------------------------------------

    def writable(self, kind: Kind, name: str, version: Version) -> ContainerClient:
        """A container for the bytes of a version that is still to be; the same one when asked again.

        Raises VersionTakenError."""
        body = {
            "assetId": self._asset_id(kind, name, version),
            "temporaryDataReferenceType": "TemporaryBlobReference",
        }
        doing = f"asking where to upload {kind} {name}:{version}"
        try:
            return self._opened(
                kind, doing, "PUT", f"tempdatarefs/{name}/versions/{quote(str(version), safe='')}", body
            )
        except RefusedError as error:
            if error.status == 409 or _is_deleted(error):
                raise _taken(kind, name, version, error) from None
            raise

    def readable(self, kind: Kind, name: str, version: str, uri: str) -> ContainerClient:
        """The container of a version's bytes, which lie at `uri`."""
        body = {"assetId": self._asset_id(kind, name, version), "blobUri": uri}
        doing = f"asking for the files of {kind} {name}:{version}"
        return self._opened(kind, doing, "POST", f"datarefs/{name}/versions/{quote(version, safe='')}", body)

    def _opened(self, kind: Kind, doing: str, method: str, path: str, body: dict[str, str]) -> ContainerClient:
        from azure.storage.blob import ContainerClient

        response = self._remote.call(doing, lambda: self._ask(kind, method, path, body))
        reference = _body(response)["blobReferenceForConsumption"]
        given = reference.get("credential") or {}
        url = urlsplit(given.get("sasUri") or reference["blobUri"])
        credential: Any = url.query or self._credential()
        container = unquote(url.path).strip("/").split("/")[0]
        account_url = f"https://{url.netloc.removesuffix(':443')}"
        return ContainerClient(account_url, container, credential=credential, **self._remote.client_options())

    # versions ---------------------------------------------------------------------------------------------

    def put(
        self, kind: Kind, name: str, version: Version, *, uri: str, is_folder: bool, tags: Mapping[str, str]
    ) -> None:
        """Create a version whose bytes lie at `uri` already, and wait until the service has done it: one attempt, as
        it may count without an answer.

        Raises RefusedError, FailedError, VersionTakenError, UnfinishedError, TransientError."""
        properties: dict[str, Any] = {"properties": {}, "tags": dict(tags), "isAnonymous": False, "isArchived": False}
        if kind is Kind.MODEL:
            properties |= {"modelType": "custom_model", "modelUri": uri}
        else:
            properties |= {"dataType": "uri_folder" if is_folder else "uri_file", "dataUri": uri}
        self._put(kind, name, version, properties)

    def change_tags(
        self, kind: Kind, name: str, version: Version, tags: Mapping[str, str], without: Collection[str]
    ) -> bool:
        """Remove the tags `without`, then add or replace `tags`, leaving the rest of a version as it is; False if there
        is no such version.

        The SDK puts a version as if it were made anew: it loses what its entities do not know, and takes an MLflow
        model whose folder has a dot in its name for a file, which it refuses."""
        path = _path(kind, name, version)
        try:
            response = self._remote.call(f"reading {kind} {name}:{version}", lambda: self._ask(kind, "GET", path))
        except AbsentError:
            return False
        properties: dict[str, Any] = _body(response)["properties"]
        left = {tag: value for tag, value in (properties.get("tags") or {}).items() if tag not in without}
        self._put(kind, name, version, {**_written(properties), "tags": {**left, **tags}})
        return True

    def set_archived(self, kind: Kind, name: str, version: Version, archived: bool) -> None:
        """Archive a version or bring it back, leaving the rest of it as it is. Raises AbsentError."""
        path = _path(kind, name, version)
        response = self._remote.call(f"reading {kind} {name}:{version}", lambda: self._ask(kind, "GET", path))
        self._put(kind, name, version, {**_written(_body(response)["properties"]), "isArchived": archived})

    def _put(self, kind: Kind, name: str, version: Version, properties: dict[str, Any]) -> None:
        doing = f"registering {kind} {name}:{version}"
        path, body = _path(kind, name, version), {"properties": properties}
        try:
            response = self._remote.call(doing, lambda: self._ask(kind, "PUT", path, body), once=True)
            self._finish(doing, response, lambda: self._ask(kind, "GET", path))
        except RefusedError as error:
            if _is_deleted(error):
                raise _taken(kind, name, version, error) from None
            raise

    def _finish(self, doing: str, response: Any, read: Callable[[], Any]) -> None:
        """Wait until what was accepted is done. Raises FailedError, UnfinishedError.

        Where to ask is said in a header, as Azure Resource Manager describes for asynchronous operations, and by a
        registry (202 and Location); where nothing is said the version itself shows its `provisioningState`."""
        operation = response.headers.get("Azure-AsyncOperation")
        url = operation or (response.headers.get("Location") if response.status_code == 202 else None)
        limit = self._remote.limit * (_LIMITS if self._is_registry else 1)
        backoff, is_logged, must_ask = Backoff(limit, _LONGEST_PAUSE), False, operation is not None
        while True:
            state = _state(response)
            if state in FAILED_STATES:
                raise FailedError(
                    f"{doing} ({where(self._remote.settings)}): Azure ML accepted it and could not do it "
                    f"({state}): {redacted(_reason(response), self._remote.settings.credential)}"
                )
            if not must_ask and response.status_code != 202 and state in DONE_STATES:
                return
            pause = backoff.pause(retry_after(response.headers))
            if pause is None:
                raise UnfinishedError(
                    f"{doing} ({where(self._remote.settings)}): not done after {limit:g} s{self._limit_in_words}; see "
                    "whether it appears before it is tried again"
                )
            if pause > 1 and not is_logged:
                _log.info("%s: waiting until Azure ML has done it", doing)
                is_logged = True
            sleep(pause)
            try:
                response = self._remote.call(doing, (lambda: self._json("GET", url)) if url else read)
            except AbsentError:
                return  # the operation is forgotten; reading the version says what came of it
            must_ask = False

    @property
    def _limit_in_words(self) -> str:
        return f" ({_LIMITS} times registry.time_limit)" if self._is_registry else self._remote.named

    # requests ---------------------------------------------------------------------------------------------

    def ask_workspace(self, doing: str, method: str, path: str, api_version: str, body: Any = None) -> Any:
        """The JSON that the workspace answers to a request at a path below its own; None if it is empty."""
        url = f"{self._workspace()}/{path}".rstrip("/")
        response = self._remote.call(doing, lambda: self._json(method, url, body, {"api-version": api_version}))
        return _body_or_none(response)

    def ask_url(self, doing: str, url: str) -> Any:
        """The JSON that a service of Azure ML answers to a GET; None if it is empty."""
        return _body_or_none(self._remote.call(doing, lambda: self._json("GET", url)))

    def _asset_id(self, kind: Kind, name: str, version: Version) -> str:
        return f"azureml://registries/{self._name}/{_path(kind, name, version)}"

    def _ask(self, kind: Kind, method: str, path: str, body: Any = None) -> Any:
        if not self._base:
            self._base = self._find_registry() if self._is_registry else self._workspace()
        api = _REGISTRY_VERSION if self._is_registry else _WORKSPACE_VERSIONS[kind]
        return self._json(method, f"{self._base}/{path}", body, {"api-version": api})

    def _workspace(self) -> str:
        settings = self._remote.settings
        names = (settings.subscription_id, settings.resource_group, settings.workspace_name)
        subscription, group, workspace = (quote(str(name), safe="") for name in names)
        return (
            f"{current_cloud().management}/subscriptions/{subscription}/resourceGroups/{group}/providers/"
            f"Microsoft.MachineLearningServices/workspaces/{workspace}"
        )

    def _find_registry(self) -> str:
        url = f"{current_cloud().discovery}/registrymanagement/v1.0/registries/{self._name}/discovery"
        registry = _body(self._json("GET", url))
        return (
            f"{registry['primaryRegionResourceProviderUri'].rstrip('/')}/mferp/managementfrontend/subscriptions/"
            f"{registry['subscriptionId']}/resourceGroups/{registry['resourceGroup']}/providers/"
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
        if response.status_code >= 300:
            map_error(response.status_code, response, {401: ClientAuthenticationError, 404: Missing})
            raise HttpResponseError(response=response)
        if response.body().strip():
            response.json()  # an answer that is cut off is asked for again
        return response

    def _make_pipeline(self) -> Pipeline[Any, Any]:
        from azure.core import PipelineClient
        from azure.core.pipeline.policies import (
            BearerTokenCredentialPolicy,
            CustomHookPolicy,
            RetryPolicy,
            UserAgentPolicy,
        )

        management = current_cloud().management
        options = self._remote.client_options()
        policies = [
            UserAgentPolicy(base_user_agent="edgepack-assets"),
            RetryPolicy(**options),
            BearerTokenCredentialPolicy(self._credential(), f"{management}/.default"),
            CustomHookPolicy(raw_response_hook=refuse_pages),
        ]
        client: Any = PipelineClient(base_url=management, policies=policies, **options)
        pipeline: Pipeline[Any, Any] = client._pipeline
        return pipeline


def _written(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {key: properties[key] for key in _KEPT if properties.get(key) is not None}


def _path(kind: Kind, name: str, version: Version) -> str:
    return f"{'models' if kind is Kind.MODEL else 'data'}/{name}/versions/{quote(str(version), safe='')}"


def _state(response: Any) -> str:
    """What an answer says of an operation or version, in lower case; empty if it says nothing."""
    body = _body(response)
    properties = body.get("properties")
    state = body.get("status") or (properties.get("provisioningState") if isinstance(properties, dict) else "")
    return "failed" if body.get("error") else str(state or "").lower()


def _reason(response: Any) -> str:
    """What an answer says of a failure."""
    body = _body(response)
    properties = body.get("properties")
    error = body.get("error") or (properties.get("error") if isinstance(properties, dict) else None)
    if not error:
        return "the service does not say why; see the version in the studio"
    said = error.get("message") if isinstance(error, dict) else None
    return " ".join(str(said or error).split())[:600]


class _Body(dict[str, Any]):
    def __missing__(self, key: str) -> Any:
        raise EdgepackError(f"the answer of Azure ML has no {key!r}: does something other than Azure ML answer?")


def _body(response: Any) -> dict[str, Any]:
    """The JSON object of an answer; a key that is asked for and missing is an EdgepackError."""
    try:
        body = response.json()
    except ValueError:
        body = None
    return _Body(body if isinstance(body, dict) else {})


def _is_deleted(error: EdgepackError) -> bool:
    return "was deleted at" in str(error) or "cannot be recreated" in str(error)


def _taken(kind: Kind, name: str, version: Version, error: EdgepackError) -> VersionTakenError:
    if _is_deleted(error):
        return VersionTakenError(
            f"{kind} {name}:{version} was deleted, and a registry gives no number out again; take the next version"
        )
    return VersionTakenError(f"{kind} {name}:{version} is registered already; take the next version")


def _body_or_none(response: Any) -> Any:
    return response.json() if response.body().strip() else None
