"""Materializing partitions in processes of their own: progress, persistence, and what a failure says."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgepack_assets.errors import EdgepackError
from edgepack_assets.partitions import PARTITIONS_NAME, ModelKey
from edgepack_assets.quickstart import materialize

DEFINITIONS = """
import dagster as dg

models = dg.DynamicPartitionsDefinition(name="models")

@dg.asset(partitions_def=models)
def config_package(context):
    if context.partition_key == "press:2":
        raise dg.Failure(description="config_package of press:2: it holds no model file", allow_retries=False)

@dg.asset(
    partitions_def=models,
    deps=[config_package],
    check_specs=[dg.AssetCheckSpec("is_registered_as_built", asset="deployment_package", blocking=True)],
)
def deployment_package(context):
    check = dg.AssetCheckResult(passed=context.partition_key == "press:1", description="other bytes")
    return dg.MaterializeResult(check_results=[check])

defs = dg.Definitions(assets=[config_package, deployment_package], executor=dg.in_process_executor)
"""


@dataclass(frozen=True)
class Outcome:
    """What materializing four partitions at once said and left behind."""

    home: Path
    told: list[list[str]]
    message: str


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Partition 1 succeeds, 2 fails, 3 fails its check, 9 is unknown to the instance."""
    from dagster import DagsterInstance

    folder = tmp_path_factory.mktemp("materialize")
    home = folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}")
    (folder / "small_definitions.py").write_text(DEFINITIONS)
    with DagsterInstance.from_config(str(home)) as instance:
        instance.add_dynamic_partitions(PARTITIONS_NAME, ["press:1", "press:2", "press:3"])
    told: list[str] = []
    keys = [ModelKey("press", version) for version in (1, 2, 3, 9)]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(EdgepackError) as caught:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setattr(materialize, "MODULE", "small_definitions")
        materialize.materialize(keys, home, folder / "edgepack.yaml", told.append)
    return Outcome(home, [line.split() for line in told], str(caught.value))


def test_there_is_a_line_of_progress_per_asset(outcome: Outcome) -> None:
    good = [words for words in outcome.told if words[0] == "press:1"]
    assert [words[1] for words in good] == ["config_package", "deployment_package"]
    assert all(words[-1] == "s" for words in good)
    assert ["press:2", "config_package", "failed"] in outcome.told


def test_materializations_are_kept_on_the_instance(outcome: Outcome) -> None:
    assert materialize.is_materialized("deployment_package", ModelKey("press", 1), outcome.home)
    assert not materialize.is_materialized("deployment_package", ModelKey("press", 2), outcome.home)


def test_a_failure_says_why_and_where_its_log_lies(outcome: Outcome) -> None:
    log = outcome.home / "quickstart" / "press" / "2.log"
    lines = outcome.message.splitlines()
    assert "press:2 was not packaged:" in lines
    assert "config_package of press:2: it holds no model file" in lines
    assert f"The whole log: {log}" in lines
    assert "STEP_FAILURE" in log.read_text()
    assert "press:1" not in outcome.message


def test_a_check_that_failed_says_what_does_not_hold(outcome: Outcome) -> None:
    assert "deployment_package: is_registered_as_built does not hold: other bytes" in outcome.message


def test_a_run_that_never_started_shows_the_end_of_its_log(outcome: Outcome) -> None:
    assert re.search(r"press:9 was not packaged:[\s\S]*press:9[\s\S]*The whole log: ", outcome.message)
