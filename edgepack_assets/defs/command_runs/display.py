"""What a command shows of its runs while they last: bars on a terminal, lines elsewhere.

A terminal gets a bar for each partition and a line above them for each asset that has ended. A file, a pipe and a
terminal that cannot move its cursor (TERM=dumb) get lines alone, without escape sequences. NO_COLOR is respected."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from edgepack_assets.partitions import ModelKey
from edgepack_assets.text_format import shortened

_BAR = 12
_FIXED = _BAR + len("6/6") + len("0:00:00") + 4 + 1
"""Columns of a line that hold neither the partition nor what it is doing, with the spaces between; one stays free."""


@dataclass(frozen=True)
class RunState:
    """How far a run is: so many assets `done` of `total`, the asset that runs (`step`), and what it said last."""

    key: ModelKey
    done: int
    total: int
    step: str | None
    said: str | None
    ended: bool = False


@dataclass(frozen=True)
class RunDisplay:
    """`line` shows a line for good. `states` shows how far runs are; it is None where only lines are shown."""

    line: Callable[[str], None]
    states: Callable[[Sequence[RunState]], None] | None = None


@contextmanager
def run_display(stream: TextIO, indent: str = "") -> Iterator[RunDisplay]:
    """Show runs on `stream`. What was shown of ended runs stays there. `indent` stands before each line."""
    if not stream.isatty() or os.environ.get("TERM", "dumb") in {"dumb", "unknown", ""}:
        yield RunDisplay(lambda line: print(f"{indent}{line}", file=stream, flush=True))
        return
    # The runs are forked: a thread that refreshes the bars could hold a lock at that moment. So there is none.
    console = Console(file=stream, highlight=False, force_terminal=True)
    with Progress(
        *_columns(indent), console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
    ) as bars:
        shown = _Bars(bars, len(indent))
        yield RunDisplay(lambda line: bars.console.print(f"{indent}{line}", markup=False, soft_wrap=True), shown.show)


def _columns(indent: str) -> tuple[TextColumn | BarColumn | MofNCompleteColumn | TimeElapsedColumn, ...]:
    return (
        TextColumn(f"{indent}{{task.description}}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=_BAR),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[doing]}", table_column=Column(no_wrap=True)),
    )


class _Bars:
    """The bars of one command."""

    def __init__(self, bars: Progress, indent: int) -> None:
        self._bars = bars
        self._bar = next(column for column in bars.columns if isinstance(column, BarColumn))
        self._indent = indent
        self._tasks: dict[ModelKey, TaskID] = {}

    def show(self, states: Sequence[RunState]) -> None:
        """Draw what has changed, and the time."""
        # rich would shorten every column of a line that is too long, the numbers as well.
        if not states:
            return
        longest = max(len(str(key)) for key in (*self._tasks, *(state.key for state in states)))
        width = self._bars.console.width - self._indent - longest
        self._bar.bar_width = min(max(width - _FIXED + _BAR, 1), _BAR)
        room = max(width - _FIXED, 1)
        for state in states:
            if state.key not in self._tasks:
                self._tasks[state.key] = self._bars.add_task(escape(str(state.key)), total=state.total, doing="")
            task = self._tasks[state.key]
            failed = state.ended and state.done < state.total
            doing = "failed" if failed else ": ".join(filter(None, (state.step, state.said)))
            self._bars.update(task, completed=state.done, doing=escape(shortened(doing, room)))
            if state.ended:
                self._bars.stop_task(task)
        self._bars.refresh()
