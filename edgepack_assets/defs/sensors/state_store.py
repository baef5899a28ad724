"""Where the sensor for many model types keeps their states: a row for each in Dagster's table of key-value pairs.

Each model type has a sensor of its own in a project with few of them, and its state is that sensor's cursor. What is
here as well lets a state go from there to the rows, and back, when a project grows or shrinks. The rows of a code
location are its own, as the cursors of its sensors are: several projects may share an instance.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, SensorInstigatorData, TickStatus

from edgepack_assets.errors import EdgepackError
from edgepack_assets.new_models.cursor import State
from edgepack_assets.new_models.many_types import Cursor, newest

SHARED = "registry_models"
"""The sensor for many model types."""
_PREFIX = "edgepack/model_types/"
"""Followed by the code location, the model type and what the row holds. Earlier releases left the location out."""
_TOKEN = "edgepack/model_types_changed/"  # noqa: S105 - the key of a row
_LOCATION = "edgepack/code_location_of/"
_AT_ONCE = 200
"""Rows that are read or written in one statement; SQLite takes a bounded number of parameters."""


def sensor_name(model_type: str) -> str:
    """The name of a model type's own sensor."""
    return f"{model_type.replace('-', '_')}_models"


def location_of(context: dg.SensorEvaluationContext) -> str:
    """The code location that a tick belongs to; empty outside a daemon."""
    origin = context.code_location_origin
    return origin.location_name if origin is not None else ""


def location_of_project(instance: dg.DagsterInstance, file: Path) -> str:
    """The code location of the project with this configuration, as its sensor for many model types has told; empty if
    it has not."""
    key = f"{_LOCATION}{file}"
    return instance.daemon_cursor_storage.get_cursor_values({key}).get(key, "")


class StateStore:
    """The rows of a code location in an instance. An empty row counts as none."""

    def __init__(self, instance: dg.DagsterInstance, location: str) -> None:
        self._rows = instance.daemon_cursor_storage
        part = quote(location, safe="")
        self._location, self._prefix, self._token = location, f"{_PREFIX}{part}/" if part else _PREFIX, _TOKEN + part

    def token(self) -> str:
        """A text that changes with every change of a row."""
        rows = self._rows.get_cursor_values({self._token, _TOKEN})
        return f"{rows.get(_TOKEN, '')} {rows.get(self._token, '')}"

    def tell_location(self, file: Path) -> None:
        """Let `location_of_project` find the rows of the project with this configuration."""
        self._rows.set_cursor_values({f"{_LOCATION}{file}": self._location})

    def read(self, model_types: Iterable[str], unread: dict[str, EdgepackError] | None = None) -> dict[str, State]:
        """The states of model types that have one, and were not made to start anew since. Rows of an earlier release
        become rows of this location.

        Raises EdgepackError for a row that cannot be read; with `unread` the error is put there, and the row stays."""
        names = list(model_types)
        prefixes = {self._prefix, _PREFIX}
        rows = self._read([f"{prefix}{name}/state" for prefix in prefixes for name in names])
        anew = self.began_anew(names)
        states, earlier = {}, {}
        for name in names:
            own, old = (rows.get(f"{prefix}{name}/state") for prefix in (self._prefix, _PREFIX))
            try:
                state = newest(*(_state_of(name, text) for text in (own, old)))
            except EdgepackError as error:
                if unread is None:
                    raise
                unread[name] = error
                continue
            if old and self._prefix != _PREFIX:
                earlier[name] = old
            if state is not None and state.started > anew.get(name, 0):
                states[name] = state
        if earlier:
            self.write({name: states[name].to_cursor() if name in states else "" for name in earlier})
            self._write({f"{_PREFIX}{name}/state": "" for name in earlier})
        return states

    def began_anew(self, model_types: Iterable[str]) -> dict[str, int]:
        """When (ms) model types were made to start anew; those that never were are missing."""
        names = list(model_types)
        rows = self._read([f"{prefix}{name}/anew" for prefix in {self._prefix, _PREFIX} for name in names])
        told = {name: [rows.get(f"{prefix}{name}/anew") for prefix in (self._prefix, _PREFIX)] for name in names}
        return {name: max(int(row or 0) for row in found) for name, found in told.items() if any(found)}

    def write(self, states: Mapping[str, str]) -> None:
        """Write states, as the texts of cursors; an empty text for none."""
        self._write({f"{self._prefix}{name}/state": text for name, text in states.items()})

    def start_anew(self, model_type: str) -> None:
        """Let a model type start anew, as if it had just been configured. What its row holds is not read for that."""
        states = {f"{prefix}{model_type}/state": "" for prefix in (self._prefix, _PREFIX)}
        self._write({**states, f"{self._prefix}{model_type}/anew": str(int(time.time() * 1000))})

    def _read(self, keys: list[str]) -> dict[str, str]:
        rows: dict[str, str] = {}
        for at in range(0, len(keys), _AT_ONCE):
            rows.update(self._rows.get_cursor_values(set(keys[at : at + _AT_ONCE])))
        return rows

    def _write(self, rows: Mapping[str, str]) -> None:
        if not rows:
            return
        # Dagster inserts all rows of a call, or else updates all: it would drop the new ones of a mixture.
        there = self._read(list(rows)).keys()
        for keys in ([key for key in rows if key in there], [key for key in rows if key not in there]):
            for at in range(0, len(keys), _AT_ONCE):
                self._rows.set_cursor_values({key: rows[key] for key in keys[at : at + _AT_ONCE]})
        self._rows.set_cursor_values({self._token: uuid.uuid4().hex})


def _state_of(model_type: str, row: str | None) -> State | None:
    try:
        return State.parse(row) if row else None
    except ValueError as error:
        raise EdgepackError(
            f"which versions of {model_type} were handled cannot be read in Dagster's database ({error}): restore it "
            f"from a backup, or start anew as `sensors.start` says: edgepack sensors --start-anew {model_type}"
        ) from None


def latest_states(instance: dg.DagsterInstance, location: str = "") -> dict[str, InstigatorState]:
    """What Dagster keeps of each sensor, by name: of the one in `location`, else of the one with the latest tick. A
    renamed code location leaves its states behind."""
    states: dict[str, InstigatorState] = {}
    for state in _states(instance):
        other = states.get(state.instigator_name)
        if other is None or _rank(state, location) > _rank(other, location):
            states[state.instigator_name] = state
    return states


def _states(instance: dg.DagsterInstance) -> Sequence[InstigatorState]:
    if instance.schedule_storage is None:  # an ephemeral instance, which no daemon works on
        return []
    return instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)


def _rank(state: InstigatorState, location: str) -> tuple[bool, float]:
    return location_name(state) == location, _looked(state)


def location_name(state: InstigatorState) -> str:
    """The code location of a sensor."""
    return state.origin.repository_origin.code_location_origin.location_name


def _looked(state: InstigatorState) -> float:
    data = state.instigator_data
    return (data.last_tick_timestamp or 0.0) if isinstance(data, SensorInstigatorData) else 0.0


def is_switched_off(state: InstigatorState | None) -> bool:
    """Whether a person has switched a sensor off in the UI."""
    return state is not None and state.status is InstigatorStatus.STOPPED


def state_of_own_sensor(instance: dg.DagsterInstance, kept: InstigatorState | None) -> State | None:
    """The state of a model type's own sensor. Raises EdgepackError if its cursor cannot be read."""
    texts = _cursors(instance, kept)
    states = [State.from_cursor(text) for text in texts]
    return newest(*states) if len(states) == 2 else next(iter(states), None)


def state_of_shared_sensor(instance: dg.DagsterInstance, location: str, model_type: str) -> State | None:
    """The state of a model type that the cursor of the sensor for many has, if any. Raises EdgepackError."""
    found: State | None = None
    for text in _cursors(instance, latest_states(instance, location).get(SHARED)):
        changed = Cursor.from_text(text).changed.get(model_type)
        found = newest(found, State.from_cursor(changed) if changed else None)
    return found


def _cursors(instance: dg.DagsterInstance, kept: InstigatorState | None) -> list[str]:
    """The saved cursor, and that of a tick which was cut off while its runs were made: they may be there."""
    if kept is None:
        return []
    data = kept.instigator_data
    saved = data.cursor if isinstance(data, SensorInstigatorData) else None
    ticks = instance.get_ticks(kept.instigator_origin_id, kept.selector_id, limit=1)
    cut_off = ticks[0].cursor if ticks and ticks[0].status is TickStatus.STARTED else None
    return [text for text in (saved, cut_off) if text]
