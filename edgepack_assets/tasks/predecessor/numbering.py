"""Whether states and classes keep their numbers: the answers of two packages to the same payload, matched.

Pure functions of answers. Where the answers come from is in answers.py, what follows for a package in
renumbering.py and in kept_numbers.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack_assets.errors import ComponentError
from edgepack_assets.model_types.interface import Answer, Results

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Category = int | str
"""A state or a class, as the package answers it."""

_MOST = 1_000
"""Different categories that are matched. Matching costs their number to the power of three."""
_SHOWN = 20


@dataclass(frozen=True)
class Contingency:
    """Of the records that both packages answered: (answer before, answer now) -> how many records have it.

    `only_before` and `only_now` are the numbers of records that one of them answered alone."""

    counts: Mapping[tuple[Category, Category], int]
    only_before: int = 0
    only_now: int = 0

    @property
    def records(self) -> int:
        """Records that both answered."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class Match:
    """Category now -> the one that it was before. `agreeing` of `records` have the same answer then.

    `unclear` says why the match cannot be relied on, and is empty if it can. `unproven` are categories (as numbered
    before) that no record shows: they are matched by elimination, or by their number."""

    before: Mapping[Category, Category]
    records: int
    agreeing: int
    unclear: str = ""
    unproven: tuple[Category, ...] = ()

    @property
    def moved(self) -> dict[Category, Category]:
        """Those that have another number than before."""
        return {now: before for now, before in self.before.items() if now != before}

    @property
    def share(self) -> str:
        """How far both agree, in words."""
        return f"{self.agreeing} of {self.records} records agree"


def contingency(before: Results, now: Results, output: str) -> Contingency:
    """Counts pairs of answers, record by record. Raises ComponentError if an answer is no category."""
    counts: Counter[tuple[Category, Category]] = Counter()
    only_before = only_now = 0
    seen: tuple[set[Category], set[Category]] = (set(), set())
    for old, new in side_by_side(before.answers(), now.answers()):
        if new is None:
            only_before += 1
        elif old is None:
            only_now += 1
        else:
            pair = _category(old, output), _category(new, output)
            counts[pair] += 1
            for each, categories in zip(pair, seen, strict=True):
                categories.add(each)
                if len(categories) > _MOST:
                    raise ComponentError(f"{output} has more than {_MOST} different answers: these are no categories")
    return Contingency(counts, only_before, only_now)


def side_by_side(before: Iterator[Answer], now: Iterator[Answer]) -> Iterator[tuple[Answer | None, Answer | None]]:
    """The answers of two packages in record order, each record once; None where one of them gave none."""
    old, new = next(before, None), next(now, None)
    while old is not None or new is not None:
        if new is None or (old is not None and old.record < new.record):
            yield old, None
            old = next(before, None)
        elif old is None or new.record < old.record:
            yield None, new
            new = next(now, None)
        else:
            yield old, new
            old, new = next(before, None), next(now, None)


def _category(answer: Answer, output: str) -> Category:
    value = answer.outputs.get(output)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ComponentError(f"the answer to record {answer.record} has no {output} that is a number or a text")
    return value


def match_numbers(
    cross_table: Contingency, before: Iterable[Category], now: Iterable[Category], agreement: float
) -> Match:
    """Where numbers mean nothing by themselves, find those under which most records agree.

    `before` and `now` are the categories that the models know, which may be more than the payload shows. `agreement`
    is the share of records that must agree for the match to be clear."""
    import numpy as np

    olds = ordered({*before, *(old for old, _ in cross_table.counts)})
    news = ordered({*now, *(new for _, new in cross_table.counts)})
    if not cross_table.counts:
        return Match({}, 0, 0, "no record is answered by both")
    row, column = {old: i for i, old in enumerate(olds)}, {new: i for i, new in enumerate(news)}
    # A state that no record shows is matched to the one of its number, if that is free: the tenth decides nothing else.
    weights = np.array([[0.1 / len(olds) if old == new else 0.0 for new in news] for old in olds])
    for (old, new), count in cross_table.counts.items():
        weights[row[old], column[new]] += count
    matched = {news[j]: olds[i] for i, j in _assigned(weights)}
    agreeing = sum(cross_table.counts.get((old, new), 0) for new, old in matched.items())
    unproven = ordered(old for new, old in matched.items() if not cross_table.counts.get((old, new)))
    unclear = _why_incomparable(cross_table, olds, news) or _why_unclear(cross_table, matched, agreement)
    return Match(matched, cross_table.records, agreeing, unclear, tuple(unproven))


def _assigned(weights: NDArray[np.float64]) -> Iterable[tuple[int, int]]:
    """(row, column) pairs of the greatest sum of weights, each row and each column at most once."""
    best = weights.argmax(axis=1)
    # Rows that have their greatest weight in columns of their own need no search. Importing scipy takes longer than
    # the rest of the comparison.
    if len(set(best)) == len(best) and ((weights == weights.max(axis=1, keepdims=True)).sum(axis=1) == 1).all():
        return list(enumerate(best.tolist()))
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]  # scipy has no types

    return list(zip(*linear_sum_assignment(weights, maximize=True), strict=True))


def _why_incomparable(cross_table: Contingency, olds: Sequence[Category], news: Sequence[Category]) -> str:
    """Why no match of these categories can be relied on, whatever the records show."""
    kinds = [{"text" if isinstance(each, str) else "number" for each in side} for side in (news, olds)]
    if kinds[0] != kinds[1]:
        return f"answers are {' or '.join(sorted(kinds[0]))} now, and {' or '.join(sorted(kinds[1]))} before"
    if len(olds) != len(news):
        return f"{len(news)} states, and {len(olds)} before"
    if cross_table.only_before + cross_table.only_now > cross_table.records:
        return (
            f"only {cross_table.records} records are answered by both, {cross_table.only_before} by the package before "
            f"alone and {cross_table.only_now} by this one alone"
        )
    return ""


def _why_unclear(cross_table: Contingency, matched: Mapping[Category, Category], agreement: float) -> str:
    """Why this match cannot be relied on."""
    seen: Counter[Category] = Counter()
    for (old, _), count in cross_table.counts.items():
        seen[old] += count
    agreeing = sum(cross_table.counts.get((old, new), 0) for new, old in matched.items())
    if agreeing < agreement * cross_table.records:
        return f"{agreeing} of {cross_table.records} records agree at best, fewer than {agreement:.4g} of them"
    now = {old: new for new, old in matched.items()}
    # A state of few records counts as much on the line as any other.
    torn = [old for old in seen if 2 * cross_table.counts.get((old, now[old]), 0) <= seen[old]]
    if torn:
        return f"most records of state {listed(torn)} have no state of their own now"
    if len(seen) == 1 and len(matched) > 1:
        return f"the payload shows state {listed(seen)} alone"
    return ""


def moved_classes(cross_table: Contingency) -> dict[Category, Category]:
    """Class now -> the other class as which most of its records were answered before, and most of whose records are
    answered as this one now: its index has changed.

    Classes have a meaning: a better classifier answers many records otherwise without any class changing its index."""
    olds: Counter[Category] = Counter()
    news: Counter[Category] = Counter()
    for (old, new), count in cross_table.counts.items():
        olds[old] += count
        news[new] += count
    return {
        new: old
        for (old, new), count in cross_table.counts.items()
        if old != new and 2 * count > olds[old] and 2 * count > news[new]
    }


def contingency_table(cross_table: Contingency) -> list[dict[str, Any]]:
    """A row for each answer before, a column for each answer now, in records; of many only the first."""
    olds, news = (ordered({pair[at] for pair in cross_table.counts})[:_SHOWN] for at in (0, 1))
    return [
        {"before": str(old), **{f"now {new}": cross_table.counts.get((old, new), 0) for new in news}} for old in olds
    ]


def ordered(categories: Iterable[Category]) -> list[Category]:
    """Numbers by size, then texts, those of digits by size too."""
    return sorted(
        categories, key=lambda each: (isinstance(each, str), each if isinstance(each, int) else len(each), str(each))
    )


def listed(categories: Iterable[Category]) -> str:
    """The categories as text; of many the first."""
    shown = ordered(categories)
    return ", ".join(map(str, shown[:_SHOWN])) + (f", ... ({len(shown)})" if len(shown) > _SHOWN else "")
