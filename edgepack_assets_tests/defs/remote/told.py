"""All that GraphQL tells of assets, checks, partitions and runs, without what differs from run to run."""

from __future__ import annotations

import re
from typing import Any

import dagster as dg
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceLoadTarget
from dagster_graphql.test.utils import execute_dagster_graphql

_MATERIALIZATION = """
    partition stepKey message level label description eventType runId assetKey { path } tags { key value }
    metadataEntries {
      label description __typename
      ... on TextMetadataEntry { text } ... on JsonMetadataEntry { jsonString } ... on FloatMetadataEntry { floatValue }
    }
    stepStats { stepKey status attempts { startTime } materializations { partition assetKey { path } } }
"""
_QUERY = (
    """
query Told($keys: [String!]!) {
  assetNodes {
    assetKey { path } dataVersionByPartition(partitions: $keys) staleStatusByPartition(partitions: $keys)
    staleCausesByPartition(partitions: $keys) { key { path } category reason dependency { path } }
    partitionStats { numMaterialized numPartitions numFailed numMaterializing }
    assetPartitionStatuses {
      ... on DefaultPartitionStatuses { materializedPartitions failedPartitions materializingPartitions }
    }
    assetMaterializations(partitions: $keys) { MATERIALIZATION }
    assetObservations(partitions: $keys) { partition tags { key value } stepKey }
    assetChecksOrError { ... on AssetChecks { checks {
      name blocking
      executionForLatestMaterialization { status partition stepKey runId evaluation {
        success severity description partition metadataEntries { label ... on TextMetadataEntry { text } }
        targetMaterialization { runId storageId timestamp } } }
    } } }
  }
  runsOrError { ... on Runs { results {
    jobName status assetSelection { path } stepKeysToExecute runConfigYaml canTerminate assets { key { path } }
    tags { key value } assetChecks { name }
    stats { ... on RunStatsSnapshot { stepsSucceeded stepsFailed materializations expectations } }
    stepStats { stepKey status attempts { startTime } markers { startTime } materializations { partition } }
    eventConnection { events { __typename
      ... on MessageEvent { message level stepKey eventType }
      ... on ExecutionStepFailureEvent { error { message className stack cause { message className stack } }
        failureMetadata { label description metadataEntries { label ... on TextMetadataEntry { text } } } }
      ... on ExecutionStepUpForRetryEvent { error { message className } secondsToWait }
    } }
  } } }
}
""".replace("MATERIALIZATION", _MATERIALIZATION)
)  # fmt: skip
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"in \d+(\.\d+)?m?s|\d+(\.\d+)?(ms|s)\b|pid: \d+|/\S*")
_OF_THE_PLACE = {"EngineEvent", "LogsCapturedEvent", "ResourceInitStartedEvent", "ResourceInitSuccessEvent"}


class _Workspace(WorkspaceLoadTarget):
    def __init__(self, module: str) -> None:
        self._module = module

    def create_origins(self) -> list[InProcessCodeLocationOrigin]:
        target = LoadableTargetOrigin(module_name=self._module, attribute="defs", executable_path=None)
        return [InProcessCodeLocationOrigin(target)]


def told(instance: dg.DagsterInstance, keys: list[str], module: str) -> Any:
    """What GraphQL answers for partitions, with the definitions `defs` of a module."""
    with WorkspaceProcessContext(instance, _Workspace(module)) as process:
        answer = execute_dagster_graphql(process.create_request_context(), _QUERY, {"keys": keys})
    assert answer.errors is None, answer.errors
    pointers = _pointers(instance)
    return _plain(answer.data, pointers)


def _pointers(instance: dg.DagsterInstance) -> dict[str, str]:
    """What each event of an asset is, by its storage id: its asset, partition and which one it is of them."""
    found: dict[str, str] = {}
    for asset in instance.all_asset_keys():
        counts: dict[str, int] = {}
        materialized = instance.fetch_materializations(asset, limit=1000, ascending=True).records
        observed = instance.fetch_observations(asset, limit=1000, ascending=True).records
        for record in (*materialized, *observed):
            partition = str(record.partition_key)
            counts[partition] = counts.get(partition, 0) + 1
            found[str(record.storage_id)] = f"{asset.to_user_string()} {partition} {counts[partition]}"
    return found


def _plain(value: Any, pointers: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_plain(each, pointers) for each in value if not _is_of_the_place(each)]
    if isinstance(value, dict):
        if str(value.get("key", "")).startswith("dagster/input_event_pointer/"):
            return {**value, "value": pointers[value["value"]]}
        return {key: _number(key, item, pointers) if key in _NUMBERS else _plain(item, pointers)
                for key, item in value.items()}  # fmt: skip
    if isinstance(value, str):
        return _TIME.sub("-", _UUID.sub("RUN", value))
    return value


_NUMBERS = {"startTime", "timestamp", "storageId"}


def _number(key: str, value: Any, pointers: dict[str, str]) -> Any:
    if value is None:
        return None
    return pointers[str(value)] if key == "storageId" else "TIME"


def _is_of_the_place(value: Any) -> bool:
    """What says where the work was done, on purpose."""
    if not isinstance(value, dict):
        return False
    message = str(value.get("message", ""))
    return (
        value.get("__typename") in _OF_THE_PLACE
        or str(value.get("key", "")) in ("edgepack/job", "edgepack/worker")
        or message.startswith(("running ", "DAGSTER_HOME is not set", "Dagster keeps its runs in"))
    )
