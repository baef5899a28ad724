"""The asset graph as text, for a test and for readers of a change: `python -m edgepack_assets_tests.defs.asset_graph`
writes it to asset_graph.txt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import dagster as dg

from edgepack_assets.definitions import build_defs

SNAPSHOT = Path(__file__).with_name("asset_graph.txt")
CONFIG = Path(__file__).parents[2] / "edgepack.yaml"


def render() -> str:
    """Keys, edges, checks, partitions, kinds, pools, jobs and sensors of the code location with the sample's
    configuration."""
    definitions = build_defs(CONFIG)
    return "\n".join([*_assets(definitions), *_jobs(definitions), *_sensors(definitions), ""])


def _assets(definitions: dg.Definitions) -> Iterator[str]:
    graph = definitions.resolve_asset_graph()
    for key in graph.toposorted_asset_keys:
        node = graph.get(key)
        yield f"asset {key.to_user_string()}"
        yield f"  group: {node.group_name}"
        yield f"  kinds: {_list(node.kinds)}"
        yield f"  owners: {_list(node.owners)}"
        yield f"  partitions: {_partitions(node.partitions_def)}"
        yield f"  made by: {'a run' if node.is_materializable else 'others'}"
        yield f"  code version: {node.code_version or 'none'}"
        yield f"  pools: {_list(node.pools)}"
        yield f"  inputs: {_list(parent.to_user_string() for parent in node.parent_keys)}"
        for check in sorted(node.check_keys):
            spec = graph.get_check_spec(check)
            yield f"  check {check.name}: {'blocking' if spec.blocking else 'warns only'}"
        yield ""


def _partitions(partitions: dg.PartitionsDefinition | None) -> str:
    if isinstance(partitions, dg.DynamicPartitionsDefinition):
        return f"dynamic, {partitions.name}"
    return "none" if partitions is None else type(partitions).__name__


def _jobs(definitions: dg.Definitions) -> Iterator[str]:
    for job in sorted(definitions.jobs or (), key=lambda job: job.name):
        resolved = definitions.resolve_job_def(job.name)
        yield f"job {job.name}"
        yield f"  partitions: {_partitions(resolved.partitions_def)}"
        yield f"  assets: {_list(key.to_user_string() for key in resolved.asset_layer.executable_asset_keys)}"
        yield f"  run tags: {_list(f'{name}={value}' for name, value in resolved.run_tags.items())}"
        yield ""


def _sensors(definitions: dg.Definitions) -> Iterator[str]:
    repository = definitions.get_repository_def()
    for sensor in sorted(repository.sensor_defs, key=lambda sensor: sensor.name):
        yield f"sensor {sensor.name}"
        yield f"  type: {sensor.sensor_type.value}"
        yield f"  default: {sensor.default_status.value}"
        yield f"  interval: {sensor.minimum_interval_seconds} s"
        yield f"  launches: {_list(target.job_name for target in sensor.targets)}"
        yield ""
    yield f"schedules: {_list(schedule.name for schedule in repository.schedule_defs)}"


def _list(items: Iterable[object] | None) -> str:
    return ", ".join(sorted(map(str, items or ()))) or "none"


if __name__ == "__main__":
    SNAPSHOT.write_text(render())
