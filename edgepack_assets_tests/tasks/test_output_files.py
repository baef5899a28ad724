"""Files that a run's configuration names: within the allowed folders, through no link, over no file but our own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import Settings
from edgepack_assets.errors import ConfigError, EdgepackError
from edgepack_assets.tasks.hand_over import KEYS, is_hand_over
from edgepack_assets.tasks.output_files import OutputFile, allowed_file, operators_file

ENTRY = {"implementation": "state_identifier", "model_name": "m", "package_name": "P", "raw_data": {"name": "r"}}


def configured(folder: Path, *allowed: str) -> Settings:
    file = folder / "edgepack.yaml"
    run = {"output_folders": list(allowed)} if allowed else {}
    file.write_text(yaml.safe_dump({"model_types": {"press": ENTRY}, "run": run}))
    return load_settings(file)


def mine(stream: IO[bytes]) -> bool:
    return stream.read() == b"ours"


def write(file: OutputFile) -> None:
    file.prepare(mine)
    file.write(mine, lambda stream: stream.write(b"ours"))


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    """A folder with an allowed one, and files of the user within and without."""
    (tmp_path / "allowed").mkdir()
    for name in ("secret", "allowed/secret"):
        (tmp_path / name).write_text("the user's")
    return tmp_path


def everything(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): str(path.readlink()) if path.is_symlink() else path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.parametrize(
    "named", ["new.json", "a/b/new.json", "a/../new.json", "ABSOLUTE/new.json", "ABSOLUTE/a/../b/x"]
)
def test_a_file_in_an_allowed_folder_is_written_and_written_again(plant: Path, named: str) -> None:
    settings = configured(plant, "allowed")
    file = allowed_file("output_file", named.replace("ABSOLUTE", str(plant / "allowed")), settings)
    write(file)
    write(file)
    assert file.path.read_bytes() == b"ours"
    assert file.path.is_relative_to(plant / "allowed")
    assert len(everything(plant)) == 4  # the configuration, two of the user's, and no leftover


@pytest.mark.parametrize("named", [
    "../secret", "a/../../secret", "ABSOLUTE/secret", "ABSOLUTE/allowedly/x", "/etc/passwd", "~/x", ".", "..", "a/",
    "/",     "a\0b", "secret", "x" * 256, "y" * 250, "secret/x", "ABSOLUTE/allowed", "link", "folder-link/x",
    "folder-link/../x/../y/z/../../link",
        "pipe", "folder", "dangling", "a/link-up/secret", "inner-link/x",
    "a\nb", "\udce4.json", "d/" * 2100 + "x",
])  # fmt: skip
def test_no_other_file_is_written(plant: Path, named: str) -> None:
    settings, allowed = configured(plant, "allowed"), plant / "allowed"
    (allowed / "a").mkdir()
    (allowed / "folder").mkdir()
    (allowed / "link").symlink_to(plant / "secret")
    (allowed / "dangling").symlink_to(plant / "not-there")
    (allowed / "folder-link").symlink_to(plant)
    (allowed / "inner-link").symlink_to(allowed / "folder")
    (allowed / "a" / "link-up").symlink_to("../..")
    os.mkfifo(allowed / "pipe")
    before = everything(plant)
    with pytest.raises(ConfigError, match=r"^output_file: "):
        write(allowed_file("output_file", named.replace("ABSOLUTE", str(plant)), settings))
    assert everything(plant) == before


@given(
    named=st.lists(st.sampled_from(["..", ".", "a", "link", "up", "secret", "", "~", "b"]), max_size=6).map("/".join)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_whatever_is_named_nothing_of_the_users_changes(plant: Path, named: str) -> None:
    allowed = plant / "allowed"
    configuration = configured(plant, "allowed")
    if not (allowed / "link").is_symlink():
        (allowed / "link").symlink_to(plant / "secret")
        (allowed / "up").symlink_to(plant)
        (allowed / "a").mkdir()
        (allowed / "a" / "up").symlink_to("../..")
    before = {name for name in everything(plant) if not name.startswith("allowed/")}
    try:
        file = allowed_file("output_file", named, configuration)
        write(file)
    except ConfigError:
        pass
    else:
        assert file.path.resolve().is_relative_to(allowed)
        file.path.unlink()
    assert {name for name in everything(plant) if not name.startswith("allowed/")} == before
    assert (plant / "secret").read_text() == (allowed / "secret").read_text() == "the user's"


def test_a_link_that_appears_meanwhile_is_not_followed(plant: Path) -> None:
    file = allowed_file("output_file", "a/x.json", configured(plant, "allowed"))
    file.prepare(mine)
    (plant / "allowed" / "a").rmdir()
    (plant / "elsewhere").mkdir()
    (plant / "allowed" / "a").symlink_to(plant / "elsewhere")
    with pytest.raises(EdgepackError, match="cannot be written"):
        file.write(mine, lambda stream: stream.write(b"ours"))
    assert list((plant / "elsewhere").iterdir()) == []


def test_a_file_that_appears_meanwhile_is_not_replaced(plant: Path) -> None:
    file = allowed_file("output_file", "x.json", configured(plant, "allowed"))
    file.prepare(mine)
    file.path.write_text("the user's")
    with pytest.raises(ConfigError, match="is not known to be written by edgepack"):
        file.write(mine, lambda stream: stream.write(b"ours"))
    assert [path.name for path in sorted(file.path.parent.iterdir())] == ["secret", "x.json"]
    assert file.path.read_text() == "the user's"


def test_a_write_that_fails_leaves_the_older_file_and_nothing_aside(plant: Path) -> None:
    file = allowed_file("output_file", "x.json", configured(plant, "allowed"))
    write(file)

    def fail(stream: IO[bytes]) -> None:
        stream.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        file.write(mine, fail)
    assert file.path.read_bytes() == b"ours"
    assert len(list(file.path.parent.iterdir())) == 2
    file.prepare(mine, remove=True)
    assert not file.path.exists()


def test_a_hard_link_to_a_file_of_the_user_leaves_that_as_it_is(plant: Path) -> None:
    (plant / "theirs").write_bytes(b"ours")  # equal bytes, so that the name may be taken
    os.link(plant / "theirs", plant / "allowed" / "x")
    file = allowed_file("output_file", "x", configured(plant, "allowed"))
    file.write(mine, lambda stream: stream.write(b"new"))
    assert ((plant / "theirs").read_bytes(), file.path.read_bytes()) == (b"ours", b"new")


@pytest.mark.parametrize("folder", [
    ".edgepack/registry", ".edgepack/artefacts", ".edgepack/cache", ".edgepack/environments", ".edgepack/dagster",
    "home",
])  # fmt: skip
def test_folders_in_use_are_closed_even_where_an_allowed_one_holds_them(
    plant: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(plant / "home"))
    (plant / "to-it").symlink_to(plant / folder)
    for allowed, named in ((".", f"{folder}/x"), (".", f"{folder}/a/b/x"), (folder, "x"), ("to-it", "x")):
        with pytest.raises(ConfigError, match="belongs to edgepack or Dagster"):
            write(allowed_file("output_file", named, configured(plant, allowed)))
    write(allowed_file("output_file", "x", configured(plant, ".")))


def test_a_folder_that_is_made_later_finds_no_file_in_its_place(plant: Path) -> None:
    settings = configured(plant, ".")
    for named in (".edgepack", settings.artefacts.cache, settings.runtime.environments):
        with pytest.raises(ConfigError, match="belongs to edgepack or Dagster"):
            allowed_file("output_file", str(named), settings)


def test_the_default_is_a_folder_of_its_own_and_an_empty_list_allows_none(plant: Path) -> None:
    assert configured(plant).run.output_folders == (plant / ".edgepack" / "outputs",)
    write(allowed_file("output_file", "x", configured(plant)))
    assert (plant / ".edgepack" / "outputs" / "x").read_bytes() == b"ours"
    for nothing in ([], [""]):
        file = plant / "edgepack.yaml"
        file.write_text(yaml.safe_dump({"model_types": {"press": ENTRY}, "run": {"output_folders": nothing}}))
        with pytest.raises(ConfigError, match=r"payload_path: run.output_folders of .* allows no folder"):
            allowed_file("payload_path", "x", load_settings(file))


def test_an_allowed_folder_may_itself_be_reached_through_a_link(plant: Path) -> None:
    (plant / "to-it").symlink_to(plant / "allowed")
    for named in ("x", str(plant / "to-it" / "x"), str(plant / "allowed" / "x")):
        write(allowed_file("output_file", named, configured(plant, "to-it")))
    assert (plant / "allowed" / "x").read_bytes() == b"ours"


def test_the_operators_file_may_lie_anywhere_and_replaces_no_other_file_either(plant: Path) -> None:
    write(operators_file("EDGEPACK_OUTPUT_FILE", str(plant / "deep" / "er" / "x")))
    with pytest.raises(ConfigError, match=r"EDGEPACK_OUTPUT_FILE: .*secret exists"):
        write(operators_file("EDGEPACK_OUTPUT_FILE", str(plant / "secret")))


HAND_OVER = dict.fromkeys(sorted(KEYS), "x")
LINES = "".join(f"{key}=x\n" for key in sorted(KEYS))


@pytest.mark.parametrize(("text", "ours"), [
    (json.dumps({**HAND_OVER, "metrics": {}}), True),
    (LINES, True),
    (LINES + "metric_a=1\n", True),
    ("", False), ("{", False), ("[" * 100_000, False), ('{"a":' * 100_000, False), ("\n", False),
    ("[]", False), ("{}", False),
    (json.dumps(HAND_OVER | {"mine": 1}), False),
    (LINES + "MINE=1\n", False), (LINES + "text\n", False), (LINES[:-30], False),
    (LINES + "metric_a=1\n" * 200_000, False),
    ("\udcff", False),
])  # fmt: skip
def test_what_counts_as_a_hand_over(tmp_path: Path, text: str, ours: bool) -> None:
    file = tmp_path / "x"
    file.write_bytes(text.encode(errors="surrogateescape"))
    opened: Callable[[], IO[bytes]] = lambda: file.open("rb")  # noqa: E731 - typed
    with opened() as stream:
        assert is_hand_over(stream) is ours
