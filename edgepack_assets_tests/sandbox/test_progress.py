"""Lines about long work."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepack_assets.model_types.records import PayloadWriter
from edgepack_assets.sandbox.progress import EVERY, Progress


@pytest.mark.parametrize(
    ("total", "done", "seconds", "line"),
    [
        (10_000_000, 2_500_000, 25.0, "2,500,000 of 10,000,000 rows (25%), 100,000 a second, 75 s left"),
        (10_000_000, 10_000, 10.0, "10,000 of 10,000,000 rows (0%), 1,000 a second, 2.8 h left"),
        (30, 10, 20.0, "10 of 30 rows (33%), 0.5 a second, 40 s left"),
        (1000, 100, 100.0, "100 of 1,000 rows (10%), 1.0 a second, 15 min left"),
        (5, 7, 10.0, "7 of 5 rows (100%), 0.7 a second, 0 s left"),  # counts are not always known before
        (None, 500, 10.0, "500 rows, 50 a second"),
        (100, 0, 10.0, "0 of 100 rows (0%), 0.0 a second"),
    ],
)
def test_a_line_says_share_rate_and_remaining_time(total: int | None, done: int, seconds: float, line: str) -> None:
    lines: list[str] = []
    times = iter([0.0, seconds])
    Progress(lines.append, "rows", total, clock=lambda: next(times)).at(done)
    assert lines == [line]


def test_there_is_a_line_every_ten_seconds_and_none_for_short_work() -> None:
    lines: list[str] = []
    now = 0.0
    progress = Progress(lines.append, "records", 1000, clock=lambda: now)
    for done in range(1000):
        now = done / 20  # 50 s in all
        progress.at(done, "some answers")
    assert len(lines) == 4
    assert lines[0].endswith(", some answers")
    short: list[str] = []
    now = 0.0
    progress = Progress(short.append, "records", 10, clock=lambda: now)
    now = EVERY - 0.1
    progress.at(9)
    assert not short


def test_a_payload_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgepack_assets.sandbox.progress.EVERY", 0.0)
    lines: list[str] = []
    writer = PayloadWriter(tmp_path / "records", tmp_path / "sources", tell=lines.append)
    with writer.open():
        writer.add_lines(['{"a": 1}', '{"a": 2}'])
        writer.expect(8)
        writer.add({"a": 3})
        writer.add_lines(['{"a": 4}'])
    assert [line.split(",")[0] for line in lines] == [
        "2 records",
        "3 of 8 records (38%)",
        "4 of 8 records (50%)",
    ]
