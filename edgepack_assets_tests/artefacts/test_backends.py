"""What `backend.Backend` promises, on a local folder, on fsspec's object store in memory, and on Azure storage."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.artefacts import azure_backend, fsspec_backend
from edgepack_assets.artefacts.artefact import Blob
from edgepack_assets.artefacts.backend import Backend
from edgepack_assets.azure.blob_container import PIECE
from edgepack_assets.errors import EdgepackError


def blob_of(data: bytes) -> Blob:
    return Blob(digest=hashlib.sha256(data).hexdigest(), size=len(data), media_type="x")


def content(backend: Backend, path: str, folder: Path) -> bytes:
    """A file's bytes as `download` gives them, or where they lie."""
    if backend.local_folder is not None:
        return Path(path).read_bytes()
    target = folder / f"downloaded-{len(list(folder.iterdir()))}"
    backend.download(path, target)
    return target.read_bytes()


def test_absent_files_and_folders(backend: Backend, tmp_path: Path) -> None:
    path = f"{backend.root}/kind/absent.json"
    for missing in (path, f"{path}/below"):
        with pytest.raises(FileNotFoundError):
            backend.read(missing)
        assert not backend.use(missing)
    if backend.local_folder is None:
        with pytest.raises(FileNotFoundError):
            backend.download(path, tmp_path / "target")
        assert not (tmp_path / "target").exists()
    assert backend.list_paths(f"{backend.root}/kind") == []
    assert list(backend.list_files(f"{backend.root}/kind")) == []


@pytest.mark.parametrize("data", [b"", b"\0\xff\r\n", b"x" * (PIECE + 1)], ids=["empty", "binary", "two pieces"])
@pytest.mark.parametrize("from_file", [False, True])
def test_a_blob_comes_back_byte_for_byte(backend: Backend, tmp_path: Path, data: bytes, from_file: bool) -> None:
    source: Path | bytes = data
    if from_file:
        source = tmp_path / "source"
        source.write_bytes(data)
    path = f"{backend.root}/blobs/ab/abc"
    backend.put_blob(path, source, blob_of(data))
    backend.put_blob(path, source, blob_of(data))
    assert content(backend, path, tmp_path) == data
    assert [(file.path, file.size) for file in backend.list_files(f"{backend.root}/blobs")] == [(path, len(data))]
    assert backend.use(path, len(data))
    assert not backend.use(path, len(data) + 1)


def test_a_torn_blob_is_replaced(backend: Backend, tmp_path: Path) -> None:
    path = f"{backend.root}/blobs/ab/abc"
    backend.write(path, b"who")
    backend.put_blob(path, b"whole", blob_of(b"whole"))
    assert content(backend, path, tmp_path) == b"whole"


@pytest.mark.parametrize("size", [10, PIECE + 10])
def test_a_source_that_changed_is_refused_and_nothing_is_kept(backend: Backend, tmp_path: Path, size: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * size)
    path = f"{backend.root}/blobs/ab/abc"
    with pytest.raises(EdgepackError, match="source changed while it was read; nothing was kept"):
        backend.put_blob(path, source, blob_of(b"y" * size))
    assert backend.list_paths(backend.root) == []


def test_a_document_is_replaced_by_write_and_kept_by_create(backend: Backend) -> None:
    path = f"{backend.root}/kind/key.json"
    backend.create(path, b"first")
    backend.create(path, b"second")
    assert backend.read(path) == b"first"
    backend.write(path, b"third")
    assert backend.read(path) == b"third"
    backend.write(f"{backend.root}/kind2/key.json", b"")
    backend.write(f"{backend.root}/kind/deeper/key.json", b"")
    assert sorted(backend.list_paths(f"{backend.root}/kind")) == [f"{backend.root}/kind/deeper/key.json", path]


def test_of_several_that_create_one_file_one_wins(backend: Backend) -> None:
    path = f"{backend.root}/kind/key.json"
    texts = [f"writer {number}".encode() for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: backend.create(path, text), texts))
    winner = backend.read(path)
    assert winner in texts
    backend.create(path, b"late")
    assert backend.read(path) == winner


def test_a_file_is_removed_once_and_not_if_it_was_used_since(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (azure_backend, fsspec_backend):
        monkeypatch.setattr(module, "MARK_AGAIN", -1.0)
    paths = [f"{backend.root}/blobs/{name}" for name in ("used", "idle", "other")]
    for path in paths:
        backend.put_blob(path, b"data", blob_of(b"data"))
        assert backend.use(path)
    age(backend, paths)
    files = {file.path: file for file in backend.list_files(f"{backend.root}/blobs")}
    assert set(files) == set(paths)
    assert backend.use(paths[0])
    assert [backend.remove(files[path]) for path in paths[:2]] == [False, True]
    assert backend.remove(files[paths[1]]) is False
    assert sorted(backend.list_paths(f"{backend.root}/blobs")) == sorted([paths[0], paths[2]])
    (again,) = [file for file in backend.list_files(f"{backend.root}/blobs") if file.path == paths[0]]
    assert again.used > files[paths[0]].used or again.etag != files[paths[0]].etag
    assert backend.remove(again)


def age(backend: Backend, paths: list[str]) -> None:
    """Make local files older, whose time may have a coarse clock; the others have their own clock or an etag."""
    if backend.local_folder is not None:
        for path in paths:
            os.utime(path, (1_000_000_000, 1_000_000_000))


def test_a_local_folder_that_cannot_be_listed_is_an_error_or_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgepack_assets.artefacts.local_backend import LocalBackend

    backend = LocalBackend(tmp_path / "store")
    for name in ("seen", "closed"):
        backend.write(f"{backend.root}/manifests/{name}/1.json", b"{}")
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(EdgepackError, match=r"manifests: cannot be listed: Permission denied \(.*closed\)"):
        backend.list_paths(f"{backend.root}/manifests")
    assert [Path(file.path).parent.name for file in backend.list_files(f"{backend.root}/manifests")] == ["seen"]
