"""The runs of a model version's partitions, for `edgepack model show`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

import dagster as dg

from edgepack_assets.defs.instance import opened
from edgepack_assets.partitions import PARTITION_TAG, ModelKey

_MOST = 1_000


def partition_runs(keys: Sequence[ModelKey], home: Path) -> list[dict[str, Any]]:
    """Run id, partition, start, status and job of each run, the newest first. Raises EdgepackError."""
    with opened(home) as instance:
        wanted = dg.RunsFilter(tags={PARTITION_TAG: [str(key) for key in keys]})
        records = instance.get_run_records(wanted, limit=_MOST)
    return [
        {
            "run": record.dagster_run.run_id,
            "partition": record.dagster_run.tags[PARTITION_TAG],
            "started": f"{record.create_timestamp.astimezone(UTC):%Y-%m-%d %H:%M}Z",
            "status": record.dagster_run.status.value.lower(),
            "job": record.dagster_run.job_name,
        }
        for record in records
    ]
