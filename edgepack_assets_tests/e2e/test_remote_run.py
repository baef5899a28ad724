"""The real six assets as a job: another process with an empty home, temporary folder and caches."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edgepack_assets_tests.defs.remote.process_jobs import ProcessJobs
from edgepack_assets_tests.e2e.conftest import Plant
from edgepack_assets_tests.e2e.test_package_command import settings_of

PROJECT = Path(__file__).parents[2]
ORCHESTRATOR = """
import json, sys, uuid
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import dagster as dg
from edgepack_assets.definitions import build_defs
from edgepack_assets.defs.jobs import ASSETS, JOB
from edgepack_assets.defs.remote.dagster_internals import execute_run_of
from edgepack_assets.defs.remote.executor import Remote
from edgepack_assets.partitions import ModelKey
from edgepack_assets_tests.defs.remote.process_jobs import ProcessJobs
jobs = ProcessJobs(Path(sys.argv[2]))
with dg.DagsterInstance.get() as instance:
    job = build_defs(remote=Remote(service=lambda *_: jobs)).resolve_job_def(JOB)
    run = execute_run_of(job, instance, ModelKey.parse(sys.argv[3]), ASSETS, {}, str(uuid.uuid4()))
    made = {}
    for asset in ASSETS:
        [newest, *before] = instance.fetch_materializations(dg.AssetKey(asset), limit=2).records
        made[asset] = [record.asset_materialization.metadata["digest"].value for record in (newest, *before)]
        made[asset].append(newest.event_log_entry.run_id == run.run_id)
    print("TOLD", json.dumps({"status": run.status.value, "made": made}))
"""


def test_a_job_makes_what_a_run_here_makes(plant: Plant, variants: Path, tmp_path: Path) -> None:
    plant.configure(remote=settings_of("remote"))
    key = f"remote:{plant.add_model('remote', variants / 'sparse')}"
    plant.run("edgepack", "package", key)
    [package] = plant.packages("remote-edge")
    jobs = ProcessJobs(tmp_path / "jobs")
    done = plant.run(Path(sys.executable).name, "-c", ORCHESTRATOR, str(PROJECT), str(jobs.folder), key)
    told = json.loads(done.stdout.partition("TOLD ")[2].splitlines()[0])
    assert told["status"] == "SUCCESS", jobs.log_tail(jobs.jobs[0], 100)
    for asset, (there, here, is_of_this_run) in told["made"].items():
        assert is_of_this_run
        assert there == here, asset
    # The same bytes: nothing is registered a second time.
    assert [each.number for each in plant.packages("remote-edge")] == [package.number]
    [job] = jobs.jobs
    assert not [path for path in (jobs.folder / job / "tmp").iterdir() if path.name.startswith("edgepack-run-")]
