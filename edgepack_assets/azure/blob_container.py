"""Moving bytes to and from blob storage: in pieces, each a remote call of its own, in bounded memory.

A container's right to be read or written may expire under way: it is asked for anew once, then believed."""

from __future__ import annotations

import base64
import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgepack_assets.azure.calls import Remote
from edgepack_assets.azure.errors import AbsentError, AccessError, RefusedError
from edgepack_assets.errors import CorruptError, EdgepackError
from edgepack_assets.filesystem.atomic_files import disk_errors

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

PIECE = 8 << 20
"""Bytes of one request. With `_MOVERS` at once, 32 MiB are in memory, whatever a model's size."""
_MOVERS = 4
_REPORTED_FROM = 64 << 20
"""Progress of fewer bytes is not worth a line in the log."""


@dataclass(frozen=True)
class Blob:
    """A file below a path: its name relative to that path ("" for the path itself), and what storage says of it."""

    name: str
    full_name: str
    size: int
    etag: str
    md5: str
    changed: float = 0.0
    """Seconds since the epoch."""


class Container:
    """A blob container, opened with `opened` when first used and again when its right has expired."""

    def __init__(self, remote: Remote[Any], opened: Callable[[], ContainerClient]) -> None:
        self.remote = remote
        self._opened = opened
        self._client: ContainerClient | None = None
        self._lock = threading.Lock()

    def call(self, doing: str, function: Callable[[ContainerClient], _T]) -> _T:
        """A remote call on the container; once more with a fresh right if the one at hand is refused."""
        client = self._open(None)
        try:
            return self.remote.call(doing, lambda: function(client))
        except AccessError:
            fresh = self._open(client)
            return self.remote.call(doing, lambda: function(fresh))

    def _open(self, refused: ContainerClient | None) -> ContainerClient:
        with self._lock:
            if self._client is None or self._client is refused:
                self._client = self._opened()
            return self._client

    # listing ----------------------------------------------------------------------------------------------

    def find(self, path: str, is_folder: bool | None = None) -> tuple[bool, list[Blob]]:
        """(whether `path` is a folder, its files sorted by name; of a file, itself). Empty if nothing is there.

        Names that only start alike ("model2" for "model") are not below it."""
        path = path.strip("/")
        exact, below = [], []
        for item in self._items(path):
            name = str(item.name)
            if _is_marker(item):
                continue
            content = item.content_settings
            md5 = bytes(content.content_md5).hex() if content is not None and content.content_md5 else ""
            properties = (name, item.size, str(item.etag), md5, item.last_modified.timestamp())
            if name == path:
                exact.append(Blob("", *properties))
            elif not path or name.startswith(path + "/"):
                below.append(Blob(name[len(path) :].lstrip("/"), *properties))
        folder = bool(below) if is_folder is None else is_folder
        return folder, sorted(below if folder else exact, key=lambda blob: blob.name)

    def _items(self, path: str) -> Iterator[Any]:
        doing = f"listing the files of {path}"

        token: str | None = None
        while True:

            def page(client: ContainerClient, token: str | None = token) -> tuple[list[Any], str | None]:
                listing: Any = client.list_blobs(name_starts_with=path, include=["metadata"]).by_page(token)
                return list(next(listing, [])), listing.continuation_token

            items, token = self.call(doing, page)
            yield from items
            if not token:
                return

    # moving -----------------------------------------------------------------------------------------------

    def upload(self, files: Sequence[tuple[str, Path]], subject: str) -> None:
        """Write files to the given blob names; every one is whole when this returns."""
        sizes = [path.stat().st_size for _, path in files]
        progress = _Progress(f"uploading {subject}", sum(sizes))
        pieces = [
            (name, path, offset, size)
            for (name, path), size in zip(files, sizes, strict=True)
            for offset in range(0, max(size, 1), PIECE)
        ]

        def move(piece: tuple[str, Path, int, int]) -> None:
            name, path, offset, size = piece
            data = _read(path, offset, min(PIECE, size - offset))
            doing = f"uploading {path.name}"
            if size <= PIECE:
                self.call(doing, lambda c: c.get_blob_client(name).upload_blob(data, overwrite=True))
            else:
                self.call(doing, lambda c: c.get_blob_client(name).stage_block(_block(offset), data, len(data)))
            progress.add(len(data))

        _at_once(move, pieces)
        for (name, path), size in zip(files, sizes, strict=True):
            if size > PIECE:
                self._commit(name, path, size)

    def _commit(self, name: str, path: Path, size: int) -> None:
        from azure.storage.blob import BlobBlock

        blocks = [BlobBlock(block_id=_block(offset)) for offset in range(0, size, PIECE)]
        self.call(f"uploading {path.name}", lambda c: c.get_blob_client(name).commit_block_list(blocks))

    def publish(self, name: str, pieces: Iterable[bytes], size: int, subject: str, *, replace: bool) -> None:
        """Write one blob of `size` bytes, given in pieces of `PIECE` bytes (the last one shorter). It appears when it
        is whole; where `pieces` raises nothing does. Without `replace` raises RefusedError if there is one."""
        doing = f"writing {subject}"
        if size <= PIECE:
            data = b"".join(pieces)
            self.call(doing, lambda c: c.get_blob_client(name).upload_blob(data, overwrite=replace))
            return
        from azure.core import MatchConditions
        from azure.storage.blob import BlobBlock

        # Blocks of two who write one blob must not mix, so their names are this upload's own.
        attempt, blocks, progress = uuid.uuid4().hex, [], _Progress(doing, size)

        def stage(block: str, data: bytes) -> None:
            self.call(doing, lambda c: c.get_blob_client(name).stage_block(block, data, len(data)))
            progress.add(len(data))

        with ThreadPoolExecutor(_MOVERS, thread_name_prefix="azure-move") as pool:
            moving: deque[Future[None]] = deque()
            for number, data in enumerate(pieces):
                if len(moving) == _MOVERS:
                    moving.popleft().result()
                block = base64.b64encode(f"{attempt}-{number:08d}".encode()).decode()
                blocks.append(BlobBlock(block_id=block))
                moving.append(pool.submit(stage, block, data))
            for move in moving:
                move.result()
        absent: Any = {} if replace else {"match_condition": MatchConditions.IfMissing}
        self.call(doing, lambda c: c.get_blob_client(name).commit_block_list(blocks, **absent))

    def download(self, blobs: Iterable[tuple[Blob, Path]], subject: str) -> None:
        """Write blobs to files. Raises CorruptError if one is gone, was replaced meanwhile (where its etag is known),
        or is not whole."""
        wanted = list(blobs)
        progress = _Progress(f"downloading {subject}", sum(blob.size for blob, _ in wanted))
        for blob, path in wanted:
            with disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as stream:
                    stream.truncate(blob.size)

        def move(piece: tuple[Blob, Path, int]) -> None:
            blob, path, offset = piece
            data = self._piece(blob, offset, min(PIECE, blob.size - offset))
            with disk_errors(path), path.open("r+b") as stream:
                stream.seek(offset)
                stream.write(data)
            progress.add(len(data))

        _at_once(move, [(blob, path, offset) for blob, path in wanted for offset in range(0, blob.size, PIECE)])

    def _piece(self, blob: Blob, offset: int, length: int) -> bytes:
        from azure.core import MatchConditions

        unchanged: Any = {"etag": blob.etag, "match_condition": MatchConditions.IfNotModified} if blob.etag else {}

        def read(client: ContainerClient) -> bytes:
            source: BlobClient = client.get_blob_client(blob.full_name)
            data: bytes = source.download_blob(offset, length, max_concurrency=1, **unchanged).readall()
            return data

        try:
            data = self.call(f"downloading {blob.full_name}", read)
        except AbsentError as error:
            raise CorruptError(f"{blob.full_name}: is gone: {error}") from None
        except RefusedError as error:
            raise CorruptError(f"{blob.full_name}: was replaced while it was downloaded: {error}") from None
        if len(data) != length:
            raise CorruptError(f"{blob.full_name}: {len(data)} bytes came instead of {length}")
        return data


def _at_once(move: Callable[[_T], None], pieces: list[_T]) -> None:
    """`move` every piece, some at once; the first error ends it, and no piece is begun after it."""
    pool = ThreadPoolExecutor(_MOVERS, thread_name_prefix="azure-move")
    try:
        for _ in pool.map(move, pieces):
            pass
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _read(path: Path, offset: int, length: int) -> bytes:
    with disk_errors(path, "read"), path.open("rb") as stream:
        stream.seek(offset)
        data = stream.read(length)
    if len(data) != length:
        raise EdgepackError(f"{path}: changed while it was uploaded; register it again")
    return data


def _block(offset: int) -> str:
    return base64.b64encode(f"{offset:032d}".encode()).decode()


def _is_marker(item: Any) -> bool:
    """Whether a blob only stands for a folder, as accounts with a hierarchical namespace list them."""
    metadata = {str(key).lower(): str(value).lower() for key, value in (item.metadata or {}).items()}
    return metadata.get("hdi_isfolder") == "true" or (item.size == 0 and str(item.name).endswith("/"))


class _Progress:
    """Tells the log every tenth of a large transfer."""

    def __init__(self, doing: str, total: int) -> None:
        self._doing, self._total, self._done, self._reported = doing, total, 0, 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            tenth = 10 * self._done // max(self._total, 1)
            if self._total >= _REPORTED_FROM and tenth > self._reported:
                self._reported = tenth
                _log.info("%s: %d of %d MB", self._doing, self._done // 10**6, self._total // 10**6)
