"""A blocking check that failed stops registration in later runs too, whatever is materialized by itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.loader import load_settings
from edgepack_assets.definitions import build_defs
from edgepack_assets_tests.e2e.conftest import Plant

pytestmark = pytest.mark.usefixtures("kept_helpers")

ASSETS = ["config_package", "payload_data", "prepped_data", "validation_results", "metrics", "deployment_package"]
TYPE = {"implementation": "state_identifier", "model_name": "checked", "package_name": "checked"}


def materialized(plant: Plant, partition: str, *assets: str) -> dict[str, str]:
    """Materialize assets one run after the other; "" or what failed, by asset."""
    job = build_defs(plant.config).resolve_implicit_global_asset_job_def()
    said = {}
    with dg.DagsterInstance.from_config(plant.environment["DAGSTER_HOME"]) as instance:
        instance.add_dynamic_partitions("models", [partition])
        for asset in assets:
            result = job.execute_in_process(
                instance=instance, partition_key=partition, raise_on_error=False, asset_selection=[dg.AssetKey(asset)]
            )
            failed = [
                event.asset_check_evaluation_data.check_name
                for event in result.all_events
                if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
                and event.asset_check_evaluation_data.blocking
                and not event.asset_check_evaluation_data.passed
            ]
            failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
            said[asset] = (
                f"{failed[0]} failed"
                if failed
                else "".join(
                    each.user_failure_data.description or "" if each.user_failure_data else str(each.error)
                    for each in failures
                )
            )
    return said


def failed_rows(plant: Plant, partition: str) -> dict[str, list[str]]:
    """What the stored artefacts say of their checks."""
    settings = load_settings(plant.config)
    store = ArtefactStore(settings.artefacts.root, settings.artefacts.cache)
    return {
        artefact.asset: artefact.facts["failed_rows"]
        for artefact in store.manifests()
        if artefact.partition == partition and "failed_rows" in artefact.facts
    }


def test_a_model_of_another_python_is_not_registered_by_a_later_run(
    plant: Plant, variants: Path, tmp_path: Path
) -> None:
    shutil.copytree(variants / "sparse", tmp_path / "model")
    mlmodel = tmp_path / "model" / "MLmodel"
    text = mlmodel.read_text()
    own, other = ("3.11", "3.12") if "python_version: 3.11" in text else ("3.12", "3.11")
    mlmodel.write_text(text.replace(f"python_version: {own}", f"python_version: {other}"))
    entry = {**TYPE, "raw_data": {"name": "state_identifier_raw"}, "python_version": own}
    plant.configure(checked={**entry, "saved_versions": "block"})
    partition = f"checked:{plant.add_model('checked', tmp_path / 'model')}"
    said = materialized(plant, partition, *ASSETS)
    assert said.pop("config_package") == "is_fit failed"
    refusal = said.pop("deployment_package")
    assert said == dict.fromkeys(ASSETS[1:-1], "")
    assert "the check of config_package (python as saved)" in refusal
    assert plant.packages("checked-edge") == []
    # what a person allows is made again, and only then does the package stand
    plant.configure(checked={**entry, "saved_versions": "warn"})
    assert materialized(plant, partition, "config_package") == {"config_package": ""}
    assert (
        "materialize validation_results" in materialized(plant, partition, "deployment_package")["deployment_package"]
    )
    assert set(materialized(plant, partition, *ASSETS[2:]).values()) == {""}
    assert len(plant.packages("checked-edge")) == 1


def test_a_payload_that_holds_nothing_says_so_to_later_runs(plant: Plant, variants: Path, tmp_path: Path) -> None:
    rows = pd.DataFrame({name: np.linspace(1.0, 2.0, 1500) for name in ("ph1", "ph2", "ph3")})
    rows["ph2"] = np.nan
    rows.to_parquet(tmp_path / "empty.parquet")
    plant.edgepack("data", "add", "empty_raw", str(tmp_path / "empty.parquet"), "--force")
    plant.configure(unchecked={**TYPE, "model_name": "unchecked", "package_name": "unchecked",
                               "raw_data": {"name": "empty_raw"}})  # fmt: skip
    partition = f"unchecked:{plant.add_model('unchecked', variants / 'overlapping')}"
    assert materialized(plant, partition, "payload_data") == {"payload_data": "is_sound failed"}
    assert failed_rows(plant, partition) == {"payload_data": ["ph2 holds values"]}
