"""What is looked for, the runs that are requested for it, and how a run is known again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

from edgepack_assets.registry.approval import Approval
from edgepack_assets.registry.base import RegisteredVersion


class RunOutcome(StrEnum):
    """How a run stands."""

    RUNNING = "under way"
    SUCCEEDED = "succeeded"
    CANCELED = "canceled"
    MODEL_FAILURE = "failed on the model"
    UNAPPROVED = "found the approval taken back"
    INFRASTRUCTURE_FAILURE = "failed because of infrastructure"


@dataclass(frozen=True)
class SeenRun:
    """A run of a partition. `run_key` is its request's, None if a person launched it; `began` when it was made,
    `over` when it ended, or as `began` where nobody wrote that down (ms); `whole` whether it makes the registered
    package."""

    version: int
    run_key: str | None
    began: int
    over: int
    ended: RunOutcome
    whole: bool


@dataclass(frozen=True)
class Rules:
    """What is looked for, and how: the configuration of one model type."""

    model_type: str
    model_name: str
    needs_approval: bool = False
    start: Literal["all", "none", "latest"] = "latest"
    batch: int = 50
    attempts: int = 4
    interval: int = 30
    sweep_interval: int = 900


LONGEST_WAIT = 3600
"""Seconds from a run that infrastructure failed to the next attempt, at most."""


def wait_before(attempt: int, rules: Rules) -> int:
    """Seconds from the end of a run that infrastructure failed to the next, which is `attempt` (from 2 up).

    The second comes at once: most often a process died, which has passed. What has not passed by then is an outage,
    which more runs in a row would not outlast: ten intervals, a hundred, and so on."""
    return 0 if attempt <= 2 else int(min(rules.interval * 10.0 ** (attempt - 2), LONGEST_WAIT))


@dataclass(frozen=True)
class Request:
    """A run to request."""

    found: RegisteredVersion
    attempt: int
    run_key: str
    approval: Approval | None


def created_ms(found: RegisteredVersion) -> int:
    """When a version was registered, in ms since 1970."""
    return int(found.created.timestamp() * 1000)


def run_key(rules: Rules, number: int, created: int, attempt: int) -> str:
    """The run's identity outside Dagster: model, version, time of registration, attempt."""
    at = datetime.fromtimestamp(created / 1000, UTC).isoformat(timespec="milliseconds")
    return f"{rules.model_type}|{rules.model_name}:{number}|{at}|{attempt}"


def is_of(key: str, rules: Rules, number: int, created: int) -> bool:
    """Whether a run key is one of this registration, whatever the attempt."""
    return key.rpartition("|")[0] == run_key(rules, number, created, 1).rpartition("|")[0]
