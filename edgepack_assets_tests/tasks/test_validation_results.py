"""Whether the edge keeps up: the time of records against the cycle that the package declares."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgepack_assets.errors import ComponentError, EdgepackError
from edgepack_assets.evidence import Part, all_pass
from edgepack_assets.model_types.base import Trial
from edgepack_assets.partitions import ModelKey
from edgepack_assets.runtime.runner import PackageRun
from edgepack_assets.tasks.validation_results import pace, try_out

NOWHERE = Path("nowhere")


def ran(p95: float, longest: float, total: float, records: int = 100) -> PackageRun:
    latency = {"p50": 0.0, "p95": p95, "max": longest, "sum": total}
    return PackageRun(NOWHERE, NOWHERE, records, 1, latency)


@pytest.mark.parametrize(
    ("run", "too_slow"),
    [
        (ran(0.25, 0.25, 25.0), []),
        (ran(0.01, 0.251, 2.0), ["longest"]),
        (ran(0.251, 0.3, 2.0), ["p95", "longest"]),
        (ran(0.251, 0.3, 25.1), ["mean", "p95", "longest"]),
        (ran(0.0, 0.0, 0.0, records=0), []),
    ],
)
def test_every_record_must_be_done_before_the_next_one_comes(run: PackageRun, too_slow: list[str]) -> None:
    parts = pace(run, 250)
    assert [part.name.split()[0] for part in parts if not part.passed] == too_slow
    assert all(part.wanted == "at most 250 ms" for part in parts)


def test_a_package_without_a_cycle_has_nothing_to_keep_up_with() -> None:
    assert all_pass(pace(ran(9.0, 9.0, 900.0), None))


class Tried(Trial):
    """Is told a number of answers, and believes no negative one."""

    function = "try_it"
    arguments = {"a": 1}  # noqa: RUF012
    inputs = {"records": NOWHERE}  # noqa: RUF012

    def rows(self, told: object) -> tuple[list[Part], list[dict[str, Any]]]:
        assert isinstance(told, int)
        if told < 0:
            raise ComponentError("fewer than none")
        return [Part("tried", False, str(told), "", warns=True)], [{"told": told}]


def trying(answer: int | Exception) -> Any:
    """What a trial comes to when the child gives this answer."""
    jobs: list[Any] = []

    def run(what: str, environment: Any, preload: Any, job: Any, inputs: Any) -> int:
        jobs.append((what, job["function"], job["arguments"], job["folder"], inputs))
        if isinstance(answer, Exception):
            raise answer
        return answer

    tools = SimpleNamespace(
        model_type=lambda key: SimpleNamespace(folder=NOWHERE), preload=lambda key, lock: [],
        sandbox=SimpleNamespace(run=run), log=logging.getLogger(__name__),
    )  # fmt: skip
    environment = SimpleNamespace(lock=None)
    found = try_out(ModelKey("images", 1), Tried(), Path("component"), cast(Any, environment), cast(Any, tools))
    assert jobs == [("try_it of images:1", "try_it", {"a": 1}, "component", {"records": NOWHERE})]
    return found


def test_what_is_tried_beside_validating_only_warns() -> None:
    rows, table = trying(3)
    assert all_pass(rows) and not rows[0].passed
    assert table == [{"told": 3}]


@pytest.mark.parametrize("answer", [ComponentError("it hung"), -1])
def test_a_trial_that_fails_leaves_what_was_validated_alone(
    answer: int | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    assert trying(answer) == ([], [])
    assert "it hung" in caplog.text or "fewer than none" in caplog.text


def test_a_fault_of_ours_is_no_failed_trial() -> None:
    with pytest.raises(EdgepackError, match="disk"):
        trying(EdgepackError("disk"))
