"""What every registry must do, against the interface; then what is the local one's own: folders, crashes.

Another registry is held to the first part by adding its fixture's name to the parameters of `registry`.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.errors import CorruptError, EdgepackError, NotFoundError, VersionTakenError
from edgepack_assets.registry.base import (
    Kind,
    RegisteredVersion,
    Registry,
    content_digest,
    files_of,
    latest,
    resolve,
)
from edgepack_assets.registry.local import STALE_AFTER, LocalRegistry
from edgepack_assets_tests.crashes import full_disk, killed_at_each_step


@pytest.fixture
def local(tmp_path: Path) -> LocalRegistry:
    return LocalRegistry(tmp_path / "registry")


@pytest.fixture(params=["local"])
def registry(request: pytest.FixtureRequest) -> Registry:
    found: Registry = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder with nested, hidden, empty and oddly named files."""
    folder = tmp_path / "press model"
    for name, content in {
        "MLmodel": b"flavors: {}\n",
        "data/model.pkl": os.urandom(5000),
        "data/empty": b"",
        ".hidden/x": b"1",
        "größe\u202f1.txt": b"2",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "nothing in it").mkdir()
    return folder


def contents(path: Path) -> dict[str, bytes]:
    return {name: file.read_bytes() for name, file in files_of(path)}


def everything_below(path: Path) -> list[str]:
    return sorted(str(entry.relative_to(path)) for entry in path.rglob("*"))


# Every registry ------------------------------------------------------------------------------------------


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
    assert (changed.created, changed.digest) == (made.created, made.digest)


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


# The local registry's own --------------------------------------------------------------------------------


def content_of(made: RegisteredVersion) -> Path:
    return Path(made.location)


@pytest.mark.parametrize("damage", ["changed", "longer", "removed", "added", "renamed", "gone"])
def test_damaged_content_is_never_handed_out(local: LocalRegistry, model: Path, tmp_path: Path, damage: str) -> None:
    made = local.register(Kind.MODEL, "press", model, {})
    content = content_of(made)
    file = content / "data" / "model.pkl"
    data = file.read_bytes()
    if damage == "gone":
        content.rename(content.with_name("other"))
    elif damage == "added":
        (content / "extra").touch()
    elif damage == "renamed":
        file.rename(file.with_name("model.bin"))
    else:
        file.unlink()
        if damage != "removed":
            file.write_bytes(data + b"x" if damage == "longer" else data[:-1] + bytes([data[-1] ^ 1]))
    (tmp_path / "there").mkdir()
    for destination in ("there", "made"):
        with pytest.raises(CorruptError, match=str(content)):
            local.download(made, tmp_path / destination)
    assert list((tmp_path / "there").iterdir()) == []
    assert not (tmp_path / "made").exists()


def test_what_is_kept_is_read_only(local: LocalRegistry, model: Path, tmp_path: Path) -> None:
    made = local.register(Kind.MODEL, "press", model, {})
    assert {file.stat().st_mode & 0o777 for _, file in files_of(content_of(made))} == {0o444}
    copy = local.download(made, tmp_path / "copy")
    assert all(file.stat().st_mode & 0o200 for _, file in files_of(copy))


def test_foreign_files_are_no_versions_and_their_numbers_are_not_given_out(local: LocalRegistry, model: Path) -> None:
    first = local.register(Kind.MODEL, "press", model, {})
    folder = local.path / "models" / "press"
    for name in ("3/content", "latest", "02", "-4", "5.tmp", "9999999999999999999", ".git"):
        (folder / name).mkdir(parents=True)
    (folder / "README.md").touch()
    (folder / "7").touch()
    (local.path / "models" / ".DS_Store").touch()
    (local.path / "models" / "lost+found" / "1").mkdir(parents=True)
    (local.path / "models" / "not a name" / "1").mkdir(parents=True)
    (local.path / "models" / "not a name" / "1" / "version.json").touch()
    assert local.versions(Kind.MODEL, "press") == [first]
    assert local.names(Kind.MODEL) == ["press"]
    with pytest.raises(VersionTakenError):
        local.register(Kind.MODEL, "press", model, {}, version=7)
    assert local.register(Kind.MODEL, "press", model, {}).version == 8


@pytest.mark.parametrize("file", ["version.json", "tags.json"])
@pytest.mark.parametrize("content", ["", "[]", '{"created": 1}', '{"created": null}'])
def test_a_damaged_description_is_told_not_passed_over(
    local: LocalRegistry, model: Path, file: str, content: str
) -> None:
    made = local.register(Kind.MODEL, "press", model, {})
    path = content_of(made).parent.parent / file
    path.write_text(content)
    with pytest.raises(CorruptError, match=str(path)):
        local.versions(Kind.MODEL, "press")


def test_a_full_disk_is_told_and_leaves_nothing(local: LocalRegistry, model: Path, tmp_path: Path) -> None:
    local.register(Kind.MODEL, "press", model, {})
    before = everything_below(local.path)
    (model / "big").write_bytes(b"x" * 100_000)
    with full_disk(20_000), pytest.raises(EdgepackError, match=rf"{local.path}.*: File too large"):
        local.register(Kind.MODEL, "press", model, {})
    assert everything_below(local.path) == before
    made = local.register(Kind.MODEL, "press", model, {})
    with full_disk(20_000), pytest.raises(EdgepackError, match=rf"{tmp_path}/out/.*: File too large"):
        local.download(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_crash_at_any_step_registers_all_or_nothing(local: LocalRegistry, model: Path, tmp_path: Path) -> None:
    def register(step: int) -> None:
        (model / "step").write_text(str(step))
        LocalRegistry(local.path).register(Kind.MODEL, "press", model, {"step": str(step)})

    deaths = 0
    for step in killed_at_each_step(register):
        deaths = step
        for found in local.versions(Kind.MODEL, "press"):
            copy = local.download(found, tmp_path / "copies" / f"{step}-{found.version}")
            assert (copy / "step").read_text() == found.tags["step"]
    assert deaths > 30
    numbers = [found.version for found in local.versions(Kind.MODEL, "press")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert local.versions(Kind.MODEL, "press")[-1].tags["step"] == str(deaths + 1)

    staging = local.path / "staging"
    left = list(staging.iterdir())
    assert left
    fresh = left.pop()
    for entry in left:
        os.utime(entry, (time.time() - STALE_AFTER - 60,) * 2)
    local.register(Kind.MODEL, "press", model, {})
    assert list(staging.iterdir()) == [fresh]


def _register_many(me: int, path: Path, model: Path, start: Any, answers: Any) -> None:
    registry = LocalRegistry(path)
    start.wait()
    for n in range(5):
        made = registry.register(Kind.MODEL, "press", model, {"by": f"{me}-{n}"})
        registry.set_tags(registry.get(Kind.MODEL, "press", 1), {f"seen-{me}-{n}": "yes"})
        answers.put((made.version, f"{me}-{n}"))


def test_processes_that_register_at_once_all_get_a_version_of_their_own(local: LocalRegistry, model: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(8), context.Queue()
    shared = (local.path, model, start, answers)
    processes = [context.Process(target=_register_many, args=(me, *shared)) for me in range(8)]
    for process in processes:
        process.start()
    given = dict(answers.get(timeout=120) for _ in range(40))
    for process in processes:
        process.join(60)
    assert sorted(given) == list(range(1, 41))
    found = local.versions(Kind.MODEL, "press")
    assert {made.version: made.tags["by"] for made in found} == given
    # No tag is lost either, with everybody tagging the first version.
    assert sum(tag.startswith("seen-") for tag in found[0].tags) == 40


def test_where_locks_do_not_hold_the_rename_still_gives_each_a_number(
    local: LocalRegistry, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = local.register(Kind.MODEL, "press", model, {})
    taken = LocalRegistry._taken
    seen: list[list[int]] = [[], []]
    monkeypatch.setattr(LocalRegistry, "_taken", lambda self, *of: seen.pop() if seen else taken(self, *of))
    assert local.register(Kind.MODEL, "press", model, {}).version == 2
    seen.append([])
    with pytest.raises(VersionTakenError):
        local.register(Kind.MODEL, "press", model, {}, version=1)
    assert local.get(Kind.MODEL, "press", 1) == first
    assert everything_below(local.path / "staging") == []


def test_the_newest_version_is_remembered_until_the_folder_changes(
    local: LocalRegistry, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.register(Kind.MODEL, "press", model, {})
    folder = local.path / "models" / "press"
    os.utime(folder, (1_000_000, 1_000_000))  # long settled
    assert local.newest_version(Kind.MODEL, "press") == 1
    with monkeypatch.context() as patched:
        patched.setattr(LocalRegistry, "_taken", None)  # the folder is not listed again
        assert local.newest_version(Kind.MODEL, "press") == 1
        assert LocalRegistry(local.path).newest_version(Kind.MODEL, "press") == 1
    local.register(Kind.MODEL, "press", model, {})
    (folder / "9").mkdir()  # not whole
    assert local.newest_version(Kind.MODEL, "press") == 2
