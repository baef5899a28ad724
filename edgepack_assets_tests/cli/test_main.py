"""The `edgepack` command, on a configuration and a Dagster home of its own."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.cli.main import main
from edgepack_assets.defs import instance as dagster_home
from edgepack_assets.errors import ConfigError, EdgepackError
from edgepack_assets.partitions import PARTITIONS_NAME, ModelKey
from edgepack_assets.registry.base import Kind
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets.sandbox import isolation

CONFIG = """\
registry: {path: registry}
artefacts: {root: artefacts}
runtime: {environments: environments}
model_types:
  press:
    implementation: state_identifier
    model_name: press_model
    package_name: Press
    raw_data: {name: press_raw}
  press_line_4:
    implementation: state_identifier
    model_name: press_model
    package_name: Press Line 4
    raw_data: {name: press_raw}
  parts:
    implementation: image_classification
    model_name: parts_model
    package_name: Parts
    raw_data: {name: parts_raw}
"""


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an edgepack.yaml, in force, and a model and data to register."""
    folder = tmp_path / "plant floor"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.pkl").write_bytes(b"x" * 1500)
    (folder / "raw.parquet").write_bytes(b"PAR1")
    (folder / "edgepack.yaml").write_text(CONFIG)
    monkeypatch.chdir(folder)
    for name in ("EDGEPACK_CONFIG", "DAGSTER_HOME", "SIMATICAI_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    return folder


def run(*arguments: str, exit_code: int = 0) -> Result:
    if arguments[1:2] == ("add",):
        arguments += ("--force",)  # the files here are no models
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == exit_code, result.output
    return result


def listed(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(*arguments, "--json").stdout)
    return found


def partitions(home: Path) -> set[str]:
    from dagster import DagsterInstance

    with DagsterInstance.from_config(str(home)) as instance:
        return set(instance.get_dynamic_partitions(PARTITIONS_NAME))


# Models and data ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noun", "name", "path", "meant"),
    [("model", "pres_model", "model", "press_model"), ("data", "press_raww", "raw.parquet", "press_raw")],
)
def test_a_name_that_no_model_type_uses_is_said(plant: Path, noun: str, name: str, path: str, meant: str) -> None:
    said = run(noun, "add", name, path).stderr
    assert f"{name}: nothing will use it (did you mean {meant}?)" in said
    assert "did you mean" not in run(noun, "add", "quite_different", path).stderr


def test_a_model_is_added_listed_and_downloaded_and_dagster_knows_it(plant: Path) -> None:
    added = run("model", "add", "press_model", "model", "--tag", "lot=a=b", "--tag", "empty=")
    assert added.stdout == "press_model:1\n"
    assert added.stderr == "partition press:1 added\npartition press_line_4:1 added\n"
    assert partitions(plant / ".edgepack" / "dagster") == {"press:1", "press_line_4:1"}

    [found] = listed("model", "list")
    made = LocalRegistry(plant / "registry").get(Kind.MODEL, "press_model", 1)
    assert found == {
        "kind": "model",
        "name": "press_model",
        "version": 1,
        "tags": {"lot": "a=b", "empty": ""},
        "created": made.created.isoformat(),
        "digest": made.digest,
        "size": 1500,
        "location": made.location,
    }
    assert datetime.fromisoformat(found["created"]).utcoffset() == timedelta(0)
    assert run("model", "download", "press_model:1", "out").stdout == "out/model\n"
    assert (plant / "out" / "model" / "model.pkl").read_bytes() == b"x" * 1500


def test_data_goes_the_same_way_without_partitions(plant: Path) -> None:
    assert run("data", "add", "press_raw", "raw.parquet", "--tag", "site=fürth").stdout == "press_raw:1\n"
    assert run("data", "add", "press_raw", "raw.parquet").stdout == "press_raw:2\n"
    assert [(item["kind"], item["version"], item["tags"]) for item in listed("data", "list", "press_raw")] == [
        ("data", 1, {"site": "fürth"}),
        ("data", 2, {}),
    ]
    assert listed("model", "list") == []
    assert run("data", "download", "press_raw:latest", ".", exit_code=1).stderr.startswith("Error: raw.parquet")
    assert run("data", "download", "press_raw:latest", "out").stdout == "out/raw.parquet\n"
    assert not (plant / ".edgepack").exists()


def test_the_table_is_aligned_and_holds_packages_too(plant: Path) -> None:
    assert run("model", "list").stdout.split() == ["NAME", "VERSION", "CREATED", "SIZE", "DIGEST", "TAGS"]
    run("model", "add", "press_model", "model", "--tag", "b=2", "--tag", "a=1")
    other = run("model", "add", "Press-Line-4-edge", "raw.parquet")
    assert "no model type of" in other.stderr
    head, package, model = run("model", "list").stdout.splitlines()
    for column in ("VERSION", "CREATED", "SIZE", "DIGEST"):
        at = head.index(column)
        assert all(line[at - 1] == " " and line[at] != " " for line in (package, model))
    assert package.split()[:2] == ["Press-Line-4-edge", "1"]
    assert "1.5 kB" in model
    assert model.endswith("a=1 b=2")
    assert len(run("model", "list", "press_model").stdout.splitlines()) == 2
    run("model", "add", "press_model", "model", "--tag", f"long={'x' * 500}")
    assert run("model", "list", "press_model").stdout.endswith(f" long={'x' * 39}…\n")
    assert listed("model", "list", "press_model")[-1]["tags"] == {"long": "x" * 500}


@pytest.mark.parametrize(
    ("arguments", "exit_code", "told"),
    [
        (["model", "add", "press_model", "lost"], 2, r"lost: no such file or folder"),
        (["model", "add", "../x", "model"], 1, "'../x' cannot be the name of a model"),
        (["model", "add", "press_model", "model", "--tag", "x"], 2, "'x' is not a tag: write KEY=VALUE"),
        (["model", "add", "press_model", "model", "--tag", "x=1", "--tag", "x=2"], 2, "'x' is given twice"),
        (["model", "list", "pres"], 2, "no model 'pres'; it has: none"),
        (["data", "download", "raw:7", "out"], 2, "no data asset 'raw'; it has: none"),
        (["data", "download", "raw", "out"], 2, "write NAME:VERSION"),
        (["data", "download", "raw:0", "out"], 2, "write NAME:VERSION"),
        (["data", "download", "raw:1", "edgepack.yaml"], 2, "'edgepack.yaml' is a file"),
        (["package"], 2, "package [OPTIONS] KEY..."),
    ],
)
def test_mistakes_are_told_without_a_traceback(
    plant: Path, arguments: Sequence[str], exit_code: int, told: str
) -> None:
    result = run(*arguments, exit_code=exit_code)
    assert told in result.stderr
    assert "Error: " in result.stderr
    assert result.stdout == ""
    assert isinstance(result.exception, SystemExit)


def test_a_broken_configuration_is_told_by_line(plant: Path) -> None:
    (plant / "edgepack.yaml").write_text(CONFIG + "models: {}\n")
    result = run("sync", exit_code=2)
    assert result.stderr.startswith(f"Error: {plant / 'edgepack.yaml'}:20: unknown key 'models'")


def test_a_version_is_approved_once_by_somebody(plant: Path) -> None:
    run("model", "add", "press_model", "model", "--tag", "odd=\u202e\n;'")
    assert run("model", "approve", "press_model:1", "--by", " Anna\nAnders ").stdout.startswith(
        "press_model:1 is approved by Anna Anders 20"
    )
    [found] = listed("model", "list")
    assert found["tags"].keys() == {"odd", "approved_by", "approved_at"}
    assert datetime.fromisoformat(found["tags"]["approved_at"]).utcoffset() == timedelta(0)
    again = run("model", "approve", "press_model:1", "--by", "Bert").stdout
    assert again.startswith("press_model:1 was already approved by Anna Anders")
    assert listed("model", "list") == [found]
    assert "no version 2" in run("model", "approve", "press_model:2", exit_code=2).stderr
    assert "by its number" in run("model", "approve", "press_model:latest", exit_code=2).stderr
    assert (
        "needs no approval in the environment 'dev': no sensor waits for this approval here"
        in run("model", "approve", "press_model:1").stderr
    )
    run("model", "add", "press_model", "model")
    run("model", "approve", "press_model:2")
    assert listed("model", "list")[1]["tags"]["approved_by"] == getpass.getuser()
    run("model", "add", "Press-edge", "model")
    assert (
        "has the model_name Press-edge: no sensor waits for this approval"
        in run("model", "approve", "Press-edge:1").stderr
    )
    assert (
        "has no model 'pres_model'; it has: Press-edge, press_model"
        in run("model", "approve", "pres_model:1", exit_code=2).stderr
    )


# Dagster's home ------------------------------------------------------------------------------------------


def test_sync_adds_every_version_once(plant: Path) -> None:
    registry = LocalRegistry(plant / "registry")
    for version in (1, 2, 10):
        registry.register(Kind.MODEL, "press_model", plant / "model", {}, version=version)
    registry.register(Kind.MODEL, "parts_model", plant / "model", {})
    registry.register(Kind.MODEL, "somebody_elses", plant / "model", {})
    run("model", "add", "parts_model", "model")
    first = run("sync")
    versions = [f"press:{v}" for v in (1, 2, 10)] + [f"press_line_4:{v}" for v in (1, 2, 10)]
    assert first.stdout.split() == ["parts:1", *versions]
    assert first.stderr == f"7 of 8 partitions added in {plant / '.edgepack' / 'dagster'}\n"
    assert partitions(plant / ".edgepack" / "dagster") == {"parts:1", "parts:2", *versions}
    assert run("sync").stdout == ""


def test_a_home_of_the_users_own_is_used_and_left_alone(
    plant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "my home"
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    refused = run("model", "add", "press_model", "model", exit_code=3)
    assert refused.stdout == "press_model:1\n"
    assert f"DAGSTER_HOME names {home}, which is not a folder" in refused.stderr
    assert "press_model:1 is registered" in refused.stderr
    assert "edgepack sync" in refused.stderr
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    assert run("sync").stdout == "press:1\npress_line_4:1\n"
    assert partitions(home) == {"press:1", "press_line_4:1"}
    assert (home / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"
    assert not (plant / ".edgepack").exists()
    monkeypatch.setenv("DAGSTER_HOME", "my home")
    with pytest.raises(ConfigError, match=f"'my home', which is not an absolute path.*{plant / 'my home'}"):
        dagster_home.home()


def test_our_home_follows_the_dagster_yaml_beside_the_configuration(
    plant: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = resources.files("edgepack_assets").joinpath("default_dagster.yaml").read_text()
    copy = dagster_home.ensure() / "dagster.yaml"
    assert copy.read_text() == default
    (plant / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(copy.parent))  # as `edgepack env` exports it
    assert dagster_home.ensure() == copy.parent
    assert copy.read_text() == "telemetry: {enabled: false}\n"
    # The default is the project's own, so that neither is forgotten when the other changes.
    own = (Path(__file__).parents[2] / "dagster.yaml").read_text()
    assert own.partition("\n")[2] == default.partition("\n")[2]


def test_a_home_that_dagster_cannot_use_is_named(plant: Path) -> None:
    (plant / "dagster.yaml").write_text("telemetry: {enabled: perhaps}\n")
    with pytest.raises(EdgepackError, match=r"the Dagster instance in .*dagster cannot be used"):
        dagster_home.add_partitions([ModelKey("press", 1)])


def test_a_home_that_cannot_be_written_to_is_told_before_dagster_fails_on_its_database(
    plant: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = dagster_home.ensure()
    # as on a read-only file system, where being root is of no use
    monkeypatch.setattr(os, "access", lambda path, mode: not (Path(path) == home and mode & os.W_OK))
    said = run("env", exit_code=3).stderr
    assert f"{home}, where Dagster keeps its runs, cannot be written to: make it writable, or set DAGSTER_HOME" in said


# The real command ----------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_shell_takes_the_exports_and_dagster_sees_the_partition(plant: Path) -> None:
    edgepack = Path(sys.executable).with_name("edgepack")
    (plant / "probe.py").write_text(
        "import dagster as dg\n"
        f"@dg.asset(partitions_def=dg.DynamicPartitionsDefinition(name={PARTITIONS_NAME!r}))\n"
        "def probe(context: dg.AssetExecutionContext): print('made', context.partition_key)\n"
        "defs = dg.Definitions([probe])\n"
    )
    script = f"""
        set -e
        {edgepack} model add press_model model --force
        eval "$({edgepack} env)"
        cd /
        echo "$EDGEPACK_CONFIG|$DAGSTER_HOME|$DAGSTER_MODULE_NAME"
        echo "$SIMATICAI_TELEMETRY|$DAGSTER_DISABLE_TELEMETRY"
        export DAGSTER_MODULE_NAME=probe PYTHONPATH="{plant}"
        {edgepack.with_name("dagster")} asset materialize --select '*' --partition press:1
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DAGSTER_")}
    done = subprocess.run(
        ["bash", "-c", script], cwd=plant, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    home = plant / ".edgepack" / "dagster"
    assert lines[:3] == [
        "press_model:1",
        f"{plant / 'edgepack.yaml'}|{home}|edgepack_assets.definitions",
        "deny|yes",
    ]
    assert "made press:1" in lines


def test_what_the_user_chose_about_telemetry_stands(plant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMATICAI_TELEMETRY", "allow")
    assert "export SIMATICAI_TELEMETRY=allow\n" in run("env").stdout


def test_the_command_loads_nothing_heavy(plant: Path) -> None:
    code = (
        "import sys; from edgepack_assets.cli.main import main; main(['model', 'list'], standalone_mode=False); "
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"dagster", "pandas", "numpy", "pyarrow", "sklearn", "matplotlib", "simaticai", "azure", "PIL"}
    assert heavy & set(done.stdout.split()) == set()


def test_a_downloaded_package_has_its_checksum_beside_it(plant: Path) -> None:
    registry = LocalRegistry(plant / "registry")
    (plant / "Press-edge_1.zip").write_bytes(b"zip")
    for tags in ({"content_digest": "0" * 64}, {}):
        registry.register(Kind.MODEL, "Press-edge", plant / "Press-edge_1.zip", tags)
    path = Path(run("model", "download", "Press-edge:1", "out").stdout.strip())
    assert path == Path("out/Press-edge_1.zip")
    subprocess.run(["sha256sum", "--check", "--strict", "Press-edge_1.sha256"], cwd=path.parent, check=True)
    path.unlink()
    run("model", "download", "Press-edge:1", "out")
    path.unlink()
    path.with_suffix(".sha256").write_text("of another")
    assert "Press-edge_1.sha256 is there already" in run("model", "download", "Press-edge:1", "out", exit_code=1).stderr
    run("model", "download", "Press-edge:2", "plain")
    assert [entry.name for entry in Path("plain").iterdir()] == ["Press-edge_1.zip"]


# Garbage -------------------------------------------------------------------------------------------------


class Store:
    """An artefact store with locks, each of one wheel."""

    def __init__(self, plant: Path) -> None:
        self.root = plant / "artefacts"
        self.store = ArtefactStore(str(self.root), plant / "cache")

    def lock(self, key: str) -> dict[str, Any]:
        wheel = self.store.put_bytes(f"wheel of {key}".encode(), "application/x-wheel+zip")
        package = {
            "name": key,
            "version": "1",
            "file": f"{key}-1.whl",
            "digest": wheel.digest,
            "size": wheel.size,
        }
        lock = {"key": key, "python": "3.11", "packages": [package]}
        self.store.put_named("locks", key, lock)
        return lock

    def age(self, seconds: float) -> None:
        for path in (path for path in self.root.rglob("*") if path.is_file()):
            changed = path.stat().st_mtime - seconds
            os.utime(path, (changed, changed))

    def texts(self) -> set[str]:
        return {path.read_text() for path in (self.root / "blobs").rglob("*") if path.is_file()}


def test_gc_keeps_what_manifests_environments_and_packages_need(plant: Path) -> None:
    plant_store = Store(plant)
    store = plant_store.store
    locks = {name: plant_store.lock(name) for name in ("manifest", "kept", "package", "recent", "nobody")}
    # A lock resolved anew has the same key and other wheels: the manifest's own are needed as well.
    own_wheel = store.put_bytes(b"wheel of a manifest", "application/x-wheel+zip")
    own = {**locks["manifest"], "packages": [{"digest": own_wheel.digest}]}
    parts = {"lock": store.put_json(own), "package": store.put_bytes(b"part", "text/plain")}
    observations = {"timings": store.put_bytes(b"timings", "text/plain")}
    store.save(Artefact(asset="config_package", partition="press:1", parts=parts, observations=observations))
    store.put_bytes(b"replaced", "text/plain")
    (plant / "environments" / "kept-0123456789abcdef").mkdir(parents=True)
    (plant / "environments" / "nobody-0123.lock").touch()
    registry = LocalRegistry(plant / "registry")
    registry.register(Kind.MODEL, "Press-edge", plant / "model", {"lock_key": "package"})
    plant_store.age(7200)
    assert store.get_named("locks", "recent") is not None  # by a run in progress

    before = plant_store.texts()
    shown = run("gc").stdout
    assert plant_store.texts() == before
    assert run("gc", "--grace", "8000").stdout == "nothing to delete\n"

    deleted = run("gc", "--delete").stdout
    assert deleted.splitlines()[:-1] == shown.splitlines()[:-1]
    assert str(plant / "artefacts" / "locks" / "nobody.json") in deleted
    assert deleted.splitlines()[-1].endswith("in 3 files deleted")
    assert before - plant_store.texts() == {"wheel of nobody", "replaced"}
    assert set(store.named("locks")) == {"manifest", "kept", "package", "recent"}
    assert run("gc", "--delete").stdout == "nothing to delete\n"

    # Without the environment and the run in progress, their locks go too; the package's never does.
    shutil.rmtree(plant / "environments")
    plant_store.age(7200)
    run("gc", "--delete")
    assert set(store.named("locks")) == {"manifest", "package"}
    kept = {"wheel of manifest", "wheel of a manifest", "wheel of package", "part", "timings"}
    assert plant_store.texts() - {store.read_bytes(parts["lock"]).decode()} == kept


def test_gc_takes_idle_environments_and_what_only_they_needed(plant: Path) -> None:
    plant_store = Store(plant)
    for name in ("kept", "idle"):
        plant_store.lock(name)
        folder = plant / "environments" / f"{name}-0123456789abcdef"
        folder.mkdir(parents=True)
        (folder / "edgepack-lock.json").write_text("{}")
        (folder / "module.py").write_text("x = 1\n" * 1000)
    plant_store.age(7200)
    marker = plant / "environments" / "idle-0123456789abcdef" / "edgepack-lock.json"
    before = marker.stat().st_mtime - 40 * 24 * 3600
    os.utime(marker, (before, before))
    assert run("gc", "--idle-days", "50").stdout == "nothing to delete\n"
    shown = run("gc").stdout
    assert marker.exists()
    deleted = run("gc", "--delete").stdout
    assert deleted.splitlines()[:-1] == shown.splitlines()[:-1]
    assert deleted.splitlines()[1].startswith(f"{marker.parent} ")
    assert deleted.splitlines()[1].endswith(" 6.0 kB")
    assert deleted.splitlines()[-1].endswith("in 2 files and 1 environment deleted")
    assert plant_store.texts() == {"wheel of kept"}
    assert [path.name for path in (plant / "environments").iterdir() if path.is_dir()] == ["kept-0123456789abcdef"]


def test_gc_deletes_nothing_where_it_cannot_read_a_manifest(plant: Path) -> None:
    plant_store = Store(plant)
    made = Artefact(
        asset="metrics", partition="press:1", parts={"x": plant_store.store.put_bytes(b"part", "text/plain")}
    )
    plant_store.store.save(made)
    plant_store.age(7200)
    manifest = plant / "artefacts" / "manifests" / "metrics" / "press" / "1.json"
    manifest.write_text("{")
    assert f"Error: {manifest}: not a manifest" in run("gc", "--delete", exit_code=1).stderr
    assert plant_store.texts() == {"part"}


def test_gc_goes_on_where_no_manifest_can_matter_and_says_how_to_end_it(plant: Path) -> None:
    plant_store = Store(plant)
    store = plant_store.store
    plant_store.lock("nobody")
    for version in (1, 2, 3):
        lock = store.put_json({"key": f"key {version}", "packages": []})
        store.save(Artefact(asset="config_package", partition=f"press:{version}", parts={"lock": lock}))
    environment = plant / "environments" / "idle-0123456789abcdef"
    environment.mkdir(parents=True)
    (environment / "edgepack-lock.json").write_text("{}")
    os.utime(environment / "edgepack-lock.json", (0, 0))
    (plant / "artefacts" / "tmp").mkdir(exist_ok=True)
    (plant / "artefacts" / "tmp" / "torn").write_bytes(b"half")
    plant_store.age(7200)
    manifest = plant / "artefacts" / "manifests" / "config_package" / "press" / "1.json"
    manifest.write_text("{")
    broken = Path(store.fetch(store.load("config_package", "press:2").parts["lock"]))
    broken.chmod(0o600)
    broken.write_bytes(b"other bytes")
    before = plant_store.texts()
    done = run("gc", "--delete", exit_code=1)
    assert [line.rsplit("  ")[0] for line in done.stdout.splitlines()[1:-1]] == [
        str(environment), str(plant / "artefacts" / "tmp" / "torn"),
    ]  # fmt: skip
    assert plant_store.texts() == before
    assert set(store.named("locks")) == {"nobody"}
    [said] = done.stderr.splitlines()
    for words in (f"{manifest}: not a manifest", f"{broken}: bytes differ", "Every artefact and lock is kept"):
        assert words in said
    # What it says to do ends it.
    manifest.unlink()
    (manifest.parent / "2.json").unlink()
    done = run("gc", "--delete", "--grace", "0")
    assert str(plant / "artefacts" / "locks" / "nobody.json") in done.stdout
    assert "wheel of nobody" not in plant_store.texts()


def damage_tags(plant: Path, name: str, version: int) -> Path:
    """As an earlier release left a tag of a Latin-1 shell."""
    path = plant / "registry" / "models" / name / str(version) / "tags.json"
    path.write_text('{"by": "\\udce4"}')
    return path


def test_a_tag_of_a_latin_1_shell_is_refused_and_nothing_is_placed(plant: Path) -> None:
    edgepack = Path(sys.executable).with_name("edgepack")
    command = [edgepack, "model", "add", "press_model", "model", "--force", "--tag", b"by=J\xe4ger"]
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "PYTHONUTF8": "1"})
    assert done.returncode == 1
    assert rb"tag 'by': 'J\udce4ger' cannot be kept: it is not UTF-8 text" in done.stderr
    assert listed("model", "list") == []


def test_a_damaged_version_is_listed_as_such_and_the_others_are_served(plant: Path) -> None:
    for _ in range(3):
        run("model", "add", "press_model", "model")
    path = damage_tags(plant, "press_model", 3)
    table = run("model", "list").stdout.splitlines()
    assert [line.split()[:2] for line in table[1:]] == [["press_model", str(n)] for n in (1, 2, 3)]
    assert table[3].split()[2:5] == ["damaged", "?", "?"]
    assert f"{path}: is damaged; restore it from a backup" in table[3]
    found = listed("model", "list", "press_model")
    assert [each.get("damaged") is None for each in found] == [True, True, False]
    assert found[2]["digest"] is None
    latest = run("model", "download", "press_model:latest", "out")
    assert latest.stderr.startswith("press_model:2 is the latest that can be read: press_model:3 is damaged")
    assert f"Error: {path}: is damaged" in run("model", "download", "press_model:3", "other", exit_code=1).stderr
    assert f"Error: {path}: is damaged" in run("model", "approve", "press_model:3", exit_code=1).stderr
    synced = run("sync")
    assert "press_model:3 is damaged and passed over" in synced.stderr
    assert run("model", "add", "press_model", "model").stdout == "press_model:4\n"


def test_gc_keeps_what_a_damaged_package_may_need(plant: Path) -> None:
    plant_store = Store(plant)
    for name in ("package", "nobody"):
        plant_store.lock(name)
    registry = LocalRegistry(plant / "registry")
    made = registry.register(Kind.MODEL, "Press-edge", plant / "model", {"lock_key": "package"})
    shutil.rmtree(made.location)
    plant_store.age(7200)
    done = run("gc")
    assert "Press-edge:1 is damaged and passed over" in done.stderr
    assert "nobody" in done.stdout  # its tags tell that it needs the other lock
    assert "package.json" not in done.stdout
    damage_tags(plant, "Press-edge", 1)
    done = run("gc", "--delete")
    assert "every lock is kept with its wheels: Press-edge:1 may need any of them" in done.stderr
    assert plant_store.texts() == {"wheel of package", "wheel of nobody"}


def test_gc_shows_registrations_that_were_cut_short(plant: Path) -> None:
    staging = plant / "registry" / "staging"
    for name in ("old", "living"):
        (staging / name / "content").mkdir(parents=True)
        (staging / name / "content" / "weights").write_bytes(b"x" * 2000)
    before = staging.stat().st_mtime - 7200
    os.utime(staging / "old", (before, before))
    shown = run("gc")
    assert f"{staging / 'living'} (2.0 kB) is kept: a registration in progress" in shown.stderr
    assert shown.stdout.splitlines()[-1].startswith("2.0 kB in 0 files and 1 unfinished registration can be deleted")
    assert run("gc", "--delete", "--grace", "0").stdout.splitlines()[1].startswith(f"{staging / 'old'} ")
    assert [entry.name for entry in staging.iterdir()] == ["living"]


# The machine ---------------------------------------------------------------------------------------------


@pytest.mark.sandbox
def test_the_doctor_says_what_holds(plant: Path) -> None:
    said = run("doctor").stdout
    assert f"configuration: {plant / 'edgepack.yaml'}" in said
    assert "ok     artefact store:" in said
    assert "ok     what is in it: local: 0 models and 0 data assets" in said
    assert "model code is isolated by" in said
    assert "ok     the network: refused" in said
    assert "ok     edgepack-assets " in said
    assert "dagster " in said
    assert "no     daemon: is not running" in said
    assert "FAILS" not in said


@pytest.mark.sandbox
def test_the_doctor_finds_what_will_fail_and_says_it_as_json(plant: Path) -> None:
    (plant / "edgepack.yaml").write_text(
        CONFIG.replace("    model_name: parts_model", "    model_name: parts_model\n    gates: {acuracy: {min: 1}}")
    )
    findings = {each["name"]: each for each in json.loads(run("doctor", "--json", exit_code=1).stdout)}
    written = findings["settings and gates"]
    assert not written["holds"]
    assert written["vital"]
    assert "edgepack.yaml:18: " in written["message"]
    assert "acuracy is no metric of image_classification" in written["message"]
    assert findings["artefact store"]["holds"]


@pytest.mark.sandbox
def test_the_doctor_fails_where_what_is_required_does_not_hold(plant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (plant / "edgepack.yaml").write_text(
        CONFIG.replace("environments: environments}", "environments: environments, isolation: required}")
    )
    (plant / "bin").mkdir()
    isolation._why_not.cache_clear()
    monkeypatch.setenv("PATH", str(plant / "bin"))
    try:
        done = run("doctor", exit_code=1)
    finally:
        isolation._why_not.cache_clear()
    assert "FAILS  runtime.isolation: required: model code is not isolated" in done.stdout
    assert "FAILS  files of this machine: it read" in done.stdout
    assert "vital checks failed" in done.stderr


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every group of commands, by the words that call it."""
    yield path
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("path", commands(main), ids=" ".join)
def test_no_help_text_is_cut_off(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(main, [*path, "--help"], terminal_width=80)
    assert shown.exit_code == 0
    assert "Commands:" in shown.output
    assert "..." not in shown.output.split("Commands:")[1]
