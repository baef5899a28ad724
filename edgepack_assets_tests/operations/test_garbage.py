"""What `edgepack gc` finds in a store with many manifests."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.artefacts.local_backend import LocalBackend
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.errors import CorruptError
from edgepack_assets.operations.garbage import find_garbage
from edgepack_assets.registry.local import LocalRegistry


def test_each_manifest_is_read_once_and_all_it_names_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, registry = ArtefactStore(str(tmp_path / "store"), tmp_path / "cache"), LocalRegistry(tmp_path / "registry")
    kept = set()
    for number in range(1, 6):
        parts = {name: store.put_bytes(f"{name} {number}".encode(), "x") for name in ("package", "results")}
        times = store.put_bytes(f"times {number}".encode(), "x")
        artefact = Artefact(asset="a", partition=f"press:{number}", parts=parts, observations={"times": times})
        store.save(artefact)
        kept |= {blob.digest for blob in artefact.blobs()}
    unneeded = {store.put_bytes(f"unneeded {number}".encode(), "x").digest for number in range(3)}
    reads: Counter[str] = Counter()
    works = LocalBackend.read

    def counted(self: LocalBackend, path: str) -> bytes:
        reads[path] += 1
        return works(self, path)

    def found(damaged: list[CorruptError] | None = None) -> set[str]:
        return {Path(file.path).name for file in find_garbage(store, registry, tmp_path / "none", -1, damaged=damaged)}

    with monkeypatch.context() as patch:
        patch.setattr(LocalBackend, "read", counted)
        assert found() == unneeded
    assert len(reads) == 5 and set(reads.values()) == {1}

    damaged = tmp_path / "store" / "manifests" / "a" / "press" / "3.json"
    damaged.write_bytes(damaged.read_bytes().replace(b"package", b"pa"))
    with pytest.raises(CorruptError, match=r"3\.json"):
        found()
    told: list[CorruptError] = []
    assert found(told) == set()  # it may need any blob
    assert len(told) == 1
    damaged.unlink()
    assert found() & kept == {
        store.put_bytes(data, "x").digest for data in (b"package 3", b"results 3", b"times 3")
    }  # fmt: skip


@pytest.mark.parametrize("folder", ["locks", "side-jobs", "answers"])
@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"packages": 1, "outputs": 1}', '{"packages": [1], "outputs": {"a": 1}}']
)
def test_a_document_that_cannot_be_read_keeps_everything_and_is_named(tmp_path: Path, folder: str, text: str) -> None:
    store, registry = ArtefactStore(str(tmp_path / "store"), tmp_path / "cache"), LocalRegistry(tmp_path / "registry")
    store.put_bytes(b"may be a wheel", "x")
    left = tmp_path / "store" / "tmp" / "left"
    left.parent.mkdir(exist_ok=True)
    left.touch()
    document = tmp_path / "store" / folder / ("0" * 64 + ".json")
    document.parent.mkdir(exist_ok=True)
    document.write_text(text)
    with pytest.raises(CorruptError, match="delete it"):
        find_garbage(store, registry, tmp_path / "none", -1)
    told: list[CorruptError] = []
    found = find_garbage(store, registry, tmp_path / "none", -1, damaged=told)
    assert [Path(file.path).name for file in found] == ["left"]
    assert [str(document) in str(error) for error in told] == [True]
