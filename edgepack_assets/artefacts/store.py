"""The artefact store: blobs named by their sha256, one small manifest per asset and partition.

Equal bytes are kept once. Everything is written aside, synced and renamed, so a crash leaves the old artefact or
the new one, never half of one. Whatever is put, found or read by name counts as used, and what was used lately is no
garbage. No Dagster here: the IO manager is `edgepack_assets/defs/io_manager.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

import fsspec

from edgepack_assets.artefacts.artefact import Artefact, Blob, canonical_json, read_manifest
from edgepack_assets.artefacts.blob_cache import BlobCache, Garbage, remove_unused
from edgepack_assets.config.registry_settings import AzureCredentialSettings, AzureMLRegistrySettings
from edgepack_assets.config.schema import Settings
from edgepack_assets.errors import CorruptError, EdgepackError
from edgepack_assets.filesystem.atomic_files import disk_errors, file_digest, published
from edgepack_assets.partitions import ModelKey

if TYPE_CHECKING:
    from edgepack_assets.artefacts.azure_filesystem import AzureFiles

_CHUNK = 1 << 20
PIECE = 8 << 20
"""Bytes of one request to Azure storage."""
_MARK_AGAIN = 60.0
"""Seconds after which a blob of a remote root is marked as used again."""


def open_store(settings: Settings) -> ArtefactStore:
    """The artefact store that the configuration names, in Azure as the registry's credential."""
    where = settings.artefacts
    if isinstance(settings.registry, AzureMLRegistrySettings):
        return ArtefactStore(where.root, where.cache, settings.registry.credential, settings.registry.time_limit)
    return ArtefactStore(where.root, where.cache)


class ArtefactStore:
    """Blobs and manifests under one root: a local folder, or a URL with a local cache of blobs.

    `abfs://` is a container of Azure storage, opened as `credential` says; `time_limit` (seconds), where there is a
    setting for it, is for one call there. Another remote root, of fsspec, must be an object store, where an object
    appears whole or not at all."""

    def __init__(
        self, root: str, cache: Path, credential: AzureCredentialSettings | None = None, time_limit: float | None = None
    ) -> None:
        self.root_url = root
        self._azure: AzureFiles | None = None
        if root.startswith(("abfs://", "abfss://")):
            from edgepack_assets.artefacts.azure_filesystem import AzureFiles

            self._fs = self._azure = AzureFiles(root, credential or AzureCredentialSettings(), time_limit)
            self._root = self._azure.root
        else:
            self._fs, self._root = fsspec.core.url_to_fs(root)
        self._local = Path(self._root) if "local" in _protocols(self._fs) else None
        self._cache = BlobCache(cache)
        self._marked: dict[str, float] = {}

    # blobs ------------------------------------------------------------------------------------------

    def put_file(self, path: Path, media_type: str) -> Blob:
        """Keep a copy of the file's bytes. Idempotent."""
        blob = Blob(digest=file_digest(path), size=path.stat().st_size, media_type=media_type)
        if self._use(self._blob_path(blob.digest), blob.size):
            return blob
        if self._azure is not None:
            self._azure.put_pieces(self._blob_path(blob.digest), lambda: _pieces(path, blob, PIECE), blob.size)
        elif self._local is None:
            self._fs.put_file(str(path), self._blob_path(blob.digest))
        else:
            with self._blob_stream(blob) as stream:
                for piece in _pieces(path, blob, _CHUNK):
                    stream.write(piece)
        return blob

    def put_bytes(self, data: bytes, media_type: str) -> Blob:
        """Keep `data`. Idempotent."""
        blob = Blob(digest=hashlib.sha256(data).hexdigest(), size=len(data), media_type=media_type)
        if self._use(self._blob_path(blob.digest), blob.size):
            return blob
        if self._azure is not None:
            pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
            self._azure.put_pieces(self._blob_path(blob.digest), lambda: pieces, blob.size)
        elif self._local is None:
            self._fs.pipe_file(self._blob_path(blob.digest), data)
        else:
            with self._blob_stream(blob) as stream:
                stream.write(data)
        return blob

    def put_json(self, value: object) -> Blob:
        """Keep `value` as canonical JSON."""
        return self.put_bytes(canonical_json(value), "application/json")

    def has(self, digest: str) -> bool:
        """Whether the store holds these bytes."""
        return self._use(self._blob_path(digest))

    def fetch(self, blob: Blob) -> Path:
        """A local, read-only file with the blob's bytes, verified. Raises CorruptError."""
        stored = self._blob_path(blob.digest)
        if self._local is not None:
            path = Path(stored)
            if not path.is_file():
                raise self._missing(blob)
            if file_digest(path) != blob.digest:
                raise self._corrupt(stored, blob)
            return path

        def download(aside: Path) -> None:
            try:
                self._fs.get_file(stored, str(aside))
            except FileNotFoundError:
                raise self._missing(blob) from None
            if file_digest(aside) != blob.digest:
                raise self._corrupt(stored, blob)

        return self._cache.get(blob, download)

    def read_bytes(self, blob: Blob) -> bytes:
        """The blob's bytes, verified. For small parts only."""
        return self.fetch(blob).read_bytes()

    def read_json(self, blob: Blob) -> Any:
        """The value that `put_json` kept."""
        return json.loads(self.read_bytes(blob))

    def _missing(self, blob: Blob) -> CorruptError:
        return CorruptError(
            f"{self.root_url} does not hold blob {blob.digest} ({blob.size} bytes): "
            "materialize the asset that made it again"
        )

    def _corrupt(self, path: str, blob: Blob) -> CorruptError:
        return CorruptError(
            f"{self._fs.unstrip_protocol(path)}: bytes differ from their sha256 {blob.digest}; "
            "delete the file and materialize the asset that made it again"
        )

    # manifests and named documents ------------------------------------------------------------------

    def save(self, artefact: Artefact) -> None:
        """Make `artefact` the value of its asset and partition, in one step.

        Raises CorruptError if a blob of it is not there: a manifest never names bytes that don't exist."""
        path = self._manifest_path(artefact.asset, ModelKey.parse(artefact.partition))
        for blob in artefact.blobs():
            if not self._use(self._blob_path(blob.digest), blob.size):
                raise self._missing(blob)
        self._write(path, artefact.manifest())

    def load(self, asset: str, partition: str) -> Artefact:
        """The value of an asset's partition. Raises EdgepackError if there is none, CorruptError if it was changed."""
        path = self._manifest_path(asset, ModelKey.parse(partition))
        try:
            data = self._fs.cat_file(path)
        except FileNotFoundError:
            raise EdgepackError(f"{asset} of {partition} is not in {self.root_url}: materialize it first") from None
        return read_manifest(data, path, asset, partition)

    def manifests(self) -> Iterator[Artefact]:
        """Every artefact in the store. Raises CorruptError on one that cannot be read or was changed."""
        for path, _ in self._documents("manifests"):
            asset, model_type, version = PurePosixPath(path).with_suffix("").parts[-3:]
            yield read_manifest(self._fs.cat_file(path), path, asset, f"{model_type}:{version}")

    def put_named(self, kind: str, key: str, value: object) -> Any:
        """Publish a document under `kind`/`key` unless there is one; the one that stands is returned."""
        found = self.get_named(kind, key)
        if found is None:
            self._write(self._named_path(kind, key), canonical_json(value), replace=False)
            found = self.get_named(kind, key)
        return found

    def get_named(self, kind: str, key: str) -> Any | None:
        """The document published under `kind`/`key`, or None."""
        path = self._named_path(kind, key)
        return _document(path, self._fs.cat_file(path)) if self._use(path) else None

    def names(self, kind: str, prefix: str) -> list[str]:
        """The keys of a kind that begin with `prefix`. Looking does not count as using."""
        self._fs.invalidate_cache()
        try:
            found = self._fs.ls(f"{self._root}/{kind}", detail=False)
        except FileNotFoundError:
            return []
        keys = (Path(path).name.removesuffix(".json") for path in found if path.endswith(".json"))
        return sorted(key for key in keys if key.startswith(prefix))

    def named(self, kind: str) -> dict[str, Any]:
        """Every document of a kind, by key. Looking through them all does not count as using them."""
        return {Path(path).stem: _document(path, self._fs.cat_file(path)) for path, _ in self._documents(kind)}

    # garbage ----------------------------------------------------------------------------------------

    def garbage(self, needed: Iterable[str], grace: float) -> list[Garbage]:
        """Blobs whose digest is not in `needed`, their local copies, and files left aside by a crash, that nobody
        used for `grace` seconds: a run in progress may not have written its manifest yet."""
        keep = set(needed)
        return [
            *(item for item in self._idle("blobs", grace) if Path(item.path).name not in keep),
            *self._idle("tmp", grace),
            *(self._cache.garbage(keep, grace) if self._local is None else ()),
        ]

    def idle_named(self, kind: str, grace: float) -> dict[str, Garbage]:
        """Documents of a kind, by key, that nobody used for `grace` seconds."""
        return {Path(item.path).stem: item for item in self._idle(kind, grace) if item.path.endswith(".json")}

    def remove(self, garbage: Iterable[Garbage]) -> list[Garbage]:
        """Delete what `garbage` or `idle_named` told, but for what was used since; what was deleted."""
        return [item for item in garbage if self._remove(item)]

    def _idle(self, folder: str, grace: float) -> Iterator[Garbage]:
        newest = time.time() - grace
        marks = {} if self._azure is not None else {path: _changed(info) for path, info in self._find("uses")}
        for path, info in self._find(folder):
            used = max(_changed(info), marks.get(self._mark_path(path), 0.0))
            if used <= newest:
                yield Garbage(path, int(info["size"]), used)

    def _remove(self, item: Garbage) -> bool:
        if self._local is not None:
            return remove_unused(item, self._tmp(self._local))
        if item.local:
            return self._cache.remove(item)
        try:
            info = self._fs.info(item.path)
        except FileNotFoundError:
            return False
        if self._azure is not None:
            return _changed(info) == item.used and self._azure.rm_unchanged(info)
        mark = self._mark_path(item.path)
        marked = self._fs.exists(mark)
        if max(_changed(info), _changed(self._fs.info(mark)) if marked else 0.0) != item.used:
            return False
        self._fs.rm_file(item.path)
        if marked:
            self._fs.rm_file(mark)
        return True

    # paths, listings and atomic writes ----------------------------------------------------------------

    def _blob_path(self, digest: str) -> str:
        return f"{self._root}/blobs/{digest[:2]}/{digest}"

    def _manifest_path(self, asset: str, key: ModelKey) -> str:
        return f"{self._root}/manifests/{asset}/{key.path}.json"

    def _named_path(self, kind: str, key: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", key):
            raise ValueError(f"{key!r} cannot be the key of a document")
        return f"{self._root}/{kind}/{key}.json"

    def _mark_path(self, path: str) -> str:
        return f"{self._root}/uses{path.removeprefix(self._root)}"

    @staticmethod
    def _tmp(root: Path) -> Path:
        aside = root / "tmp" / uuid.uuid4().hex
        with disk_errors(aside):
            aside.parent.mkdir(parents=True, exist_ok=True)
        return aside

    def _use(self, path: str, size: int | None = None) -> bool:
        """Whether the store holds a file, of this size. If so it counts as used now."""
        if self._local is not None:
            with disk_errors(Path(path)):
                try:
                    os.utime(path)
                    return size is None or Path(path).stat().st_size == size
                except (FileNotFoundError, PermissionError):
                    return False  # another user's file cannot be marked as used, so it is written anew
        self._fs.invalidate_cache()
        try:
            info = self._fs.info(path)
        except FileNotFoundError:
            return False
        if size is not None and info["size"] != size:
            return False
        if self._marked.get(path, -math.inf) < time.monotonic() - _MARK_AGAIN:
            if self._azure is not None:
                try:
                    self._azure.touch(path)
                except FileNotFoundError:
                    return False
            else:
                # Elsewhere an object's time cannot be changed, so an empty one has the time of its last use.
                self._fs.pipe_file(self._mark_path(path), b"")
            self._marked[path] = time.monotonic()
        return True

    def _find(self, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """(path, info) of all files below a folder. What cannot be listed is left out."""
        self._fs.invalidate_cache()
        yield from self._fs.find(f"{self._root}/{folder}", detail=True).items()

    def _documents(self, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """(path, info) of all documents below a folder. What cannot be listed is an error: leaving a manifest
        out would make its blobs garbage."""
        self._fs.invalidate_cache()
        if not self._fs.exists(f"{self._root}/{folder}"):
            return
        with disk_errors(Path(self._root) / folder, "listed"):
            for _, _, files in self._fs.walk(f"{self._root}/{folder}", detail=True, on_error="raise"):
                for info in files.values():
                    if info["name"].endswith(".json"):
                        yield info["name"], info

    def _write(self, path: str, data: bytes, replace: bool = True) -> None:
        if self._local is not None:
            with published(self._tmp(self._local), Path(path), replace) as stream:
                stream.write(data)
        elif replace:
            self._fs.pipe_file(path, data)
        else:
            with contextlib.suppress(FileExistsError):
                self._fs.pipe_file(path, data, mode="create")

    @contextlib.contextmanager
    def _blob_stream(self, blob: Blob) -> Iterator[IO[bytes]]:
        assert self._local is not None
        with published(self._tmp(self._local), Path(self._blob_path(blob.digest))) as stream:
            os.fchmod(stream.fileno(), 0o444)
            yield stream


def _pieces(path: Path, blob: Blob, length: int) -> Iterator[bytes]:
    """A file's bytes. Raises EdgepackError in place of an end if they are not the blob's."""
    copied = hashlib.sha256()
    with path.open("rb") as source:
        while piece := source.read(length):
            copied.update(piece)
            yield piece
    if copied.hexdigest() != blob.digest:
        raise EdgepackError(f"{path} changed while it was read; nothing was kept. Try again")


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _document(path: str, data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise CorruptError(f"{path}: not JSON ({error}); delete it: it will be made again") from None


def _changed(info: Mapping[str, Any]) -> float:
    """When a file was last written, as its file system tells it (each has a name of its own for that)."""
    for key in ("mtime", "last_modified", "LastModified", "updated", "modified", "created"):
        value = info.get(key)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, (int, float)):
            return float(value)
    raise EdgepackError(f"{info.get('name')}: its storage does not tell when it was written, so garbage cannot be told")
