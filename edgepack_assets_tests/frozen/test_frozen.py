"""What users have is read by today's code: a folder that an earlier version left (see make.py) is opened and worked on.

A failure here means that a change breaks existing folders. Mend the change; never the sample.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster._core.scheduler.instigation import SensorInstigatorData

from edgepack_assets.artefacts.store import ArtefactStore, open_store
from edgepack_assets.cli.main import main
from edgepack_assets.config.loader import load_settings
from edgepack_assets.definitions import build_defs
from edgepack_assets.defs.io_manager import check_recorded
from edgepack_assets.defs.run_launcher import WatchedRunLauncher
from edgepack_assets.environments.interpreters import find_python
from edgepack_assets.environments.lock import newest_generation
from edgepack_assets.errors import EdgepackError
from edgepack_assets.new_models.cursor import State
from edgepack_assets.operations.garbage import find_garbage
from edgepack_assets.registry.base import Kind, RegisteredVersion
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets_tests.frozen.state import SAMPLE, names, thaw, tick

PACKAGE = "Tiny-Echo-edge"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, in force for commands."""
    thaw(tmp_path)
    monkeypatch.setenv("EDGEPACK_CONFIG", str(tmp_path / "edgepack.yaml"))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return tmp_path


@pytest.fixture
def instance(folder: Path) -> Iterator[dg.DagsterInstance]:
    """The user's Dagster instance, as their dagster.yaml says."""
    with dg.DagsterInstance.from_config(str(folder / ".edgepack" / "dagster")) as opened:
        yield opened


@pytest.fixture
def store(folder: Path) -> ArtefactStore:
    return open_store(load_settings(folder / "edgepack.yaml"))


def packages(folder: Path) -> list[RegisteredVersion]:
    return LocalRegistry(folder / "registry").versions(Kind.MODEL, PACKAGE)


def package(folder: Path, instance: dg.DagsterInstance, key: str) -> dg.AssetMaterialization:
    """A run of deployment_package alone, and what it reports."""
    job = build_defs(folder / "edgepack.yaml").resolve_implicit_global_asset_job_def()
    done = job.execute_in_process(
        instance=instance, partition_key=key, asset_selection=[dg.AssetKey("deployment_package")]
    )
    [event] = done.asset_materializations_for_node("deployment_package")
    return event


def test_every_name_that_dagster_keeps_is_what_it_was(folder: Path) -> None:
    today = names(build_defs(folder / "edgepack.yaml"))
    for kind, before in json.loads((SAMPLE / "names.json").read_text()).items():
        if isinstance(before, list):
            assert set(before) <= set(today[kind]), kind
        else:
            assert before == {name: today[kind].get(name) for name in before}, kind


def test_the_dagster_yaml_of_users_starts_our_run_launcher(instance: dg.DagsterInstance) -> None:
    assert isinstance(instance.run_launcher, WatchedRunLauncher)


def test_partitions_materializations_and_checks_are_found(folder: Path, instance: dg.DagsterInstance) -> None:
    graph = build_defs(folder / "edgepack.yaml").resolve_asset_graph()
    partitions = {node.partitions_def for node in map(graph.get, graph.get_all_asset_keys())}
    [models] = partitions
    assert models is not None
    assert models.get_partition_keys(dynamic_partitions_store=instance) == ["press:1", "press:2"]
    for key in graph.materializable_asset_keys:
        wanted = ["press:1"] if key.to_user_string() == "deployment_package" else ["press:1", "press:2"]
        assert sorted(instance.get_materialized_partitions(key)) == wanted, key
    checks = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(graph.asset_check_keys))
    assert set(checks) == set(graph.asset_check_keys)


def test_a_manifest_is_read_and_would_be_written_as_it_was(store: ArtefactStore, instance: dg.DagsterInstance) -> None:
    stored = sorted((SAMPLE / "edgepack" / "artefacts" / "manifests").rglob("*.json"))
    assert len(stored) == 11
    for path in stored:
        asset, model_type, version = path.with_suffix("").parts[-3:]
        artefact = store.load(asset, f"{model_type}:{version}")
        assert artefact.manifest() == path.read_bytes()
        check_recorded(artefact, instance)
        for blob in artefact.blobs():
            assert store.fetch(blob).stat().st_size == blob.size


def test_registered_versions_are_read_with_their_tags(folder: Path, tmp_path: Path) -> None:
    registry = LocalRegistry(folder / "registry")
    found = [version for name in registry.names(Kind.MODEL) for version in registry.versions(Kind.MODEL, name)]
    assert [str(each) for each in found] == [f"{PACKAGE}:1", "press_model:1", "press_model:2"]
    assert registry.names(Kind.DATA) == ["press_raw"]
    for each in found:
        stored = SAMPLE / "registry" / "models" / each.name / str(each.version) / "tags.json"
        assert dict(each.tags) == json.loads(stored.read_text())
        assert registry.download(each, tmp_path / "downloads" / str(each)).is_file()


def test_packaging_a_packaged_version_again_registers_nothing(folder: Path, instance: dg.DagsterInstance) -> None:
    [before] = packages(folder)
    event = package(folder, instance, "press:1")
    assert event.metadata["registered_before"].value is True
    assert event.metadata["content_digest"].value == before.tags["content_digest"]
    assert packages(folder) == [before]


def test_a_further_version_is_packaged_from_the_artefacts_that_are_there(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    """Its package has the tags, the content and the package id that the earlier one has."""
    try:
        find_python("3.11")
    except EdgepackError as error:
        pytest.skip(f"the sample's lock is for Python 3.11: {error}")
    package(folder, instance, "press:2")
    first, second = packages(folder)
    assert second.number == 2
    assert set(second.tags) >= set(first.tags)
    differing = {name for name, value in first.tags.items() if second.tags[name] != value}
    assert differing <= {"model_version", "run_id", "edgepack_version", "config_digest"}


def test_the_sensor_goes_on_from_its_cursor_and_requests_nothing_again(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    [state] = instance.all_instigator_state()
    assert state.instigator_name == "press_models"
    data = state.instigator_data
    assert isinstance(data, SensorInstigatorData)
    _, answer = tick(folder / "edgepack.yaml", instance, data.cursor)
    assert isinstance(answer, dg.SensorResult)
    assert not answer.run_requests
    assert answer.skip_reason is not None
    assert "nothing new: the highest version of press_model is 2" in str(answer.skip_reason.skip_message)


def test_the_sensor_would_request_it_again_without_the_cursor_or_the_run(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    """What the test above sees does not hold of any instance."""
    for run in instance.get_runs():
        instance.delete_run(run.run_id)
    _, answer = tick(folder / "edgepack.yaml", instance, None)
    assert isinstance(answer, dg.SensorResult)
    assert [request.partition_key for request in answer.run_requests or ()] == ["press:2"]


def test_every_field_of_a_cursor_is_read_and_written_as_it_was() -> None:
    text = (SAMPLE / "cursor.json").read_text()
    assert State.from_cursor(text).to_cursor() == text


def test_the_commands_show_what_is_there(folder: Path) -> None:
    done = CliRunner().invoke(main, ["model", "list"])
    assert done.exit_code == 0, done.output
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [
        [PACKAGE, "1"], ["press_model", "1"], ["press_model", "2"],
    ]  # fmt: skip
    done = CliRunner().invoke(main, ["sensors"])  # the daemon of the sample is long gone
    [line] = [line for line in done.output.splitlines() if line.startswith("press_models")]
    assert "requested 1 run" in line


def test_garbage_is_nothing_that_is_needed(folder: Path, store: ArtefactStore) -> None:
    registry, environments = LocalRegistry(folder / "registry"), folder / ".edgepack" / "environments"
    assert find_garbage(store, registry, environments, 0) == []
    shutil.rmtree(folder / ".edgepack" / "artefacts" / "manifests")
    left = {Path(item.path).name for item in find_garbage(store, registry, environments, 0)}
    [tags] = [each.tags for each in packages(folder)]
    lock = newest_generation(tags["lock_key"], store)
    assert lock is not None
    wheels = {wheel.digest for wheel in lock.lock.packages}
    assert wheels and not wheels & left  # the registered package needs them
    assert left
