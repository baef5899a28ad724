"""The rules of one model type, the runs that are requested, the runs that are seen, and the key that links them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

from edgepack_assets.registry.approval import Approval
from edgepack_assets.registry.base import RegisteredVersion


class RunOutcome(StrEnum):
    """The state of a run. The texts continue a sentence: "its run ..."."""

    RUNNING = "is in progress"
    SUCCEEDED = "succeeded"
    CANCELED = "was canceled"
    MODEL_FAILURE = "failed on the model"
    UNAPPROVED = "found the approval withdrawn"
    INFRASTRUCTURE_FAILURE = "failed because of infrastructure"


@dataclass(frozen=True)
class SeenRun:
    """A run of a partition. `run_key` is that of its request, None if a person launched it. `created` and `finished`
    are in ms; where the end was not recorded, `finished` equals `created`. `makes_package` says whether it makes the
    registered package."""

    version: int
    run_key: str | None
    created: int
    finished: int
    outcome: RunOutcome
    makes_package: bool


@dataclass(frozen=True)
class Rules:
    """The configuration of one model type's sensor."""

    model_type: str
    model_name: str
    needs_approval: bool = False
    start: Literal["all", "none", "latest"] = "latest"
    batch: int = 50
    attempts: int = 4
    interval: int = 30
    sweep_interval: int = 900


LONGEST_WAIT = 3600
"""The longest time in seconds from a run that failed because of infrastructure to the next attempt."""


def wait_before(attempt: int, rules: Rules) -> int:
    """Seconds from the end of a run that failed because of infrastructure to the next one, number `attempt` (from 2).

    The second one is requested at once: most often a process died, and running again helps. If that fails too, there
    is an outage, which more runs in a row would not survive: so they wait ten intervals, a hundred, and so on."""
    return 0 if attempt <= 2 else int(min(rules.interval * 10.0 ** (attempt - 2), LONGEST_WAIT))


@dataclass(frozen=True)
class Request:
    """A run to request."""

    registered: RegisteredVersion
    attempt: int
    run_key: str
    approval: Approval | None


def created_ms(version: RegisteredVersion) -> int:
    """The time when a version was registered, in ms since 1970."""
    return int(version.created.timestamp() * 1000)


def run_key(rules: Rules, number: int, created: int, attempt: int) -> str:
    """The run's identity outside Dagster: model, version, time of registration, attempt."""
    at = datetime.fromtimestamp(created / 1000, UTC).isoformat(timespec="milliseconds")
    return f"{rules.model_type}|{rules.model_name}:{number}|{at}|{attempt}"


def is_of(key: str, rules: Rules, number: int, created: int) -> bool:
    """Whether a run key is one of this registration, whatever the attempt."""
    return key.rpartition("|")[0] == run_key(rules, number, created, 1).rpartition("|")[0]
