"""A blob container of an Azure storage account as the artefact store's file system.

It is written on the registry's own way of moving bytes (bounded memory, one time limit for a call with its retries,
errors in words) rather than on adlfs, which has no such limit, makes containers that are missing, and needs an event
loop and credentials of its own. Paths are `container/path`, as fsspec has them.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from fsspec import AbstractFileSystem

from edgepack_assets.azure.blob_container import Blob, Container
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


def is_azure(url: str) -> bool:
    """Whether `url` names a container of an Azure storage account."""
    return url.startswith(("abfs://", "abfss://"))


def parse(url: str) -> tuple[str, str, str, str]:
    """(account, endpoint suffix, container, path) of an `abfs://` URL; without an account in it, of the one that the
    environment names, in the cloud that is configured. Raises ConfigError; what the URL holds is not repeated then,
    since it may be a key or signature."""
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


class AzureFiles(AbstractFileSystem):  # type: ignore[misc]
    """One container, as whom the credential says. Nothing is asked of Azure before it is used.

    Every method may raise what `registry.azure_ml.faults.explain` makes of an error; TransientError may pass."""

    protocol = "abfs"
    cachable = False

    def __init__(self, url: str, credential: AzureCredentialSettings, time_limit: float | None) -> None:
        super().__init__(skip_instance_cache=True)
        account, suffix, container, path = parse(url)
        self.root = f"{container}/{path}".rstrip("/")
        self._account_url = f"https://{account}.blob.{suffix}"
        self._host = f"{account}.dfs.{suffix}"
        self._place = StoragePlace(account, container, credential, time_limit)
        self._remote = Remote(self._place)
        self._container = Container(self._remote, self._open)
        self._signing_in = threading.Lock()

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

    def unstrip_protocol(self, name: str) -> str:
        """The URL of a path."""
        return f"abfs://{self._place.container}@{self._host}/{self._key(name)}"

    def _key(self, path: str) -> str:
        return path.removeprefix(self._place.container).strip("/")

    # reading --------------------------------------------------------------------------------------------------

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name, size, last_modified and etag of a file. Raises FileNotFoundError."""
        key = self._key(path)
        with _absence(path):
            found = self._container.call(f"looking at {key}", lambda c: c.get_blob_client(key).get_blob_properties())
        return {
            "name": path,
            "size": int(found.size),
            "type": "file",
            "last_modified": found.last_modified,
            "etag": str(found.etag),
        }

    def exists(self, path: str, **_: Any) -> bool:
        """Whether there is such a file, or one below it."""
        return bool(self.find(path)) or self._is_file(path)

    def _is_file(self, path: str) -> bool:
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **_: Any
    ) -> Any:
        """Every file below a folder: paths, or with `detail` infos by path."""
        blobs = self._container.find(self._key(path), is_folder=True)[1]
        found = {f"{self._place.container}/{blob.full_name}": blob for blob in blobs}
        infos = {name: _info(name, blob) for name, blob in found.items()}
        return infos if detail else sorted(infos)

    def ls(self, path: str, detail: bool = True, **_: Any) -> Any:
        """The files right in a folder. Raises FileNotFoundError if there are none."""
        start = f"{path.rstrip('/')}/"
        found = {name: info for name, info in self.find(path, detail=True).items() if "/" not in name[len(start) :]}
        if not found:
            raise FileNotFoundError(path)
        return list(found.values()) if detail else sorted(found)

    def walk(self, path: str, **_: Any) -> Iterator[Any]:
        """One step: every file below a folder at once."""
        yield path, {}, self.find(path, detail=True)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """A small file's bytes. Raises FileNotFoundError."""
        key = self._key(path)
        with _absence(path):
            found = self._container.call(
                f"reading {key}", lambda c: c.get_blob_client(key).download_blob(max_concurrency=1).readall()
            )
        data: bytes = found
        return data[start:end]

    def get_file(self, rpath: str, lpath: str, **_: Any) -> None:
        """Write a file's bytes to a local one that is not there yet. Raises FileNotFoundError."""
        size = self.info(rpath)["size"]
        # No etag: a file that is marked as used meanwhile has another one, and whoever asked verifies the digest.
        blob = Blob("", self._key(rpath), size, "", "")
        self._container.download([(blob, Path(lpath))], rpath.rpartition("/")[2])

    # writing --------------------------------------------------------------------------------------------------

    def put_pieces(self, path: str, pieces: Callable[[], Iterable[bytes]], size: int) -> None:
        """Write a file of `size` bytes, which are what its name says: one that is whole stays, a torn one does not.

        Several at once are welcome; what `pieces` raises leaves nothing behind."""
        key = self._key(path)
        for replace in (False, False, True):
            try:
                self._container.publish(key, pieces(), size, key, replace=replace)
            except RefusedError:
                # There is one, or another writer's end swept away the blocks of ours.
                if self._is_file(path) and self.info(path)["size"] == size:
                    return
                if replace:
                    raise
                continue
            return

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """Write a small file in one request. With mode "create" raises FileExistsError if there is one: of several
        at once exactly one succeeds, but for an answer that got lost, whose writer may be told that it exists."""
        key = self._key(path)
        try:
            self._container.publish(key, [value], len(value), key, replace=mode != "create")
        except RefusedError as error:
            if mode != "create" or not self._is_file(path):
                raise
            raise FileExistsError(path) from error

    def touch(self, path: str, truncate: bool = False, **_: Any) -> None:
        """Make now the time at which a file was last changed. Its bytes stay. Raises FileNotFoundError."""
        key = self._key(path)
        with _absence(path):
            self._container.call(f"marking {key}", lambda c: c.get_blob_client(key).set_blob_metadata({}))

    def rm_unchanged(self, info: dict[str, Any]) -> bool:
        """Delete the file that `info` is of, unless it was written or touched since; whether it is gone."""
        from azure.core import MatchConditions

        key, etag = self._key(info["name"]), info["etag"]

        def delete(client: ContainerClient) -> None:
            client.get_blob_client(key).delete_blob(etag=etag, match_condition=MatchConditions.IfNotModified)

        try:
            self._container.call(f"deleting {key}", delete)
        except AbsentError:
            return True
        except RefusedError:
            try:
                found = self.info(info["name"])["etag"]
            except FileNotFoundError:
                return True  # the answer to an earlier attempt got lost
            if found == etag:
                raise
            return False
        return True


@contextlib.contextmanager
def _absence(path: str) -> Iterator[None]:
    """What is not there is told as every file system tells it."""
    try:
        yield
    except AbsentError as error:
        raise FileNotFoundError(path) from error


def _info(name: str, blob: Blob) -> dict[str, Any]:
    changed = datetime.fromtimestamp(blob.changed, UTC)
    etag = f'"{blob.etag}"'.replace('""', '"')  # lists leave out the quotation marks
    return {"name": name, "size": blob.size, "type": "file", "last_modified": changed, "etag": etag}
