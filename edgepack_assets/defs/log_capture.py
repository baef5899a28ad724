"""Passes on what a run prints, by a thread of its process, while Dagster captures it in files.

Dagster starts `tail` for each of the two streams, and a Python process that watches each `tail`. That is a fifth of a
second in every run. They end with the run, without waiting for what has not been passed on yet, so that on a busy
machine the last lines are missing on the terminal or in a daemon's log (Dagster's issue 23336). If all processes of the
run are killed at once, `tail` runs on for ever. The thread passes everything on and ends with its process.

What a killed process had no time to pass on, a tenth of a second's output, is in the captured files.

What is replaced is no public interface; should Dagster cease to use it, all is as before.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster import DagsterInstance

_INTERVAL = 0.1
"""Seconds between two looks at the file."""
_PATIENCE = 10.0
"""Seconds that a run waits at its end for somebody to read the rest."""


def pass_on_by_thread() -> None:
    """Have the runs of this process do so."""
    from dagster._core.execution import compute_logs

    compute_logs.tail_to_stream = _passed_on


@contextlib.contextmanager
def _passed_on(path: str, stream: Any) -> Iterator[tuple[None, None]]:
    """Write what the file holds, and what it will hold until the end of this block, to where `stream` leads now."""
    try:
        number = os.dup(stream.fileno())
    except (AttributeError, io.UnsupportedOperation):  # a stand-in of a test: Dagster captures nothing of it
        yield None, None
        return
    ended = Event()
    thread = Thread(target=_pass_on, args=(Path(path), number, ended), name="passes_on", daemon=True)
    thread.start()
    try:
        yield None, None
    finally:
        ended.set()
        thread.join(_PATIENCE)


def _pass_on(file: Path, to: int, ended: Event) -> None:
    with contextlib.suppress(OSError), os.fdopen(to, "wb") as seen, file.open("rb") as captured:
        is_last = False
        while not is_last:
            is_last = ended.wait(_INTERVAL)
            shutil.copyfileobj(captured, seen)
            seen.flush()  # an OSError says that nobody reads it any more; the captured file is whole


def captured_lines(instance: DagsterInstance, run_id: str) -> list[str]:
    """What was captured of a run of `edgepack package`, whose two streams are one."""
    from dagster import DagsterEventType

    lines: list[str] = []
    manager = instance.compute_log_manager
    for entry in instance.all_logs(run_id, of_type=DagsterEventType.LOGS_CAPTURED):
        assert entry.dagster_event is not None
        key = manager.build_log_key_for_run(run_id, entry.dagster_event.logs_captured_data.file_key)
        captured = manager.get_log_data(key)
        # Errors were captured last, and so all of both.
        lines += (captured.stderr or captured.stdout or b"").decode(errors="replace").splitlines()
    return lines
