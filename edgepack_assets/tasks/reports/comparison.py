"""What differs between two packages, as rows that a table of the UI, the command line and a report show alike.

Pure functions of facts. Where these come from is in facts.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgepack_assets.packaging.contract import Contract
from edgepack_assets.packaging.pipeline_content import FileEntry
from edgepack_assets.tasks.pages.render import render
from edgepack_assets.tasks.predecessor.contract_changes import compare
from edgepack_assets.tasks.reports.answer_differences import AnswerDifferences
from edgepack_assets.text_format import format_latency, format_size

_LATENCIES = ("p50", "p95", "p99", "max")
_NONE = "-"


@dataclass(frozen=True)
class PackageFacts:
    """What is known of one of two packages. `metrics_on` is the raw data that its metrics are of, `requirements`
    distribution -> version, `files` those of the component; `size` is None without a registered package; `latency` is
    in seconds for a record, empty if it was not measured."""

    name: str
    metrics: Mapping[str, float | None]
    metrics_on: str
    contract: Contract
    requirements: Mapping[str, str]
    files: Mapping[str, FileEntry]
    size: int | None = None
    latency: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "name": self.name, "metrics": dict(self.metrics), "metrics_on": self.metrics_on, "size": self.size,
            "interface": asdict(self.contract), "requirements": dict(self.requirements),
            "files": {name: asdict(entry) for name, entry in self.files.items()}, "latency": dict(self.latency),
        }  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """A row: what is compared, of which name, its values, and how they differ (empty if they do not)."""

    part: str
    name: str
    before: str
    now: str
    difference: str = ""


@dataclass(frozen=True)
class Comparison:
    """Two packages side by side. `answers` is None, and `not_answered` says why, where their answers are not compared;
    `payload` is what they answered. `picture` is a PNG of both answers, if the model type draws one."""

    before: PackageFacts
    now: PackageFacts
    rows: tuple[Difference, ...]
    payload: str = ""
    answers: AnswerDifferences | None = None
    not_answered: str = ""
    picture: bytes | None = None

    @property
    def answers_in_words(self) -> str:
        """How many answers differ, or why they are not compared."""
        return f"{self.answers}, on {self.payload}" if self.answers is not None else self.not_answered

    def as_json(self) -> dict[str, Any]:
        """All but the picture."""
        return {
            "before": self.before.as_json(), "now": self.now.as_json(),
            "differences": [asdict(row) for row in self.rows if row.difference],
            "payload": self.payload or None,
            "answers": self.answers.as_json() if self.answers is not None else None,
            "answers_not_compared": self.not_answered or None,
        }  # fmt: skip


def differences(before: PackageFacts, now: PackageFacts) -> tuple[Difference, ...]:
    """Metrics, latency and sizes of both; of requirements, files and the interface what changed."""
    return (
        *_metrics(before, now),
        *_latencies(before.latency, now.latency),
        *_sizes(before, now),
        *_changes("requirement", before.requirements, now.requirements, str),
        *_changes("file", before.files, now.files, lambda entry: f"{entry.digest[:12]}, {format_size(entry.size)}"),
        *(
            Difference("interface", row.name.removeprefix("interface: "), "", "", row.found)
            for row in compare(before.contract, now.contract)
            if row.found != "as before"
        ),
    )


def _metrics(before: PackageFacts, now: PackageFacts) -> Iterator[Difference]:
    for name in sorted(before.metrics.keys() | now.metrics.keys()):
        old, new = before.metrics.get(name), now.metrics.get(name)
        yield Difference("metric", name, _number(old), _number(new), _change(old, new))
    if before.metrics_on != now.metrics_on:
        yield Difference("metric", "of raw data", before.metrics_on, now.metrics_on, "metrics of different data")


def _latencies(before: Mapping[str, float], now: Mapping[str, float]) -> Iterator[Difference]:
    for name in _LATENCIES:
        old, new = before.get(name), now.get(name)
        if old is not None or new is not None:
            yield Difference("latency", f"{name} of a record", _time(old), _time(new), _change(old, new, _signed_time))


def _sizes(before: PackageFacts, now: PackageFacts) -> Iterator[Difference]:
    shown = {
        "package": (before.size, now.size),
        "component without wheels": tuple(sum(f.size for f in each.files.values()) for each in (before, now)),
    }
    for name, (old, new) in shown.items():
        if old is not None or new is not None:
            yield Difference("size", name, _size(old), _size(new), _change(old, new, _signed_size))


def _changes(
    part: str, before: Mapping[str, Any], now: Mapping[str, Any], words: Callable[[Any], str]
) -> Iterator[Difference]:
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old != new:
            change = "new" if old is None else "gone" if new is None else "changed"
            yield Difference(
                part, name, _NONE if old is None else words(old), _NONE if new is None else words(new), change
            )


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.6g}"


def _time(seconds: float | None) -> str:
    return _NONE if seconds is None else format_latency(seconds)


def _size(count: int | None) -> str:
    return _NONE if count is None else format_size(count)


def _signed_time(seconds: float) -> str:
    return f"{'-' if seconds < 0 else '+'}{_time(abs(seconds))}"


def _signed_size(count: float) -> str:
    return f"{'-' if count < 0 else '+'}{format_size(abs(count))}"


def _change(old: float | None, new: float | None, words: Callable[[float], str] = "{:+.4g}".format) -> str:
    """`+0.01 (+1.2 %)`; empty if nothing changed, or if one of them is not known."""
    if old is None or new is None or old == new or not (math.isfinite(old) and math.isfinite(new)):
        return ""
    percent = 100 * (new - old) / abs(old) if old else 0.0
    share = f" ({percent:+.0f} %)" if abs(percent) >= 10 else f" ({percent:+.2g} %)" if old else ""
    return f"{words(new - old)}{share}"


def as_cells(rows: Iterable[Difference]) -> list[dict[str, str]]:
    """The rows as a table of the UI."""
    return [asdict(row) for row in rows]


def comparison_page(comparison: Comparison) -> bytes:
    """What differs between two packages."""
    return render(
        "comparison", title=f"{comparison.before.name} and {comparison.now.name} compared", comparison=comparison
    )
