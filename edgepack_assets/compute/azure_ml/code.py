"""The code of a job: a folder, uploaded once for each content, as an asset whose name is made from its digest.

The SDK uploads too, within its one call that starts a job: it waits a quarter of a minute after each fault of the
network, tries again what storage forbids, and a slow line would have to hold to the time limit of one call."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from edgepack_assets.azure.blob_container import Container
from edgepack_assets.azure.errors import AbsentError, RefusedError, where
from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets.filesystem.atomic_files import file_digest
from edgepack_assets.registry.azure_ml.client import Assets

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

_API_VERSION = "2023-04-01"
"""The one that azure-ai-ml asks for the same (1.35)."""
_FOLDER = "code"


def code_digest(folder: Path) -> str:
    """sha256 (hex) of a folder's files and their names. Raises EdgepackError if it is none, or empty."""
    files = _files(folder)
    if not files:
        raise EdgepackError(f"{folder}: is no folder with files")
    content = [[path.relative_to(folder).as_posix(), file_digest(path)] for path in files]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class Codes:
    """The code assets of the workspace."""

    def __init__(self, assets: Assets) -> None:
        self._assets = assets

    def obtain(self, folder: Path) -> str:
        """The resource id of the asset with a folder's files, which are uploaded unless it is there."""
        digest = code_digest(folder)
        name = str(uuid.uuid5(uuid.NAMESPACE_URL, f"edgepack-code:{digest}"))
        found = self._find(name)
        if found is not None:
            return found
        uri = self._upload(name, folder)
        properties = {"codeUri": uri, "isAnonymous": True, "properties": {"edgepack.digest": digest}}
        doing = "registering the job's code"
        try:
            self._assets.api.ask_workspace(doing, "PUT", _path(name), _API_VERSION, {"properties": properties})
        except RefusedError:
            # Another run has the same code, or an answer was lost: the name says that its content is the same.
            if self._find(name) is None:
                raise
        registered = self._find(name)
        if registered is None:
            raise TransientError(f"{doing} ({where(self._assets.settings)}): it was accepted and cannot be read yet")
        return registered

    def _find(self, name: str) -> str | None:
        try:
            found = self._assets.api.ask_workspace("reading the job's code", "GET", _path(name), _API_VERSION)
        except AbsentError:
            return None
        return str(found["id"])

    def _upload(self, name: str, folder: Path) -> str:
        """The URI of the uploaded folder."""
        places: list[str] = []

        def opened() -> ContainerClient:
            uri, client = self._place(name)
            if places and places[0] != uri:
                raise TransientError("uploading the job's code: Azure ML gave another place meanwhile; try again")
            places.append(uri)
            return client

        container = Container(self._assets.remote, opened)
        files = [(f"{_FOLDER}/{path.relative_to(folder).as_posix()}", path) for path in _files(folder)]
        container.upload(files, "the job's code")
        return f"{places[0].rstrip('/')}/{_FOLDER}"

    def _place(self, name: str) -> tuple[str, ContainerClient]:
        """(URI, client) of a container that may be written to."""
        from azure.storage.blob import ContainerClient

        doing, path = "asking where to upload the job's code", f"{_path(name)}/startPendingUpload"
        body = {"pendingUploadType": "TemporaryBlobReference"}
        answer = self._assets.api.ask_workspace(doing, "POST", path, _API_VERSION, body) or {}
        reference = answer.get("blobReferenceForConsumption") or {}
        uri = str(reference.get("blobUri") or "")
        signed = urlsplit(str((reference.get("credential") or {}).get("sasUri") or uri))
        if not uri or not signed.netloc:
            raise EdgepackError(f"{doing} ({where(self._assets.settings)}): the answer names no place")
        client = ContainerClient(
            f"https://{signed.netloc.removesuffix(':443')}",
            unquote(signed.path).strip("/").split("/")[0],
            credential=signed.query or self._assets.credential,
            **self._assets.remote.client_options(),
        )
        return uri, client


def _path(name: str) -> str:
    return f"codes/{name}/versions/1"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
