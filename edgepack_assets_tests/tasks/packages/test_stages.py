"""Stages of packages: moved, moved back, on several lines, by several people at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edgepack_assets.errors import EdgepackError
from edgepack_assets.registry.base import Kind, RegisteredVersion
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets.tasks.packages.stages import current, moves, promote, roll_back

NAME = "press-edge"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PRODUCTION = ("production", "")


@pytest.fixture
def registry(tmp_path: Path) -> LocalRegistry:
    made = LocalRegistry(tmp_path / "registry")
    package = tmp_path / "package.zip"
    package.write_bytes(b"zip")
    for _ in range(4):
        made.register(Kind.MODEL, NAME, package, {"model_name": "press"})
    return made


def package(registry: LocalRegistry, version: int) -> RegisteredVersion:
    return registry.get(Kind.MODEL, NAME, version)


def to(registry: LocalRegistry, version: int, at: datetime, line: str = "", stage: str = "production") -> None:
    assert promote(registry, package(registry, version), stage, line, "Ada", "it is better", at) is not None


def at_work(registry: LocalRegistry, stage: tuple[str, str] = PRODUCTION) -> int:
    return current(registry.versions(Kind.MODEL, NAME))[stage].package.number


def back(registry: LocalRegistry, at: datetime) -> int:
    return roll_back(registry, NAME, "production", "", "Bob", "it stops the line", at)[1].package.number


def test_a_stage_has_one_package_and_a_history(registry: LocalRegistry) -> None:
    to(registry, 1, NOW)
    to(registry, 3, NOW + timedelta(days=1))
    assert at_work(registry) == 3
    history = moves(registry.versions(Kind.MODEL, NAME))
    assert [(move.package.number, move.before, move.by, move.reason) for move in history] == [
        (1, None, "Ada", "it is better"), (3, 1, "Ada", "it is better")
    ]  # fmt: skip
    assert promote(registry, package(registry, 3), "production", "", "Ada", "", NOW + timedelta(days=2)) is None
    assert package(registry, 3).tags["model_name"] == "press"


def test_lines_and_stages_are_apart(registry: LocalRegistry) -> None:
    to(registry, 1, NOW, "line-1")
    to(registry, 2, NOW, "line-2")
    to(registry, 3, NOW, "line-1", "staging")
    assert at_work(registry, ("production", "line-1")) == 1
    assert at_work(registry, ("production", "line-2")) == 2
    assert at_work(registry, ("staging", "line-1")) == 3
    assert PRODUCTION not in current(registry.versions(Kind.MODEL, NAME))


def test_rolling_back_twice_goes_back_twice(registry: LocalRegistry) -> None:
    for version in (1, 2, 4):
        to(registry, version, NOW + timedelta(days=version))
    assert back(registry, NOW + timedelta(days=5)) == 2
    assert back(registry, NOW + timedelta(days=6)) == 1
    with pytest.raises(EdgepackError, match="press-edge:1 is the first package in production: there is none before"):
        back(registry, NOW + timedelta(days=7))
    assert at_work(registry) == 1
    to(registry, 4, NOW + timedelta(days=8))
    assert back(registry, NOW + timedelta(days=9)) == 1


def test_a_rollback_with_nothing_before_it_changes_nothing(registry: LocalRegistry) -> None:
    with pytest.raises(EdgepackError, match="no package press-edge was ever moved to production"):
        back(registry, NOW)
    assert moves(registry.versions(Kind.MODEL, NAME)) == []


def test_a_clock_that_is_behind_does_not_undo_a_move(registry: LocalRegistry) -> None:
    to(registry, 1, NOW)
    to(registry, 2, NOW - timedelta(hours=1))
    assert at_work(registry) == 2
    assert back(registry, NOW - timedelta(hours=2)) == 1


def test_tags_that_others_wrote_are_passed_over(registry: LocalRegistry) -> None:
    to(registry, 2, NOW)
    odd = {
        "stage_production_20261301T000000000000Z": "{}", "stage_production_20270101T000000000000Z": "not JSON",
        "stage_production_20270101T000000000001Z": "[]", "stage_other_20270101T000000000000Z": "{}", "stage": "x",
    }  # fmt: skip
    registry.set_tags(package(registry, 1), odd)
    assert at_work(registry) == 2


def test_a_reason_that_no_tag_can_hold_is_refused(registry: LocalRegistry) -> None:
    with pytest.raises(EdgepackError, match="shorten it"):
        promote(registry, package(registry, 1), "production", "", "Ada", "x" * 501, NOW)
    assert moves(registry.versions(Kind.MODEL, NAME)) == []
