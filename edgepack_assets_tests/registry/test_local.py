"""What is the local registry's own: folders, locks, crashes. What every registry must do is in test_registry.py."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.errors import CorruptError, EdgepackError, VersionTakenError
from edgepack_assets.registry import base
from edgepack_assets.registry.base import Kind, RegisteredVersion, content_digest, files_of
from edgepack_assets.registry.local import STALE_AFTER, LocalRegistry
from edgepack_assets_tests.crashes import full_disk, killed_at_each_step


def everything_below(path: Path) -> list[str]:
    return sorted(str(entry.relative_to(path)) for entry in path.rglob("*"))


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


def test_folders_that_are_too_deep_or_too_many_are_refused_and_leave_nothing(
    local: LocalRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path / "deep"
    top.mkdir()
    descriptors = [os.open(top, os.O_RDONLY)]
    try:
        for _ in range(3_000):  # no path may be that long, so each is made in the one above
            os.mkdir("x", dir_fd=descriptors[-1])
            descriptors.append(os.open("x", os.O_RDONLY, dir_fd=descriptors[-1]))
            os.close(descriptors.pop(0))
        (top / "model.pkl").write_bytes(b"x")
        for path in (top, tmp_path):
            with pytest.raises(EdgepackError, match=rf"{path}: has folders more than 100 deep"):
                local.register(Kind.MODEL, "press", path, {})
            with pytest.raises(EdgepackError, match="more than 100 deep"):
                content_digest(path)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
        subprocess.run(["rm", "-rf", str(top)], check=True)  # shutil.rmtree does not get there
    assert local.versions(Kind.MODEL, "press") == []
    assert list((local.path / "staging").iterdir()) == []
    many = tmp_path / "many"
    many.mkdir()
    for number in range(4):
        (many / str(number)).touch()
    monkeypatch.setattr(base, "MOST_FILES", 3)
    with pytest.raises(EdgepackError, match=rf"{many}: holds more than 3 files and folders"):
        local.register(Kind.MODEL, "press", many, {})
