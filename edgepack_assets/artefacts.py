"""The artefact store: blobs named by their sha256, one small manifest per asset and partition.

An asset's value is an `Artefact`: named parts (each a blob), what they were made from, and observations
such as timings that are kept but are no part of its identity. Equal bytes are kept once. Everything is
written aside and renamed, so a crash leaves the old artefact or the new one, never half of one. No Dagster
here: the IO manager is `edgepack_assets/io_manager.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import fsspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgepack_assets.errors import CorruptError, EdgepackError, StaleError
from edgepack_assets.partitions import ModelKey

_CHUNK = 1 << 20


class Blob(BaseModel):
    """Bytes in the store: sha256 (hex), size in bytes, media type."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    media_type: str


class Artefact(BaseModel):
    """The value of an asset: named parts, and the digests of the artefacts they were made from.

    `facts` are small values that later steps need without opening a part. `observations` (timings) differ
    from run to run and are left out of `digest`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    asset: str
    partition: str
    parts: dict[str, Blob]
    facts: dict[str, Any] = {}
    made_from: dict[str, str] = {}
    observations: dict[str, Blob] = {}

    @property
    def digest(self) -> str:
        """sha256 over parts and facts in canonical JSON: equal content gives equal digests."""
        content = {"parts": {n: b.model_dump() for n, b in self.parts.items()}, "facts": self.facts}
        return hashlib.sha256(canonical_json(content)).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(blob.size for blob in self.parts.values())

    def blobs(self) -> list[Blob]:
        """Every blob that this artefact needs kept."""
        return [*self.parts.values(), *self.observations.values()]


def canonical_json(value: object) -> bytes:
    """One spelling per value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def check_chain(artefact: Artefact, inputs: Mapping[str, Artefact]) -> None:
    """Refuse an artefact that was made from other bytes than those at hand. Raises StaleError."""
    for name, given in inputs.items():
        recorded = artefact.made_from.get(name)
        if recorded is not None and recorded != given.digest:
            raise StaleError(
                f"{artefact.asset} of {artefact.partition} was made from another {name} "
                f"({recorded[:12]}) than the one at hand ({given.digest[:12]}): "
                f"materialize {artefact.asset} of {artefact.partition} again"
            )


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class ArtefactStore:
    """Blobs and manifests under one root: a local folder, or an fsspec URL with a local cache of blobs."""

    def __init__(self, root: str, cache: Path) -> None:
        self.root_url = root
        self._fs, self._root = fsspec.core.url_to_fs(root)
        self._local = Path(self._root) if "local" in _protocols(self._fs) else None
        self._cache = cache

    # blobs ------------------------------------------------------------------------------------------

    def put_file(self, path: Path, media_type: str) -> Blob:
        """Keep a copy of the file's bytes. Idempotent."""
        blob = Blob(digest=file_digest(path), size=path.stat().st_size, media_type=media_type)
        if not self._fs.exists(self._blob_path(blob.digest)):
            if self._local is not None:
                with self._local_aside(self._blob_path(blob.digest)) as aside:
                    shutil.copyfile(path, aside)
            else:
                aside_url = f"{self._root}/tmp/{uuid.uuid4().hex}"
                self._fs.put_file(str(path), aside_url)
                self._fs.mv(aside_url, self._blob_path(blob.digest))
        else:
            self._touch(blob.digest)
        return blob

    def put_bytes(self, data: bytes, media_type: str) -> Blob:
        """Keep `data`. Idempotent."""
        blob = Blob(digest=hashlib.sha256(data).hexdigest(), size=len(data), media_type=media_type)
        if not self._fs.exists(self._blob_path(blob.digest)):
            self._write(self._blob_path(blob.digest), data)
        else:
            self._touch(blob.digest)
        return blob

    def put_json(self, value: object) -> Blob:
        """Keep `value` as canonical JSON."""
        return self.put_bytes(canonical_json(value), "application/json")

    def has(self, digest: str) -> bool:
        """Whether the store (or, for a remote root, its cache) holds these bytes."""
        return bool(self._fs.exists(self._blob_path(digest)))

    def fetch(self, blob: Blob) -> Path:
        """A local, read-only file with the blob's bytes, verified. Raises CorruptError."""
        if self._local is not None:
            path = Path(self._blob_path(blob.digest))
        else:
            path = self._cache / "blobs" / blob.digest[:2] / blob.digest
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
                try:
                    self._fs.get_file(self._blob_path(blob.digest), str(aside))
                    aside.replace(path)
                except FileNotFoundError:
                    raise self._missing(blob) from None
                finally:
                    aside.unlink(missing_ok=True)
        if not path.is_file():
            raise self._missing(blob)
        if file_digest(path) != blob.digest:
            if self._local is None:
                path.unlink()
            raise CorruptError(
                f"{path}: bytes differ from their sha256 {blob.digest}; delete the file "
                "and materialize the asset that made it again"
            )
        return path

    def read_bytes(self, blob: Blob) -> bytes:
        """The blob's bytes, verified. For small parts only."""
        return self.fetch(blob).read_bytes()

    def read_json(self, blob: Blob) -> Any:
        """The value that `put_json` kept."""
        return json.loads(self.read_bytes(blob))

    def _missing(self, blob: Blob) -> CorruptError:
        return CorruptError(
            f"{self.root_url} no longer holds blob {blob.digest} ({blob.size} bytes): "
            "materialize the asset that made it again"
        )

    # manifests and named documents ------------------------------------------------------------------

    def save(self, artefact: Artefact) -> None:
        """Make `artefact` the value of its asset and partition, in one step."""
        self._write(
            self._manifest_path(artefact.asset, ModelKey.parse(artefact.partition)),
            canonical_json(artefact.model_dump()),
        )

    def load(self, asset: str, partition: str) -> Artefact:
        """The value of an asset's partition. Raises EdgepackError if there is none."""
        path = self._manifest_path(asset, ModelKey.parse(partition))
        try:
            return Artefact.model_validate_json(self._fs.cat_file(path))
        except FileNotFoundError:
            raise EdgepackError(
                f"{asset} of {partition} is not in {self.root_url}: materialize it first"
            ) from None
        except ValidationError as error:
            raise CorruptError(f"{path}: not a manifest of this version: {error}") from None

    def manifests(self) -> Iterator[Artefact]:
        """Every artefact in the store."""
        for path in self._fs.find(f"{self._root}/manifests"):
            if path.endswith(".json"):
                yield Artefact.model_validate_json(self._fs.cat_file(path))

    def put_named(self, kind: str, key: str, value: object) -> Any:
        """Publish a document under `kind`/`key` unless there is one; the one that stands is returned."""
        found = self.get_named(kind, key)
        if found is None:
            self._write(f"{self._root}/{kind}/{key}.json", canonical_json(value), replace=False)
            found = self.get_named(kind, key)
        return found

    def get_named(self, kind: str, key: str) -> Any | None:
        """The document published under `kind`/`key`, or None."""
        try:
            return json.loads(self._fs.cat_file(f"{self._root}/{kind}/{key}.json"))
        except FileNotFoundError:
            return None

    def named(self, kind: str) -> dict[str, Any]:
        """Every document of a kind, by key."""
        return {
            Path(path).stem: json.loads(self._fs.cat_file(path))
            for path in self._fs.find(f"{self._root}/{kind}")
            if path.endswith(".json")
        }

    # garbage ----------------------------------------------------------------------------------------

    def garbage(self, needed: Iterable[str], grace: float) -> list[tuple[str, int]]:
        """(path, bytes) of blobs whose digest is not in `needed`, and of files left aside by a crash,
        that are older than `grace` seconds: a run in progress may not have written its manifest yet."""
        keep = set(needed)
        newest = time.time() - grace
        found = []
        for folder in ("blobs", "tmp"):
            for path, info in self._fs.find(f"{self._root}/{folder}", detail=True).items():
                if folder == "blobs" and Path(path).name in keep:
                    continue
                changed = info.get("mtime") or info.get("last_modified") or info.get("created") or 0
                stamp = changed if isinstance(changed, (int, float)) else changed.timestamp()
                if stamp <= newest:
                    found.append((path, int(info["size"])))
        return found

    def remove(self, paths: Iterable[str]) -> None:
        """Delete what `garbage` named."""
        for path in paths:
            self._fs.rm_file(path)

    # paths and atomic writes ------------------------------------------------------------------------

    def _blob_path(self, digest: str) -> str:
        return f"{self._root}/blobs/{digest[:2]}/{digest}"

    def _manifest_path(self, asset: str, key: ModelKey) -> str:
        return f"{self._root}/manifests/{asset}/{key.path}.json"

    def _touch(self, digest: str) -> None:
        # A blob that is used again counts as new, so that gc's grace period covers it.
        if self._local is not None:
            with contextlib.suppress(FileNotFoundError):
                os.utime(self._blob_path(digest))

    def _write(self, path: str, data: bytes, replace: bool = True) -> None:
        if self._local is not None:
            with self._local_aside(path, replace) as aside:
                aside.write_bytes(data)
            return
        # Object stores make a whole object visible at once; the mode "create" of newer fsspec is not everywhere.
        if replace or not self._fs.exists(path):
            self._fs.pipe_file(path, data)

    @contextlib.contextmanager
    def _local_aside(self, path: str, replace: bool = True) -> Iterator[Path]:
        target = Path(path)
        assert self._local is not None
        aside = self._local / "tmp" / uuid.uuid4().hex
        aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield aside
            with aside.open("rb") as stream:
                os.fsync(stream.fileno())
            target.parent.mkdir(parents=True, exist_ok=True)
            if replace:
                aside.replace(target)
            else:
                with contextlib.suppress(FileExistsError):
                    os.link(aside, target)
        except OSError as error:
            raise EdgepackError(f"{target}: cannot be written: {error.strerror or error}") from error
        finally:
            aside.unlink(missing_ok=True)


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name only when it is whole. Raises EdgepackError (disk full, ...)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with aside.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except OSError as error:
        raise EdgepackError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)
