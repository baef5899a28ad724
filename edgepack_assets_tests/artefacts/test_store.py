"""The artefact store, on a local folder and on an object store: whole or absent, verified, kept if needed."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import fsspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgepack_assets.artefacts import store as artefact_store
from edgepack_assets.artefacts.artefact import Artefact, Blob, canonical_json, read_manifest
from edgepack_assets.artefacts.azure_backend import AzureBackend, is_azure
from edgepack_assets.artefacts.backend import Backend, StoredFile
from edgepack_assets.artefacts.fsspec_backend import last_change
from edgepack_assets.artefacts.store import ArtefactStore, open_backend
from edgepack_assets.config.registry_settings import AzureCredentialSettings
from edgepack_assets.errors import CorruptError, EdgepackError, PartitionKeyError
from edgepack_assets.filesystem import atomic_files
from edgepack_assets.filesystem.atomic_files import file_digest, writing
from edgepack_assets.registry.base import Kind
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets_tests.azure.loopback import LoopbackAzure
from edgepack_assets_tests.crashes import full_disk, killed_at_each_step

HOUR = 3600.0


@dataclass
class Root:
    """A store's root, and a hand on what lies in it."""

    url: str
    cache: Path
    older: dict[tuple[str, str], float] = field(default_factory=dict)
    """(path, etag) of objects whose time cannot be set -> seconds by which they count as older."""

    @cached_property
    def backend(self) -> Backend:
        return open_backend(self.url, AzureCredentialSettings(), 20)

    @property
    def path(self) -> str:
        return self.backend.root

    def store(self) -> ArtefactStore:
        return ArtefactStore(self.url, self.cache)

    def files(self, folder: str = "") -> list[str]:
        return self.backend.list_paths(f"{self.path}/{folder}".rstrip("/"))

    def overwrite(self, path: str, data: bytes) -> None:
        self.backend.write(path, data)

    def age(self, seconds: float) -> None:
        """Make everything that is there now older."""
        if is_azure(self.url):
            for file in self.backend.list_files(self.path):
                version = (file.path, file.etag)
                self.older[version] = self.older.get(version, 0.0) + seconds
            return
        for path in self.files():
            if self.url.startswith("memory:"):
                fsspec.filesystem("memory").store[path].created -= timedelta(seconds=seconds)
            else:
                changed = Path(path).stat().st_mtime - seconds
                os.utime(path, (changed, changed))


@pytest.fixture(params=["local", "memory", "abfs"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Root]:
    if request.param == "abfs":
        found = request.getfixturevalue("abfs")
        list_files = AzureBackend.list_files

        def aged(backend: AzureBackend, folder: str) -> Iterator[StoredFile]:
            for file in list_files(backend, folder):
                yield replace(file, used=file.used - found.older.get((file.path, file.etag), 0.0))

        monkeypatch.setattr(AzureBackend, "list_files", aged)
        yield found
        return
    url = str(tmp_path / "store") if request.param == "local" else f"memory://{uuid.uuid4().hex}/store"
    found = Root(url, tmp_path / "cache")
    yield found
    if request.param == "memory":
        fsspec.filesystem("memory").rm(found.path.rpartition("/")[0], recursive=True)


@pytest.fixture
def abfs(azure: LoopbackAzure, tmp_path: Path) -> Root:
    host = azure.storage.host.replace(".blob.", ".dfs.")
    return Root(f"abfs://{azure.azure_ml.container}@{host}/{uuid.uuid4().hex}/artefacts", tmp_path / "cache")


@pytest.fixture(params=["local", "abfs"])
def shared(request: pytest.FixtureRequest) -> Root:
    """A root that several processes can use."""
    found: Root = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def local(tmp_path: Path) -> Root:
    return Root(str(tmp_path / "store"), tmp_path / "cache")


def publish(store: ArtefactStore, text: str, asset: str = "metrics", partition: str = "press:1") -> Artefact:
    blob = store.put_bytes(text.encode(), "text/plain")
    made = Artefact(asset=asset, partition=partition, parts={"text": blob}, facts={"text": text})
    store.save(made)
    return made


# Blobs -------------------------------------------------------------------------------------------------


def test_equal_bytes_are_kept_once_and_come_back_verified(root: Root, tmp_path: Path) -> None:
    store = root.store()
    file = tmp_path / "some file"
    file.write_bytes(b'{"a":1}')
    blobs = [
        store.put_file(file, "application/json"),
        store.put_bytes(b'{"a":1}', "application/json"),
        root.store().put_json({"a": 1}),
    ]
    assert len(set(blobs)) == 1
    assert len(root.files("blobs")) == 1
    assert root.files("tmp") == []
    fetched = store.fetch(blobs[0])
    assert fetched.read_bytes() == b'{"a":1}'
    assert fetched.stat().st_mode & 0o777 == 0o444
    assert store.read_json(blobs[0]) == {"a": 1}
    assert store.has(blobs[0].digest)
    assert not store.has("0" * 64)


def test_the_packaging_worker_gets_a_store_that_works(root: Root) -> None:
    store = root.store()
    blob = store.put_bytes(b"for the worker", "text/plain")
    there = pickle.loads(pickle.dumps(store))
    assert there.fetch(blob).read_bytes() == b"for the worker"


def test_bytes_that_changed_or_are_gone_are_told_and_can_be_put_again(root: Root) -> None:
    store = root.store()
    blob = store.put_bytes(b"good bytes", "text/plain")
    [path] = root.files("blobs")
    root.overwrite(path, b"evil bytes")
    with pytest.raises(CorruptError, match=rf"{path.partition('/')[2]}.*{blob.digest}.*materialize"):
        store.fetch(blob)
    root.overwrite(path, b"good")
    assert store.put_bytes(b"good bytes", "text/plain") == blob
    assert store.read_bytes(blob) == b"good bytes"
    lost = blob.model_copy(update={"digest": "0" * 64})
    with pytest.raises(CorruptError, match=r"does not hold blob 0{64} \(10 bytes\)"):
        store.fetch(lost)


def test_a_damaged_copy_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    root = Root(f"memory://{uuid.uuid4().hex}", tmp_path / "cache")
    blob = root.store().put_bytes(b"good bytes", "text/plain")
    cached = root.store().fetch(blob)
    cached.chmod(0o644)
    cached.write_bytes(b"evil bytes")
    assert root.store().fetch(blob).read_bytes() == b"good bytes"
    assert list((tmp_path / "cache").rglob("*.tmp")) == []


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    local: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "growing"
    file.write_bytes(b"before")
    digest = atomic_files.file_digest(file)
    monkeypatch.setattr(artefact_store, "file_digest", lambda path: digest)
    file.write_bytes(b"behind")
    with pytest.raises(EdgepackError, match="growing changed while it was read"):
        local.store().put_file(file, "text/plain")
    assert local.files() == []


def test_a_store_that_became_read_only_is_told_with_the_path(local: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = local.store().put_bytes(b"part", "text/plain")

    def read_only(path: object, *_: object) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(os, "utime", read_only)
    with pytest.raises(EdgepackError, match=rf"{kept.digest}: cannot be written: Read-only file system"):
        local.store().put_bytes(b"part", "text/plain")


def test_a_full_disk_is_told_with_the_path_and_leaves_what_was(local: Root, tmp_path: Path) -> None:
    store = local.store()
    old = publish(store, "old")
    before = local.files()
    big = tmp_path / "big"
    big.write_bytes(b"x" * 100_000)
    with full_disk(20_000):
        with pytest.raises(EdgepackError, match=rf"{local.path}/blobs/.*: cannot be written: File too large"):
            store.put_file(big, "text/plain")
        with (
            pytest.raises(EdgepackError, match="report: cannot be written"),
            writing(tmp_path / "report") as out,
        ):
            out.write(b"x" * 100_000)
    assert local.files() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["big", "store"]
    assert store.load("metrics", "press:1") == old


# Artefacts ---------------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.integers(), inner, max_size=9)
        | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(texts, json_values, max_size=4))
def test_a_digest_outlives_being_stored(facts: dict[str, Any]) -> None:
    made = Artefact(asset="metrics", partition="press:1", parts={}, facts=facts)
    again = Artefact.model_validate_json(canonical_json(made.model_dump()))
    assert again == made
    assert again.digest == made.digest


def test_the_digest_is_of_content_alone() -> None:
    blob = Blob(digest="a" * 64, size=3, media_type="text/plain")
    made = Artefact(asset="metrics", partition="press:1", parts={"x": blob}, facts={"n": 1})
    assert made.model_copy(update={"observations": {"timings": blob}}).digest == made.digest
    assert made.model_copy(update={"made_from": {"payload_data": "b" * 64}}).digest == made.digest
    assert made.model_copy(update={"facts": {"n": 2}}).digest != made.digest
    assert made.model_copy(update={"parts": {"y": blob}}).digest != made.digest
    with pytest.raises(ValueError, match="not JSON compliant"):
        Artefact(asset="metrics", partition="press:1", parts={}, facts={"n": float("nan")})


def test_what_is_saved_is_loaded_per_asset_and_partition(root: Root) -> None:
    store = root.store()
    assert list(store.manifests()) == []
    one, two = publish(store, "one"), publish(store, "two", partition="press:2")
    three = publish(store, "three", asset="payload_data")
    assert root.store().load("metrics", "press:1") == one
    assert publish(store, "one again") == root.store().load("metrics", "press:1") != one
    assert {made.facts["text"] for made in store.manifests()} == {"one again", "two", "three"}
    assert (store.load("metrics", "press:2"), store.load("payload_data", "press:1")) == (two, three)
    with pytest.raises(EdgepackError, match=r"metrics of press:3 is not in .*: materialize it first"):
        store.load("metrics", "press:3")
    with pytest.raises(PartitionKeyError):
        store.load("metrics", "../press:3")


def test_a_manifest_never_names_bytes_that_are_not_there(root: Root) -> None:
    store = root.store()
    old = publish(store, "old")
    lost = Blob(digest="0" * 64, size=3, media_type="text/plain")
    with pytest.raises(CorruptError, match="does not hold blob"):
        store.save(old.model_copy(update={"observations": {"timings": lost}}))
    assert store.load("metrics", "press:1") == old


@pytest.mark.parametrize("content", [b"", b"{}", b'{"asset": "metr', b'{"asset": "metrics", "future": 1}'])
def test_a_manifest_that_cannot_be_read_is_never_passed_over(root: Root, content: bytes) -> None:
    store = root.store()
    publish(store, "text")
    [path] = root.files("manifests")
    root.overwrite(path, content)
    for read in (lambda: store.load("metrics", "press:1"), lambda: list(store.manifests())):
        with pytest.raises(CorruptError, match=f"{path}: not a manifest"):
            read()


def test_a_manifest_in_the_wrong_place_is_refused(local: Root) -> None:
    store = local.store()
    publish(store, "text")
    manifest = Path(local.files("manifests")[0])
    manifest.rename(manifest.with_name("2.json"))
    with pytest.raises(CorruptError, match=r"is the manifest of metrics of press:1"):
        store.load("metrics", "press:2")


def old_manifest(made: Artefact) -> bytes:
    """What earlier versions stored: the same fields without a digest."""
    return canonical_json(made.model_dump())


def test_a_manifest_of_an_earlier_version_is_read(root: Root) -> None:
    store = root.store()
    made = publish(store, "text")
    assert store.load("metrics", "press:1").has_own_digest
    [path] = root.files("manifests")
    root.overwrite(path, old_manifest(made))
    found = root.store().load("metrics", "press:1")
    assert not found.has_own_digest
    assert (found.model_dump(), found.digest) == (made.model_dump(), made.digest)
    assert [each.digest for each in store.manifests()] == [made.digest]
    store.save(found)
    assert root.store().load("metrics", "press:1") == made


def one_byte_changes(data: bytes) -> Iterator[bytes]:
    """Every single bit flipped, every byte left out, every byte doubled, every digit raised, every end cut off."""
    for at, byte in enumerate(data):
        for other in {*(byte ^ (1 << bit) for bit in range(8)), *([byte + 1] if chr(byte).isdigit() else [])}:
            yield data[:at] + bytes([other]) + data[at + 1 :]
        yield data[:at] + data[at + 1 :]
        yield data[: at + 1] + data[at:]
        yield data[:at]


def full_artefact() -> Artefact:
    blob = Blob(digest="a" * 64, size=3, media_type="text/plain")
    other = Blob(digest="b" * 64, size=30, media_type="x")
    return Artefact(
        asset="metrics", partition="press:1", parts={"m": blob, "n": other}, facts={"metrics": {"s": 0.7, "d": None}},
        made_from={"payload_data": "c" * 64, "config_package": "d" * 64}, observations={"times": other},
    )  # fmt: skip


def test_a_change_of_one_byte_in_a_manifest_is_refused_or_means_the_same() -> None:
    made = full_artefact()
    refused = 0
    for changed in one_byte_changes(made.manifest()):
        try:
            found = read_manifest(changed, "m.json", "metrics", "press:1")
        except CorruptError as error:
            assert str(error).startswith("m.json: ")
            assert str(error).endswith("; materialize metrics of press:1 again")
            refused += 1
        else:
            assert found == made
    assert refused > 1000


@given(st.data())
def test_a_change_of_any_field_in_a_manifest_is_refused(data: st.DataObject) -> None:
    """One value of the JSON tree is replaced, left out or added, and the text is written as canonically as before."""
    document = json.loads(full_artefact().manifest())
    place: Any = document
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not (isinstance(place[key], dict) and place[key] and data.draw(st.booleans())):
            break
        place = place[key]
    before = canonical_json(document)
    change = data.draw(st.sampled_from(["replace", "remove", "add"]))
    if change == "remove":
        del place[key]
    else:
        place[key if change == "replace" else data.draw(texts)] = data.draw(json_values)
    # Without its digest it is a manifest of an earlier version, which the IO manager compares with Dagster's record.
    assume(canonical_json(document) != before and document.get("manifest_digest") is not None)
    with pytest.raises(CorruptError):
        read_manifest(canonical_json(document), "m.json", "metrics", "press:1")


@pytest.mark.parametrize("other", [("metrics", "press:2"), ("payload_data", "press:1")])
def test_manifests_that_are_swapped_are_refused(root: Root, other: tuple[str, str]) -> None:
    store = root.store()
    publish(store, "one")
    publish(store, "two", *other)
    paths = root.files("manifests")
    contents = [root.backend.read(path) for path in paths]
    for path, content in zip(paths, reversed(contents), strict=True):
        root.overwrite(path, content)
    for asset, partition in (("metrics", "press:1"), other):
        with pytest.raises(CorruptError, match=rf"is the manifest of .*; materialize {asset} of {partition} again"):
            root.store().load(asset, partition)
    with pytest.raises(CorruptError, match="is the manifest of"):
        list(root.store().manifests())


def test_a_crash_at_any_step_leaves_the_old_artefact_or_the_new_one(local: Root) -> None:
    old = publish(local.store(), "old")
    seen = set()
    step = 0
    for step in killed_at_each_step(lambda step: publish(local.store(), f"new {step}")):
        store = local.store()
        found = store.load("metrics", "press:1")
        assert found == old or found.facts == {"text": f"new {step}"}
        assert store.read_bytes(found.parts["text"]).decode() == found.facts["text"]
        assert [made.digest for made in store.manifests()] == [found.digest]
        seen.add(found == old)
        store.save(old)
    assert seen == {True, False}
    assert step > 10
    assert local.store().load("metrics", "press:1").facts == {"text": f"new {step + 1}"}
    # What the crashes left aside is garbage, and nothing else is.
    local.age(2 * HOUR)
    store = local.store()
    needed = [blob.digest for made in store.manifests() for blob in made.blobs()]
    store.remove(store.garbage(needed, HOUR))
    assert local.files("tmp") == []
    assert len(local.files("blobs")) == 1


# Named documents ---------------------------------------------------------------------------------------


def test_the_first_document_under_a_name_stands(root: Root) -> None:
    store = root.store()
    assert store.get_named("locks", "k") is None
    assert store.named("locks") == {}
    assert store.put_named("locks", "k", {"n": 1}) == {"n": 1}
    assert root.store().put_named("locks", "k", {"n": 2}) == {"n": 1}
    store.put_named("locks", "k.2", None)
    assert store.named("locks") == {"k": {"n": 1}, "k.2": None}
    with pytest.raises(ValueError, match="cannot be the key"):
        store.put_named("locks", "../manifests/x", {})
    [path] = [path for path in root.files("locks") if path.endswith("k.json")]
    root.overwrite(path, b'{"n":')
    for read in (lambda: store.get_named("locks", "k"), lambda: store.named("locks")):
        with pytest.raises(CorruptError, match=f"{path}: not JSON"):
            read()


def _put_many(url: str, cache: Path, me: int, start: Any, answers: Any) -> None:
    store = ArtefactStore(url, cache)
    start.wait()
    answers.put([store.put_named("locks", f"k{n}", {"by": me}) for n in range(40)])


def test_processes_that_publish_at_once_all_get_the_same_documents(shared: Root) -> None:
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(3), context.Queue()
    processes = [
        context.Process(target=_put_many, args=(shared.url, shared.cache, me, start, answers)) for me in range(3)
    ]
    for process in processes:
        process.start()
    given = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    standing = shared.store().named("locks")
    assert len(standing) == 40
    assert all(answer == [standing[f"k{n}"] for n in range(40)] for answer in given)
    assert shared.files("tmp") == []


# Garbage -----------------------------------------------------------------------------------------------


def test_garbage_is_what_is_neither_needed_nor_recent(root: Root) -> None:
    store = root.store()
    publish(store, "replaced")
    kept = publish(store, "kept")
    store.put_named("locks", "k", {})
    root.age(2 * HOUR)
    store = root.store()
    recent = store.put_bytes(b"of a run in progress", "text/plain")
    again = store.put_bytes(b"replaced", "text/plain")
    needed = {blob.digest for blob in kept.blobs()}
    assert store.garbage(needed, HOUR) == []  # "replaced" is used again
    assert {Path(item.path).name for item in store.garbage(needed, 0)} == {recent.digest, again.digest}

    root.age(2 * HOUR)
    found = store.garbage(needed, HOUR)
    assert {Path(item.path).name: item.size for item in found} == {recent.digest: 20, again.digest: 8}
    assert root.store().has(again.digest)  # somebody needs it after all, before it is deleted
    assert [Path(item.path).name for item in store.remove(found)] == [recent.digest]
    assert store.remove(found) == []
    assert store.read_bytes(again) == b"replaced"
    assert store.read_bytes(kept.parts["text"]) == b"kept"
    assert root.files("tmp") == []


def test_documents_are_idle_until_they_are_read(root: Root) -> None:
    root.store().put_named("locks", "k", {})
    root.store().put_named("locks", "l", {})
    root.age(2 * HOUR)
    store = root.store()
    assert set(store.named("locks")) == set(store.idle_named("locks", HOUR)) == {"k", "l"}
    idle = store.idle_named("locks", HOUR)
    assert store.get_named("locks", "k") == {}
    assert set(store.idle_named("locks", HOUR)) == {"l"}
    assert [Path(item.path).stem for item in store.remove(idle.values())] == ["l"]
    assert set(store.named("locks")) == {"k"}


def test_a_blob_that_is_put_while_it_is_removed_survives(local: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    store = local.store()
    blob = store.put_bytes(b"text", "text/plain")
    local.age(2 * HOUR)
    garbage = store.garbage([], HOUR)
    rename: Callable[[Path, Any], Path] = Path.rename

    def put_then_rename(path: Path, target: Any) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        local.store().put_bytes(b"text", "text/plain")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", put_then_rename)
    assert store.remove(garbage) == []
    assert store.read_bytes(blob) == b"text"


@pytest.mark.parametrize("key", ["mtime", "last_modified", "LastModified"])
def test_every_storage_has_its_own_name_for_the_time(key: str) -> None:
    moment = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert last_change({key: moment, "created": 1.0}) == moment.timestamp()
    assert last_change({"created": 1.5}) == 1.5
    with pytest.raises(EdgepackError, match="x: its storage does not say"):
        last_change({"name": "x"})


def test_a_final_file_gets_a_second_name_where_that_is_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = LocalRegistry(tmp_path / "registry")
    (tmp_path / "m.bin").write_bytes(b"weights")
    model = registry.register(Kind.MODEL, "press", tmp_path / "m.bin", {})
    kept, root = Path(model.location), tmp_path / "store"
    store = ArtefactStore(str(root), tmp_path / "cache")
    viewed = registry.view(model, tmp_path / "view")
    blob = store.put_file(viewed, "x", is_final=True)
    assert store.fetch(blob).samefile(kept)
    assert store.put_file(viewed, "x", is_final=True) == blob
    assert store._backend.link_blob(str(store.fetch(blob)), viewed)  # two names of one file
    assert list((root / "tmp").iterdir()) == []

    # neither side takes the other's file away
    store.remove(store.garbage([], -60))
    assert not store.has(blob.digest) and kept.read_bytes() == b"weights"
    store.put_file(viewed, "x", is_final=True)
    shutil.rmtree(tmp_path / "registry" / "models")
    assert store.fetch(blob).read_bytes() == b"weights"
    model = registry.register(Kind.MODEL, "press", tmp_path / "m.bin", {})

    # damage under both names is found under both
    store.remove(store.garbage([], -60))
    store.put_file(registry.view(model, tmp_path / "again"), "x", is_final=True)
    kept = Path(model.location)
    kept.chmod(0o644)
    kept.write_bytes(b"WEIGHTS")
    with pytest.raises(CorruptError, match="bytes differ"):
        store.fetch(blob)
    with pytest.raises(CorruptError, match="bytes differ"):
        registry.view(model, tmp_path / "damaged")
    store.remove(store.garbage([], -60))

    # a file that may be written into, another user's, and one on another device are copied
    def is_copied(file: Path, digest: str) -> bool:
        made = store.put_file(file, "x", is_final=True)
        path = store.fetch(made)
        return made.digest == digest and not path.samefile(file) and path.stat().st_mode & 0o777 == 0o444

    another = os.geteuid() + 1
    for name in ("writable", "theirs", "far"):
        file = tmp_path / name
        file.write_bytes(name.encode())
        file.chmod(0o644 if name == "writable" else 0o444)
        with monkeypatch.context() as patch:
            if name == "theirs":
                patch.setattr("os.geteuid", lambda: another)
            if name == "far":
                patch.setattr("os.link", elsewhere)
            assert is_copied(file, file_digest(file))


def elsewhere(*arguments: Any, **named: Any) -> NoReturn:
    raise OSError(errno.EXDEV, "another file system")


def test_a_file_that_is_moved_becomes_the_blob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtefactStore(str(tmp_path / "store"), tmp_path / "cache")
    (tmp_path / "package").write_bytes(b"a package")
    number = (tmp_path / "package").stat().st_ino
    blob = store.put_file(tmp_path / "package", "x", move=True)
    kept = store.fetch(blob)
    assert (kept.stat().st_ino, kept.read_bytes()) == (number, b"a package")
    assert kept.stat().st_mode & 0o777 == 0o444
    assert not (tmp_path / "package").exists()

    (tmp_path / "again").write_bytes(b"a package")
    assert store.put_file(tmp_path / "again", "x", move=True) == blob
    assert store.fetch(blob).stat().st_ino == number, "what is there already stays"

    def elsewhere(*arguments: Any) -> NoReturn:
        raise OSError(errno.EXDEV, "another file system")

    (tmp_path / "far").write_bytes(b"another package")
    with monkeypatch.context() as patched:
        patched.setattr(artefact_store.LocalBackend, "move_blob", lambda *_: False)
        far = store.put_file(tmp_path / "far", "x", move=True)
    assert store.fetch(far).read_bytes() == b"another package"
    monkeypatch.setattr(Path, "replace", elsewhere)
    (tmp_path / "far").write_bytes(b"a third")
    assert not store._backend.move_blob(str(tmp_path / "store" / "blobs" / "x"), tmp_path / "far")
    assert (tmp_path / "far").read_bytes() == b"a third"


def test_a_large_blob_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgepack_assets.filesystem.verified_files.SMALLEST", 1000)
    store = ArtefactStore(str(tmp_path / "store"), tmp_path / "cache")
    read: list[Path] = []
    digest = artefact_store.file_digest

    def counting(path: Path) -> str:
        read.append(path)
        return digest(path)

    monkeypatch.setattr(artefact_store, "file_digest", counting)
    (tmp_path / "package").write_bytes(b"p" * 1000)
    blob = store.put_file(tmp_path / "package", "x", move=True)
    assert len(read) == 1
    assert store.has(blob.digest) and store.fetch(blob) and store.fetch(blob), "its use is noted, and it is known still"
    assert len(read) == 1
    small = store.put_bytes(b"s" * 999, "x")
    assert store.fetch(small) and store.fetch(small) and len(read) == 3

    kept = store.fetch(blob)
    kept.chmod(0o644)
    kept.write_bytes(b"q" * 1000)
    os.utime(kept, ns=(0, 0))
    for _ in range(2):
        store.has(blob.digest)
        with pytest.raises(CorruptError, match="bytes differ"):
            store.fetch(blob)
    kept.write_bytes(b"p" * 1000)
    assert store.fetch(blob) and store.fetch(blob)
    assert len(read) == 6
    assert ArtefactStore(str(tmp_path / "store"), tmp_path / "cache").fetch(blob) and len(read) == 7
