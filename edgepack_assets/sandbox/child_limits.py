"""The limits that a child sets for itself and all that it starts, and the check that a job did not change them.

A part of child_main.py, which loads it by its path: the limits, the filter of system calls, and the attributes of a
process that those it forks inherit. Standard library only.
"""

import contextlib
import ctypes
import fcntl
import os
import resource
from pathlib import Path
from typing import Any

_PR_SET_DUMPABLE, _PR_GET_TIMERSLACK, _PR_SET_NO_NEW_PRIVS = 4, 30, 38
_FILTER = 1
_IO_PRIORITY = {"x86_64": 252, "aarch64": 31}
_ONE_PROCESS = 1
_KINDS_OF_LIMITS = 16
_OUTPUT = (1, 2)
_OF_OPEN_FILE = (fcntl.F_GETFL, fcntl.F_GETOWN, 11, 1032)
"""What belongs to an open file, not to a process, so that who inherits a descriptor may change it for all: flags such
as O_NONBLOCK, who gets a signal, which one (F_GETSIG), and a pipe's size (F_GETPIPE_SZ)."""
_SCRATCH = Path("/dev/shm")  # noqa: S108 - of this namespace


class _Program(ctypes.Structure):
    """struct sock_fprog of prctl(2)."""

    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def limit(limits: "dict[str, Any]") -> None:
    """Bound what the process and those it starts may use. Without privileges nobody can raise these again."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind, name in (
        (resource.RLIMIT_AS, "memory"),
        (resource.RLIMIT_FSIZE, "file"),
        (resource.RLIMIT_NPROC, "processes"),
        (resource.RLIMIT_NOFILE, "descriptors"),
    ):
        wanted = limits[name]
        if wanted is not None:
            soft, most = resource.getrlimit(kind)
            wanted = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
            # select(2) takes no descriptor beyond the soft limit that is usual
            usual = min(soft, wanted) if kind == resource.RLIMIT_NOFILE else wanted
            resource.setrlimit(kind, (usual, wanted))


def set_dumpable(allowed: bool) -> None:
    """Whether a process of the same user may look into this one, and change it."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, int(allowed), 0, 0, 0)


def refuse_calls(filter_: "dict[str, Any] | None") -> None:
    """From here on the kernel refuses the calls that seccomp.py lists, to all that this process starts too."""
    if filter_ is None:
        return
    steps = bytes.fromhex(filter_["program"])
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    program = _Program(len(steps) // 8, steps)
    if libc.syscall(filter_["call"], _FILTER, filter_["flags"], ctypes.byref(program)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"this kernel takes no filter of system calls ({os.strerror(code)})")


def inherited() -> "list[object]":
    """What the next job would inherit from this process, or find, and another of the same user could have changed.

    The filter refuses most of that; who finds it changed all the same must not fork another job."""
    libc = ctypes.CDLL(None)
    scratch = _SCRATCH.stat()  # where it belongs to the user of the jobs
    attributes = []
    with contextlib.suppress(OSError):
        attributes = os.listxattr(_SCRATCH)
    io_priority = _IO_PRIORITY.get(os.uname().machine)
    return [
        os.getpriority(os.PRIO_PROCESS, 0),
        os.sched_getscheduler(0),
        os.sched_getparam(0).sched_priority,
        sorted(os.sched_getaffinity(0)),
        libc.syscall(io_priority, _ONE_PROCESS, 0) if io_priority else None,
        libc.prctl(_PR_GET_TIMERSLACK, 0, 0, 0, 0),
        Path("/proc/self/oom_score_adj").read_text(),
        [scratch.st_mode, scratch.st_uid, attributes],
        [resource.getrlimit(kind) for kind in range(_KINDS_OF_LIMITS)],
        [_of_open_file(descriptor, command) for descriptor in _OUTPUT for command in _OF_OPEN_FILE],
    ]


def _of_open_file(descriptor: int, command: int) -> "int | None":
    with contextlib.suppress(OSError):  # no pipe, or closed
        return fcntl.fcntl(descriptor, command)
    return None
