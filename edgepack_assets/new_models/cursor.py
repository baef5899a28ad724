"""What a sensor remembers from one tick to the next, as the text of its cursor."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

from edgepack_assets.errors import EdgepackError
from edgepack_assets.new_models.handled_versions import Ranges, VersionRecord

_FORMAT = 1


@dataclass(frozen=True)
class Baseline:
    """What the registry had at the first start: the highest number and the latest time of registration (ms)."""

    top: int
    until: int


@dataclass(frozen=True)
class RequestedRun:
    """A requested run that is not known to have ended: registration time (ms), attempt number, request time (s)."""

    created: int
    attempt: int
    requested: int


@dataclass
class State:
    """The whole state. Versions are numbers. Times of registration are in ms by the registry's clock, others in s by
    ours, but for `started`, which is in ms.

    `record`: handled versions; they were skipped at the first start, or a run was requested or seen. `pending`: found
    versions whose run is still to be requested. `waiting`: versions that wait for approval, with their time of
    registration. `runs`: the requested run of each version. `top`: the highest version found. `missing`: a version
    that the registry calls newest but does not give, seen in `missing_tries` ticks. `turn`: counts the ticks, so that
    long lists are looked at in turn."""

    model: str
    started: int
    baseline: Baseline | None = None
    record: VersionRecord = field(default_factory=VersionRecord)
    pending: Ranges = field(default_factory=Ranges)
    waiting: dict[int, int] = field(default_factory=dict)
    runs: dict[int, RequestedRun] = field(default_factory=dict)
    top: int = 0
    missing: int = 0
    missing_tries: int = 0
    sweep_due: int = 0
    turn: int = 0

    def copy(self) -> State:
        """A state that changes apart from this one. What the containers hold is never changed, only replaced."""
        return replace(
            self, record=self.record.copy(), pending=self.pending.copy(), waiting=self.waiting.copy(),
            runs=self.runs.copy(),
        )  # fmt: skip

    def to_cursor(self) -> str:
        """The state as text."""
        value = {
            "format": _FORMAT,
            "model": self.model,
            "started": self.started,
            "baseline": self.baseline and [self.baseline.top, self.baseline.until],
            "handled": self.record.as_json(),
            "pending": str(self.pending),
            "waiting": {str(number): created for number, created in self.waiting.items()},
            "runs": {str(number): [run.created, run.attempt, run.requested] for number, run in self.runs.items()},
            "top": self.top,
            "ghost": [self.missing, self.missing_tries],
            "sweep_due": self.sweep_due,
            "turn": self.turn,
        }
        return json.dumps(value, separators=(",", ":"))

    @classmethod
    def from_cursor(cls, text: str) -> State:
        """Read what `to_cursor` wrote as a sensor's cursor. Raises EdgepackError."""
        try:
            return cls.parse(text)
        except ValueError as error:
            raise EdgepackError(
                f"the sensor's cursor was changed and cannot be read ({error}): restore the earlier text, or clear it "
                "in the UI to start again as `sensors.start` says"
            ) from None

    @classmethod
    def parse(cls, text: str) -> State:
        """Read what `to_cursor` wrote. Raises ValueError saying what is wrong with it."""
        try:
            value = json.loads(text)
            if value["format"] != _FORMAT:
                raise ValueError(f"format {value['format']!r}")
            missing, tries = value["ghost"]
            return cls(
                model=str(value["model"]),
                started=int(value["started"]),
                baseline=Baseline(*map(int, value["baseline"])) if value["baseline"] else None,
                record=VersionRecord.from_json(value["handled"]),
                pending=Ranges.parse(value["pending"]),
                waiting={int(number): int(created) for number, created in value["waiting"].items()},
                runs={int(number): RequestedRun(*map(int, run)) for number, run in value["runs"].items()},
                top=int(value["top"]),
                missing=int(missing),
                missing_tries=int(tries),
                sweep_due=int(value["sweep_due"]),
                turn=int(value["turn"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError, EdgepackError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None
