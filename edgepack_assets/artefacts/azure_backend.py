"""The artefact store in a blob container of an Azure storage account.

It uses azure/blob_container.py, as the Azure ML registry does: bounded memory, one time limit for a call with its
retries, errors with advice. Why it does not use adlfs is in docs/design/libraries.md. Paths are `container/path`. A
blob's time of modification is its last use: setting its metadata changes the time and keeps the bytes.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import threading
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from edgepack_assets.artefacts.artefact import Blob
from edgepack_assets.artefacts.backend import StoredFile, read_pieces
from edgepack_assets.azure.blob_container import PIECE, Container
from edgepack_assets.azure.blob_container import Blob as ContainerBlob
from edgepack_assets.azure.calls import Remote, quiet_logs
from edgepack_assets.azure.clouds import check_storage_suffix, current_cloud
from edgepack_assets.azure.credential import make_credential
from edgepack_assets.azure.errors import AbsentError, RefusedError, StoragePlace
from edgepack_assets.config.registry_settings import AzureCredentialSettings
from edgepack_assets.errors import ConfigError

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.storage.blob import ContainerClient

ACCOUNT_VARIABLE = "AZURE_STORAGE_ACCOUNT_NAME"
_FORM = "abfs://container@account.dfs.core.windows.net/path, or abfs://container/path with the account's name in "
_URL = re.compile(r"abfss?://(?:(?P<container>[^@/?#]+)@)?(?P<host>[^@/?#]+)(?:/(?P<path>[^?#]*))?")
_CONTAINER = re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_HOST = re.compile(r"(?P<account>[a-z0-9]{3,24})\.(?:dfs|blob)\.(?P<suffix>[a-z0-9.-]+)")


MARK_AGAIN = 60.0
"""Seconds after which a blob is marked as used again."""


def is_azure(url: str) -> bool:
    """Whether `url` names a container of an Azure storage account."""
    return url.startswith(("abfs://", "abfss://"))


def parse(url: str) -> tuple[str, str, str, str]:
    """(account, endpoint suffix, container, path) of an `abfs://` URL; without an account in it, of the one that the
    environment names, in the cloud that is configured. Raises ConfigError, which does not repeat the URL: it may hold
    a key or signature."""
    match = _URL.fullmatch(url.strip())
    if match is None:
        raise ConfigError(f"artefacts.root is no URL of the form {_FORM}{ACCOUNT_VARIABLE}; keys do not belong in it")
    if match["container"] is None:
        container, account = match["host"], os.environ.get(ACCOUNT_VARIABLE, "").strip()
        suffix = current_cloud().storage
        if not account:
            raise ConfigError(f"artefacts.root names no storage account: write {_FORM}{ACCOUNT_VARIABLE}")
        if not _ACCOUNT.fullmatch(account):
            raise ConfigError(f"{ACCOUNT_VARIABLE} holds no name of a storage account")
    else:
        host = _HOST.fullmatch(match["host"])
        if host is None:
            raise ConfigError(f"artefacts.root names no host such as account.dfs.core.windows.net: write {_FORM}"
                              f"{ACCOUNT_VARIABLE}")  # fmt: skip
        container, account, suffix = match["container"], host["account"], host["suffix"]
        check_storage_suffix(suffix)
    if not _CONTAINER.fullmatch(container):
        raise ConfigError(
            "artefacts.root: a container's name has 3 to 63 lower-case letters, digits and single hyphens"
        )
    path = "/".join(part for part in unquote(match["path"] or "").split("/") if part)
    return account, suffix, container, path


class AzureBackend:
    """A folder of one container, used with one credential. See `backend.Backend` for what the methods promise.

    No request is sent before the first use. Errors are those of `azure.errors.explain`."""

    local_folder = None

    def __init__(self, url: str, credential: AzureCredentialSettings, time_limit: float | None) -> None:
        account, suffix, container, path = parse(url)
        self.root = f"{container}/{path}".rstrip("/")
        self._account_url = f"https://{account}.blob.{suffix}"
        self._host = f"{account}.dfs.{suffix}"
        self._place = StoragePlace(account, container, credential, time_limit)
        self._remote = Remote(self._place)
        self._container = Container(self._remote, self._open)
        self._signing_in = threading.Lock()
        self._marked: dict[str, float] = {}
        self._arguments = (url, credential, time_limit)

    def __reduce__(self) -> tuple[type[AzureBackend], tuple[str, AzureCredentialSettings, float | None]]:
        # The packaging worker is another process: it gets a store of its own, with connections of its own.
        return type(self), self._arguments

    @cached_property
    def _credential(self) -> TokenCredential:
        quiet_logs()
        return make_credential(self._place.credential, self._remote.patience)

    def _open(self) -> ContainerClient:
        from azure.storage.blob import ContainerClient

        with self._signing_in:
            credential: Any = self._credential
        return ContainerClient(
            self._account_url, self._place.container, credential=credential, **self._remote.client_options()
        )

    def url(self, path: str) -> str:
        """The `abfs://` URL with the account in it."""
        return f"abfs://{self._place.container}@{self._host}/{self._key(path)}"

    def _key(self, path: str) -> str:
        return path.removeprefix(self._place.container).strip("/")

    # reading --------------------------------------------------------------------------------------------------

    def read(self, path: str) -> bytes:
        """The blob's bytes."""
        key = self._key(path)
        with _absence(path):
            data: bytes = self._container.call(
                f"reading {key}", lambda c: c.get_blob_client(key).download_blob(max_concurrency=1).readall()
            )
        return data

    def download(self, path: str, target: Path) -> None:
        """Download the blob in pieces."""
        # No etag: a blob that is marked as used meanwhile has another one, and the store verifies the digest.
        blob = ContainerBlob("", self._key(path), self._properties(path).size, "", "")
        self._container.download([(blob, target)], path.rpartition("/")[2])

    def list_paths(self, folder: str) -> list[str]:
        """Every blob below the folder."""
        return [f"{self._place.container}/{blob.full_name}" for blob in self._blobs(folder)]

    def list_files(self, folder: str) -> Iterator[StoredFile]:
        """Every blob below the folder."""
        for blob in self._blobs(folder):
            etag = f'"{blob.etag}"'.replace('""', '"')  # lists leave out the quotation marks
            yield StoredFile(f"{self._place.container}/{blob.full_name}", blob.size, blob.changed, etag)

    def _blobs(self, folder: str) -> list[ContainerBlob]:
        return self._container.find(self._key(folder), is_folder=True)[1]

    def _properties(self, path: str) -> Any:
        key = self._key(path)
        with _absence(path):
            return self._container.call(f"looking at {key}", lambda c: c.get_blob_client(key).get_blob_properties())

    def _size(self, path: str) -> int | None:
        try:
            return int(self._properties(path).size)
        except FileNotFoundError:
            return None

    # writing --------------------------------------------------------------------------------------------------

    def put_blob(self, path: str, source: Path | bytes, blob: Blob) -> None:
        """Upload the bytes in pieces; a whole blob stays, one of another size is replaced."""
        key = self._key(path)
        for replace in (False, False, True):
            try:
                self._container.publish(key, read_pieces(source, blob, PIECE), blob.size, key, replace=replace)
            except RefusedError:
                # There is one, or another writer's last request removed the blocks of this upload.
                if self._size(path) == blob.size:
                    return
                if replace:
                    raise
                continue
            return

    def move_blob(self, path: str, source: Path) -> bool:
        """No: the storage is not a folder of this machine."""
        return False

    def link_blob(self, path: str, source: Path) -> bool:
        """No: the storage is not a folder of this machine."""
        return False

    def write(self, path: str, data: bytes) -> None:
        """Write the blob in one request."""
        key = self._key(path)
        self._container.publish(key, [data], len(data), key, replace=True)

    def create(self, path: str, data: bytes) -> None:
        """Write the blob in one request that fails if there is one."""
        key = self._key(path)
        try:
            self._container.publish(key, [data], len(data), key, replace=False)
        except RefusedError:
            if self._size(path) is None:
                raise

    def use(self, path: str, size: int | None = None) -> bool:
        """Mark the blob as changed now, unless it was marked lately."""
        held_size = self._size(path)
        if held_size is None or (size is not None and held_size != size):
            return False
        if self._marked.get(path, -math.inf) < time.monotonic() - MARK_AGAIN:
            key = self._key(path)
            try:
                self._container.call(f"marking {key}", lambda c: c.get_blob_client(key).set_blob_metadata({}))
            except AbsentError:
                return False
            self._marked[path] = time.monotonic()
        return True

    def remove(self, file: StoredFile) -> bool:
        """Delete the blob if its etag is still the one of the listing."""
        from azure.core import MatchConditions

        try:
            if str(self._properties(file.path).etag) != file.etag:
                return False
        except FileNotFoundError:
            return False
        key, etag = self._key(file.path), file.etag

        def delete(client: ContainerClient) -> None:
            client.get_blob_client(key).delete_blob(etag=etag, match_condition=MatchConditions.IfNotModified)

        try:
            self._container.call(f"deleting {key}", delete)
        except AbsentError:
            return True  # the answer to an earlier attempt got lost
        except RefusedError:
            try:
                properties = self._properties(file.path)
            except FileNotFoundError:
                return True
            if str(properties.etag) == etag:
                raise
            return False
        return True


@contextlib.contextmanager
def _absence(path: str) -> Iterator[None]:
    try:
        yield
    except AbsentError as error:
        raise FileNotFoundError(path) from error
