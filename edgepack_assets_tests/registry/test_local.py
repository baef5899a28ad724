"""What is the local registry's own: folders, locks, crashes. What every registry must do is in test_registry.py."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.errors import CorruptError, EdgepackError, NotFoundError, TransientError, VersionTakenError
from edgepack_assets.filesystem.hashed_ahead import start_hashing
from edgepack_assets.registry import base
from edgepack_assets.registry.base import Kind, RegisteredVersion, content_digest, files_of, latest
from edgepack_assets.registry.given_numbers import GivenNumbers
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets.registry.staging import STALE_AFTER
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
    assert [str(each) for each in local.damaged(Kind.MODEL, "press")] == ["press:3", "press:7"]
    assert local.names(Kind.MODEL) == ["press"]
    with pytest.raises(VersionTakenError):
        local.register(Kind.MODEL, "press", model, {}, version=7)
    assert local.register(Kind.MODEL, "press", model, {}).version == 8


LATIN = os.fsdecode(b"gef\xe4hrlich")
"""What a shell with a Latin-1 locale gives."""


def damage(made: RegisteredVersion, how: str) -> Path:
    """Damage a version in one way; returns the path that the reason must name."""
    folder = Path(made.location).parent.parent
    file, _, content = how.partition(" ")
    path = content_of(made) if file == "content" else folder / file
    if content == "gone":
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif content == "file":
        shutil.rmtree(path)
        path.write_text("x")
    elif content == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif content == "folder":
        path.unlink()
        path.mkdir()
    elif content == "huge":
        path.write_bytes(b'{"a": "' + b"x" * (17 << 20) + b'"}')
    else:
        path.write_bytes(content.encode())
    return path


VERSION_FILE = '{"digest": "%s", "size": 1, "is_folder": true, "entry": "press model", "created": %s}'
DAMAGES = [
    *(f"{file} {how}" for file in ("version.json", "tags.json") for how in ("gone", "pipe", "folder", "huge")),
    *(f"{file} {text}" for file in ("version.json", "tags.json") for text in ("", "[]", '{"created": 1}', "\0" * 64)),
    r'tags.json {"by": "\udce4"}',
    'tags.json {"by": null}',
    "tags.json " + '{"a":' * 5000,
    "version.json " + VERSION_FILE % ("0" * 64, "null"),
    "version.json " + VERSION_FILE % ("0" * 64, '"2026-01-01T00:00:00"'),
    "version.json " + VERSION_FILE % ("0" * 64, '"9999-12-31T23:00:00-14:00"'),
    "version.json " + VERSION_FILE % ("0" * 64, '"0001-01-01T00:00:00+14:00"'),
    "version.json " + VERSION_FILE % ("x", '"2026-01-01T00:00:00Z"'),
    "version.json " + (VERSION_FILE % ("0" * 64, '"2026-01-01T00:00:00Z"')).replace("press model", "../../2"),
    "content gone",
    "content file",
]


@pytest.mark.parametrize(
    ("how", "which"), [*((how, 1) for how in DAMAGES), ("tags.json []", 0), ("content gone", 0), ("version.json ", 0)]
)
def test_a_damaged_version_keeps_its_number_and_hides_no_other(
    local: LocalRegistry, model: Path, tmp_path: Path, how: str, which: int
) -> None:
    made = [local.register(Kind.MODEL, "press", model, {"n": str(n)}) for n in range(2)]
    other = local.register(Kind.MODEL, "other", model, {})
    path = damage(made[which], how)
    sound = [each for each in made if each is not made[which]]
    assert local.versions(Kind.MODEL, "press") == sound
    (found,) = local.damaged(Kind.MODEL, "press")
    assert (str(found), found.version) == (f"press:{which + 1}", which + 1)
    assert str(path) in found.reason
    assert "\n" not in found.reason
    assert found.tags_are_known is (path.name != "tags.json")
    assert found.tags == ({"n": str(which)} if found.tags_are_known else {})
    assert local.names(Kind.MODEL) == ["other", "press"]
    assert latest(local, Kind.MODEL, "press") == sound[-1]
    assert local.versions(Kind.MODEL, "other") == [other]
    assert local.damaged(Kind.MODEL, "other") == []
    assert local.download(sound[-1], tmp_path / "out").is_dir()
    with pytest.raises(CorruptError, match=re.escape(str(path))):
        local.get(Kind.MODEL, "press", which + 1)
    with pytest.raises(VersionTakenError):
        local.register(Kind.MODEL, "press", model, {}, version=which + 1)
    assert local.register(Kind.MODEL, "press", model, {}).version == 3


def test_where_every_version_is_damaged_the_reason_is_told(local: LocalRegistry, model: Path) -> None:
    path = damage(local.register(Kind.DATA, "press", model, {}), "tags.json []")
    with pytest.raises(NotFoundError, match=rf"every version of the data asset 'press' is damaged: press:1 .*{path}"):
        latest(local, Kind.DATA, "press")


def failing(monkeypatch: pytest.MonkeyPatch, code: int, *below: Path) -> None:
    """Reading and listing these folders, and what is in them, fails as on a bad disk or a share that is away."""

    def failing_one(name: str) -> None:
        works = getattr(Path, name)

        def fails(self: Path, *arguments: Any, **more: Any) -> Any:
            if any(self.is_relative_to(folder) for folder in below):
                raise OSError(code, os.strerror(code))
            return works(self, *arguments, **more)

        monkeypatch.setattr(Path, name, fails)

    for name in ("open", "iterdir"):
        failing_one(name)
    lists = os.listdir

    def listdir(folder: Any = ".") -> list[Any]:
        if isinstance(folder, (str, Path)) and any(Path(folder).is_relative_to(each) for each in below):
            raise OSError(code, os.strerror(code))
        return lists(folder)

    monkeypatch.setattr(os, "listdir", listdir)


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO])
def test_a_version_that_cannot_be_read_now_is_told_and_no_older_one_is_the_latest(
    local: LocalRegistry, model: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Else `latest` would be an older version for as long as the disk or the share has its trouble."""
    made = [local.register(Kind.MODEL, "press", model, {}) for _ in range(3)]
    other = local.register(Kind.MODEL, "other", model, {})
    folder = local.path / "models" / "press"
    with monkeypatch.context() as patch:
        failing(patch, code, folder / "3")
        assert local.versions(Kind.MODEL, "press") == made[:2]
        (damaged,) = local.damaged(Kind.MODEL, "press")
        assert (damaged.version, damaged.may_pass, damaged.tags_are_known) == (3, True, False)
        with pytest.raises(TransientError, match=r"press:3: .*3/version\.json: cannot be read"):
            latest(local, Kind.MODEL, "press")
        assert latest(local, Kind.MODEL, "other") == other
    with monkeypatch.context() as patch:  # an older one does not matter
        failing(patch, code, folder / "1")
        assert latest(local, Kind.MODEL, "press") == made[2]
    with monkeypatch.context() as patch:  # the folder of a name
        failing(patch, code, folder)
        assert local.names(Kind.MODEL) == ["other", "press"]
        assert local.versions(Kind.MODEL, "press") == []
        (whole,) = local.damaged(Kind.MODEL, "press")
        assert (str(whole), whole.may_pass) == ("press (every version)", True)
        with pytest.raises(TransientError, match=r"press \(every version\): .*cannot be read"):
            latest(local, Kind.MODEL, "press")
    with monkeypatch.context() as patch:  # the whole share
        failing(patch, code, local.path)
        for ask in (local.versions, local.damaged):
            with pytest.raises(TransientError, match=r"models: cannot be read"):
                ask(Kind.MODEL, "press")


def test_the_latest_version_is_found_without_reading_the_others(
    local: LocalRegistry, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [local.register(Kind.MODEL, "press", model, {"n": str(n)}) for n in range(6)]
    damage(made[5], "tags.json []")
    local.set_archived(Kind.MODEL, "press", 5, True)
    reads: list[int] = []
    works = LocalRegistry._read

    def counted(self: LocalRegistry, kind: Kind, name: str, version: int) -> Any:
        reads.append(version)
        return works(self, kind, name, version)

    monkeypatch.setattr(LocalRegistry, "_read", counted)
    assert latest(local, Kind.MODEL, "press") == made[3]
    assert reads == [6, 4, 6]  # the last sound one, and then what is damaged above it
    assert local.last(Kind.MODEL, "press") == local.versions(Kind.MODEL, "press")[-1]
    assert local.last(Kind.MODEL, "none") is None
    # a number that was handed out is never given again, were its folder deleted by hand
    shutil.rmtree(local.path / "numbers")
    latest(local, Kind.MODEL, "press")
    for number in (4, 5, 6):
        shutil.rmtree(local.path / "models" / "press" / str(number))
    assert local.register(Kind.MODEL, "press", model, {}).version == 7


def test_a_version_that_is_a_link_is_damaged(local: LocalRegistry, model: Path, tmp_path: Path) -> None:
    made = [local.register(Kind.MODEL, "press", model, {}) for _ in range(2)]
    folder = local.path / "models" / "press"
    (folder / "3").symlink_to("2")
    (folder / "4").symlink_to(tmp_path / "nothing")
    shutil.copytree(folder / "2", folder / "5")
    (folder / "5" / "content").rename(tmp_path / "elsewhere")
    (folder / "5" / "content").symlink_to(tmp_path / "elsewhere")
    assert local.versions(Kind.MODEL, "press") == made
    damaged = local.damaged(Kind.MODEL, "press")
    assert [each.version for each in damaged] == [3, 4, 5]
    for each, link in zip(damaged, ("3", "4", "5/content"), strict=True):
        assert f"{folder / link}: is damaged" in each.reason
        assert "it is a link" in each.reason
    assert [each.version for each in local.damaged(Kind.MODEL, "press", 4)] == [5]
    shutil.rmtree(folder / "5")
    assert local.newest_version(Kind.MODEL, "press") == 2
    with pytest.raises(CorruptError, match="it is a link"):
        local.get(Kind.MODEL, "press", 3)


LISTING = """
import sys
from pathlib import Path
from edgepack_assets.registry.base import Kind, latest
from edgepack_assets.registry.local import LocalRegistry

local = LocalRegistry(Path(sys.argv[1]))
for name in local.names(Kind.MODEL):
    print(name, *local.versions(Kind.MODEL, name), local.newest_version(Kind.MODEL, name) if name != "shut" else "")
    for each in local.damaged(Kind.MODEL, name):
        print(each, each.may_pass, each.reason)
"""


def test_a_folder_that_may_not_be_read_hides_no_other(local: LocalRegistry, model: Path) -> None:
    """As a user whom the mode of a folder binds: root is bound without two of its capabilities."""
    for name in ("open", "press", "press", "shut"):
        local.register(Kind.MODEL, name, model, {})
    models = local.path / "models"
    shut = [models / "press" / "2", models / "shut"]
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    for folder in shut:
        folder.chmod(0)
    try:
        command = [*drop, sys.executable, "-c", LISTING, str(local.path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    finally:
        for folder in shut:
            folder.chmod(0o755)
    assert done.stdout.splitlines() == [
        "open open:1 1",
        "press press:1 1",
        f"press:2 False {models}/press/2/content: cannot be read: Permission denied; give this user the right to read "
        "it",
        "shut ",
        f"shut (every version) False {models}/shut: cannot be read: Permission denied",
    ], done.stderr


def test_a_checksum_stands_beside_a_file_and_is_no_part_of_it(local: LocalRegistry, tmp_path: Path) -> None:
    package = tmp_path / "Press-edge_1.zip"
    package.write_bytes(b"package")
    plain = local.register(Kind.MODEL, "Press-edge", package, {})
    made = local.register(Kind.MODEL, "Press-edge", package, {}, checksum=True)
    folder = content_of(made).parent
    assert everything_below(folder) == ["Press-edge_1.sha256", "Press-edge_1.zip"]
    assert (folder / "Press-edge_1.sha256").stat().st_mode & 0o777 == 0o444
    subprocess.run(["sha256sum", "--check", "--strict", "Press-edge_1.sha256"], cwd=folder, check=True)
    assert (made.digest, made.size, made.is_folder) == (plain.digest, plain.size, plain.is_folder)
    assert local.versions(Kind.MODEL, "Press-edge") == [plain, made]
    local.download(made, tmp_path / "out")
    assert everything_below(tmp_path / "out") == ["Press-edge_1.zip"]


@pytest.mark.parametrize(
    "tags", [{"by": LATIN}, {LATIN: "by"}, {"ok": "ok", "by": "a\ud800b"}, {"by": "a\0b"}, {"b\0y": "a"}]
)
def test_what_is_no_plain_text_is_refused_before_anything_is_placed(
    local: LocalRegistry, model: Path, tags: dict[str, str]
) -> None:
    with pytest.raises(EdgepackError, match=r"tag .* cannot be kept: it (is not UTF-8 text|has a NUL)") as refusal:
        local.register(Kind.MODEL, "press", model, tags)
    str(refusal.value).encode()  # it can be printed
    assert not local.path.exists()
    made = local.register(Kind.MODEL, "press", model, {"größe": "ä \U0001f600 \x01"})
    with pytest.raises(EdgepackError, match=r"UTF-8|NUL"):
        local.set_tags(made, tags)
    assert local.get(Kind.MODEL, "press", 1) == made


def test_what_cannot_be_read_back_never_appears(
    local: LocalRegistry, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_badly(path: Path, value: object) -> None:
        path.write_text(json.dumps(value)[:-2])

    with monkeypatch.context() as patched:
        patched.setattr("edgepack_assets.registry.local.write_json", write_badly)
        with pytest.raises(CorruptError, match="staging"):
            local.register(Kind.MODEL, "press", model, {"n": "1"})
    assert local.names(Kind.MODEL) == []
    assert everything_below(local.path / "staging") == []
    assert local.register(Kind.MODEL, "press", model, {}).version == 1


# Numbers -----------------------------------------------------------------------------------------------


def test_a_deleted_version_s_number_is_not_given_again(local: LocalRegistry, model: Path) -> None:
    assert local.look_up(Kind.MODEL, "press", {}).highest == 0
    for _ in range(3):
        local.register(Kind.MODEL, "press", model, {})
    for number in (3, 2):
        shutil.rmtree(local.path / "models" / "press" / str(number))
    with pytest.raises(NotFoundError):
        local.get(Kind.MODEL, "press", 3)
    assert local.look_up(Kind.MODEL, "press", {}).highest == 3
    assert local.register(Kind.MODEL, "press", model, {}).version == 4
    shutil.rmtree(local.path / "models" / "press")
    assert local.names(Kind.MODEL) == []
    assert local.register(Kind.MODEL, "press", model, {}).version == 5
    # numbers belong to a kind and name
    assert local.register(Kind.DATA, "press", model, {}).version == 1
    assert local.register(Kind.MODEL, "pres", model, {}).version == 1


@pytest.mark.parametrize("seen_by", ["versions", "get", "register"])
def test_a_registry_of_an_earlier_release_gets_its_numbers_recorded(
    local: LocalRegistry, model: Path, seen_by: str
) -> None:
    for _ in range(3):
        local.register(Kind.MODEL, "press", model, {})
    shutil.rmtree(local.path / "numbers")
    if seen_by == "versions":
        local.versions(Kind.MODEL, "press")
    elif seen_by == "get":
        local.get(Kind.MODEL, "press", 3)
    else:
        local.register(Kind.MODEL, "press", model, {})
        shutil.rmtree(local.path / "models" / "press" / "4")
    shutil.rmtree(local.path / "models" / "press" / "3")
    assert local.register(Kind.MODEL, "press", model, {}).version == (5 if seen_by == "register" else 4)


def test_a_registry_that_may_not_be_written_is_read(local: LocalRegistry, model: Path) -> None:
    made = local.register(Kind.MODEL, "press", model, {})
    shutil.rmtree(local.path / "numbers")
    (local.path / "numbers").touch()  # nobody can make a folder there, not even root
    assert local.versions(Kind.MODEL, "press") == [made]
    assert local.get(Kind.MODEL, "press", 1) == made


def test_two_hosts_that_record_numbers_at_once_lose_none(tmp_path: Path) -> None:
    """Whatever is interleaved: the record only ever grows."""
    numbers = GivenNumbers(tmp_path / "numbers" / "press")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: numbers.add([n, n + 1, n + 2]), range(1, 60)))
    assert numbers.read() == set(range(1, 62))


# Staging -----------------------------------------------------------------------------------------------


def test_a_host_whose_clock_is_ahead_removes_no_registration_in_progress(
    local: LocalRegistry, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    living = local.path / "staging" / "living"
    living.mkdir(parents=True)
    years = 10 * 365 * 24 * 3600.0
    now = time.time
    for off in (years, -years):
        monkeypatch.setattr(time, "time", lambda off=off: now() + off)
        local.register(Kind.MODEL, "press", model, {})
        (entry,) = local.unfinished()
        assert entry.path == living
        assert entry.may_be_alive
        assert abs(entry.idle) < 600
        assert local.remove_unfinished(0) == []
    assert living.is_dir()


def test_what_a_registration_left_is_shown_and_removed_when_it_is_old(local: LocalRegistry, model: Path) -> None:
    assert local.unfinished() == []
    left = local.path / "staging" / "left"
    (left / "content" / "model").mkdir(parents=True)
    (left / "content" / "model" / "weights").write_bytes(b"x" * 1000)
    (local.path / "staging" / "file").write_bytes(b"x" * 10)
    for path in (left, local.path / "staging" / "file"):
        os.utime(path, (time.time() - 7200,) * 2)
    assert [(entry.path.name, entry.size, entry.may_be_alive) for entry in local.unfinished()] == [
        ("file", 10, False),
        ("left", 1000, False),
    ]
    assert local.remove_unfinished(8000) == []
    local.register(Kind.MODEL, "press", model, {})
    assert left.exists()  # a registration alone removes what is a day old
    assert [entry.path.name for entry in local.remove_unfinished(0)] == ["file", "left"]
    assert everything_below(local.path / "staging") == []


def test_a_registration_that_copies_for_long_shows_that_it_lives(
    local: LocalRegistry, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgepack_assets.registry.staging._BEAT", 0.0)
    ages = []
    copy = shutil.copyfile

    def slow(source: Path, to: Path) -> None:
        copy(source, to)
        (staging,) = (local.path / "staging").iterdir()
        ages.append(staging.stat().st_mtime > 1_000_000)
        os.utime(staging, (1, 1))  # as if it were long ago

    monkeypatch.setattr(shutil, "copyfile", slow)
    monkeypatch.setattr("edgepack_assets.registry.copies._COPIERS", 1)
    local.register(Kind.MODEL, "press", model, {})
    assert len(ages) > 1
    assert all(ages)


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


@pytest.mark.long
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


def test_a_view_is_verified_and_copies_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = LocalRegistry(tmp_path / "registry")
    model = tmp_path / "press"
    (model / "deep").mkdir(parents=True)
    (model / "deep" / "m.bin").write_bytes(b"weights")
    made = registry.register(Kind.MODEL, "press", model, {})
    kept = Path(made.location) / "deep" / "m.bin"

    seen = registry.view(made, tmp_path / "view") / "deep" / "m.bin"
    assert seen.samefile(kept)
    copy = registry.download(made, tmp_path / "copy") / "deep" / "m.bin"
    assert not copy.samefile(kept) and copy.read_bytes() == b"weights"

    shutil.rmtree(tmp_path / "view")
    assert kept.read_bytes() == b"weights"
    kept.chmod(0o644)
    kept.write_bytes(b"WEIGHTS")
    with pytest.raises(CorruptError, match="bytes differ from the digest"):
        registry.view(made, tmp_path / "damaged")
    assert not (tmp_path / "damaged").exists()

    kept.write_bytes(b"weights")

    def elsewhere(*arguments: Any, **named: Any) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr("os.link", elsewhere)
    far = registry.view(made, tmp_path / "far") / "deep" / "m.bin"
    assert far.read_bytes() == b"weights" and not far.samefile(kept)


def test_a_final_file_is_kept_as_it_is(local: LocalRegistry, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"package")
    (tmp_path / "b.zip").write_bytes(b"package")
    kept = Path(local.register(Kind.MODEL, "press-edge", tmp_path / "a.zip", {}, is_final=True).location)
    copied = Path(local.register(Kind.MODEL, "press-edge", tmp_path / "b.zip", {}).location)
    assert kept.samefile(tmp_path / "a.zip") and not copied.samefile(tmp_path / "b.zip")
    assert {each.stat().st_mode & 0o777 for each in (kept, copied)} == {0o444}
    (tmp_path / "a.zip").unlink()
    assert [each.resolve().digest for each in local.versions(Kind.MODEL, "press-edge")] == [
        content_digest(copied)[0]
    ] * 2
    assert kept.read_bytes() == b"package"


@pytest.mark.parametrize("is_final", [True, False])
@pytest.mark.parametrize("changed", ["not", "before", "replaced"])
def test_what_is_registered_of_a_file_that_was_hashed_ahead_is_its_own_digest(
    changed: str, is_final: bool, local: LocalRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgepack_assets.filesystem.hashed_ahead.SMALLEST", 4)
    package, measured = tmp_path / "a.zip", list[Path]()
    package.write_bytes(b"package")
    start_hashing(package)
    if changed == "before":
        package.write_bytes(b"another")
        os.utime(package, ns=(1, 1))
    elif changed == "replaced":
        (tmp_path / "b.zip").write_bytes(b"another")
        (tmp_path / "b.zip").replace(package)

    def counting(path: Path) -> tuple[str, int]:
        measured.append(path)
        return content_digest(path)

    monkeypatch.setattr("edgepack_assets.registry.copies.content_digest", counting)
    made = local.register(Kind.MODEL, "press-edge", package, {}, is_final=is_final)
    assert (made.digest, made.size) == content_digest(package)
    if changed == "not":  # else the thread may come to it before or after
        assert len(measured) == (not is_final)


def test_a_large_file_is_not_read_again_to_be_viewed_unless_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgepack_assets.filesystem.verified_files.SMALLEST", 1000)
    registry = LocalRegistry(tmp_path / "registry")
    (tmp_path / "package.zip").write_bytes(b"p" * 1000)
    read: list[Path] = []

    def counting(path: Path) -> tuple[str, int]:
        read.append(path)
        return content_digest(path)

    monkeypatch.setattr("edgepack_assets.registry.copies.content_digest", counting)
    made = registry.register(Kind.MODEL, "press", tmp_path / "package.zip", {}, is_final=True)
    assert len(read) == 1
    assert registry.view(made, tmp_path / "view").samefile(made.location)
    assert len(read) == 1
    registry.download(made, tmp_path / "copy")
    LocalRegistry(tmp_path / "registry").view(made, tmp_path / "other")
    assert len(read) == 3

    again = registry.register(Kind.MODEL, "press", tmp_path / "package.zip", {}, is_final=True)
    kept = Path(again.location)
    kept.chmod(0o644)
    kept.write_bytes(b"q" * 1000)
    os.utime(kept, ns=(0, 0))
    with pytest.raises(CorruptError, match="bytes differ from the digest"):
        registry.view(again, tmp_path / "changed")
