"""One tick that looks at many model types: which are looked at, what is remembered, and what is said.

What is decided for one of them is in decide.py. Their states are not all in the cursor, because Dagster stores the
cursor with every tick. They are in a store, a row for each model type. The cursor has the states of those types only
for which the last tick requested something (`Cursor.changed`); the next tick writes them into the store first. So what
Dagster saves together, requests and the states that remember them, stays together: a tick that is lost, or repeated
with the same cursor, does no damage. All other changes are derived from the registry again if they are lost, and are
written into the store at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from edgepack_assets.errors import EdgepackError
from edgepack_assets.new_models.cursor import State
from edgepack_assets.new_models.tick import Decision
from edgepack_assets.text_format import counted

_FORMAT = 1
_MOST_CHARACTERS = 250_000
"""Characters of states in the cursor, after which a tick ends. One state more may be added to them."""
_MOST_FAULTS = 50
"""Model types whose faults the cursor remembers."""
_LONGEST_FAULT = 300
_LONGEST_MESSAGE = 3000
_SWEEP_SHARE = 50
"""Sweeps take at most one part in this many of the time, together."""


@dataclass(frozen=True)
class Fault:
    """Why a model type could not be looked at, and since when (s)."""

    since: int
    text: str


@dataclass
class Cursor:
    """The cursor: `start` is the model type that the next tick begins with."""

    start: str = ""
    changed: dict[str, str] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)

    def to_text(self) -> str:
        """The cursor as text."""
        faults = {name: [fault.since, fault.text] for name, fault in self.faults.items()}
        value = {"format": _FORMAT, "start": self.start, "changed": self.changed, "faults": faults}
        return json.dumps(value, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str | None) -> Cursor:
        """Read what `to_text` wrote; an empty one if there is none. Raises EdgepackError."""
        if not text:
            return cls()
        try:
            value = json.loads(text)
            if value["format"] != _FORMAT:
                raise ValueError(f"format {value['format']!r}")
            changed = {str(name): str(state) for name, state in value["changed"].items()}
            for state in changed.values():
                State.from_cursor(state)
            faults = {str(name): Fault(int(since), str(said)) for name, (since, said) in value["faults"].items()}
            return cls(str(value["start"]), changed, faults)
        except (AttributeError, KeyError, TypeError, ValueError, EdgepackError) as error:
            raise EdgepackError(
                f"the sensor's cursor was changed and cannot be read ({type(error).__name__}: {error}): restore the "
                "earlier text, or clear it in the UI: what each model type has handled is not in it"
            ) from None


@dataclass
class Memory:
    """What is kept from tick to tick while the process lives: `states` of the model types, and when each is swept.
    `unread` says why the state of a model type cannot be read: it is not looked at until a person has mended that.

    Nothing is lost with it: a new process reads the states again, and sweeps all model types once."""

    states: dict[str, State | None] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    turns: dict[str, tuple[int, int]] = field(default_factory=dict)
    unread: dict[str, EdgepackError] = field(default_factory=dict)
    valid_for: tuple[str | None, str, tuple[str, ...]] | None = None
    """The cursor, the token of the store and the model types that this is right for; None: read everything again."""


class Store(Protocol):
    """The rows of the model types."""

    def token(self) -> str:
        """A text that changes with every change of a row."""

    def read(self, model_types: Iterable[str], unread: dict[str, EdgepackError]) -> dict[str, State]:
        """The states of model types that have one, and were not made to start anew since. `unread` gets the errors of
        those that cannot be read."""

    def began_anew(self, model_types: Iterable[str]) -> dict[str, int]:
        """When (ms) model types were made to start anew; those that never were are missing."""

    def write(self, states: Mapping[str, str]) -> None:
        """Write states, as the texts of cursors; an empty text for none."""


@dataclass
class Result:
    """The result of one tick. `saved` are the states to be written into the store before the tick ends; `failed` are
    the model types for which the registry gave no good answer."""

    cursor: Cursor
    decisions: dict[str, Decision] = field(default_factory=dict)
    saved: dict[str, str] = field(default_factory=dict)
    looked: int = 0
    failed: dict[str, EdgepackError] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    @property
    def message(self) -> str:
        """The message of the tick, of a bounded length."""
        text = "; ".join(self.messages)
        if len(text) > _LONGEST_MESSAGE:
            text = text[:_LONGEST_MESSAGE] + f" ... ({counted(len(self.messages), 'message')})"
        return f"looked at {counted(self.looked, 'model type')}" + (f": {text}" if text else ", nothing new")


Look = Callable[[str, State | None, int], Decision]
"""(model type, its state, runs that may be requested) -> its decision. Raises EdgepackError."""


@dataclass(frozen=True)
class Limits:
    """The limits of one tick: `batch` requests, `interval` seconds until the next one. `has_time` says whether another
    model type may be looked at; `clock` gives seconds."""

    batch: int
    interval: int
    has_time: Callable[[], bool]
    clock: Callable[[], float]


def newest(one: State | None, other: State | None) -> State | None:
    """The one of two states of a model type that was decided later. Both a model type's own sensor and the store may
    have one, where a project has grown or shrunk."""
    if one is None or other is None:
        return one or other
    return max(one, other, key=lambda state: (state.started, state.turn))


def read_states(
    memory: Memory,
    text: str | None,
    names: tuple[str, ...],
    store: Store,
    take_over: Callable[[dict[str, EdgepackError]], Mapping[str, State]],
) -> Cursor:
    """Bring the store up to date with the cursor `text`, and the memory with the store. Returns the cursor.

    `take_over` gives the states of the model types' own sensors, and the errors of those that cannot be read. It is
    asked in the first tick of a process, and where a model type has no row yet. The memory counts as wrong until
    `remember_tick`."""
    cursor = Cursor.from_text(text)
    valid_for, memory.valid_for = memory.valid_for, None
    if valid_for is not None and valid_for == (text, store.token(), names):
        store.write(cursor.changed)
        return cursor
    is_first = not memory.texts
    anew = store.began_anew(names)
    store.write(
        {
            name: changed
            for name, changed in cursor.changed.items()
            if name in names and State.from_cursor(changed).started > anew.get(name, 0)
        }
    )
    memory.unread = {}
    states: dict[str, State | None] = dict(store.read(names, memory.unread))
    if is_first or any(name not in states for name in names):
        own_unread: dict[str, EdgepackError] = {}
        own = {
            name: state
            for name, state in take_over(own_unread).items()
            if name not in memory.unread and state.started > anew.get(name, 0)
        }
        # A row is later than the cursor of the model type's own sensor, which empties it when it goes on.
        memory.unread |= {name: error for name, error in own_unread.items() if name not in states and name not in anew}
        later = {name: state for name, state in own.items() if newest(states.get(name), state) is state}
        # A row at once: it tells a model type's own sensor, if the project shrinks, that there is something later.
        store.write({name: state.to_cursor() for name, state in later.items()})
        states.update(later)
    memory.texts = {name: lasting_text(state) for name, state in states.items() if state is not None}
    memory.states = states
    memory.turns = {name: turn for name, turn in memory.turns.items() if name in states}
    return cursor


def remember_tick(memory: Memory, text: str, names: tuple[str, ...], store: Store) -> None:
    """Let the memory count as right for the tick after this one, if that one gets the cursor `text`."""
    if not memory.unread:  # whoever mends a row by hand does not change the token
        memory.valid_for = text, store.token(), names


def look_at_types(  # noqa: PLR0917 - what a tick is made from
    names: list[str], cursor: Cursor, memory: Memory, look: Look, limits: Limits, now: int
) -> Result:
    """Look at model types in turn, from `cursor.start`, until all were looked at or a limit is reached.

    `memory` has the states of all `names`, and is brought up to date. An error of one model type is a fault of that
    one alone."""
    at = names.index(cursor.start) if cursor.start in names else 0
    result = Result(Cursor(cursor.start, {}, {n: fault for n, fault in cursor.faults.items() if n in names}))
    room, characters, sweeping, first_unswept = limits.batch, 0, 0.0, ""
    for name in [*names[at:], *names[:at]]:
        if not limits.has_time() or room <= 0 or characters > _MOST_CHARACTERS:
            result.cursor.start = name
            break
        if name in memory.unread:
            _note_fault(name, memory.unread[name], result, now)
            continue
        before = _with_turn(memory.states.get(name), memory.turns.get(name))
        sweeps = before is not None and before.baseline is not None and now >= before.sweep_due
        if sweeps and before is not None and sweeping * _SWEEP_SHARE > limits.interval:
            before, first_unswept, sweeps = replace(before, sweep_due=now + 1), first_unswept or name, False
        began = limits.clock()
        decision = _look(name, before, look, room, result, now)
        sweeping += limits.clock() - began if sweeps else 0.0
        if decision is not None:
            characters += _remember(name, decision, memory, result)
            room -= len(decision.requests)
    else:
        result.cursor.start = first_unswept or cursor.start
    return result


def _with_turn(state: State | None, turn: tuple[int, int] | None) -> State | None:
    return state if state is None or turn is None else replace(state, turn=turn[0], sweep_due=turn[1])


def _look(  # noqa: PLR0917 - one look, with its place in the result
    name: str, before: State | None, look: Look, room: int, result: Result, now: int
) -> Decision | None:
    """Look at one model type and note its fault, if it has one."""
    result.looked += 1
    try:
        decision = look(name, before, room)
    except EdgepackError as error:
        _note_fault(name, error, result, now)
        result.failed[name] = error
        return None
    if decision.fault is not None:
        _note_fault(name, decision.fault, result, now)
        result.failed[name] = decision.fault
    else:
        result.cursor.faults.pop(name, None)
        result.messages += [] if decision.is_quiet else [f"{name}: {message}" for message in decision.messages]
    result.decisions[name] = decision
    return decision


def _note_fault(name: str, error: EdgepackError, result: Result, now: int) -> None:
    text = " ".join(str(error).split())[:_LONGEST_FAULT]
    faults = result.cursor.faults
    since = faults[name].since if name in faults else now
    if name in faults or len(faults) < _MOST_FAULTS:
        faults[name] = Fault(since, text)
    result.messages.append(f"{name}: {text}")


def _remember(name: str, decision: Decision, memory: Memory, result: Result) -> int:
    """Remember a decision's state: in the cursor if it belongs to something that the tick asks of Dagster, else in the
    store. Returns the characters that were added to the cursor."""
    state = decision.state
    memory.states[name] = state
    memory.turns[name] = state.turn, state.sweep_due
    known, memory.texts[name] = memory.texts.get(name), lasting_text(state)
    if decision.requests or decision.newly_waiting:
        result.cursor.changed[name] = state.to_cursor()
        return len(result.cursor.changed[name])
    if known != memory.texts[name]:
        result.saved[name] = state.to_cursor()
    return 0


def lasting_text(state: State) -> str:
    """What a new process must know: not how often the type was looked at, nor when it is swept."""
    return replace(state, turn=0, sweep_due=0).to_cursor()
