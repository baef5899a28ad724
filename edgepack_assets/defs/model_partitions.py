"""The partitions definition of all assets: model types and versions of their models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import dagster as dg

from edgepack_assets.partitions import PARTITIONS_NAME


class _Models(dg.DynamicPartitionsDefinition):
    """Dagster asks the database some fifty times in a run whether the run's only partition exists."""

    _of_run = ""

    def get_partition_keys_in_range(self, partition_key_range: dg.PartitionKeyRange) -> Sequence[str]:
        """As Dagster's own, but the partition of the run in this process is not looked up: the run has begun."""
        only = partition_key_range.start
        if only and only == partition_key_range.end == _Models._of_run:
            return [only]
        return super().get_partition_keys_in_range(partition_key_range)


MODELS = _Models(name=PARTITIONS_NAME)


@contextmanager
def run_of(partition: str | None) -> Iterator[None]:
    """A run of this partition goes on in the block, if it has one."""
    before, _Models._of_run = _Models._of_run, partition or ""
    try:
        yield
    finally:
        _Models._of_run = before
