"""Jobs of Azure ML with the real client: what is sent, what runs, what comes back."""

from __future__ import annotations

from edgepack_assets.compute.base import JobPhase
from edgepack_assets_tests.compute.conftest import Plant


def test_a_run_becomes_one_job_with_its_code_and_its_log(plant: Plant) -> None:
    jobs = plant.jobs()
    jobs.prepare(plant.log)
    request = plant.request("cat run.txt; echo $GREETING; pwd; ls $HOME $TMPDIR", environment_variables={"GREETING": "hello"})
    print(plant.said)
    print(jobs.start(request, plant.log))
    plant.azure.jobs.wait("press-1")
    print(jobs.status("press-1"), jobs.log_tail("press-1", 10))
    for each in plant.azure.proxy.seen: print(each)
    assert 0
