"""Where an asset's bytes lie and with what right they are read or written.

A workspace names a datastore (a key, a signature, or nothing: then our own identity must be allowed), a registry
hands out a signature for each version."""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from edgepack_assets.errors import EdgepackError, VersionTakenError
from edgepack_assets.registry.azure_ml.blobs import Container
from edgepack_assets.registry.azure_ml.client import Asset, Assets
from edgepack_assets.registry.azure_ml.faults import AbsentError, AccessError, RefusedError
from edgepack_assets.registry.base import Kind

if TYPE_CHECKING:
    from azure.core.pipeline import Pipeline
    from azure.storage.blob import ContainerClient

UPLOAD_DATASTORE = "workspaceblobstore"
"""The datastore that every workspace has, and the SDK uploads to."""
_REGISTRY_API = "2021-10-01-dataplanepreview"
_CLOUDS = {
    "AzureCloud": ("https://management.azure.com", "https://eastus.api.azureml.ms"),
    "AzureChinaCloud": ("https://management.chinacloudapi.cn", "https://chinaeast2.api.ml.azure.cn"),
    "AzureUSGovernment": ("https://management.usgovcloudapi.net", "https://usgovarizona.api.ml.azure.us"),
}

_DATASTORE = re.compile(r"azureml://(?:.*/)?datastores/(?P<datastore>[^/]+)/paths/(?P<path>.*)")
_JOB = re.compile(r"azureml://jobs/(?P<job>[^/]+)/outputs/artifacts/(?:paths/)?(?P<path>.*)")
_WASB = re.compile(r"(?:wasbs?|abfss?)://(?P<container>[^@/]+)@(?P<host>[^/]+)/(?P<path>.*)")


@dataclass(frozen=True)
class InDatastore:
    """A path in a workspace's datastore."""

    datastore: str
    path: str


@dataclass(frozen=True)
class AtUrl:
    """A path in a container of a storage account."""

    account_url: str
    container: str
    path: str


def parse(uri: str) -> InDatastore | AtUrl:
    """What a version's URI names. Raises EdgepackError for a kind that holds no files of a storage account."""
    if match := _DATASTORE.fullmatch(uri):
        return InDatastore(match["datastore"], match["path"])
    if match := _JOB.fullmatch(uri):
        return InDatastore("workspaceartifactstore", f"ExperimentRun/dcid.{match['job']}/{match['path']}")
    if match := _WASB.fullmatch(uri):
        return AtUrl(f"https://{match['host'].replace('.dfs.', '.blob.')}", match["container"], match["path"])
    split = urlsplit(uri)
    container, _, path = unquote(split.path).lstrip("/").partition("/")
    if split.scheme == "https" and re.search(r"\.(blob|dfs)\.", split.netloc) and container:
        return AtUrl(f"https://{split.netloc.replace('.dfs.', '.blob.')}", container, path)
    raise EdgepackError(f"{uri}: lies where this project cannot read; register it from a datastore of the workspace")


@dataclass(frozen=True)
class Target:
    """Where one registration uploads to: `uri(leaf)` names the file or folder `leaf` of `folder`."""

    container: Container
    folder: str
    base_uri: str

    def uri(self, leaf: str) -> str:
        """The URI to register."""
        return f"{self.base_uri}/{self.folder}/{leaf}"


class Places:
    """Finds containers, each opened with the right that Azure ML gives for it."""

    def __init__(self, assets: Assets) -> None:
        self._assets = assets
        self._remote = assets.remote
        self._settings = assets.settings
        self._containers: dict[str, Container] = {}
        self._api: RegistryApi | None = None

    @property
    def is_registry(self) -> bool:
        """Whether versions have a container each, given for reading or writing that version."""
        return self._settings.registry_name is not None

    def of(self, asset: Asset) -> tuple[Container, str]:
        """(container, path) of a version's file or folder."""
        if not asset.uri:
            raise EdgepackError(f"{asset.name}:{asset.version} names no files")
        place = parse(asset.uri)
        if isinstance(place, InDatastore):
            return self.datastore(place.datastore), place.path
        if self.is_registry:
            return Container(self._remote, lambda: self._registry_api().readable(asset)), place.path
        return Container(self._remote, lambda: self._own(place.account_url, place.container)), place.path

    def target(self, kind: Kind, name: str, version: int) -> Target:
        """A folder nobody else writes to. Raises VersionTakenError where a registry says so already."""
        attempt = uuid.uuid4().hex
        if not self.is_registry:
            container = self.datastore(UPLOAD_DATASTORE)
            return Target(
                container, f"edgepack/{kind}/{name}/{attempt}", f"azureml://datastores/{UPLOAD_DATASTORE}/paths"
            )
        first = self._registry_api().writable(kind, name, version)
        opened = [first]

        def reopened() -> ContainerClient:
            return opened.pop() if opened else self._registry_api().writable(kind, name, version)

        return Target(Container(self._remote, reopened), attempt, str(first.url).split("?", maxsplit=1)[0])

    def datastore(self, name: str) -> Container:
        """The container of a datastore."""
        if name not in self._containers:
            self._containers[name] = Container(self._remote, lambda: self._open_datastore(name))
        return self._containers[name]

    def _open_datastore(self, name: str) -> ContainerClient:
        stores = self._assets.client.datastores
        doing = f"opening the datastore {name}"
        try:
            store = self._remote.call(doing, lambda: stores.get(name, include_secrets=True))
        except AccessError:  # the right to read its secrets is one of its own; our identity may do without them
            store = self._remote.call(doing, lambda: stores.get(name))
        except AbsentError as error:
            raise EdgepackError(f"there is no datastore {name}: {error}") from None
        container = getattr(store, "container_name", None) or getattr(store, "filesystem", None)
        account = getattr(store, "account_name", None)
        if not container or not account:
            raise EdgepackError(
                f"the datastore {name} is a {store.type}: only blob and Data Lake Gen2 storage can be read"
            )
        secret = getattr(store.credentials, "sas_token", None) or getattr(store.credentials, "account_key", None)
        url = f"https://{account}.blob.{getattr(store, 'endpoint', None) or 'core.windows.net'}"
        return self._own(url, str(container), secret)

    def _own(self, account_url: str, container: str, secret: str | None = None) -> ContainerClient:
        from azure.storage.blob import ContainerClient

        credential: Any = secret or self._assets.credential
        return ContainerClient(account_url, container, credential=credential, **self._remote.client_options())

    def _registry_api(self) -> RegistryApi:
        if self._api is None:
            self._api = RegistryApi(self._assets)
        return self._api


class RegistryApi:
    """The two requests of an Azure ML registry that azure-ai-ml makes only within its own up- and downloads."""

    def __init__(self, assets: Assets) -> None:
        self._assets = assets
        self._remote = assets.remote
        self._name = quote(str(assets.settings.registry_name), safe="")
        self._pipeline: Pipeline[Any, Any] | None = None
        self._base = ""

    def writable(self, kind: Kind, name: str, version: int) -> ContainerClient:
        """A container for the bytes of a version that is still to be. Raises VersionTakenError."""
        plural = "models" if kind is Kind.MODEL else "data"
        body = {
            "assetId": f"azureml://registries/{self._name}/{plural}/{name}/versions/{version}",
            "temporaryDataReferenceType": "TemporaryBlobReference",
        }
        doing = f"asking where to upload {kind} {name}:{version}"
        try:
            return self._opened(doing, "PUT", f"tempdatarefs/{name}/versions/{version}", body)
        except RefusedError as error:
            if "status 409" in str(error):
                raise VersionTakenError(
                    f"{kind} {name}:{version} is registered already; take the next version"
                ) from None
            raise

    def readable(self, asset: Asset) -> ContainerClient:
        """The container of a version's bytes."""
        plural = "models" if asset.kind is Kind.MODEL else "data"
        body = {
            "assetId": f"azureml://registries/{self._name}/{plural}/{asset.name}/versions/{asset.version}",
            "blobUri": asset.uri,
        }
        doing = f"asking for the files of {asset.kind} {asset.name}:{asset.version}"
        return self._opened(doing, "POST", f"datarefs/{asset.name}/versions/{asset.version}", body)

    def _opened(self, doing: str, method: str, path: str, body: dict[str, str]) -> ContainerClient:
        from azure.storage.blob import ContainerClient

        found = self._remote.call(doing, lambda: self._send(method, path, body))["blobReferenceForConsumption"]
        given = found.get("credential") or {}
        url = urlsplit(given.get("sasUri") or found["blobUri"])
        credential: Any = url.query or self._assets.credential
        container = unquote(url.path).strip("/").split("/")[0]
        return ContainerClient(
            f"https://{url.netloc}", container, credential=credential, **self._remote.client_options()
        )

    def _send(self, method: str, path: str, body: dict[str, str] | None) -> Any:
        from azure.core.rest import HttpRequest

        if self._pipeline is None:
            self._pipeline = self._make_pipeline()
        if not self._base:
            _, discovery = _cloud()
            found = self._json(
                HttpRequest("GET", f"{discovery}/registrymanagement/v1.0/registries/{self._name}/discovery")
            )
            self._base = (
                f"{found['primaryRegionResourceProviderUri'].rstrip('/')}/mferp/managementfrontend/subscriptions/"
                f"{found['subscriptionId']}/resourceGroups/{found['resourceGroup']}/providers/"
                f"Microsoft.MachineLearningServices/registries/{self._name}"
            )
        return self._json(HttpRequest(method, f"{self._base}/{path}", params={"api-version": _REGISTRY_API}, json=body))

    def _json(self, request: Any) -> Any:
        from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, map_error
        from azure.core.exceptions import ResourceNotFoundError as Missing

        assert self._pipeline is not None
        response = self._pipeline.run(request).http_response
        if response.status_code >= 400:
            map_error(response.status_code, response, {401: ClientAuthenticationError, 404: Missing})
            raise HttpResponseError(response=response)
        return response.json()

    def _make_pipeline(self) -> Pipeline[Any, Any]:
        from azure.core import PipelineClient
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RetryPolicy, UserAgentPolicy

        arm, _ = _cloud()
        options = self._remote.client_options()
        policies = [
            UserAgentPolicy(base_user_agent="edgepack-assets"),
            RetryPolicy(**options),
            BearerTokenCredentialPolicy(self._assets.credential, f"{arm}/.default"),
        ]
        client: Any = PipelineClient(base_url=arm, policies=policies, **options)
        pipeline: Pipeline[Any, Any] = client._pipeline
        return pipeline


def _cloud() -> tuple[str, str]:
    """(resource manager, registry discovery) of the cloud that azure-ai-ml works in."""
    name = os.environ.get("AZUREML_CURRENT_CLOUD", "AzureCloud")
    if name not in _CLOUDS:
        raise EdgepackError(f"AZUREML_CURRENT_CLOUD is {name!r}; registries can be used in: {', '.join(_CLOUDS)}")
    return _CLOUDS[name]
