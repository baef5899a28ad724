"""Stages of registered packages: which package a line uses now, and which ones it used before.

Each move is a tag of the package that it moves to, named after stage, line and time. No move is ever changed, so the
history stays, and two people who move a stage at once leave two moves, of which the later one counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from edgepack_assets.config.gate_settings import STAGES
from edgepack_assets.errors import EdgepackError, NotFoundError
from edgepack_assets.registry.base import DamagedVersion, Kind, RegisteredVersion, Registry
from edgepack_assets.tasks.packages.tags import ARCHIVED, LONGEST_TAG
from edgepack_assets.text_format import counted

_TIME = "%Y%m%dT%H%M%S%fZ"
_TAG = re.compile(rf"stage_(?P<stage>{'|'.join(STAGES)})(?:_(?P<line>[A-Za-z0-9-]+))?_(?P<at>[0-9]{{8}}T[0-9]{{12}}Z)")
LONGEST_REASON = 500
"""Characters of a reason or a name."""


@dataclass(frozen=True)
class StageMove:
    """A stage of a line ("" where the plant has none) moved to a package. `before` is the version of the package that
    a rollback moves to."""

    package: RegisteredVersion | DamagedVersion
    stage: str
    line: str
    at: datetime
    by: str
    reason: str
    before: int | None
    is_rollback: bool

    def __str__(self) -> str:
        """`production`, or `production of line-1`."""
        return f"{self.stage} of {self.line}" if self.line else self.stage


def moves(packages: Iterable[RegisteredVersion | DamagedVersion]) -> list[StageMove]:
    """Every move to one of these packages, oldest first. Tags of another form, whoever wrote them, are passed over."""
    every_move = [
        move for package in packages for tag, text in package.tags.items() if (move := _read(package, tag, text))
    ]
    return sorted(every_move, key=lambda move: (move.at, move.package.number))


def current(packages: Iterable[RegisteredVersion | DamagedVersion]) -> dict[tuple[str, str], StageMove]:
    """(stage, line) -> the move that counts now."""
    return {(move.stage, move.line): move for move in moves(packages)}


def promote(  # noqa: PLR0917 - who moves what where, when and why
    registry: Registry, package: RegisteredVersion, stage: str, line: str, by: str, reason: str, now: datetime
) -> StageMove | None:
    """Move a stage to a package; None if it is there already. Raises EdgepackError, for an archived package too."""
    if ARCHIVED in package.tags:
        raise EdgepackError(f"{package} is archived: edgepack package archive {package} --undo brings it back")
    at_work = current(_packages(registry, package.name)).get((stage, line))
    if at_work is not None and at_work.package.number == package.number:
        return None
    before = at_work.package.number if at_work is not None else None
    return _move(registry, StageMove(package, stage, line, _after(at_work, now), by, reason, before, False))


def roll_back(  # noqa: PLR0917 - who moves what where, when and why
    registry: Registry, name: str, stage: str, line: str, by: str, reason: str, now: datetime
) -> tuple[StageMove, StageMove]:
    """Move a stage back to the package before: the move that counted, and the one that counts now. Rolling back again
    goes on to the one before that. Raises EdgepackError if there is none."""
    history = [move for move in moves(_packages(registry, name)) if (move.stage, move.line) == (stage, line)]
    shown = f"{stage} of {line}" if line else stage
    if not history:
        raise EdgepackError(f"no package {name} was ever moved to {shown}: nothing to roll back")
    at_work = history[-1]
    target, before = _before(registry, at_work, history, shown)
    return at_work, _move(registry, StageMove(target, stage, line, _after(at_work, now), by, reason, before, True))


def _before(
    registry: Registry, at_work: StageMove, history: Sequence[StageMove], shown: str
) -> tuple[RegisteredVersion, int | None]:
    """(the package that a stage was moved to before, the version of the one before that). Archived ones are passed
    over."""
    name, number, passed = at_work.package.name, at_work.before, set[int]()
    while number is not None and number not in passed:
        try:
            target = registry.get(Kind.MODEL, name, number)
        except NotFoundError as error:
            raise EdgepackError(
                f"{at_work.package} was moved to {shown} in the place of {name}:{number}, which is not there any "
                f"more: {error}. Move another one there: edgepack package promote"
            ) from error
        earlier = [move for move in history if move.package.number == number]
        before = earlier[-1].before if earlier else None
        if ARCHIVED not in target.tags:
            return target, before
        passed.add(number)
        number = before
    if passed:
        listed = ", ".join(f"{name}:{each}" for each in sorted(passed))
        raise EdgepackError(f"what was in {shown} before {at_work.package} is archived: {listed}")
    raise EdgepackError(f"{at_work.package} is the first package in {shown}: there is none before it")


def _packages(registry: Registry, name: str) -> list[RegisteredVersion | DamagedVersion]:
    sound, damaged = registry.versions_and_damaged(Kind.MODEL, name)
    return [*sound, *damaged]


def _after(at_work: StageMove | None, now: datetime) -> datetime:
    # A clock that is behind another host's must not put a move before the one that it follows.
    return now if at_work is None else max(now, at_work.at + timedelta(microseconds=1))


def _move(registry: Registry, move: StageMove) -> StageMove:
    line = f"_{move.line}" if move.line else ""
    for name, text in (("name", move.by), ("reason", move.reason)):
        if len(text) > LONGEST_REASON // (2 if name == "name" else 1):
            raise EdgepackError(f"the {name} has {counted(len(text), 'character')}: a tag cannot hold it, shorten it")
    value = json.dumps(
        {"by": move.by, "reason": move.reason, "before": move.before, "rollback": move.is_rollback}, ensure_ascii=False
    )
    if len(value) > LONGEST_TAG:
        raise EdgepackError(f"who moves {move} and why has {len(value)} characters in a tag: shorten it")
    assert isinstance(move.package, RegisteredVersion)
    registry.set_tags(move.package, {f"stage_{move.stage}{line}_{move.at.strftime(_TIME)}": value})
    return move


def _read(package: RegisteredVersion | DamagedVersion, tag: str, text: str) -> StageMove | None:
    match = _TAG.fullmatch(tag)
    if match is None:
        return None
    try:
        at = datetime.strptime(match["at"], _TIME).replace(tzinfo=UTC)
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    before = value.get("before")
    return StageMove(
        package, match["stage"], match["line"] or "", at, str(value.get("by", "")), str(value.get("reason", "")),
        before if isinstance(before, int) and before > 0 else None, bool(value.get("rollback")),
    )  # fmt: skip
