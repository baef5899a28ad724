"""How every asset is declared: what Dagster shows of a check that fails, for its partition."""

from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from edgepack_assets.checks import CheckRow
from edgepack_assets.defs.assets.declare import asset_options, raise_if_failed
from edgepack_assets.defs.model_partitions import MODELS, run_of

OPTIONS = asset_options("pass_gates", "Every gate holds.", "metrics", kinds={"python"}, code_version="1")
KEYS = ["press:1", "press:2"]


class _Nothing(dg.IOManager):
    def handle_output(self, context: dg.OutputContext, obj: object) -> None: ...

    def load_input(self, context: dg.InputContext) -> None: ...


def run(instance: dg.DagsterInstance, key: str, *, holds: bool) -> dg.ExecuteInProcessResult:
    """One run of an asset whose check has a row that holds, or not."""

    @dg.asset(**{**OPTIONS, "dagster_type": dg.Any})
    def metrics(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        rows = [CheckRow("silhouette", holds, "0.42", "at least 0.5"), CheckRow("age", False, "9", "1", warns=True)]
        yield dg.MaterializeResult(
            value=1, check_results=[dg.AssetCheckResult(passed=holds, check_name="pass_gates", description="x")]
        )
        raise_if_failed(context, f"metrics.pass_gates of {context.partition_key}", rows)

    return dg.materialize(
        [metrics], instance=instance, partition_key=key, raise_on_error=False, resources={"artefact_io": _Nothing()}
    )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        made.add_dynamic_partitions("models", KEYS)
        yield made


def test_a_partition_whose_check_failed_is_shown_as_failed_until_it_holds(instance: dg.DagsterInstance) -> None:
    def status() -> dict[str, AssetPartitionStatus | None]:
        return dict(instance.get_status_by_partition(dg.AssetKey("metrics"), KEYS, MODELS) or {})

    assert not run(instance, "press:1", holds=False).success
    assert run(instance, "press:2", holds=True).success
    assert status() == {"press:1": AssetPartitionStatus.FAILED, "press:2": AssetPartitionStatus.MATERIALIZED}
    newest = instance.get_latest_materialization_event(dg.AssetKey("metrics"))
    assert newest is not None, "its value is kept, for what it shows"
    assert run(instance, "press:1", holds=True).success
    assert status()["press:1"] is AssetPartitionStatus.MATERIALIZED


def test_the_steps_failure_is_the_rows_that_do_not_hold(instance: dg.DagsterInstance) -> None:
    result = run(instance, "press:1", holds=False)
    (failure,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    said = "metrics.pass_gates of press:1: silhouette: 0.42, wanted at least 0.5"
    assert failure.error is not None
    assert (failure.error.message, failure.error.stack) == (f"{said}\n", [])
    assert failure.user_failure_data is not None
    assert failure.user_failure_data.description == said


def test_a_check_has_the_partition_of_its_run(instance: dg.DagsterInstance) -> None:
    run(instance, "press:2", holds=True)
    (event,) = run(instance, "press:1", holds=False).get_asset_check_evaluations()
    assert (event.partition, event.passed, event.blocking) == ("press:1", False, True)


def test_the_partition_of_a_run_is_not_looked_up_and_an_unknown_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_up: list[str] = []
    exists = dg.DagsterInstance.has_dynamic_partition

    def counted(self: dg.DagsterInstance, partitions_def_name: str, partition_key: str) -> bool:
        looked_up.append(partition_key)
        return exists(self, partitions_def_name, partition_key)

    monkeypatch.setattr(dg.DagsterInstance, "has_dynamic_partition", counted)
    with dg.DagsterInstance.ephemeral() as instance, partition_loading_context(dynamic_partitions_store=instance):
        instance.add_dynamic_partitions("models", ["once:1", "once:2"])
        once = dg.PartitionKeyRange("once:1", "once:1")
        with run_of("once:1"):
            assert MODELS.get_partition_keys_in_range(once) == ["once:1"]
            assert looked_up == []
        assert MODELS.get_partition_keys_in_range(once) == ["once:1"]
        assert looked_up == ["once:1", "once:1"]  # start and end of the range
        both = MODELS.get_partition_keys_in_range(dg.PartitionKeyRange("once:1", "once:2"))
        assert list(both) == ["once:1", "once:2"]
        for _ in range(2):
            with pytest.raises(dg.DagsterInvalidInvocationError, match="once:3"):
                MODELS.get_partition_keys_in_range(dg.PartitionKeyRange("once:3", "once:3"))
