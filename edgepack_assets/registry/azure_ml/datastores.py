"""Finds the blobs of an asset, and the credential with which they are read or written.

A workspace names a datastore (a key, a signature, or nothing: then our own identity must be allowed), a registry
hands out a signature for each version."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from edgepack_assets.azure.blob_container import Container
from edgepack_assets.azure.clouds import current_cloud
from edgepack_assets.azure.errors import AbsentError, AccessError, RefusedError
from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets.registry.azure_ml.client import Asset, Assets
from edgepack_assets.registry.azure_ml.contents import leaf_of, signature
from edgepack_assets.registry.base import Kind, files_of

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

UPLOAD_DATASTORE = "workspaceblobstore"
"""The datastore that every workspace has, and the SDK uploads to."""

_DATASTORE = re.compile(r"azureml://(?:.*/)?datastores/(?P<datastore>[^/]+)/paths/(?P<path>.*)")
_WORKSPACE = re.compile(r"(?i)azureml://subscriptions/([^/]+)/resourcegroups/([^/]+)/(?:.*/)?workspaces/([^/]+)/")
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
            self._check_workspace(asset)
            return self.datastore(place.datastore), place.path
        if self.is_registry:
            api = self._assets.api

            def opened() -> ContainerClient:
                return api.readable(asset.kind, asset.name, asset.version, asset.uri)

            return Container(self._remote, opened), place.path
        return Container(self._remote, lambda: self._own(place.account_url, place.container)), place.path

    def _check_workspace(self, asset: Asset) -> None:
        """Refuse a datastore of elsewhere: one of the same name here would hold other files."""
        settings = self._settings
        here = (settings.subscription_id, settings.resource_group, settings.workspace_name)
        match = _WORKSPACE.match(asset.uri)
        there = match.groups() if match else here
        if self.is_registry or [str(part).lower() for part in there] != [str(part).lower() for part in here]:
            raise EdgepackError(
                f"{asset.uri}: {asset.name}:{asset.version} lies in a datastore of another workspace, which cannot be "
                "read from here; register a copy of it"
            )

    def target(self, kind: Kind, name: str, version: int) -> Target:
        """A folder nobody else writes to. Raises VersionTakenError where a registry says so already."""
        attempt = uuid.uuid4().hex
        if not self.is_registry:
            container = self.datastore(UPLOAD_DATASTORE)
            return Target(container, f"edgepack/{kind}/{name}/{attempt}", self._datastore_uri(kind))
        first = self._assets.api.writable(kind, name, version)
        opened = [first]

        def reopened() -> ContainerClient:
            return opened.pop() if opened else self._assets.api.writable(kind, name, version)

        return Target(Container(self._remote, reopened), attempt, str(first.url).split("?", maxsplit=1)[0])

    def _datastore_uri(self, kind: Kind) -> str:
        short = f"datastores/{UPLOAD_DATASTORE}/paths"
        if kind is Kind.DATA:
            return f"azureml://{short}"
        settings = self._settings  # a model's URI is put in its long form, as azure-ai-ml does
        return (
            f"azureml://subscriptions/{settings.subscription_id}/resourcegroups/{settings.resource_group}/workspaces/"
            f"{settings.workspace_name}/{short}"
        )

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
        except (AccessError, AbsentError, RefusedError):
            # The right to read its secrets is one of its own, and they may be lost: our identity may do without them.
            try:
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
        url = f"https://{account}.blob.{getattr(store, 'endpoint', None) or current_cloud().storage}"
        return self._own(url, str(container), secret)

    def _own(self, account_url: str, container: str, secret: str | None = None) -> ContainerClient:
        from azure.storage.blob import ContainerClient

        credential: Any = secret or self._assets.credential
        return ContainerClient(account_url, container, credential=credential, **self._remote.client_options())


def upload(path: Path, place: Target, before: dict[str, tuple[int, int]], subject: str) -> None:
    """Put a file or folder there, whole and as its `signature` was before. Raises EdgepackError."""
    leaf = leaf_of(path)
    base = f"{place.folder}/{leaf}"
    files = [(f"{base}/{name}" if path.is_dir() else base, file) for name, file in files_of(path)]
    place.container.upload(files, subject)
    _, there = place.container.find(base, path.is_dir())
    if {blob.full_name: blob.size for blob in there} != {name: file.stat().st_size for name, file in files}:
        raise TransientError(f"{base}: storage does not list what was uploaded; try again")
    if signature(path) != before:
        raise EdgepackError(f"{path}: changed while it was uploaded; register it again")
