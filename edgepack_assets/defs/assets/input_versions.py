"""Which version of raw_data and registered_model a partition has: observations, with the registry's own versions.

Dagster takes the newest observation of an external asset's partition as its data version. A materialization keeps a
pointer to the observation it was made after; once a later one tells of another version, it is shown as stale.
"""

from collections.abc import Iterable, Mapping

import dagster as dg
from dagster import AssetRecordsFilter, DagsterInstance

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.config.schema import Settings
from edgepack_assets.config.versions import Version
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import Kind, RegisteredVersion, Registry, resolve
from edgepack_assets.tasks.payload_data import raw_data_of

RAW_DATA, REGISTERED_MODEL = dg.AssetKey("raw_data"), dg.AssetKey("registered_model")

_DATA_VERSION = "dagster/data_version"
_INPUT_VERSION = "dagster/input_data_version/"
_INPUT_POINTER = "dagster/input_event_pointer/"
_RECENT = 50
"""Observations among which that of a version is looked for; one that lies further back is made again."""


def data_version(name: str, version: Version, digest: str) -> str:
    """The data version of what the registry holds under a name and version: `press_raw:3@<sha256>`."""
    return f"{name}:{version}@{digest}"


def current_raw_data(model_type: str, settings: Settings, registry: Registry) -> RegisteredVersion:
    """The raw data that a model type would be validated on at this moment. Raises NotFoundError."""
    wanted = settings.model_type(model_type).raw_data
    return resolve(registry, Kind.DATA, wanted.name, wanted.version)


def observation(asset: dg.AssetKey, key: ModelKey, version: str, metadata: Mapping[str, str]) -> dg.AssetObservation:
    """An observation of an external asset's partition."""
    return dg.AssetObservation(asset, partition=str(key), metadata=metadata, tags={_DATA_VERSION: version})


def raw_data_observations(keys: Iterable[ModelKey], raw: RegisteredVersion, current: str) -> list[dg.AssetObservation]:
    """Observations of a version of raw data, one for each partition. `current` is its `data_version`: the caller has
    looked up the digest for it, which may cost a call of the registry."""
    metadata = {"version": str(raw), "location": raw.location}
    return [observation(RAW_DATA, key, current, metadata) for key in keys]


def input_tags(
    instance: DagsterInstance, asset: dg.AssetKey, key: ModelKey, used: str, current: str | None = None
) -> dict[str, str]:
    """The tags that point a materialization to an observation of the version that its step used, made if there is none.

    Dagster itself would point to what had been observed when the step began: a version that the step did not use, if
    it resolved "latest" later, or used what an earlier step had resolved. If another version is `current` by now (for
    the registry; else what was observed last), that stays or becomes the newest, and the materialization is stale."""
    recent = _observations(instance, asset, key)
    newest = recent[0][1] if recent else None
    pointer = next((storage_id for storage_id, version in recent if version == used), None)
    wanted = current or newest or used
    if pointer is None:
        pointer, newest = _observe(instance, asset, key, used), used
    if newest != wanted:
        _observe(instance, asset, key, wanted)
    name = asset.to_user_string()
    return {f"{_INPUT_VERSION}{name}": used, f"{_INPUT_POINTER}{name}": str(pointer)}


def raw_data_tags(
    instance: DagsterInstance, key: ModelKey, payload: Artefact, current: str | None = None
) -> dict[str, str]:
    """`input_tags` for what was made from a payload, or the payload itself: the raw data that the payload was made of.

    Dagster calls an asset stale for its own parents only. So all that a payload goes into name raw data as a parent:
    new raw data shows, and lets a person select, all that is to be made again."""
    raw = raw_data_of(payload)
    return input_tags(instance, RAW_DATA, key, data_version(raw["name"], raw["version"], raw["digest"]), current)


def _observe(instance: DagsterInstance, asset: dg.AssetKey, key: ModelKey, observed: str) -> int:
    """Make `observed` the newest observation of a partition, and return that observation's storage id."""
    version, _, digest = observed.rpartition("@")  # a version may hold an @, a digest none
    instance.report_runless_asset_event(observation(asset, key, observed, {"version": version, "digest": digest}))
    return next(storage_id for storage_id, version in _observations(instance, asset, key) if version == observed)


def _observations(instance: DagsterInstance, asset: dg.AssetKey, key: ModelKey) -> list[tuple[int, str | None]]:
    """(storage id, data version) of a partition's recent observations, newest first."""
    wanted = AssetRecordsFilter(asset, asset_partitions=[str(key)])
    records = instance.fetch_observations(wanted, limit=_RECENT).records
    return [
        (record.storage_id, (record.asset_observation.tags if record.asset_observation else {}).get(_DATA_VERSION))
        for record in records
    ]
