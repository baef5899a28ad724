"""What every registry must do, against the interface: the local one, an Azure ML workspace, an Azure ML registry."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.errors import EdgepackError, NotFoundError, VersionTakenError
from edgepack_assets.registry.base import (
    Kind,
    Registry,
    content_digest,
    files_of,
    latest,
    resolve,
)


@pytest.fixture(params=["local", "azure_workspace", "azure_registry"])
def registry(request: pytest.FixtureRequest) -> Registry:
    found: Registry = request.getfixturevalue(request.param)
    return found


def contents(path: Path) -> dict[str, bytes]:
    return {name: file.read_bytes() for name, file in files_of(path)}


def test_the_newest_version_is_the_highest(registry: Registry, model: Path) -> None:
    assert registry.newest_version(Kind.MODEL, "press") is None
    for version in (1, 8, 7, 10):
        registry.register(Kind.MODEL, "press", model, {}, version=version)
        assert registry.newest_version(Kind.MODEL, "press") == max(version, 8 if version > 1 else 1)
    registry.register(Kind.DATA, "press", model, {})
    assert registry.newest_version(Kind.DATA, "press") == 1
    with pytest.raises(EdgepackError, match="cannot be the name"):
        registry.newest_version(Kind.MODEL, "../press")


@pytest.mark.parametrize("kind", Kind)
def test_what_is_registered_comes_back(registry: Registry, model: Path, tmp_path: Path, kind: Kind) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    tags = {"lot": "a=b", "größe": "", "long": "x" * 5000}
    made = registry.register(kind, "press", model, tags)
    assert (made.kind, made.name, made.version, str(made)) == (kind, "press", 1, "press:1")
    assert made.tags == tags
    assert (made.digest, made.size) == content_digest(model)
    assert made.is_folder
    assert before <= made.created <= datetime.now(UTC) + timedelta(seconds=1)
    assert made.created.utcoffset() == timedelta(0)
    assert registry.get(kind, "press", 1) == made

    got = registry.download(made, tmp_path / "new" / "place")
    assert got == tmp_path / "new" / "place" / "press model"
    assert contents(got) == contents(model)
    assert list(got.parent.iterdir()) == [got]


def test_a_single_file_keeps_its_name(registry: Registry, model: Path, tmp_path: Path) -> None:
    file = model / "data" / "model.pkl"
    made = registry.register(Kind.DATA, "raw", file, {})
    assert not made.is_folder
    assert (made.digest, made.size) == content_digest(file)
    assert registry.download(made, tmp_path).read_bytes() == file.read_bytes()
    assert (tmp_path / "model.pkl").is_file()


def test_versions_count_up_and_never_change(registry: Registry, model: Path, tmp_path: Path) -> None:
    first = registry.register(Kind.MODEL, "press", model, {"n": "1"})
    (model / "MLmodel").write_text("other")
    second = registry.register(Kind.MODEL, "press", model, {"n": "2"})
    tenth = registry.register(Kind.MODEL, "press", model, {}, version=10)
    eleventh = registry.register(Kind.MODEL, "press", model, {})
    registry.register(Kind.MODEL, "another", model, {})
    registry.register(Kind.DATA, "raw", model, {})
    assert registry.versions(Kind.MODEL, "press") == [first, second, tenth, eleventh]
    assert [found.version for found in registry.versions(Kind.MODEL, "press")] == [1, 2, 10, 11]
    assert first.digest != second.digest == tenth.digest
    assert first.created <= second.created <= tenth.created
    assert registry.names(Kind.MODEL) == ["another", "press"]
    assert registry.names(Kind.DATA) == ["raw"]
    assert contents(registry.download(first, tmp_path / "1"))["MLmodel"] == b"flavors: {}\n"
    assert latest(registry, Kind.MODEL, "press") == resolve(registry, Kind.MODEL, "press", "latest") == eleventh
    assert resolve(registry, Kind.MODEL, "press", 2) == second


def test_a_version_that_is_taken_stays_what_it_is(registry: Registry, model: Path) -> None:
    first = registry.register(Kind.MODEL, "press", model, {"n": "1"})
    with pytest.raises(VersionTakenError, match=r"press:1 is registered already"):
        registry.register(Kind.MODEL, "press", model, {"n": "2"}, version=1)
    assert registry.versions(Kind.MODEL, "press") == [first]


def test_tags_are_merged(registry: Registry, model: Path) -> None:
    made = registry.register(Kind.MODEL, "press", model, {"keep": "1", "change": "1"})
    changed = registry.set_tags(made, {"change": "2", "add": "3"})
    assert changed.tags == {"keep": "1", "change": "2", "add": "3"}
    assert registry.get(Kind.MODEL, "press", 1) == changed
    assert (changed.created, changed.resolve().digest) == (made.created, made.digest)
    # A tag that is both taken away and given is given.
    less = registry.set_tags(made, {"new": "4", "add": "5"}, without=["keep", "add", "never there"])
    assert registry.get(Kind.MODEL, "press", 1).tags == less.tags == {"change": "2", "new": "4", "add": "5"}
    assert less.resolve().digest == made.digest


@pytest.mark.parametrize("tags", [{"n": 1}, {"n": None}, {1: "n"}, {"": "n"}])
def test_tags_that_are_no_text_are_refused(registry: Registry, model: Path, tags: Any) -> None:
    with pytest.raises(EdgepackError, match=r"tag .* cannot be kept"):
        registry.register(Kind.MODEL, "press", model, tags)
    assert registry.names(Kind.MODEL) == []
    made = registry.register(Kind.MODEL, "press", model, {})
    with pytest.raises(EdgepackError, match=r"tag .* cannot be kept"):
        registry.set_tags(made, tags)


def test_what_is_not_there_is_told_with_what_is(registry: Registry, model: Path) -> None:
    assert registry.versions(Kind.MODEL, "press") == []
    with pytest.raises(NotFoundError, match=r"no model 'press'; it has: none"):
        latest(registry, Kind.MODEL, "press")
    registry.register(Kind.DATA, "raw", model, {})
    with pytest.raises(NotFoundError, match=r"no data asset 'row'; it has: raw"):
        registry.get(Kind.DATA, "row", 1)
    for version in (0, -1, 2):
        with pytest.raises(NotFoundError, match=rf"'raw' has no version {version}; its versions are: 1"):
            registry.get(Kind.DATA, "raw", version)


@pytest.mark.parametrize("name", ["", ".", "..", "../press", "a/b", "a:1", "-a", "a b", "a\n", "a" * 201])
def test_a_name_that_could_be_a_path_is_refused(registry: Registry, model: Path, name: str) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: registry.register(Kind.MODEL, name, model, {}),
        lambda: registry.versions(Kind.MODEL, name),
        lambda: registry.get(Kind.MODEL, name, 1),
    ]
    for attempt in attempts:
        with pytest.raises(EdgepackError, match="cannot be the name of a model"):
            attempt()


def test_what_is_no_plain_content_is_refused(registry: Registry, model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    refused = {"missing": "no such file or folder", "empty": "an empty folder cannot be registered"}
    for name, told in refused.items():
        with pytest.raises(EdgepackError, match=f"{tmp_path / name}: {told}"):
            registry.register(Kind.MODEL, "press", tmp_path / name, {})
    link = model / "data" / "link"
    for target in ("/etc/passwd", "model.pkl", "nowhere", ".."):
        link.symlink_to(target)
        with pytest.raises(EdgepackError, match=f"{link}: a link or special file"):
            registry.register(Kind.MODEL, "press", model, {})
        link.unlink()
    os.mkfifo(link)
    with pytest.raises(EdgepackError, match=f"{link}: a link or special file"):
        registry.register(Kind.MODEL, "press", model, {})
    link.unlink()
    (model / os.fsdecode(b"latin-\xe9")).touch()
    with pytest.raises(EdgepackError, match="must be UTF-8 text"):
        registry.register(Kind.MODEL, "press", model, {})
    assert registry.names(Kind.MODEL) == []


def test_a_path_may_be_a_link_or_relative(
    registry: Registry, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "current").symlink_to(model)
    monkeypatch.chdir(model / "data")
    for path in (tmp_path / "current", Path(".."), Path("../../press model/.")):
        made = registry.register(Kind.MODEL, "press", path, {})
        assert made.digest == content_digest(model)[0]
        assert registry.download(made, tmp_path / str(made.version)).name == "press model"


def test_a_download_overwrites_nothing(registry: Registry, model: Path, tmp_path: Path) -> None:
    made = registry.register(Kind.MODEL, "press", model, {})
    there = registry.download(made, tmp_path / "here")
    (there / "MLmodel").write_text("mine")
    with pytest.raises(EdgepackError, match=f"{there} is there already"):
        registry.download(made, tmp_path / "here")
    assert (there / "MLmodel").read_text() == "mine"
    assert [entry.name for entry in (tmp_path / "here").iterdir()] == ["press model"]


@pytest.mark.parametrize("kind", Kind)
def test_an_archived_version_is_out_of_use_and_comes_back(
    registry: Registry, model: Path, tmp_path: Path, kind: Kind
) -> None:
    for number in (1, 2, 3):
        registry.register(kind, "press", model, {"n": str(number)})
    assert registry.set_archived(kind, "press", 3, True)
    assert not registry.set_archived(kind, "press", 3, True)
    assert latest(registry, kind, "press").version == 2
    assert [each.version for each in registry.versions(kind, "press")] == [1, 2]
    assert [(each.version, each.tags) for each in registry.archived(kind, "press")] == [(3, {"n": "3"})]
    with pytest.raises(NotFoundError, match=rf"press:3 is archived \(edgepack {kind} archive press:3 --undo\)"):
        registry.get(kind, "press", 3)
    assert registry.register(kind, "press", model, {}).version == 4, "its number stays taken"
    for number in (1, 2, 4):
        registry.set_archived(kind, "press", number, True)
    with pytest.raises(NotFoundError):
        latest(registry, kind, "press")
    assert registry.set_archived(kind, "press", 3, False)
    assert not registry.set_archived(kind, "press", 3, False)
    back = registry.get(kind, "press", 3)
    assert (back.tags, latest(registry, kind, "press")) == ({"n": "3"}, back)
    assert contents(registry.download(back, tmp_path / "back")) == contents(model)
    with pytest.raises(NotFoundError, match="has no version 9"):
        registry.set_archived(kind, "press", 9, True)
    with pytest.raises(NotFoundError):
        registry.set_archived(kind, "nothing", 1, True)
