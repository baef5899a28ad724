"""The artefact store: blobs named by their sha256, one small manifest per asset and partition, named documents.

Equal bytes are kept once. A file appears whole or not at all, so a crash leaves the old artefact or the new one. A
blob or document that is written, asked for or read by its name counts as used, and what was used lately is no garbage.
Where the files are kept is the backend's (backend.py). No Dagster here: the IO manager is
`edgepack_assets/defs/io_manager.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Collection, Iterable, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from edgepack_assets.artefacts.artefact import Artefact, Blob, canonical_json, read_manifest
from edgepack_assets.artefacts.backend import Backend, StoredFile
from edgepack_assets.artefacts.blob_cache import BlobCache
from edgepack_assets.artefacts.fsspec_backend import FsspecBackend
from edgepack_assets.artefacts.local_backend import LocalBackend
from edgepack_assets.config.registry_settings import AzureCredentialSettings, AzureMLRegistrySettings
from edgepack_assets.config.schema import Settings
from edgepack_assets.errors import CorruptError, EdgepackError
from edgepack_assets.filesystem.atomic_files import file_digest
from edgepack_assets.filesystem.verified_files import VerifiedFiles
from edgepack_assets.partitions import ModelKey

REMOTE_RUNS = "remote_runs"
"""The folder of the mailboxes of jobs on other machines: defs/remote/mailbox.py."""


def open_store(settings: Settings) -> ArtefactStore:
    """The artefact store that the configuration names. In Azure it uses the registry's credential."""
    artefacts = settings.artefacts
    if isinstance(settings.registry, AzureMLRegistrySettings):
        return ArtefactStore(
            artefacts.root, artefacts.cache, settings.registry.credential, settings.registry.time_limit
        )
    return ArtefactStore(artefacts.root, artefacts.cache)


def open_backend(root: str, credential: AzureCredentialSettings | None, time_limit: float | None) -> Backend:
    """The storage that `root` names: a folder, `abfs://` (a container of Azure storage), or another URL of fsspec,
    which must be an object store, where an object appears whole or not at all."""
    if root.startswith(("abfs://", "abfss://")):
        from edgepack_assets.artefacts.azure_backend import AzureBackend

        return AzureBackend(root, credential or AzureCredentialSettings(), time_limit)
    file_system, path = fsspec.core.url_to_fs(root)
    protocols = (file_system.protocol,) if isinstance(file_system.protocol, str) else file_system.protocol
    return LocalBackend(Path(path)) if "local" in protocols else FsspecBackend(root)


class ArtefactStore:
    """Blobs, manifests and documents under one root: a local folder, or a URL with a local cache of blobs.

    In Azure storage `credential` signs in, and `time_limit` (seconds), where there is a setting for it, holds for each
    call."""

    def __init__(
        self, root: str, cache: Path, credential: AzureCredentialSettings | None = None, time_limit: float | None = None
    ) -> None:
        self.root_url = root
        self._backend = open_backend(root, credential, time_limit)
        self._cache = BlobCache(cache)
        self._verified = VerifiedFiles()

    @property
    def backend(self) -> Backend:
        """Where the files are kept, for what is no artefact."""
        return self._backend

    # blobs ------------------------------------------------------------------------------------------

    def put_file(self, path: Path, media_type: str, move: bool = False, is_final: bool = False) -> Blob:
        """Keep the file's bytes. Idempotent. With `move` the file itself may become the blob: it may be gone
        afterwards, and nobody may have it open for writing. Nobody writes into one that `is_final` any more: the blob
        may be a second name of it."""
        blob = Blob(digest=file_digest(path), size=path.stat().st_size, media_type=media_type)
        stored = self._blob_path(blob.digest)
        if move and not self._use(stored, blob.size) and self._backend.move_blob(stored, path):
            self._verified.remember(stored)
            return blob
        if is_final and not self._use(stored, blob.size) and self._backend.link_blob(stored, path):
            return blob
        return self._put(path, blob)

    def put_bytes(self, data: bytes, media_type: str) -> Blob:
        """Keep `data`. Idempotent."""
        return self._put(data, Blob(digest=hashlib.sha256(data).hexdigest(), size=len(data), media_type=media_type))

    def put_json(self, value: object) -> Blob:
        """Keep `value` as canonical JSON."""
        return self.put_bytes(canonical_json(value), "application/json")

    def _put(self, source: Path | bytes, blob: Blob) -> Blob:
        path = self._blob_path(blob.digest)
        if not self._use(path, blob.size):
            self._backend.put_blob(path, source, blob)
        return blob

    def _use(self, path: str, size: int | None = None) -> bool:
        """Whether there is such a file. It counts as used, which does not make it another file."""
        with self._verified.kept(path):
            return self._backend.use(path, size)

    def has(self, digest: str) -> bool:
        """Whether the store holds these bytes."""
        return self._use(self._blob_path(digest))

    def fetch(self, blob: Blob) -> Path:
        """A local, read-only file with the blob's bytes, verified. Raises CorruptError."""
        stored = self._blob_path(blob.digest)
        if self._backend.local_folder is not None:
            path = Path(stored)
            if not path.is_file():
                raise self._missing(blob)
            if not self._verified.is_known(stored):
                self._verify(path, stored, blob)
                self._verified.remember(stored)
            return path

        def download(target: Path) -> None:
            try:
                self._backend.download(stored, target)
            except FileNotFoundError:
                raise self._missing(blob) from None
            self._verify(target, stored, blob)

        return self._cache.get(blob, download)

    def read_bytes(self, blob: Blob) -> bytes:
        """The blob's bytes, verified. For small parts only."""
        return self.fetch(blob).read_bytes()

    def read_json(self, blob: Blob) -> Any:
        """The value that `put_json` kept."""
        return json.loads(self.read_bytes(blob))

    def _verify(self, path: Path, stored: str, blob: Blob) -> None:
        if file_digest(path) != blob.digest:
            raise CorruptError(
                f"{self._backend.url(stored)}: bytes differ from their sha256 {blob.digest}; "
                "delete the file and materialize the asset that made it again"
            )

    def _missing(self, blob: Blob) -> CorruptError:
        return CorruptError(
            f"{self.root_url} does not hold blob {blob.digest} ({blob.size} bytes): "
            "materialize the asset that made it again"
        )

    # manifests and named documents ------------------------------------------------------------------

    def save(self, artefact: Artefact) -> None:
        """Make `artefact` the value of its asset and partition, in one step.

        Raises CorruptError if one of its blobs is missing: a manifest never names bytes that do not exist."""
        path = self._manifest_path(artefact.asset, ModelKey.parse(artefact.partition))
        for blob in artefact.blobs():
            if not self._use(self._blob_path(blob.digest), blob.size):
                raise self._missing(blob)
        self._backend.write(path, artefact.manifest())

    def load(self, asset: str, partition: str) -> Artefact:
        """The value of an asset's partition. Raises EdgepackError if there is none, CorruptError if it was changed."""
        path = self._manifest_path(asset, ModelKey.parse(partition))
        try:
            data = self._backend.read(path)
        except FileNotFoundError:
            raise EdgepackError(f"{asset} of {partition} is not in {self.root_url}: materialize it first") from None
        return read_manifest(data, path, asset, partition)

    def manifests(self, damaged: list[CorruptError] | None = None) -> Iterator[Artefact]:
        """Every artefact in the store.

        One that cannot be read or was changed raises CorruptError. With a list `damaged` the error is put there, and
        the others follow."""
        for path in self._document_paths("manifests"):
            asset, model_type, version = PurePosixPath(path).with_suffix("").parts[-3:]
            try:
                data = self._backend.read(path)
            except FileNotFoundError:
                continue  # deleted since it was listed
            try:
                yield read_manifest(data, path, asset, f"{model_type}:{version}")
            except CorruptError as error:
                if damaged is None:
                    raise
                damaged.append(error)

    def put_named(self, kind: str, key: str, value: object) -> Any:
        """Publish a document under `kind`/`key` unless there is one. Returns the document that is there afterwards."""
        document = self.get_named(kind, key)
        if document is None:
            self._backend.create(self._named_path(kind, key), canonical_json(value))
            document = self.get_named(kind, key)
        return document

    def get_named(self, kind: str, key: str) -> Any | None:
        """The document published under `kind`/`key`, or None."""
        path = self._named_path(kind, key)
        return self._read_document(path) if self._backend.use(path) else None

    def names(self, kind: str, prefix: str) -> list[str]:
        """The keys of a kind that begin with `prefix`. Listing does not count as using."""
        keys = [PurePosixPath(path).stem for path in self._document_paths(kind)]
        return sorted(key for key in keys if key.startswith(prefix))

    def named(self, kind: str, damaged: list[CorruptError] | None = None) -> dict[str, Any]:
        """Every document of a kind, by key. Reading them all does not count as using them.

        One that is not JSON raises CorruptError. With a list `damaged` the error is put there, and the others follow.
        """
        documents = {}
        for path in self._document_paths(kind):
            try:
                documents[PurePosixPath(path).stem] = self._read_document(path)
            except FileNotFoundError:
                continue  # deleted since it was listed
            except CorruptError as error:
                if damaged is None:
                    raise
                damaged.append(error)
        return documents

    def _document_paths(self, folder: str) -> list[str]:
        paths = self._backend.list_paths(f"{self._backend.root}/{folder}")
        return [path for path in paths if path.endswith(".json")]

    def _read_document(self, path: str) -> Any:
        try:
            return json.loads(self._backend.read(path))
        except ValueError as error:
            raise CorruptError(f"{path}: not JSON ({error}); delete it, it will be written again") from None

    # garbage ----------------------------------------------------------------------------------------

    def garbage(self, needed: Collection[str], grace: float) -> list[StoredFile]:
        """Blobs whose digest is not in `needed`, and `replaceable` files, if they were not used for `grace` seconds: a
        run in progress may not have written its manifest yet."""
        keep = needed if isinstance(needed, AbstractSet) else set(needed)  # of a million, one copy is enough
        unneeded = (file for file in self._idle("blobs", grace) if PurePosixPath(file.path).name not in keep)
        return [*unneeded, *self.replaceable(grace, keep)]

    def replaceable(self, grace: float, needed: Collection[str] = ()) -> list[StoredFile]:
        """What is garbage whatever the manifests say: temporary files and mailboxes of jobs that a crash left behind,
        and local copies of blobs that are not in `needed`, if they were not used for `grace` seconds."""
        is_remote = self._backend.local_folder is None
        left = (*self._idle("tmp", grace), *self._idle(REMOTE_RUNS, grace))
        return [*left, *(self._cache.garbage(needed, grace) if is_remote else ())]

    def idle_named(self, kind: str, grace: float) -> dict[str, StoredFile]:
        """Documents of a kind, by key, that were not used for `grace` seconds."""
        return {PurePosixPath(file.path).stem: file for file in self._idle(kind, grace) if file.path.endswith(".json")}

    def remove(self, files: Iterable[StoredFile]) -> list[StoredFile]:
        """Delete files that `garbage` or `idle_named` gave, except those used since. Returns the deleted ones."""
        return [file for file in files if (self._cache if file.is_cached else self._backend).remove(file)]

    def _idle(self, folder: str, grace: float) -> Iterator[StoredFile]:
        newest = time.time() - grace
        return (file for file in self._backend.list_files(f"{self._backend.root}/{folder}") if file.used <= newest)

    # paths ------------------------------------------------------------------------------------------

    def _blob_path(self, digest: str) -> str:
        return f"{self._backend.root}/blobs/{digest[:2]}/{digest}"

    def _manifest_path(self, asset: str, key: ModelKey) -> str:
        return f"{self._backend.root}/manifests/{asset}/{key.path}.json"

    def _named_path(self, kind: str, key: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", key):
            raise ValueError(f"{key!r} cannot be the key of a document")
        return f"{self._backend.root}/{kind}/{key}.json"
