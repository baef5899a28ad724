"""What a sensor knows from one look to the next, as the text of its cursor."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from edgepack_assets.errors import EdgepackError
from edgepack_assets.new_models.handled_versions import Ranges, VersionRecord

_FORMAT = 1


@dataclass(frozen=True)
class Baseline:
    """What the registry had at the first start: the highest number, and the latest time of registration (ms)."""

    top: int
    until: int


@dataclass(frozen=True)
class AskedRun:
    """A run that was requested and is not known to have ended: of which registration, the how-manieth, when (s)."""

    created: int
    attempt: int
    asked: int


@dataclass
class State:
    """All of it. Versions are numbers; times of registration are in ms by the registry's clock, others in s by ours.

    `record`: handled, that is skipped at the first start, or a run was requested or seen. `pending`: found, a run is
    to be requested. `waiting`: version -> registration, for approval. `runs`: version -> run. `top`: the highest
    version found. `ghost`: a version that the registry calls newest but does not give, and how often that was so.
    `turn`: where the rounds through `waiting` and `runs` stand."""

    model: str
    started: int
    baseline: Baseline | None = None
    record: VersionRecord = field(default_factory=VersionRecord)
    pending: Ranges = field(default_factory=Ranges)
    waiting: dict[int, int] = field(default_factory=dict)
    runs: dict[int, AskedRun] = field(default_factory=dict)
    top: int = 0
    ghost: tuple[int, int] = (0, 0)
    sweep_due: int = 0
    turn: int = 0

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
            "runs": {str(number): [run.created, run.attempt, run.asked] for number, run in self.runs.items()},
            "top": self.top,
            "ghost": list(self.ghost),
            "sweep_due": self.sweep_due,
            "turn": self.turn,
        }
        return json.dumps(value, separators=(",", ":"))

    @classmethod
    def from_cursor(cls, text: str) -> State:
        """Read what `to_cursor` wrote. Raises EdgepackError."""
        try:
            value = json.loads(text)
            if value["format"] != _FORMAT:
                raise ValueError(f"format {value['format']!r}")
            ghost, times = value["ghost"]
            return cls(
                model=str(value["model"]),
                started=int(value["started"]),
                baseline=Baseline(*map(int, value["baseline"])) if value["baseline"] else None,
                record=VersionRecord.from_json(value["handled"]),
                pending=Ranges.parse(value["pending"]),
                waiting={int(number): int(created) for number, created in value["waiting"].items()},
                runs={int(number): AskedRun(*map(int, run)) for number, run in value["runs"].items()},
                top=int(value["top"]),
                ghost=(int(ghost), int(times)),
                sweep_due=int(value["sweep_due"]),
                turn=int(value["turn"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError, EdgepackError) as error:
            raise EdgepackError(
                f"the sensor's cursor is not what it wrote ({type(error).__name__}: {error}): put the earlier text "
                "back, or clear it in the UI to start anew by `sensors.start`"
            ) from None
