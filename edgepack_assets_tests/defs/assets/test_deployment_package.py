"""deployment_package in Dagster: launched alone, with its run configuration; errors that pass, slots that leak."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.instance.config import PoolGranularity

from edgepack_assets import __file__ as package_file
from edgepack_assets.artefacts.artefact import canonical_json
from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.digest import config_digest
from edgepack_assets.definitions import build_defs
from edgepack_assets.defs import failures
from edgepack_assets.defs.assets.deployment_package import POOL
from edgepack_assets.defs.io_manager import check_recorded
from edgepack_assets.defs.kept_helpers import keeping_helpers
from edgepack_assets.defs.resources import EdgepackResource
from edgepack_assets.errors import StaleError, TransientError
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets_tests.defs.assets.recorded import record
from edgepack_assets_tests.tasks.plant import METRICS, Plant

PROJECT = Path(package_file).parents[1]


@pytest.fixture(scope="module", autouse=True)
def _one_packaging_worker() -> Iterator[None]:
    """As in a process that makes one run after the other: each test's own would import the SDK again."""
    with keeping_helpers():
        yield


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance with this project's own dagster.yaml."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_bytes((PROJECT / "dagster.yaml").read_bytes())
    with dg.DagsterInstance.from_config(str(home)) as made:
        made.add_dynamic_partitions("models", ["press:1", "press:2"])
        yield made


def launch(
    plant: Plant, instance: dg.DagsterInstance, version: int = 1, **config: str
) -> tuple[dg.ExecuteInProcessResult, str]:
    """A run of deployment_package alone: its result, and what its failure says."""
    context, validated = plant.task_context(), plant.validated(version)
    for artefact in validated.inputs().values():
        context.store.save(artefact)
        record(instance, artefact)
    return run(plant, instance, version, **config)


def run(
    plant: Plant, instance: dg.DagsterInstance, version: int = 1, **config: str
) -> tuple[dg.ExecuteInProcessResult, str]:
    """The same on what lies in the artefact store."""
    context = plant.task_context()
    job = build_defs(context.settings.file).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance,
        partition_key=f"press:{version}",
        asset_selection=[dg.AssetKey("deployment_package")],
        run_config={"ops": {"deployment_package": {"config": config}}},
        raise_on_error=False,
    )
    told = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    return result, "".join(str(each.user_failure_data and each.user_failure_data.description) for each in told)


# Hand-over -----------------------------------------------------------------------------------------------


HAND_OVER = {
    "package_name": "Press-edge", "package_version": 7, "package_id": "x", "content_digest": "0" * 64,
    "digest": "0" * 64, "model_type": "press", "model_name": "press_model", "model_version": 1,
    "registered_before": False, "metrics": {},
}  # fmt: skip


def test_the_package_is_told_to_the_caller_whether_new_or_not(
    plant: Plant, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "outputs" / "made" / "package.json"
    assert launch(plant, instance, output_file="made/package.json")[0].success
    told = json.loads(target.read_text())
    (package,) = plant.packages()
    assert told == {
        "package_name": "Tiny-Echo-edge", "package_version": 1, "package_id": package.tags["packageid"],
        "content_digest": package.tags["content_digest"], "digest": package.resolve().digest, "model_type": "press",
        "model_name": "press_model", "model_version": 1, "registered_before": False,
        "metrics": {"silhouette": 0.5, "dunn_index": 0.25, "inertia": 100.0},
    }  # fmt: skip
    monkeypatch.setenv("EDGEPACK_OUTPUT_FILE", str(tmp_path / "package.env"))  # the operator's: anywhere
    (tmp_path / "package.env").touch()
    for _ in range(2):
        assert launch(plant, instance)[0].success
    lines = dict(line.split("=", 1) for line in (tmp_path / "package.env").read_text().splitlines())
    assert lines == {
        **{key: str(value) for key, value in told.items() if key != "metrics"}, "registered_before": "true",
        "metric_silhouette": "0.5", "metric_dunn_index": "0.25", "metric_inertia": "100.0",
    }  # fmt: skip
    assert launch(plant, instance, output_file=str(target))[0].success
    assert json.loads(target.read_text()) == {**told, "registered_before": True}
    assert [path.name for path in target.parent.iterdir()] == ["package.json"]


@pytest.mark.parametrize("bad", ["", "file/package.json", "/proc/package.json", "folder/"])
@pytest.mark.parametrize("by", ["output_file", "EDGEPACK_OUTPUT_FILE"])
def test_a_path_that_cannot_be_written_is_told_before_anything_is_registered(  # noqa: PLR0917 - fixtures
    plant: Plant, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str, by: str
) -> None:
    plant.output_folders = (".",)
    (tmp_path / "file").touch()
    named = os.path.join(tmp_path, bad)  # noqa: PTH118 - keeps the last /
    if by == "EDGEPACK_OUTPUT_FILE":
        monkeypatch.setenv(by, named)
        result, said = launch(plant, instance)
    else:
        result, said = launch(plant, instance, output_file=named)
    assert not result.success
    assert f"deployment_package of press:1: {by}: " in said
    assert plant.packages() == []


def test_a_run_that_fails_leaves_no_older_hand_over(plant: Plant, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    target = tmp_path / "outputs" / "package.json"
    target.parent.mkdir()
    target.write_text(json.dumps(HAND_OVER))
    plant.gates = {"silhouette": {"min": 0.9}}
    assert not launch(plant, instance, output_file=str(target))[0].success
    assert not target.exists()


@pytest.mark.parametrize("by", ["output_file", "EDGEPACK_OUTPUT_FILE"])
def test_a_file_that_is_no_hand_over_is_never_replaced(
    plant: Plant, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    target = tmp_path / "outputs" / "package.json"
    target.parent.mkdir()
    target.write_text('{"package_version": 7}')
    monkeypatch.setenv("EDGEPACK_OUTPUT_FILE", str(target))
    result, said = launch(plant, instance, **({"output_file": "package.json"} if by == "output_file" else {}))
    assert not result.success
    assert f"{by}: {target} exists and is not known to be written by edgepack" in said
    assert target.read_text() == '{"package_version": 7}'
    assert plant.packages() == []


# Manifests that are not those that Dagster recorded --------------------------------------------------------


def forge(plant: Plant, asset: str, with_digest: bool = True, **fields: Any) -> None:
    """Change the stored manifest of press:1. Whoever can write the store can also compute its digest."""
    store = plant.task_context().store
    changed = store.load(asset, "press:1").model_copy(update=fields)
    data = changed.manifest() if with_digest else canonical_json(changed.model_dump())
    Path(store.root_url, "manifests", asset, "press", "1.json").write_bytes(data)


def forgeries(plant: Plant) -> dict[str, tuple[str, dict[str, Any]]]:
    """One change each of what decides which package is registered, and with which tags."""
    made = {artefact.asset: artefact for artefact in plant.validated(1).inputs().values()}
    better = {**made["metrics"].facts, "metrics": {**METRICS, "silhouette": 0.9}}
    store = plant.task_context().store
    answers = {**made["validation_results"].parts, "results": store.put_json(1)}
    return {
        "a number": ("metrics", {"facts": better}),
        "a number and its bytes": ("metrics", {"facts": better, "parts": {"metrics": store.put_json(better)}}),
        "nothing it was made from": ("metrics", {"made_from": {}}),
        "other things it was made from": ("validation_results", {"made_from": made["metrics"].made_from}),
        "the raw data": ("payload_data", {"facts": {**made["payload_data"].facts, "records": 1}}),
        "the model": ("config_package", {"facts": {"model": {"name": "other", "version": 1, "digest": "0" * 64}}}),
        "the answers": ("validation_results", {"parts": answers}),
    }  # fmt: skip


@pytest.mark.parametrize("with_digest", [True, False])
def test_a_changed_manifest_registers_nothing(plant: Plant, instance: dg.DagsterInstance, with_digest: bool) -> None:
    for what, (asset, fields) in forgeries(plant).items():
        for artefact in plant.validated(1).inputs().values():
            plant.task_context().store.save(artefact)
            record(instance, artefact)
        forge(plant, asset, with_digest, **fields)
        result, said = run(plant, instance)
        assert not result.success, what
        assert f"reading {asset} of press:1: " in said, what
        assert "is not the one that Dagster recorded last" in said, what
        assert f"materialize {asset} of press:1 again" in said, what
        assert plant.packages() == [], what


def test_an_older_manifest_that_is_put_back_is_refused(plant: Plant, instance: dg.DagsterInstance) -> None:
    better = {**METRICS, "silhouette": 0.9}
    for metrics in (better, METRICS):
        for artefact in plant.validated(1, metrics).inputs().values():
            plant.task_context().store.save(artefact)
            record(instance, artefact)
    plant.task_context().store.save(plant.validated(1, better).metrics)
    result, said = run(plant, instance)
    assert not result.success
    assert "materialize metrics of press:1 again" in said
    assert plant.packages() == []


def test_what_dagster_has_no_record_of_is_refused(plant: Plant, instance: dg.DagsterInstance) -> None:
    for artefact in plant.validated(1).inputs().values():
        plant.task_context().store.save(artefact)
        if artefact.asset != "metrics":
            record(instance, artefact)
    record(instance, plant.validated(2).metrics)
    result, said = run(plant, instance)
    assert not result.success
    assert "Dagster has no record of materializing it" in said
    # A person can report a materialization in the UI: that one says nothing of ours.
    instance.report_runless_asset_event(dg.AssetMaterialization("metrics", partition="press:1"))
    result, said = run(plant, instance)
    assert not result.success
    assert "is not the one that Dagster recorded last" in said
    assert plant.packages() == []


def test_manifests_of_an_earlier_version_are_packaged_where_dagster_recorded_them(
    plant: Plant, instance: dg.DagsterInstance
) -> None:
    for artefact in plant.validated(1).inputs().values():
        plant.task_context().store.save(artefact)
        record(instance, artefact)
        forge(plant, artefact.asset, with_digest=False)
    assert run(plant, instance)[0].success
    assert len(plant.packages()) == 1


def test_a_real_materialization_can_be_loaded_again(plant: Plant, instance: dg.DagsterInstance) -> None:
    """What the IO manager compares with is what an asset records, not only what a test does."""
    assert launch(plant, instance)[0].success
    made = plant.task_context().store.load("deployment_package", "press:1")
    check_recorded(made, instance)
    [event] = instance.fetch_materializations(dg.AssetKey("deployment_package"), limit=1).records
    assert event.asset_materialization is not None
    shown = event.asset_materialization.metadata["config_digest"].value
    assert shown == config_digest(plant.task_context().settings) == plant.packages()[0].tags["config_digest"]
    with pytest.raises(StaleError, match="materialize deployment_package of press:1 again"):
        check_recorded(made.model_copy(update={"made_from": {}}), instance)


# The configuration -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [
    {"edgepack": {"config": {"config_file": "FILE"}}},
    {"artefact_io": {"config": {"edgepack": {"config_file": "FILE"}}}},
    {"artefact_io": {"config": {"edgepack": {"config": {"config_file": "FILE"}}}}},
])  # fmt: skip
def test_no_run_chooses_another_configuration(
    plant: Plant, instance: dg.DagsterInstance, tmp_path: Path, config: dict[str, Any]
) -> None:
    plant.gates = {"silhouette": {"min": 0.9}}
    job = build_defs(plant.task_context().settings.file).resolve_implicit_global_asset_job_def()
    lenient = tmp_path / "lenient.yaml"
    lenient.write_text((tmp_path / "edgepack.yaml").read_text().replace("0.9", "0.1"))
    resources = json.loads(json.dumps(config).replace("FILE", str(lenient)))
    with pytest.raises(dg.DagsterInvalidConfigError, match="Received unexpected config entry"):
        job.execute_in_process(
            instance=instance, partition_key="press:1", run_config={"resources": resources},
            asset_selection=[dg.AssetKey("deployment_package")],
        )  # fmt: skip
    assert plant.packages() == []


def test_no_run_reads_a_variable_of_the_environment(
    plant: Plant, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster's own configuration classes put the variable's value there, and it would be shown or registered."""
    monkeypatch.setenv("STORE_PASSWORD", "hush")
    job = build_defs(plant.task_context().settings.file).resolve_implicit_global_asset_job_def()
    for asset, name in (
        ("payload_data", "payload_path"), ("deployment_package", "output_file"),
        ("deployment_package", "override_gates_reason"),
    ):  # fmt: skip
        with pytest.raises(dg.DagsterInvalidConfigError) as error:
            job.execute_in_process(
                instance=instance, partition_key="press:1", asset_selection=[dg.AssetKey(asset)],
                run_config={"ops": {asset: {"config": {name: {"env": "STORE_PASSWORD"}}}}},
            )  # fmt: skip
        assert "hush" not in str(error.value)
        for text in ("text", None):
            assert dg.validate_run_config(job, {"ops": {asset: {"config": {name: text}}}})


def test_resources_can_be_replaced_where_definitions_are_built(plant: Plant) -> None:
    other = EdgepackResource(plant.task_context().settings.file)
    defs = build_defs(plant.task_context().settings.file, {"edgepack": other})
    assert defs.resources == {**defs.resources, "edgepack": other}


# Gates ---------------------------------------------------------------------------------------------------


def test_launched_alone_a_failed_gate_is_refused_unless_the_run_gives_a_reason(
    plant: Plant, instance: dg.DagsterInstance
) -> None:
    plant.gates = {"silhouette": {"min": 0.9}}
    for reason in ({}, {"override_gates_reason": ""}, {"override_gates_reason": "  \n"}):
        result, said = launch(plant, instance, **reason)
        assert not result.success
        assert "gate on silhouette: 0.5, wanted at least 0.9" in said
        assert plant.packages() == []
    assert launch(plant, instance, override_gates_reason="trial on line 4")[0].success
    assert plant.packages()[0].tags["gates_overridden"] == "trial on line 4"


# Retries -------------------------------------------------------------------------------------------------


def failing(times: int, error: Exception, call: Any) -> tuple[Any, list[int]]:
    """`call`, which fails that many times first; and a list that grows with each call. The inputs of the asset,
    which a test saves itself, are saved as ever."""
    calls: list[int] = []

    def run(first: Any, subject: Any, *rest: Any) -> Any:
        if getattr(subject, "asset", "deployment_package") == "deployment_package":
            calls.append(1)
            if len(calls) <= times:
                raise error
        return call(first, subject, *rest)

    return run, calls


@pytest.mark.parametrize("error", [TransientError("the registry does not answer"), ConnectionResetError("reset")])
@pytest.mark.parametrize("where", [(LocalRegistry, "look_up"), (ArtefactStore, "load"), (ArtefactStore, "save")])
def test_what_may_pass_is_tried_again(
    plant: Plant,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    where: tuple[type, str],
) -> None:
    monkeypatch.setattr(failures, "DELAY", 0.0)
    run, calls = failing(2, error, getattr(*where))
    monkeypatch.setattr(*where, run)
    result, said = launch(plant, instance)
    assert result.success, said
    assert len(calls) >= 3
    assert len(plant.packages()) == 1


def test_retries_are_bounded_and_the_last_error_is_told(
    plant: Plant, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "DELAY", 0.0)
    run, calls = failing(1000, TransientError("the registry does not answer"), None)
    monkeypatch.setattr(LocalRegistry, "look_up", run)
    result, said = launch(plant, instance)
    assert not result.success
    assert len(calls) == failures.RETRIES + 1
    assert said == "deployment_package of press:1: the registry does not answer"


@pytest.mark.parametrize("error", [ValueError("an error in code"), PermissionError("not allowed")])
def test_what_does_not_pass_is_not_tried_again(
    plant: Plant, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    run, calls = failing(1000, error, None)
    monkeypatch.setattr(LocalRegistry, "look_up", run)
    assert not launch(plant, instance)[0].success
    assert len(calls) == 1


# The pool ------------------------------------------------------------------------------------------------


def test_a_slot_that_a_killed_run_held_blocks_nobody(plant: Plant, instance: dg.DagsterInstance) -> None:
    """Counted by step, a run of the command line would wait for it, and no daemon need be there to free it."""
    storage = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default(POOL)
    for dead in ("one", "two"):
        assert storage.claim_concurrency_slot(POOL, dead, "deployment_package").is_claimed
    assert not storage.claim_concurrency_slot(POOL, "three", "deployment_package").is_claimed
    assert launch(plant, instance)[0].success


def test_the_pool_is_on_the_asset_and_limited(instance: dg.DagsterInstance) -> None:
    graph = build_defs(PROJECT / "edgepack.yaml").resolve_asset_graph()
    pools = {key.to_user_string(): graph.get(key).pools for key in graph.get_all_asset_keys()}
    assert pools.pop("deployment_package") == {POOL}
    assert not any(pools.values())
    found = instance.get_concurrency_config().pool_config
    assert (found.pool_granularity, found.default_pool_limit) == (PoolGranularity.RUN, 2)
