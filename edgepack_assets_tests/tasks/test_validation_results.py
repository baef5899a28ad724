"""Whether the edge keeps up: the time of records against the cycle that the package declares."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepack_assets.evidence import all_pass
from edgepack_assets.runtime.runner import PackageRun
from edgepack_assets.tasks.validation_results import pace

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
