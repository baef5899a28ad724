"""The status of the sensors, for `edgepack sensors`: is each on, when was its last tick, what was its message."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, SensorInstigatorData, TickStatus
from dagster_shared.error import SerializableErrorInfo

from edgepack_assets.config.schema import Settings
from edgepack_assets.defs.instance import opened
from edgepack_assets.defs.sensors import raw_data, run_failures
from edgepack_assets.defs.sensors.many_models import is_on
from edgepack_assets.defs.sensors.new_models import has_shared_sensor
from edgepack_assets.defs.sensors.run_outcomes import error_class
from edgepack_assets.defs.sensors.state_store import (
    SHARED,
    StateStore,
    is_switched_off,
    latest_states,
    location_name,
    location_of_project,
    sensor_name,
)
from edgepack_assets.errors import EdgepackError
from edgepack_assets.new_models.cursor import State
from edgepack_assets.new_models.many_types import Cursor
from edgepack_assets.text_format import counted

_DAEMON = "SENSOR"
_DAEMON_SILENT = 120.0
"""Seconds without a heartbeat of the daemon after which it counts as stopped; it sends one every 30 s."""
_LATE = 3
"""Intervals, plus a minute, without a tick after which a sensor is late."""


@dataclass(frozen=True)
class SensorStatus:
    """A sensor. `looked`: seconds since its last tick, None if there was none. `words`: the message of that tick.
    `fault`: what is wrong, empty if nothing is."""

    name: str
    state: str
    looked: float | None
    words: str
    fault: str = ""
    waiting: list[str] = field(default_factory=list)
    """`<model_name>:<version>` of the model versions that wait for approval."""


@dataclass(frozen=True)
class Status:
    """All sensors, and the seconds since the last heartbeat of the daemon that runs them; None if there was none."""

    daemon: float | None
    sensors: list[SensorStatus]

    @property
    def daemon_is_alive(self) -> bool:
        """Whether the Dagster daemon is running."""
        return self.daemon is not None and self.daemon < _DAEMON_SILENT


def sensors_status(settings: Settings, home: str) -> Status:
    """The status of a configuration's sensors in the Dagster instance of `home`. Raises EdgepackError."""
    now = time.time()
    is_shared = has_shared_sensor(settings)
    registry = {} if is_shared else {sensor_name(model_type): model_type for model_type in settings.model_types}
    intervals = {
        **dict.fromkeys([SHARED] if is_shared else registry, settings.sensor_interval),
        raw_data.raw_data_versions.name: raw_data.INTERVAL,
        run_failures.NAME: settings.sensor_interval,
    }
    with opened(Path(home)) as instance:
        beat = instance.get_daemon_heartbeats().get(_DAEMON)
        states = latest_states(instance, _location(instance, settings))
        sensors = [
            _one(name, interval, states.get(name), registry.get(name), settings, instance, now)
            for name, interval in intervals.items()
        ]
        if is_shared:
            sensors[:1] = _shared(sensors[0], states, settings, instance, now)
    return Status(None if beat is None else now - beat.timestamp, sensors)


def start_anew(settings: Settings, home: str, model_type: str) -> None:
    """Let the sensor for many model types forget what it has handled of one. Raises EdgepackError."""
    settings.model_type(model_type)
    if not has_shared_sensor(settings):
        raise EdgepackError(
            f"{model_type} has a sensor of its own: clear its cursor with "
            f"`dagster sensor cursor {sensor_name(model_type)} --delete`"
        )
    with opened(Path(home)) as instance:
        StateStore(instance, _location(instance, settings)).start_anew(model_type)


def _location(instance: dg.DagsterInstance, settings: Settings) -> str:
    """The code location of the configuration; if its sensor has not told, the one with the latest tick."""
    shared = latest_states(instance).get(SHARED)
    return location_of_project(instance, settings.file) or (location_name(shared) if shared is not None else "")


def _shared(
    sensor: SensorStatus,
    states: dict[str, InstigatorState],
    settings: Settings,
    instance: dg.DagsterInstance,
    now: float,
) -> list[SensorStatus]:
    """The sensor for many model types, and a line for each model type that is off or has a fault."""
    lines = [
        SensorStatus(f"{SHARED}: {name}", "off", None, _why_off(settings, name))
        for name in settings.model_types
        if not is_on(settings, name, is_switched_off(states.get(sensor_name(name))))
    ]
    data = states[SHARED].instigator_data if SHARED in states else None
    try:
        cursor = Cursor.from_text(data.cursor if isinstance(data, SensorInstigatorData) else None)
    except EdgepackError:
        return [sensor, *lines]  # the sensor's tick fails with that reason
    unread: dict[str, EdgepackError] = {}
    kept = StateStore(instance, _location(instance, settings)).read(settings.model_types, unread)
    kept.update({name: State.from_cursor(text) for name, text in cursor.changed.items()})
    sensor.waiting.extend(f"{state.model}:{number}" for state in kept.values() for number in sorted(state.waiting))
    lines += [SensorStatus(f"{SHARED}: {name}", "on", None, str(error), "held up") for name, error in unread.items()]
    for name, fault in cursor.faults.items():
        if name in unread:
            continue
        lasts = now - fault.since
        late = f"no good answer for {lasts:.0f} s" if lasts >= settings.sensors.failure_after else ""
        lines.append(SensorStatus(f"{SHARED}: {name}", "on", None, fault.text, late))
    return [sensor, *lines]


def _why_off(settings: Settings, model_type: str) -> str:
    if settings.model_type(model_type).sensor is False:
        return f"switched off by model_types.{model_type}.sensor"
    return f"its own sensor was switched off in the UI: set model_types.{model_type}.sensor to true to switch it on"


def _one(  # noqa: PLR0917 - what the status is made from
    name: str,
    interval: int,
    state: InstigatorState | None,
    model_type: str | None,
    settings: Settings,
    instance: dg.DagsterInstance,
    now: float,
) -> SensorStatus:
    ticks = [] if state is None else instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=2)
    # A tick in progress has no message yet.
    tick = next((tick for tick in ticks if tick.status is not TickStatus.STARTED), None)
    late = tick is None or now - tick.timestamp > _LATE * interval + 60
    if model_type is not None and settings.model_type(model_type).sensor is False:
        return SensorStatus(name, "off", None, _why_off(settings, model_type))
    if state is not None and state.status is InstigatorStatus.STOPPED:
        return SensorStatus(name, "off", None, "switched off: switch it on on the Automation page of the UI")
    # The daemon's environment may configure a webhook where this one does not: then there was a tick lately.
    if late and name == run_failures.NAME and settings.sensors.webhook is None:
        return SensorStatus(name, "off", None, "sensors.webhook is not configured")
    if state is None or tick is None:
        return SensorStatus(name, "on", None, "", "has had no tick yet")
    looked = max(0.0, now - tick.timestamp)  # there may have been a tick after `now`
    fault = "no tick since then" if late else ""
    words = tick.skip_reason or ""
    if tick.status is TickStatus.FAILURE:
        fault = "its last tick failed"
        words = _why_failed(tick.error)
    elif tick.run_ids:
        words = f"requested {counted(len(tick.run_ids), 'run')}"
    return SensorStatus(name, "on", looked, words, fault, _waiting(state, model_type))


def _why_failed(error: SerializableErrorInfo | None) -> str:
    """The error that this project raised, whose words are for the user; else what everything follows from."""
    chain = []
    while error is not None:
        chain.append(error)
        error = error.cause
    for each in chain:
        if each.cls_name and error_class(each.cls_name):
            return each.message.partition(f"{each.cls_name}: ")[2].strip()
    return chain[-1].message.strip() if chain else ""


def _waiting(state: InstigatorState, model_type: str | None) -> list[str]:
    data = state.instigator_data
    if model_type is None or not isinstance(data, SensorInstigatorData) or not data.cursor:
        return []
    try:
        kept = State.from_cursor(data.cursor)
    except EdgepackError:
        return []  # the sensor's tick fails with that reason
    return [f"{kept.model}:{number}" for number in sorted(kept.waiting)]
