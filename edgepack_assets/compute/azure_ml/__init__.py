"""Jobs of Azure ML behind the interface `JobService`.

    service.py      the interface: prepare, start, status, cancel, log
    cluster.py      the compute cluster: found, or created
    environment.py  the environment: image and conda file, registered under their digest
    code.py         a job's code, uploaded under its digest
    job_status.py   what the service says of a job, and what it means
    job_log.py      the job's own log, read from the workspace's storage
    check.py        the checks of `edgepack doctor`

Nothing here is imported unless the configuration names Azure ML, and azure.ai.ml not before the first remote call.
"""

from __future__ import annotations

from edgepack_assets.compute.azure_ml.check import check_compute
from edgepack_assets.compute.azure_ml.service import AzureMlJobs

__all__ = ["AzureMlJobs", "check_compute"]
