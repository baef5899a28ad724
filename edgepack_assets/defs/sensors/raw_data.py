"""The sensor of raw data: shows partitions as stale when the registry has new raw data, and can validate them again.

Only partitions with a payload are observed: nothing of another partition could be stale. Validating again does not
change the config package, so the registered package gets new metrics and no new version is registered.
"""

import json
import time
from functools import partial
from typing import Any, cast

import dagster as dg

from edgepack_assets.config.schema import Settings
from edgepack_assets.defs.assets.input_versions import current_raw_data, data_version, raw_data_observations
from edgepack_assets.defs.jobs import package_model
from edgepack_assets.defs.resources import EdgepackResource
from edgepack_assets.defs.sensors.bounded_registry import TICK, BoundedRegistry, OutageTimer
from edgepack_assets.errors import EdgepackError, NotFoundError
from edgepack_assets.partitions import PARTITIONS_NAME, ModelKey
from edgepack_assets.registry.base import (
    DamagedVersion,
    Kind,
    RegisteredVersion,
    Registry,
    damaged_above,
    damaged_in_words,
    refuse_unread,
)
from edgepack_assets.tasks.package_history import by_model_version, raw_data_of_package

INTERVAL = 60
BATCH = 200
"""Partitions observed by one tick and model type: each is an event that is written to Dagster's storage."""

VALIDATED_AGAIN = [
    dg.AssetKey(name)
    for name in ("payload_data", "prepped_data", "validation_results", "metrics", "deployment_package")
]


@dg.sensor(
    name="raw_data_versions",
    job=package_model,
    minimum_interval_seconds=INTERVAL,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Observes raw_data when the registry has a new version of it, which shows downstream partitions as "
    "stale; with `revalidate: true` it also has the latest package of the model type validated on it.",
)
def raw_data_versions(
    context: dg.SensorEvaluationContext, edgepack: dg.ResourceParam[EdgepackResource]
) -> dg.SensorResult:
    """Look up the raw data of every model type."""
    settings = edgepack.settings
    end = time.monotonic() + TICK
    failure: EdgepackError | None = None
    before_all = context.cursor or "{}"
    seen: dict[str, Any] = json.loads(before_all)
    observed: list[dg.AssetObservation] = []
    requests: list[dg.RunRequest] = []
    messages: list[str] = []
    for name in sorted(settings.model_types):
        caller = f"raw data of {name}"
        registry, outage = BoundedRegistry(settings, caller, end), OutageTimer(settings, caller)
        # An unreachable registry or a damaged version must not hide the news of other model types. What could not be
        # looked up keeps its place in the cursor.
        try:
            raw, current, damaged = registry.call(partial(_current, name, settings))
            before = seen.get(name, {})
            if before.get("version") != current:
                before = {"version": current, "after": None}
                if settings.model_type(name).revalidate:
                    request, why = _validation(name, raw, current, settings, cast(Registry, registry), context.instance)
                    requests += [request] if request is not None else []
                    messages.append(f"{name}: {why}")
            keys = _to_observe(name, before["after"], context.instance)
            observed += raw_data_observations(keys, raw, current)
        except NotFoundError as error:
            messages.append(f"{name}: {error}")  # this is an answer: raw data may be added later
            outage.stop()
            continue
        except EdgepackError as error:
            messages.append(f"{name}: not looked at: {error}")
            failure = failure or outage.failure_after(error)
            continue
        outage.stop()
        messages.append(f"{name}: {raw}" + (f", observed for {len(keys)} partitions" if keys else ", nothing new"))
        if damaged:
            messages.append(f"{name}: {damaged_in_words(damaged)}")
        # Partitions that get a payload from here on are observed by their own run.
        seen[name] = {"version": current, "after": str(keys[-1].version) if len(keys) == BATCH else "done"}
    text, cursor = "; ".join(messages), json.dumps(seen, sort_keys=True)
    # Raising would lose the news of other model types, so a failure waits until there is none.
    if failure is not None and not observed and not requests and seen == json.loads(before_all):
        raise failure
    context.log.info(text)
    return dg.SensorResult(
        run_requests=requests,
        asset_events=observed,
        cursor=cursor,
        skip_reason=None if requests else dg.SkipReason(text),
    )


def _current(name: str, settings: Settings, registry: Registry) -> tuple[RegisteredVersion, str, list[DamagedVersion]]:
    """The raw data of a model type, its data version, whose digest a registry may have to look up, and the damaged
    versions that would be newer."""
    raw = current_raw_data(name, settings, registry)
    is_latest = settings.model_type(name).raw_data.version == "latest"
    current = data_version(raw.name, raw.version, raw.resolve().digest)
    return raw, current, damaged_above(registry, raw) if is_latest else []


def _to_observe(model_type: str, after: str | None, instance: dg.DagsterInstance) -> list[ModelKey]:
    """The next partitions of a model type that have a payload, lowest version first; `after` is the last one's
    version, "done" where there are no more."""
    if after == "done":
        return []
    keys = [ModelKey.parse(text) for text in instance.get_materialized_partitions(dg.AssetKey("payload_data"))]
    mine = sorted(key for key in keys if key.model_type == model_type)
    return [key for key in mine if after is None or key.version > int(after)][:BATCH]


def _validation(  # noqa: PLR0917 - the tick's own, passed on
    name: str,
    raw: RegisteredVersion,
    current: str,
    settings: Settings,
    registry: Registry,
    instance: dg.DagsterInstance,
) -> tuple[dg.RunRequest | None, str]:
    """The run that validates the latest package of a model type on this raw data, if it has not been; and why."""
    entry = settings.model_type(name)
    refuse_unread(registry.damaged(Kind.MODEL, entry.registered_package_name))
    packages = by_model_version(registry.versions(Kind.MODEL, entry.registered_package_name), entry.model_name)
    if not packages:
        return None, "no package to validate again"
    version = max(packages)
    package, key = packages[version], ModelKey(name, version)
    if str(raw) in raw_data_of_package(package):
        return None, f"{package} was validated on {raw}"
    if str(key) not in instance.get_materialized_partitions(dg.AssetKey("config_package")):
        return None, f"{package} is not validated on {raw}: this instance has no config_package of {key}"
    if not instance.has_dynamic_partition(PARTITIONS_NAME, str(key)):
        return None, f"{package} is not validated on {raw}: the partition {key} was removed"
    request = dg.RunRequest(
        run_key=f"revalidate {package} on {current}",
        partition_key=str(key),
        asset_selection=VALIDATED_AGAIN,
        tags={"edgepack/revalidates": str(package), "edgepack/raw_data": str(raw)},
    )
    return request, f"{package} is validated again on {raw}"
