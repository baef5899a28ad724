"""Models of a user's own, packaged by the commands of the README; and models that cannot be packaged."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import dagster as dg
import pytest

from edgepack_assets.definitions import build_defs
from edgepack_assets_tests.e2e.conftest import Plant

pytestmark = pytest.mark.usefixtures("kept_helpers")

TYPE = {"implementation": "state_identifier", "raw_data": {"name": "state_identifier_raw"}}


def run_in_process(plant: Plant, partition: str) -> tuple[bool, str]:
    """(success, everything that failed steps and checks said) of package_model on a partition."""
    return run_with_warnings(plant, partition)[:2]


def run_with_warnings(plant: Plant, partition: str) -> tuple[bool, str, str]:
    """(success, what failed steps and checks said, what checks that passed warned of)."""
    job = build_defs(plant.config).resolve_job_def("package_model")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("models", [partition])
        result = job.execute_in_process(instance=instance, partition_key=partition, raise_on_error=False)
    said, warned = [], []
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.user_failure_data is not None:
            said.append(event.step_failure_data.user_failure_data.description)
        elif event.is_step_failure and event.step_failure_data.error is not None:
            said.append(event.step_failure_data.error.to_string())
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if not check.passed:
                said.append(f"{check.asset_key.to_user_string()}.{check.check_name}: {check.description}")
            elif "warning: " in (check.description or ""):
                warned.append(check.description)
    return result.success, "\n".join(filter(None, said)), "\n".join(filter(None, warned))


def test_a_new_version_by_the_readmes_commands_builds_nothing_new(plant: Plant, tmp_path: Path) -> None:
    location = next(Path(p["location"]) for p in plant.listed() if p["name"] == "state_identifier")
    (mlmodel,) = location.rglob("MLmodel")
    retrained = tmp_path / "retrained"
    shutil.copytree(mlmodel.parent, retrained)
    for path in [retrained, *retrained.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o200)
    (retrained / "notes.md").write_text("retrained on the same requirements\n")
    version = plant.add_model("state_identifier", retrained)
    before = plant.packages("State-Identifier-edge")
    plant.materialize(f"state_identifier:{version}")
    after = plant.packages("State-Identifier-edge")
    assert [p.version for p in after] == [*(p.version for p in before), before[-1].version + 1]
    assert after[-1].tags["model_version"] == str(version)
    # a retrained model with equal bytes is another package of the same content
    assert after[-1].tags["content_digest"] == after[0].tags["content_digest"]
    assert after[-1].tags["packageid"] == after[0].tags["packageid"]
    with dg.DagsterInstance.from_config(plant.environment["DAGSTER_HOME"]) as instance:
        wanted = dg.AssetRecordsFilter(
            asset_key=dg.AssetKey("config_package"), asset_partitions=[f"state_identifier:{version}"]
        )
        metadata = instance.fetch_materializations(wanted, limit=1).records[0].asset_materialization.metadata
    assert metadata["lock_reused"].value is True
    assert metadata["environment_reused"].value is True
    # and again: nothing is registered twice
    plant.materialize(f"state_identifier:{version}")
    assert plant.packages("State-Identifier-edge") == after


@pytest.mark.parametrize("variant", ["overlapping", "sparse", "skops", "frame"])
def test_mlflow_folders_of_many_kinds(plant: Plant, variants: Path, variant: str) -> None:
    name = f"mlflow_{variant}"
    plant.configure(**{name: {**TYPE, "model_name": name, "package_name": name}})
    version = plant.add_model(name, variants / variant)
    assert run_in_process(plant, f"{name}:{version}") == (True, "")
    (package,) = plant.packages(f"{name}-edge")
    assert -1 <= float(package.tags["silhouette"]) <= 1


def test_the_package_is_run_over_the_whole_payload_if_asked(plant: Plant, variants: Path) -> None:
    entry = {**TYPE, "model_name": "whole", "package_name": "whole"}
    plant.configure(whole={**entry, "run_whole_payload": True})
    version = plant.add_model("whole", variants / "sparse")
    done = plant.materialize(f"whole:{version}")
    with dg.DagsterInstance.from_config(plant.environment["DAGSTER_HOME"]) as instance:
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey("payload_data"), asset_partitions=[f"whole:{version}"])
        metadata = instance.fetch_materializations(wanted, limit=1).records[0].asset_materialization.metadata
    records = metadata["dagster/row_count"].value
    assert f"was run over {records} records: outputs equal the validated ones" in done.stdout + done.stderr


def test_a_bare_pickle_needs_configured_requirements_and_code(plant: Plant, variants: Path) -> None:
    # Those of the other variants, whose environment is there already.
    requirements = (variants / "sparse/requirements.txt").read_text().split()[1:]
    plant.configure(bare={**TYPE, "model_name": "bare", "package_name": "bare"})
    version = plant.add_model("bare", variants / "bare.joblib")
    success, said = run_in_process(plant, f"bare:{version}")
    assert not success
    assert "says nothing of the packages it needs" in said
    plant.configure(bare={**TYPE, "model_name": "bare", "package_name": "bare", "requirements": requirements})
    success, said = run_in_process(plant, f"bare:{version}")
    assert not success
    assert "needs the module 'plant_training" in said
    assert "code_paths" in said
    plant.configure(bare={**TYPE, "model_name": "bare", "package_name": "bare", "requirements": requirements,
                          "code_paths": [str(variants / "code/plant_training")]})  # fmt: skip
    assert run_in_process(plant, f"bare:{version}") == (True, "")


def defective(folder: Path, variants: Path, defect: str) -> Path:
    """A copy of a sound MLflow folder with one thing wrong."""
    path = folder / defect
    shutil.copytree(variants / "sparse", path)
    if defect == "no_model_file":
        (path / "model.pkl").unlink()
    elif defect == "two_model_files":
        shutil.copyfile(path / "model.pkl", path / "model.joblib")
    elif defect == "unresolvable":
        (path / "requirements.txt").write_text("scikit-learn==0.0.99\n")
    elif defect == "no_such_python":
        (path / "MLmodel").write_text(
            (path / "MLmodel").read_text().replace("python_version: 3.", "python_version: 2.")
        )
    elif defect == "not_a_pickle":
        (path / "model.pkl").write_bytes(b"no pickle at all")
    elif defect == "main_class":
        (path / "model.pkl").write_bytes(b"c__main__\nMyModel\n.")
    elif defect == "requirement_option":
        (path / "requirements.txt").write_text("-e .\nscikit-learn==1.5.2\n")
    elif defect == "code_of_the_host":
        (path / "MLmodel").write_text((path / "MLmodel").read_text().replace("code: code", "code: /etc"))
    elif defect == "exits":
        (path / "model.pkl").write_bytes(b"cos\n_exit\n(I0\ntR.")
    elif defect == "hides_the_entrypoint":
        (path / "code/inference.py").write_text("")
    return path


@pytest.mark.parametrize(
    ("defect", "message"),
    [
        ("no_model_file", "MLmodel names model.pkl, but the folder does not hold it"),
        ("two_model_files", "2 model files (model.joblib, model.pkl)"),
        ("unresolvable", "cannot be resolved for Python"),
        ("no_such_python", "does not run on the edge"),
        ("not_a_pickle", "inspecting the model of defects:"),
        ("main_class", "names code of the script that trained it"),
        ("requirement_option", 'replace_requirements: {"-e .": null}'),
        ("code_of_the_host", "code names '/etc', which lies outside the model folder"),
        ("exits", "before it gave a result"),
        ("hides_the_entrypoint", "would hide the component's own inference.py"),
    ],
)
def test_a_defective_model_is_refused_by_name_and_nothing_is_registered(
    plant: Plant, variants: Path, tmp_path: Path, defect: str, message: str
) -> None:
    plant.configure(defects={**TYPE, "model_name": "defects", "package_name": "defects"})
    version = plant.add_model("defects", defective(tmp_path, variants, defect))
    success, said = run_in_process(plant, f"defects:{version}")
    assert not success
    assert message in said
    assert f"defects:{version}" in said
    assert plant.packages("defects-edge") == []


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("looks_ahead", "looks ahead"),
        ("code_missing", "needs the module 'plant_training"),
        ("no_pipeline", "not a scikit-learn Pipeline"),
    ],
)
def test_a_model_that_cannot_run_on_the_edge_is_refused_with_the_reason(
    plant: Plant, variants: Path, variant: str, message: str
) -> None:
    plant.configure(unfit={**TYPE, "model_name": "unfit", "package_name": "unfit"})
    version = plant.add_model("unfit", variants / variant)
    success, said = run_in_process(plant, f"unfit:{version}")
    assert not success
    assert message in said
    assert plant.packages("unfit-edge") == []


@pytest.mark.parametrize(
    ("partition", "message"),
    [
        ("state_identifier:999", "no version 999"),
        ("nobody:1", "has no entry 'nobody'"),
        ("../x:1", "is not a partition key"),
        ("state_identifier:", "is not a partition key"),
    ],
)
def test_a_partition_that_names_no_model_is_refused(plant: Plant, partition: str, message: str) -> None:
    success, said = run_in_process(plant, partition)
    assert not success
    assert message in said


def test_a_command_line_partition_that_is_unknown_is_refused_before_anything_runs(plant: Plant) -> None:
    command = ("dagster", "asset", "materialize", "--select", "*", "--partition", "state_identifier:77")
    done = plant.run(*command, check=False)
    assert done.returncode != 0
    assert "state_identifier:77" in done.stdout + done.stderr


class TestGates:
    """A gate that failed cannot be walked round. Each test has a model type of its own, and may run alone."""

    def failed(self, plant: Plant, model: Path, name: str) -> str:
        """The partition of a model whose run failed for its gate."""
        plant.configure(**{name: {**settings_of(name), "gates": {"silhouette": {"min": 1.0}}}})
        partition = f"{name}:{plant.add_model(name, model)}"
        done = plant.materialize(partition, check=False)
        assert done.returncode != 0
        assert "gate on silhouette" in done.stdout + done.stderr
        return partition

    def test_launching_the_deployment_alone_is_refused(self, plant: Plant, variants: Path) -> None:
        partition = self.failed(plant, variants / "sparse", "strict")
        done = plant.materialize(partition, "deployment_package", check=False)
        assert done.returncode != 0
        assert "the gates of" in done.stdout + done.stderr
        assert plant.packages("strict-edge") == []

    def test_a_config_package_made_anew_breaks_the_chain(self, plant: Plant, variants: Path) -> None:
        partition = self.failed(plant, variants / "sparse", "strict-anew")
        plant.configure(**{"strict-anew": {**settings_of("strict-anew"), "description": "another"}})
        plant.materialize(partition, "config_package")
        done = plant.materialize(partition, "deployment_package", check=False)
        assert done.returncode != 0
        assert "materialize validation_results" in done.stdout + done.stderr
        assert plant.packages("strict-anew-edge") == []
        plant.materialize(partition)
        (package,) = plant.packages("strict-anew-edge")
        assert package.tags["model_name"] == "strict-anew"


def settings_of(name: str) -> dict[str, object]:
    return {**TYPE, "model_name": name, "package_name": name}


def test_an_unpickled_model_cannot_see_this_process_environment(plant: Plant, variants: Path, tmp_path: Path) -> None:
    """A pickle that raises with its environment's names: the allow-list holds."""

    class Tell:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            code = "import os; raise ValueError('SEEN ' + ','.join(sorted(os.environ)))"
            return exec, (code,)

    path = tmp_path / "tell"
    shutil.copytree(variants / "sparse", path)
    (path / "model.pkl").write_bytes(pickle.dumps(Tell()))
    plant.configure(unfit={**TYPE, "model_name": "unfit", "package_name": "unfit"})
    version = plant.add_model("unfit", path)
    success, said = run_in_process(plant, f"unfit:{version}")
    assert not success
    seen = set(said.split("SEEN ")[1].split("\n")[0].split(","))
    assert {name for name in seen if not name.startswith("KMP_")} <= {  # scikit-learn itself sets KMP_*
        "PATH",
        "HOME",
        "TMPDIR",
        "LANG",
        "LC_CTYPE",
        "MPLBACKEND",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
    }


def test_the_payload_is_written_where_the_caller_says(plant: Plant, tmp_path: Path) -> None:
    path, config = "caller/payload.jsonl.gz", tmp_path / "run.yaml"
    config.write_text(json.dumps({"ops": {"payload_data": {"config": {"payload_path": path}}}}))
    plant.run("dagster", "asset", "materialize", "--select", "payload_data", "--partition", "state_identifier:1",
              "-c", str(config))  # fmt: skip
    # A copy of its own is replaced.
    plant.materialize("state_identifier:1", "payload_data", of="payload_data", payload_path=path)
    import gzip

    with gzip.open(plant.folder / ".edgepack" / "outputs" / "caller" / "payload.jsonl.gz", "rt") as stream:
        assert json.loads(stream.readline()).keys() == {"ph1", "ph2", "ph3"}
