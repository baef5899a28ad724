"""Which version of raw_data and registered_model a partition has: observations, with the registry's own versions.

Dagster takes the newest observation of an external asset's partition as its data version. A materialization keeps a
pointer to the observation it was made after; once a later one tells of another version, it is shown as stale.
"""

from collections.abc import Iterable, Mapping

import dagster as dg
from dagster import AssetRecordsFilter, DagsterInstance

from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind, RegisteredVersion, Registry, resolve
from edgepack_assets.settings import Settings

RAW_DATA, REGISTERED_MODEL = dg.AssetKey("raw_data"), dg.AssetKey("registered_model")

_DATA_VERSION = "dagster/data_version"
_INPUT_VERSION = "dagster/input_data_version/"
_INPUT_POINTER = "dagster/input_event_pointer/"
_RECENT = 20
"""Observations among which one that was made a moment ago is looked for: others may observe at the same time."""


def data_version(name: str, version: int, digest: str) -> str:
    """The data version of what the registry holds under a name and version: `press_raw:3@<sha256>`."""
    return f"{name}:{version}@{digest}"


def current_raw_data(model_type: str, settings: Settings, registry: Registry) -> RegisteredVersion:
    """The raw data that a model type would be validated on at this moment. Raises NotFoundError."""
    wanted = settings.model_type(model_type).raw_data
    return resolve(registry, Kind.DATA, wanted.name, wanted.version)


def observation(asset: dg.AssetKey, key: ModelKey, found: str, metadata: Mapping[str, str]) -> dg.AssetObservation:
    """An observation of an external asset's partition."""
    return dg.AssetObservation(asset, partition=str(key), metadata=metadata, tags={_DATA_VERSION: found})


def raw_data_observations(
    keys: Iterable[ModelKey], settings: Settings, registry: Registry
) -> list[dg.AssetObservation]:
    """An observation of raw_data for each key, as the registry has it at this moment; one look per model type.

    For sensors. Raises NotFoundError, ConfigError, TransientError."""
    current: dict[str, RegisteredVersion] = {}
    observed = []
    for key in keys:
        if key.model_type not in current:
            current[key.model_type] = current_raw_data(key.model_type, settings, registry)
        raw = current[key.model_type]
        told = data_version(raw.name, raw.version, raw.digest)
        observed.append(observation(RAW_DATA, key, told, {"version": str(raw), "location": raw.location}))
    return observed


def input_tags(instance: DagsterInstance, asset: dg.AssetKey, key: ModelKey, used: str, current: str) -> dict[str, str]:
    """Observe the version that a step used, and give its materialization the tags that point to that observation.

    Dagster itself would point to what had been observed when the step began, before the version was resolved. If
    the registry has a later version by now (`current`), that is observed too, and the materialization is stale."""
    pointer = _observe(instance, asset, key, used)
    if current != used:
        _observe(instance, asset, key, current)
    name = asset.to_user_string()
    return {f"{_INPUT_VERSION}{name}": used, f"{_INPUT_POINTER}{name}": str(pointer)}


def _observe(instance: DagsterInstance, asset: dg.AssetKey, key: ModelKey, found: str) -> int:
    """Make `found` the newest observation of a partition, unless it is, and return that observation's storage id."""
    recent = _observations(instance, asset, key, limit=1)
    if not recent or recent[0][1] != found:
        told, _, digest = found.partition("@")
        instance.report_runless_asset_event(observation(asset, key, found, {"version": told, "digest": digest}))
        recent = _observations(instance, asset, key, limit=_RECENT)
    return next(storage_id for storage_id, version in recent if version == found)


def _observations(
    instance: DagsterInstance, asset: dg.AssetKey, key: ModelKey, limit: int
) -> list[tuple[int, str | None]]:
    """(storage id, data version) of a partition's observations, newest first."""
    records = instance.fetch_observations(AssetRecordsFilter(asset, asset_partitions=[str(key)]), limit=limit).records
    return [
        (record.storage_id, (record.asset_observation.tags if record.asset_observation else {}).get(_DATA_VERSION))
        for record in records
    ]
