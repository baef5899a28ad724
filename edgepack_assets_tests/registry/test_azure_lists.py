"""What the list commands show of Azure ML while some of it cannot be read, and what one bad version does to others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgepack_assets.cli.main import main
from edgepack_assets.errors import CorruptError
from edgepack_assets.registry.base import Kind, latest
from edgepack_assets_tests.azure.faults import status
from edgepack_assets_tests.azure.loopback import LoopbackAzure
from edgepack_assets_tests.registry.conftest import Clock, azure_ml

BUSY = status(503, "ServerBusy", "the server is busy")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def folders(azure: LoopbackAzure, model: Path) -> list[str]:
    """Five models of a training pipeline, which only their files tell of. Returns a part of each one's path."""
    registry = azure_ml(azure, "workspace")
    made = []
    for _ in range(5):
        location = registry.register(Kind.DATA, "files", model, {}).location
        azure.azure_ml.put(azure.azure_ml.workspace, "models", "press", str(len(made) + 1), {"modelUri": location})
        made.append(location.split("/")[-2])
    return made


def command(azure: LoopbackAzure, folder: Path, *arguments: str) -> Result:
    file = folder / "edgepack.yaml"
    file.write_text(
        json.dumps({
            "registry": {**azure.registry_section(), "time_limit": 3},
            "model_types": {"press": {"implementation": "state_identifier", "model_name": "press",
                                      "package_name": "Press", "raw_data": {"name": "raw"}}},
        })
    )  # fmt: skip
    return CliRunner().invoke(main, arguments, env={"EDGEPACK_CONFIG": str(file)})


def test_files_that_cannot_be_looked_up_hide_no_other_version(
    azure: LoopbackAzure, folders: list[str], tmp_path: Path
) -> None:
    azure.faults.add(f"comp=list.*{folders[1]}", BUSY, times=100)
    done = command(azure, tmp_path, "model", "list")
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [row[1] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row[-1] == "?" for row in rows] == [False, True, False, False, False]
    assert done.exit_code == 3
    assert "Error: digest and size of press:2 cannot be read at the moment, try again later: " in done.stderr
    as_json = command(azure, tmp_path, "model", "list", "--json")
    found: list[dict[str, Any]] = json.loads(as_json.stdout)
    assert [(each["digest"] is None, "unread" in each) for each in found] == [
        (False, False), (True, True), (False, False), (False, False), (False, False)
    ]  # fmt: skip
    assert as_json.exit_code == 3


def test_a_storage_that_is_away_is_not_asked_for_every_version(
    azure: LoopbackAzure, folders: list[str], tmp_path: Path, clock: Clock
) -> None:
    azure.faults.add("comp=list", BUSY, times=10_000)
    done = command(azure, tmp_path, "model", "list")
    assert [line.split()[-1] for line in done.stdout.splitlines()[1:]] == ["?"] * len(folders)
    assert "digest and size of press:1, press:2, press:3, press:4, press:5 cannot be read" in done.stderr
    assert sum(clock.pauses) < 3 * 3 + 1  # three look-ups, each within the limit of three seconds


@pytest.mark.parametrize("kind", ["workspace", "registry"])
@pytest.mark.parametrize("tag", [{"edgepack_digest": "0"}, {"edgepack_size": "many"}])
def test_a_version_whose_own_tags_were_changed_hides_no_other(
    azure: LoopbackAzure, model: Path, kind: str, tag: dict[str, str], tmp_path: Path
) -> None:
    registry = azure_ml(azure, kind)
    made = [registry.register(Kind.MODEL, "press", model, {"lot": str(number)}) for number in range(3)]
    shelf = azure.azure_ml.workspace if kind == "workspace" else azure.azure_ml.registry
    shelf.assets["models"]["press"]["3"].properties["tags"].update(tag)
    assert registry.versions(Kind.MODEL, "press") == made[:2]
    [damaged] = registry.damaged(Kind.MODEL, "press")
    assert (str(damaged), dict(damaged.tags), damaged.may_pass) == ("press:3", {"lot": "2"}, False)
    assert "changed by hand" in damaged.reason
    assert registry.damaged(Kind.MODEL, "press", above=3) == []
    assert latest(registry, Kind.MODEL, "press") == made[1]
    with pytest.raises(CorruptError, match=r"press:3: its tags .* were changed by hand"):
        registry.get(Kind.MODEL, "press", 3)
    assert registry.register(Kind.MODEL, "press", model, {}).version == 4
    if kind == "workspace":
        done = command(azure, tmp_path, "model", "list")
        assert [line.split()[1:3] for line in done.stdout.splitlines()[1:]][2] == ["3", "damaged"]
        assert done.exit_code == 0


@pytest.mark.parametrize("kind", ["workspace", "registry"])
def test_the_newest_versions_of_all_names_come_from_one_list(azure: LoopbackAzure, model: Path, kind: str) -> None:
    registry = azure_ml(azure, kind)
    for number in range(7):
        for _ in range(1 + number % 2):
            registry.register(Kind.MODEL, f"press_{number}", model, {})
    newest = {name: registry.newest_version(Kind.MODEL, name) for name in registry.names(Kind.MODEL)}
    pages = len(newest)
    assert registry.newest_versions(Kind.MODEL, pages) == newest
    assert registry.newest_versions(Kind.MODEL, 1) in [None, newest]
    assert registry.newest_versions(Kind.MODEL, 0) is None


@pytest.mark.parametrize("kind", ["workspace", "registry"])
def test_archived_versions_are_listed_apart(azure: LoopbackAzure, model: Path, kind: str) -> None:
    registry = azure_ml(azure, kind)
    made = [registry.register(Kind.MODEL, "press", model, {}) for _ in range(3)]
    assert registry.set_archived(Kind.MODEL, "press", 2, archived=True)
    assert registry.versions_and_damaged(Kind.MODEL, "press") == ([made[0], made[2]], [])
    assert [each.number for each in registry.archived(Kind.MODEL, "press")] == [2]
