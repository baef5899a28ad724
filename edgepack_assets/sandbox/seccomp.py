"""A seccomp filter for system calls that namespaces do not isolate and model code does not need.

What namespaces leave open without it: the keys that the kernel holds for this process's user (Kerberos tickets, share
passwords), the virtual machine's host through AF_VSOCK, memory and messages that outlive their process, memory and
files that no look at a process finds (resource_usage.py), attributes of the process that forks the jobs, and the parts
of the kernel that only a user namespace of one's own leads to.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER, _MACHINE, _FIRST, _SECOND, _THIRD, _FOURTH = 0, 4, 16, 24, 32, 40
"""Where struct seccomp_data has the call's number, the machine, and the lower halves of its arguments."""
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_X32 = 0x40000000
_NEW_USER = 0x10000000
_SET_DUMPABLE = 4
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_SECCOMP = (317, 277)
_SET_FILTER = 1
_FLAGS = (4, 0)
"""4: not at the price of every jump, which older kernels slow down for what they filter; not every kernel knows it."""
_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)

_REFUSED = {
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "unshare": (272, 97),
    "setns": (308, 268),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
}
"""By number on x86_64 and aarch64."""
_UNKNOWN = {
    # Memory that belongs to no process: kept by one mapped page, it is many times what its process has.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # What it queues in a pipe or a socket stays the kernel's, whatever its size, after it was unmapped or removed.
    "vmsplice": (278, 75),
    "splice": (275, 76),
    "tee": (276, 77),
    "sendfile": (40, 71),
    "landlock_create_ruleset": (444, 444),
}
"""Refused as by a kernel that does not know them: libraries that use them then take another way."""
_SEND = {"sendmsg": (46, 211), "sendmmsg": (307, 269)}
"""These can carry descriptors, and those lie in memory, which a filter cannot see. A file that is on its way between
two processes is in neither's list. multiprocessing, joblib and asyncio send with others."""
_SOCKET, _CLONE, _CLONE3, _LIMIT, _PRCTL = (41, 198), (56, 220), (435, 435), (302, 261), (157, 167)
_MMAP, _SET_OPTION, _SET_PRIORITY, _SET_IO_PRIORITY = (9, 222), (54, 208), (141, 140), (251, 30)
_SCHEDULING = {
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
}
_MAP_SHARED, _MAP_ANONYMOUS, _MAP_HUGE = 0x1, 0x20, 0x40000
_PROCESS, _IO_PROCESS = 0, 1
"""How setpriority(2) and ioprio_set(2) name one process, and not all of a group or a user."""
_FIRST_PROCESS = 1
"""The child, in its sandbox. A job's threads may set what is theirs, and name themselves by numbers that differ."""


def why_unfiltered() -> str | None:
    """Why this machine takes no filter, None if it does."""
    return _flags()[1]


def _flags() -> tuple[int, str | None]:
    """The flags that this kernel takes a filter with, or why it takes none. Nothing is filtered by asking: there is no
    program at address 0, and a kernel says so only of a call that it would carry out."""
    known = _MACHINES.get(os.uname().machine)
    if known is None:
        return 0, f"the numbers of system calls on {os.uname().machine} are not known here"
    libc = ctypes.CDLL(None, use_errno=True)
    code = 0
    for flags in _FLAGS:
        ctypes.set_errno(0)
        libc.syscall(_SECCOMP[known[1]], _SET_FILTER, flags, None)
        code = ctypes.get_errno()
        if code == errno.EFAULT:
            return flags, None
    return 0, f"seccomp: {os.strerror(code)}"


def refusing_filter() -> dict[str, int | str] | None:
    """The filter: the number of seccomp(2), the flags and the program that it takes, the latter in hex. None where the
    machine takes none.

    A call of another architecture's, which would have other numbers, is refused whole."""
    flags, reason = _flags()
    if reason is not None:
        return None
    machine, at = _MACHINES[os.uname().machine]
    program = [
        _do(_LOAD, _MACHINE),
        _if(_EQUAL, machine, 1, 0),
        _refuse(errno.ENOSYS),
        _do(_LOAD, _NUMBER),
        _if(_ANY_BIT, _X32, 0, 1),
        _refuse(errno.ENOSYS),
    ]
    for numbers in (*_REFUSED.values(), *_SEND.values()):
        program += [_if(_EQUAL, numbers[at], 0, 1), _refuse(errno.EPERM)]
    for numbers in _UNKNOWN.values():
        program += [_if(_EQUAL, numbers[at], 0, 1), _refuse(errno.ENOSYS)]
    # Its flags lie in memory, which a filter cannot see: with this answer the C library takes clone.
    program += [_if(_EQUAL, _CLONE3[at], 0, 1), _refuse(errno.ENOSYS)]
    families = [_if(_EQUAL, family, len(_FAMILIES) - place, 0) for place, family in enumerate(_FAMILIES)]
    program += _for(_SOCKET[at], [_do(_LOAD, _FIRST), *families, _refuse(errno.EAFNOSUPPORT)])
    program += _for(_CLONE[at], [_do(_LOAD, _FIRST), _if(_ANY_BIT, _NEW_USER, 0, 1), _refuse(errno.EPERM)])
    # Its own limits are named as those of process 0.
    program += _for(_LIMIT[at], [_do(_LOAD, _FIRST), _if(_EQUAL, 0, 1, 0), _refuse(errno.EPERM)])
    # Who watches what a job takes must be able to look at its processes.
    program += _for(
        _PRCTL[at],
        [_do(_LOAD, _FIRST), _if(_EQUAL, _SET_DUMPABLE, 0, 3), _do(_LOAD, _SECOND), _if(_EQUAL, 0, 0, 1),
         _refuse(errno.EPERM)],
    )  # fmt: skip
    program += _bounding_memory(at) + _sparing_the_child(at)
    steps = b"".join([*program, _do(_RETURN, _ALLOW)])
    return {"call": _SECCOMP[at], "flags": flags, "program": steps.hex()}


def _bounding_memory(at: int) -> list[bytes]:
    """Steps that refuse memory of which only a part shows in its process."""
    return [
        # Shared memory without a file is a memfd of another name. That of /dev/shm has a bound.
        *_for(
            _MMAP[at],
            [_do(_LOAD, _FOURTH), _if(_ANY_BIT, _MAP_HUGE, 0, 1), _refuse(errno.ENOMEM),
             _if(_ANY_BIT, _MAP_ANONYMOUS, 0, 2), _if(_ANY_BIT, _MAP_SHARED, 0, 1), _refuse(errno.EPERM)],
        ),
        # What a socket holds is counted by the default size of its buffers.
        *_for(
            _SET_OPTION[at],
            [_do(_LOAD, _SECOND), _if(_EQUAL, socket.SOL_SOCKET, 0, 4), _do(_LOAD, _THIRD),
             _if(_EQUAL, socket.SO_SNDBUF, 1, 0), _if(_EQUAL, socket.SO_RCVBUF, 0, 1), _refuse(errno.EPERM)],
        ),
    ]  # fmt: skip


def _sparing_the_child(at: int) -> list[bytes]:
    """Steps that refuse to change how the process that forks the next job, and so that job, is scheduled."""
    the_child = [_if(_EQUAL, _FIRST_PROCESS, 0, 1), _refuse(errno.EPERM)]
    program = []
    for numbers in _SCHEDULING.values():
        program += _for(numbers[at], [_do(_LOAD, _FIRST), *the_child])
    for numbers, one in ((_SET_PRIORITY, _PROCESS), (_SET_IO_PRIORITY, _IO_PROCESS)):
        only_one = [_do(_LOAD, _FIRST), _if(_EQUAL, one, 1, 0), _refuse(errno.EPERM)]
        program += _for(numbers[at], [*only_one, _do(_LOAD, _SECOND), *the_child])
    return program


def _do(subject: int, value: int) -> bytes:
    return struct.pack("HBBI", subject, 0, 0, value)


def _if(subject: int, value: int, then: int, otherwise: int) -> bytes:
    """Go on, past so many steps."""
    return struct.pack("HBBI", subject, then, otherwise, value)


def _refuse(code: int) -> bytes:
    return _do(_RETURN, _ERROR | code)


def _for(number: int, steps: list[bytes]) -> list[bytes]:
    """Steps that decide on one call by its arguments; what they let through is allowed."""
    return [_if(_EQUAL, number, 0, len(steps) + 1), *steps, _do(_RETURN, _ALLOW)]
