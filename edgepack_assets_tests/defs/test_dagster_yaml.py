"""The Dagster instance that is shipped: every key means something to this Dagster, and both files say the same."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import dagster as dg
import pytest
import yaml

from edgepack_assets.defs.run_launcher import WatchedRunLauncher

SHIPPED = Path(__file__).parents[2] / "dagster.yaml"


@pytest.mark.parametrize("file", [SHIPPED, resources.files("edgepack_assets").joinpath("default_dagster.yaml")])
def test_an_instance_is_made_from_it(file: Path, tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_bytes(file.read_bytes())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:  # refuses keys that it does not know
        assert isinstance(instance.run_launcher, WatchedRunLauncher)
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_poll_interval_seconds == 20
        assert instance.run_monitoring_max_runtime_seconds == 14400
        runs = instance.get_concurrency_config().run_queue_config
        assert runs is not None
        assert runs.max_concurrent_runs == 2
        assert (runs.max_user_code_failure_retries, runs.user_code_failure_retry_delay) == (5, 20)
        assert instance.get_settings("sensors")["num_workers"] == 4
        assert instance.get_tick_retention_settings(_sensor()).items()


def _sensor() -> object:
    from dagster._core.definitions.run_request import InstigatorType

    return InstigatorType.SENSOR


def test_a_run_of_the_command_line_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_bytes(SHIPPED.read_bytes())

    @dg.job
    def some_job() -> None: ...

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        run = instance.create_run_for_job(some_job, status=dg.DagsterRunStatus.STARTED)
        for _ in range(5):
            assert instance.run_launcher.check_run_worker_health(run).status.value == "RUNNING"


def test_both_files_say_the_same() -> None:
    default = resources.files("edgepack_assets").joinpath("default_dagster.yaml").read_text()
    assert yaml.safe_load(default) == yaml.safe_load(SHIPPED.read_text())
