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
from edgepack_assets.defs.sensors.kept_settings import settings_of
from edgepack_assets.defs.sensors.new_models import has_shared_sensor
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
from edgepack_assets.tasks.packages.history import by_model_version, raw_data_of_package
from edgepack_assets.text_format import counted

INTERVAL = 60
BATCH = 200
"""Partitions observed by one tick and model type: each is an event that is written to Dagster's storage."""

_OPENED_BY = "raw data"
_ROW = "edgepack/raw_data_seen"
_START = ""
"""The key of the cursor that is no model type's: where the next tick begins, after one that had no time for all."""
_LONGEST_MESSAGE = 3000

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
    settings = settings_of(edgepack.config_file)
    is_shared = has_shared_sensor(settings)
    seen, start = _seen(context, is_shared)
    before_all = dict(seen)
    tick = _Tick(context, settings, time.monotonic() + TICK, is_shared, seen)
    names, start = _from(start, sorted(settings.model_types)), ""
    for looked, name in enumerate(names):
        if looked and time.monotonic() > tick.end:
            start = name
            tick.messages.append(f"{counted(len(names) - looked, 'model type')} to be looked at first in the next tick")
            break
        tick.look_at(name)
    text = _text(tick.messages, names, is_shared)
    changed = {name: entry for name, entry in seen.items() if not is_shared or before_all.get(name) != entry}
    # Raising would lose the news of other model types, so a failure waits until there is none.
    if tick.failure is not None and not tick.observed and not tick.requests and seen == before_all:
        raise tick.failure
    context.log.info(text)
    return dg.SensorResult(
        run_requests=tick.requests,
        asset_events=tick.observed,
        cursor=json.dumps({**changed, **({_START: start} if start else {})}, sort_keys=True),
        skip_reason=None if tick.requests else dg.SkipReason(text),
    )


class _Tick:
    """What one tick finds out, until `end` (of the monotonic clock). It changes `seen`, which the cursor keeps."""

    def __init__(
        self,
        context: dg.SensorEvaluationContext,
        settings: Settings,
        end: float,
        is_shared: bool,
        seen: dict[str, Any],
    ) -> None:
        self.end = end
        self.observed: list[dg.AssetObservation] = []
        self.requests: list[dg.RunRequest] = []
        self.messages: list[str] = []
        self.failure: EdgepackError | None = None
        """The first outage that has lasted so long that the tick is to fail."""
        self._context, self._settings, self._is_shared, self._seen = context, settings, is_shared, seen
        self._current_of = _Current(settings)

    def look_at(self, name: str) -> None:
        """Look up the raw data of one model type.

        An unreachable registry or a damaged version must not hide the news of other model types. What could not be
        looked up keeps its place in the cursor."""
        caller = f"raw data of {name}"
        registry = BoundedRegistry(self._settings, caller, self.end, opened_by=_OPENED_BY)
        outage = OutageTimer(self._context.instance, self._settings, caller)
        try:
            raw, current, damaged = registry.call(partial(self._current_of, name))
            keys = self._news(name, raw, current, registry)
        except NotFoundError as error:
            self.messages.append(f"{name}: {error}")  # this is an answer: raw data may be added later
            outage.stop()
            return
        except EdgepackError as error:
            self.messages.append(f"{name}: not looked at: {error}")
            self.failure = self.failure or outage.failure_after(error)
            return
        outage.stop()
        if keys or not self._is_shared:
            observed = f", observed for {counted(len(keys), 'partition')}" if keys else ", nothing new"
            self.messages.append(f"{name}: {raw}{observed}")
        if damaged:
            self.messages.append(f"{name}: {damaged_in_words(damaged)}")
        # Partitions that get a payload from here on are observed by their own run.
        self._seen[name] = {"version": current, "after": str(keys[-1].version) if len(keys) == BATCH else "done"}

    def _news(self, name: str, raw: RegisteredVersion, current: str, registry: BoundedRegistry) -> list[ModelKey]:
        """The partitions for which this raw data is observed now; it is validated on too, where that is configured."""
        before = self._seen.get(name, {})
        if before.get("version") != current:
            before = {"version": current, "after": None}
            if self._settings.model_type(name).revalidate:
                instance = self._context.instance
                request, why = _validation(name, raw, current, self._settings, cast(Registry, registry), instance)
                self.requests += [request] if request is not None else []
                self.messages.append(f"{name}: {why}")
        keys = _to_observe(name, before["after"], self._context.instance)
        self.observed += raw_data_observations(keys, raw, current)
        return keys


def _from(start: str, names: list[str]) -> list[str]:
    """The names in their order, from `start` on and round."""
    at = names.index(start) if start in names else 0
    return [*names[at:], *names[:at]]


def _text(messages: list[str], names: list[str], is_shared: bool) -> str:
    text = "; ".join(messages) or f"looked at the raw data of {counted(len(names), 'model type')}, nothing new"
    if len(text) > _LONGEST_MESSAGE and is_shared:
        return f"{text[:_LONGEST_MESSAGE]} ... ({counted(len(messages), 'message')})"
    return text


def _seen(context: dg.SensorEvaluationContext, is_shared: bool) -> tuple[dict[str, Any], str]:
    """(what was seen of each model type, the one that the tick begins with). With many, the cursor has what the last
    tick has changed; the rest is a row of the instance, because Dagster stores the cursor with every tick."""
    rows = context.instance.daemon_cursor_storage
    row = _entries(text := rows.get_cursor_values({_ROW}).get(_ROW, "{}"))
    if row is None:
        context.log.warning(f"{_ROW} in the instance cannot be read ({text[:100]!r}): all raw data is looked at again")
        row = {}
    saved = _entries(context.cursor or "{}")
    if saved is None:
        raise EdgepackError(
            f"the sensor's cursor was changed and cannot be read ({(context.cursor or '')[:100]!r}): restore the "
            "earlier text, or clear it in the UI: all raw data is then looked at again, and nothing is validated twice"
        )
    start = saved.pop(_START, "")
    seen = {**row, **saved}
    if is_shared and seen != row:
        rows.set_cursor_values({_ROW: json.dumps(seen, sort_keys=True)})
    elif not is_shared and row and row.keys() <= saved.keys():  # the project has shrunk, and the cursor has it all
        rows.set_cursor_values({_ROW: "{}"})
    return seen, start


def _entries(text: str) -> dict[str, Any] | None:
    """What the sensor wrote; None if it was changed so that it cannot be read."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_sound = isinstance(found, dict) and all(_is_entry(name, entry) for name, entry in found.items())
    return found if is_sound else None


def _is_entry(name: str, entry: object) -> bool:
    if name == _START:
        return isinstance(entry, str)
    if not isinstance(entry, dict) or not isinstance(entry.get("version"), str):
        return False
    after = entry.get("after", "")
    return after is None or after == "done" or (isinstance(after, str) and after.isdecimal())


class _Current:
    """Looks up the raw data of model types, once in a tick for those that have the same."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[tuple[str, object], tuple[RegisteredVersion, str, list[DamagedVersion]]] = {}

    def __call__(self, model_type: str, registry: Registry) -> tuple[RegisteredVersion, str, list[DamagedVersion]]:
        raw_data = self._settings.model_type(model_type).raw_data
        key = raw_data.name, raw_data.version
        if key not in self._known:
            self._known[key] = _current(model_type, self._settings, registry)
        return self._known[key]


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
    sound, damaged = registry.versions_and_damaged(Kind.MODEL, entry.registered_package_name)
    refuse_unread(damaged)
    packages = by_model_version(sound, entry.model_name)
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
