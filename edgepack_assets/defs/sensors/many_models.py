"""The sensor `registry_models`, which looks for new versions of many model types in each tick.

A sensor for each costs Dagster a quarter of a second of every interval, which is too much from some hundred on. What
one tick does is in new_models/many_types.py; what is done for one model type is the same as in a sensor of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from edgepack_assets.config.schema import Settings
from edgepack_assets.defs.instance import add_keys
from edgepack_assets.defs.jobs import package_model
from edgepack_assets.defs.sensors.bounded_registry import BoundedRegistry, OutageTimer, hanging_calls
from edgepack_assets.defs.sensors.kept_settings import settings_of
from edgepack_assets.defs.sensors.one_type import (
    key_of,
    look,
    observations,
    rules_of,
    run_request,
    versions_with_partition,
)
from edgepack_assets.defs.sensors.state_store import (
    SHARED,
    StateStore,
    is_switched_off,
    latest_states,
    location_of,
    location_of_project,
    sensor_name,
    state_of_own_sensor,
)
from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets.new_models.cursor import State
from edgepack_assets.new_models.many_types import (
    Limits,
    Memory,
    Result,
    look_at_types,
    newest,
    read_states,
    remember_tick,
)
from edgepack_assets.new_models.tick import Decision
from edgepack_assets.registry.base import Kind

_SLICE = 20.0
"""Seconds of a tick after which no further model type is looked at. Dagster ends a tick after 60 s."""
_ONE_TYPE = 10.0
"""Seconds for all calls of the registry for one model type."""
_MOST_HANGING = 5
"""Calls without an answer at which no model type is looked at: it is the registry, not a single one."""
_MOST_CALLS = 500
"""Calls of an Azure ML registry after which a tick ends."""


@dataclass
class _Process:
    """What is kept from tick to tick in this process."""

    memory: Memory = field(default_factory=Memory)
    switched_off: frozenset[str] = frozenset()
    asks_for_each: bool = False
    """Whether the registry cannot tell the newest versions of all models at once."""


_log = logging.getLogger(__name__)
_processes: dict[Path, _Process] = {}


def shared_sensor(settings: Settings, job: Any = package_model) -> dg.SensorDefinition:
    """The sensor `registry_models`, on by default, which requests runs of `job`."""

    @dg.sensor(
        name=SHARED,
        job=job,
        minimum_interval_seconds=settings.sensor_interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Finds versions of all configured models in the registry that are not packaged yet, adds their "
        "partitions and requests one run for each. `model_types.<name>.sensor: false` leaves one out.",
        tags={"edgepack": "registry"},
    )
    def registry_models(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        return _tick(context, settings.file, job.name)

    return registry_models


def is_on(settings: Settings, model_type: str, own_is_off: bool) -> bool:
    """Whether the sensor looks at a model type. `own_is_off`: its own sensor was switched off in the UI."""
    wanted = settings.model_type(model_type).sensor
    return not own_is_off if wanted is None else wanted


def _tick(context: dg.SensorEvaluationContext, file: Path, job: str) -> dg.SensorResult | dg.SkipReason:
    began = time.monotonic()
    process = _processes.setdefault(file, _Process())
    settings, instance = settings_of(file), context.instance
    if hanging_calls(settings) >= _MOST_HANGING:
        return dg.SkipReason(f"the registry does not answer: {_MOST_HANGING} calls of earlier ticks hang")
    try:
        newest_of = _newest_of_all(settings, process)
    except TransientError as error:  # asking for each model type would make it worse
        if (failure := OutageTimer(instance, settings, SHARED).failure_after(error)) is not None:
            raise failure from error
        return dg.SkipReason(f"the registry does not answer, it is asked again in the next tick: {error}")
    location = location_of(context)
    store, memory, all_names = StateStore(instance, location), process.memory, tuple(settings.model_types)
    cursor = read_states(
        memory,
        context.cursor,
        all_names,
        store,
        lambda unread: _take_over(process, instance, location, settings, unread),
    )
    names = [name for name in settings.model_types if is_on(settings, name, name in process.switched_off)]
    calls = 0

    def has_time() -> bool:
        is_dead = hanging_calls(settings) >= _MOST_HANGING
        too_many = settings.registry.type == "azure_ml" and calls >= _MOST_CALLS
        return time.monotonic() - began < _SLICE and not is_dead and not too_many

    def look_at(name: str, state: State | None, room: int) -> Decision:
        nonlocal calls
        registry = BoundedRegistry(settings, name, time.monotonic() + _ONE_TYPE, opened_by=SHARED, newest=newest_of)
        try:
            return look(instance, settings, name, state, job, registry, room)
        finally:
            calls += registry.calls

    limits = Limits(settings.sensors.batch, settings.sensor_interval, has_time, time.monotonic)
    result = look_at_types(names, cursor, memory, look_at, limits, int(time.time()))
    _raise_or_forget_outage(instance, settings, result)
    add_keys(
        instance,
        [key_of(name, version) for name, made in result.decisions.items() for version in versions_with_partition(made)],
    )
    store.write(result.saved)
    text = result.cursor.to_text()
    remember_tick(memory, text, all_names, store)
    return _sensor_result(context, settings, result, text)


def _newest_of_all(settings: Settings, process: _Process) -> Mapping[str, int] | None:
    """The newest version of every model in the registry, where it can tell in fewer calls than one for each model
    type. Raises TransientError."""
    if process.asks_for_each:
        return None
    registry = BoundedRegistry(settings, SHARED, time.monotonic() + _SLICE, opened_by=SHARED)
    try:
        newest_of = registry.call(lambda opened: opened.newest_versions(Kind.MODEL, len(settings.model_types)))
    except TransientError:
        raise
    except EdgepackError as error:  # whoever may read each model may perhaps not list them
        _log.warning("the registry is asked for each model type: %s", error)
        newest_of = None
    process.asks_for_each = newest_of is None
    return newest_of


def _take_over(
    process: _Process,
    instance: dg.DagsterInstance,
    location: str,
    settings: Settings,
    unread: dict[str, EdgepackError],
) -> dict[str, State]:
    """What was handled before the first tick: by the model types' own sensors, where a project has grown, and in the
    code location's rows under its earlier name. Which of those sensors were switched off is remembered. `unread` gets
    the errors of states that cannot be read."""
    kept, names = latest_states(instance, location), [*settings.model_types]
    process.switched_off = frozenset(name for name in names if is_switched_off(kept.get(sensor_name(name))))
    states: dict[str, State] = {}
    for name in names:
        try:
            own = state_of_own_sensor(instance, kept.get(sensor_name(name)))
        except EdgepackError as error:
            unread[name] = EdgepackError(f"its own sensor {sensor_name(name)}: {error}")
            continue
        if own is not None:
            states[name] = own
    before = location_of_project(instance, settings.file)
    if before not in {"", location}:
        for name, state in StateStore(instance, before).read(names, unread).items():
            states[name] = newest(states.get(name), state) or state
    StateStore(instance, location).tell_location(settings.file)
    return states


def _raise_or_forget_outage(instance: dg.DagsterInstance, settings: Settings, result: Result) -> None:
    """Fail the tick if the registry has given no good answer for any model type for long enough."""
    outage = OutageTimer(instance, settings, SHARED)
    if not result.failed or len(result.failed) < result.looked:
        outage.stop()
        return
    error = next(iter(result.failed.values()))
    failure = outage.failure_after(error)
    if failure is not None and not any(made.requests for made in result.decisions.values()):
        raise failure from error


def _sensor_result(
    context: dg.SensorEvaluationContext, settings: Settings, result: Result, cursor: str
) -> dg.SensorResult:
    requests, events = [], []
    for name, made in result.decisions.items():
        rules = rules_of(settings, name)
        requests += [run_request(request, settings, rules) for request in made.requests]
        events += observations(made, rules)
    if requests:  # else the tick shows the messages as the reason why it requests nothing
        context.log.info(result.message)
    return dg.SensorResult(
        run_requests=requests, skip_reason=None if requests else result.message, cursor=cursor, asset_events=events
    )
