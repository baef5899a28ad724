"""Handing a run over to Dagster's daemon: `edgepack package --no-wait`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgepack_assets.defs.asset_names import JOB
from edgepack_assets.defs.instance import MODULE, MODULE_VARIABLE
from edgepack_assets.errors import InfrastructureError
from edgepack_assets.masking import without_credentials
from edgepack_assets.partitions import PARTITION_TAG

if TYPE_CHECKING:
    from edgepack_assets.defs.command_runs.runs import PackageRequest

WORKSPACE_VARIABLE = "EDGEPACK_WORKSPACE"
"""Names the workspace file of web server and daemon, where another process serves the code location. A run of the
module would belong to no code location that they know."""
_TIME_LIMIT = 300.0
_LONGEST = 1000


def launch(request: PackageRequest, environment: Mapping[str, str]) -> str:
    """Queue a run of all assets, and return its id. `environment` is added to this process's.

    Raises InfrastructureError with what Dagster says."""
    run_id = str(uuid.uuid4())
    workspace = os.environ.get(WORKSPACE_VARIABLE)
    variables = {**os.environ, **environment}
    if workspace:
        variables.pop(MODULE_VARIABLE, None)  # Dagster refuses both
    code = ["--workspace", workspace] if workspace else ["--module-name", MODULE]
    command = [
        sys.executable, "-m", "dagster", "job", "launch", "--job", JOB, *code, "--run-id", run_id,
        "--tags", json.dumps({PARTITION_TAG: str(request.key)}), "--config-json", json.dumps(request.run_config),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False, timeout=_TIME_LIMIT)
    except subprocess.TimeoutExpired:
        raise InfrastructureError(f"{request.key}: Dagster did not take the run within {_TIME_LIMIT:g} s") from None
    if done.returncode != 0:
        said = without_credentials(done.stderr.strip()[-_LONGEST:])
        raise InfrastructureError(f"{request.key}: Dagster did not take the run:\n{said}")
    return run_id
