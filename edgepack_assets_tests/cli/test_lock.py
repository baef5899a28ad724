"""`edgepack lock`, on a plant of its own with an index on the loopback interface; and what gc makes of generations."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.cli.main import main
from edgepack_assets.config.loader import load_settings
from edgepack_assets.environments.environment import environment_for
from edgepack_assets.environments.interpreters import find_python
from edgepack_assets.environments.lock import Lock, lock_for
from edgepack_assets.registry.base import Kind
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets_tests.environments.locks import locked
from edgepack_assets_tests.environments.wheels import Index, wheel

CONFIG = """\
registry: {path: registry}
artefacts: {root: artefacts}
runtime: {environments: environments, index_url: "INDEX"}
model_types:
  press: {implementation: state_identifier, model_name: press_model, package_name: Press, raw_data: {name: raw}}
  parts: {implementation: image_classification, model_name: parts_model, package_name: Parts, raw_data: {name: raw}}
"""


class Plant:
    """A store with the config package of press:1, and what else was made from its lock."""

    def __init__(self, folder: Path, index: Index) -> None:
        (folder / "edgepack.yaml").write_text(CONFIG.replace("INDEX", index.url))
        self.folder, self.index = folder, index
        self.runtime = load_settings(folder / "edgepack.yaml").runtime
        self.store = ArtefactStore(str(folder / "artefacts"), folder / "cache")
        self.python, _ = find_python(None)
        index.add(app := wheel("app", "1.0"))
        self.first = locked("app", app, store=self.store, settings=self.runtime)
        self.package("press:1", self.first)

    def lock(self) -> Lock:
        return lock_for(["app"], self.python, self.store, self.runtime)[0]

    def package(self, partition: str, lock: Lock) -> None:
        parts = {"lock": self.store.put_json(lock.model_dump(mode="json"))}
        self.store.save(Artefact(asset="config_package", partition=partition, parts=parts))

    def register(self, lock: Lock) -> None:
        (self.folder / "package.zip").write_bytes(lock.digest.encode())
        tags = {"lock_key": lock.key, "lock_digest": lock.digest}
        registry = LocalRegistry(self.folder / "registry")
        registry.register(Kind.MODEL, "Press-edge", self.folder / "package.zip", tags)

    def offer(self, version: str) -> None:
        self.index.add(wheel("app", version))

    def refresh(self) -> Lock:
        run("lock", "refresh", "press:1")
        return self.lock()

    def age(self) -> None:
        for path in (path for path in (self.folder / "artefacts").rglob("*") if path.is_file()):
            os.utime(path, (path.stat().st_mtime - 7200,) * 2)

    def generations(self) -> list[int]:
        return [each["generation"] for each in listed()]

    def holds(self, lock: Lock) -> bool:
        return (self.folder / "artefacts" / "blobs" / lock.packages[0].digest[:2] / lock.packages[0].digest).exists()


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    monkeypatch.chdir(tmp_path)
    for name in ("EDGEPACK_CONFIG", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    with Index() as index:
        yield Plant(tmp_path, index)


def run(*arguments: str, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == exit_code, result.output
    return result


def listed() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("lock", "list", "--json").stdout)
    return found


def test_locks_are_listed_with_what_uses_them(plant: Plant) -> None:
    plant.register(plant.first)
    folder = environment_for(plant.first, plant.store, plant.runtime).folder
    [found] = listed()
    assert (found["key"], found["digest"], found["generation"]) == (plant.first.key, plant.first.digest, 1)
    assert (found["requirements"], found["packages"]) == (["app"], {"app": "1.0"})
    assert found["used_by"] == ["press:1", "Press-edge:1", f"environment {folder.name}"]
    heads, row = run("lock", "list").stdout.splitlines()
    assert heads.split()[:3] == ["KEY", "GENERATION", "AGE"]
    key, generation, _, unit, *others = row.split()
    assert (key, generation, others[:2]) == (plant.first.key[:12], "1", [plant.python, "app"])
    assert unit in {"s", "min"}


def test_a_damaged_manifest_hides_no_lock(plant: Plant) -> None:
    plant.package("press:2", plant.first)
    manifest = plant.folder / "artefacts" / "manifests" / "config_package" / "press" / "2.json"
    manifest.write_text("{")
    [found] = listed()
    assert found["used_by"] == ["press:1"]
    said = f"which lock it uses is not known: {manifest}: not a manifest"
    assert said in run("lock", "list").stderr
    assert said in run("lock", "refresh", "press:1").stderr


@pytest.mark.parametrize("name", ["press:1", "Press-edge:1", "KEY", "--model-type=press"])
def test_a_lock_is_refreshed_by_any_of_its_names(plant: Plant, name: str) -> None:
    plant.register(plant.first)
    arguments = ("lock", "refresh", plant.first.key[:8] if name == "KEY" else name)
    assert "nothing has changed, generation 1 stays in force" in run(*arguments).stdout
    plant.offer("2.0")
    done = run(*arguments)
    assert "generation 2 is in force; changes since generation 1:\n" in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["app", "1.0", "2.0"]
    assert done.stderr == "materialize config_package to use it: press:1\n"
    first, second = listed()
    assert (first["used_by"], second["used_by"]) == (["press:1", "Press-edge:1"], [])
    assert plant.lock().packages[0].version == "2.0"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["press:2"], "press:2 has no lock: it is neither a partition with a materialized config_package"),
        (["ffffffff"], "no lock has a key that begins with ffffffff: `edgepack lock list`"),
        (["../x"], "write a partition, PACKAGE:VERSION or four or more digits"),
        (["--model-type", "parts"], "no config_package of parts is materialized, so it has no lock"),
        (["--model-type", "nosuch"], "has no entry 'nosuch'"),
        ([], "name what to refresh"),
    ],
)
def test_what_cannot_be_refreshed_is_told(plant: Plant, arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(main, ["lock", "refresh", *arguments])
    assert result.exit_code != 0
    assert told in result.output


def test_gc_keeps_the_generation_in_force_and_those_that_something_was_made_from(plant: Plant) -> None:
    plant.register(plant.first)
    locks = [plant.first]
    for version in ("2.0", "3.0", "4.0"):
        plant.offer(version)
        locks.append(plant.refresh())
    environment_for(locks[1], plant.store, plant.runtime)
    plant.age()
    run("gc", "--delete")
    assert plant.generations() == [1, 2, 4]
    assert [plant.holds(lock) for lock in locks] == [True, True, False, True]

    plant.package("press:1", locks[3])  # materialized again
    for folder in (plant.folder / "environments").glob("*-*"):
        folder.rename(folder.with_name("elsewhere")) if folder.is_dir() else None
    plant.age()
    run("gc", "--delete")
    assert plant.generations() == [1, 4]  # the registered package's stays for ever
    assert plant.lock() == locks[3]


def test_gc_takes_all_generations_of_a_lock_that_nothing_uses(plant: Plant) -> None:
    plant.offer("2.0")
    plant.refresh()
    plant.package("press:1", Lock(key="0" * 64, python="3.11", platform="x", requirements=(), packages=()))
    plant.age()
    assert [line.split()[0].rpartition("/")[2] for line in run("gc").stdout.splitlines()[1:3]] == [
        f"{plant.first.key}.json", f"{plant.first.key}.2.json",
    ]  # fmt: skip
    assert plant.lock().packages[0].version == "2.0"  # a run begins, and uses the one in force
    plant.age()
    os.utime(plant.folder / "artefacts" / "locks" / f"{plant.first.key}.2.json")
    run("gc", "--delete")
    assert plant.generations() == [2]
    plant.age()
    run("gc", "--delete")
    assert plant.generations() == []


def test_a_lock_that_cannot_be_read_is_named_beside_the_others(plant: Plant) -> None:
    document = plant.folder / "artefacts" / "locks" / ("0" * 64 + ".json")
    for text in ("{", '{"key": 3}'):
        document.write_text(text)
        result = CliRunner().invoke(main, ["lock", "list"])
        assert result.exit_code == 1
        assert plant.first.key[:12] in result.stdout
        assert "0" * 64 in result.stderr and "delete it" in result.stderr
        assert len(result.stderr.splitlines()) == 1
