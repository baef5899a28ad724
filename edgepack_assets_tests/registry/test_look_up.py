"""The look of a registration at a local registry: what it finds, against a listing, and how little it reads for it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets.registry import local as module
from edgepack_assets.registry.base import IDENTITY, Kind, Registry
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets.registry.version_folder import read_folder

NAME = "Press-edge"
DO = ("register", "delete", "copy", "lose the index", "change tags", "archive", "damage", "look")


def tags_of(content: int) -> dict[str, str]:
    return dict.fromkeys(IDENTITY, str(content))


def register(local: LocalRegistry, content: int) -> int:
    file = local.path.parent / "package.zip"
    file.write_text("package")
    return local.register(Kind.MODEL, NAME, file, tags_of(content)).number


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(DO), st.integers(1, 4), st.integers(0, 2)), max_size=12))
def test_it_finds_what_a_listing_finds_whatever_was_done_before(
    tmp_path_factory: pytest.TempPathFactory, done: list[tuple[str, int, int]]
) -> None:
    local = LocalRegistry(tmp_path_factory.mktemp("look") / "registry")
    packages = local.path / "models" / NAME
    for what, number, content in done:
        folder, sound = packages / str(number), {each.number: each for each in local.versions(Kind.MODEL, NAME)}
        if what == "register":
            register(local, content)
        elif what == "lose the index":
            shutil.rmtree(local.path / "index", ignore_errors=True)
        elif what == "look":
            local.look_up(Kind.MODEL, NAME, tags_of(content))
        elif number in sound and what == "delete":
            shutil.rmtree(folder)
        elif number in sound and what == "copy" and not (packages / "9").exists():
            shutil.copytree(folder, packages / "9")
        elif number in sound and what == "change tags":
            local.set_tags(sound[number], tags_of(content))
        elif number in sound and what == "archive":
            local.set_archived(Kind.MODEL, NAME, number, archived=True)
        elif number in sound and what == "damage":
            shutil.rmtree(folder / "content")
    for content in range(3):
        listed = Registry.look_up(local, Kind.MODEL, NAME, tags_of(content))
        found = local.look_up(Kind.MODEL, NAME, tags_of(content))
        assert sorted(each.number for each in found.same) == [each.number for each in listed.same]
        assert {each.number for each in found.damaged} >= {
            each.number for each in listed.damaged if each.tags == tags_of(content)
        }
        assert [str(each) for each in found.newest_first()] == [str(each) for each in listed.newest_first()]
        assert found.highest >= listed.highest
        assert register(local, 7) > found.highest


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[LocalRegistry, list[str]]:
    """A registry of 30 packages, and the names of the folders that are read from then on."""
    local = LocalRegistry(tmp_path / "registry")
    for content in range(30):
        register(local, content)
    read: list[str] = []

    def reading(folder: Path) -> Any:
        read.append(folder.name)
        return read_folder(folder)

    monkeypatch.setattr(module, "read_folder", reading)
    return local, read


def test_it_reads_no_other_version(counted: tuple[LocalRegistry, list[str]]) -> None:
    local, read = counted
    found = local.look_up(Kind.MODEL, NAME, tags_of(4))
    assert ([each.number for each in found.same], read) == ([5], ["5"])
    assert next(found.newest_first()).number == 30
    assert read == ["5", "30"]
    # What an earlier release has registered is read once.
    shutil.rmtree(local.path / "index")
    for _ in range(2):
        read.clear()
        assert [each.number for each in local.look_up(Kind.MODEL, NAME, tags_of(29)).same] == [30]
    assert read == ["30"]


def test_a_version_that_may_be_the_same_and_cannot_be_read_is_told(
    counted: tuple[LocalRegistry, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    local, _ = counted
    (local.path / "models" / NAME / "3" / "tags.json").write_text("")
    assert local.look_up(Kind.MODEL, NAME, tags_of(4)).damaged == []
    [damaged] = local.look_up(Kind.MODEL, NAME, tags_of(2)).damaged
    assert (damaged.number, damaged.may_pass) == (3, False)

    def away(folder: Path) -> Any:
        raise TransientError(f"{folder}: the share does not answer")

    monkeypatch.setattr(module, "read_folder", away)
    [unread] = local.look_up(Kind.MODEL, NAME, tags_of(2)).damaged
    assert unread.may_pass


def test_an_index_that_cannot_be_written_hides_nothing(tmp_path: Path) -> None:
    local = LocalRegistry(tmp_path / "registry")
    register(local, 1)
    shutil.rmtree(local.path / "index")
    (local.path / "index").touch()  # nobody can make a folder there, not even root
    assert [each.number for each in local.look_up(Kind.MODEL, NAME, tags_of(1)).same] == [1]
    with pytest.raises(EdgepackError, match="index"):
        register(local, 2)
    assert [each.number for each in local.versions(Kind.MODEL, NAME)] == [1]


def test_an_entry_of_a_registration_that_was_cut_short_finds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = LocalRegistry(tmp_path / "registry")
    register(local, 1)

    rename = Path.rename

    def stop(self: Path, target: Path) -> Path:
        if target.parent.name == NAME:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", stop)
        with pytest.raises(KeyboardInterrupt):
            register(local, 2)
    assert len(list((local.path / "index" / f"models-{NAME}").glob("2-*"))) == 1
    assert local.look_up(Kind.MODEL, NAME, tags_of(2)).same == []
    assert register(local, 3) == 2
    assert local.look_up(Kind.MODEL, NAME, tags_of(2)).same == []
    assert [each.number for each in local.look_up(Kind.MODEL, NAME, tags_of(3)).same] == [2]
