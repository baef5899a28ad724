"""Which process makes a run, or follows its job: told by a tag of the run, so that others can see whether it is gone.

A process number alone says little: it is used again, and another machine or container has the same ones.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from dagster import DagsterRun

JOB_TAG = "edgepack/job"
"""Tag of a run: the name of its job."""
WORKER_TAG = "edgepack/worker"
"""Tag of a run: the process that follows its job, as `worker` gives it."""
PROCESS_TAG = "edgepack/run_process"
"""Tag of a run: the process that makes it, if that makes several, as `worker` gives it."""

_BOOT, _NAMESPACE = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")


def worker(run_id: str, pid: int | None = None) -> str:
    """The process that follows a run, by default this one, as a tag; of what the system does not tell (no Linux, or the
    process is gone) nothing more than the run."""
    number = os.getpid() if pid is None else pid
    try:
        return " ".join([run_id, str(number), _started(number), *_place()])
    except OSError:
        return run_id


def is_in_process(run: DagsterRun) -> bool:
    """Whether a process that makes several runs makes this one, or did."""
    return run.tags.get(PROCESS_TAG, "").split(" ")[0] == run.run_id


def is_followed(run: DagsterRun) -> bool:
    """Whether the work of a run is a job, which a process follows or followed."""
    # A re-execution has the tags of its parent.
    return run.tags.get(WORKER_TAG, "").split(" ")[0] == run.run_id


def is_alive(run: DagsterRun, tag: str = WORKER_TAG) -> bool | None:
    """Whether the process that a tag names is there; None if that cannot be known here: there is none, or it is on
    another machine."""
    run_id, *parts = run.tags.get(tag, "").split(" ")
    try:
        place = _place()
    except OSError:
        return None
    if run_id != run.run_id or len(parts) != 5 or not parts[0].isdecimal() or parts[2] != place[0]:
        return None
    if parts[3] != place[1]:
        return False  # the machine was started again
    if parts[4] != place[2]:
        return None
    try:
        return _started(int(parts[0])) == parts[1]
    except OSError:
        return False


def _place() -> list[str]:
    """This host, its start, and the container: process numbers hold within it."""
    return [platform.node().replace(" ", "-"), _BOOT.read_text().strip(), str(_NAMESPACE.readlink())]


def _started(pid: int) -> str:
    """When a process was started, in ticks since the machine's start. Raises ProcessLookupError if it has ended."""
    # The second field, the program's name in brackets, may hold anything.
    state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    if state in "ZX":  # its parent has not asked for its end yet
        raise ProcessLookupError(pid)
    return fields[18]
