"""What the steps of one tick work with: the state, the registry, the runs, and the decision that they fill in.

The steps are in find_versions.py, follow_runs.py and first_runs.py; decide.py calls them in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

from edgepack_assets.errors import EdgepackError, NotFoundError, TransientError
from edgepack_assets.new_models.cursor import RequestedRun, State
from edgepack_assets.new_models.run_requests import Request, Rules, SeenRun, created_ms, run_key
from edgepack_assets.partitions import ModelKey, is_version
from edgepack_assets.registry.approval import approval_of
from edgepack_assets.registry.base import Kind, RegisteredVersion, Registry

RUNS_SEEN = 200
"""Partitions whose runs are looked up in one tick."""

RunsOf = Callable[[Sequence[int]], Iterable[SeenRun]]


@dataclass
class Decision:
    """The result of one tick. `newly_waiting` are the versions that began to wait for approval; `fault` is what kept
    the tick from looking at every version; `is_quiet` says that the messages only tell that nothing is new."""

    state: State
    requests: list[Request] = field(default_factory=list)
    newly_waiting: list[RegisteredVersion] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    fault: EdgepackError | None = None
    is_quiet: bool = False


@dataclass
class Tick:
    """One tick. `now` is in s; `known` are the versions that the registry has already given in this tick; `is_first`
    says that the sensor starts with it; `launched` are versions of which a run is in progress that a person has
    launched."""

    state: State
    rules: Rules
    registry: Registry
    runs_of: RunsOf
    now: int
    is_first: bool
    decision: Decision
    known: dict[int, RegisteredVersion] = field(default_factory=dict)
    launched: set[int] = field(default_factory=set)

    def add_message(self, text: str) -> None:
        """Add to the text that the tick shows."""
        self.decision.messages.append(text)

    def partition_name(self, number: int) -> str:
        """The partition of a version, for messages."""
        return str(ModelKey(self.rules.model_type, number))

    def get_version(self, number: int) -> RegisteredVersion | None:
        """A version; None if it is not in the registry (any more, or yet) or damaged."""
        if number not in self.known:
            try:
                self.known[number] = self.registry.get(Kind.MODEL, self.rules.model_name, number)
            except NotFoundError:
                return None
            except TransientError:
                raise
            except EdgepackError as error:
                # One damaged version must not delay the others. When it is repaired, a sweep finds it again.
                self.add_message(f"{self.partition_name(number)} is skipped: {error}")
                return None
        return self.known[number]

    def lacks_approval(self, version: RegisteredVersion) -> bool:
        """Whether a version needs an approval that it does not have."""
        return self.rules.needs_approval and approval_of(version.tags) is None

    def put_on_waiting_list(self, version: RegisteredVersion) -> None:
        """Let a version wait for approval from now on."""
        self.state.waiting[version.number] = created_ms(version)
        self.decision.newly_waiting.append(version)

    def record_as_handled(self, number: int, created: int) -> None:
        """Record that a version needs no first run any more."""
        self.state.record.add(number, created)
        self.state.pending.discard(number)
        self.state.waiting.pop(number, None)

    def batch_is_full(self) -> bool:
        """Whether no more runs may be requested in this tick."""
        return len(self.decision.requests) >= self.rules.batch

    def request_run(self, version: RegisteredVersion, attempt: int) -> None:
        """Request a run of a version and record it."""
        number, created = version.number, created_ms(version)
        self.record_as_handled(number, created)
        self.state.runs[number] = RequestedRun(created, attempt, self.now)
        key = run_key(self.rules, number, created, attempt)
        self.decision.requests.append(Request(version, attempt, key, approval_of(version.tags)))

    def select_in_turn(self, numbers: Iterable[int], count: int) -> list[int]:
        """`count` of the numbers, different ones in each tick, so that every number has its turn."""
        ordered = sorted(numbers)
        if len(ordered) <= count:
            return ordered
        start = self.state.turn * count % len(ordered)
        return [*ordered[start:], *ordered[:start]][:count]


def is_version_number(number: object) -> TypeGuard[int]:
    """Whether a version from the registry is a number as ours are. Other writers may use anything else."""
    return isinstance(number, int) and not isinstance(number, bool) and is_version(str(number))
