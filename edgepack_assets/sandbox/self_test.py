"""Which protections hold on this machine: each is tested with code that tries to break it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgepack_assets.checks import CheckRow
from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments.environment import Environment
from edgepack_assets.environments.lock import Lock
from edgepack_assets.environments.wheels import PLATFORM
from edgepack_assets.errors import ComponentError
from edgepack_assets.filesystem.temp_folders import scratch_folder
from edgepack_assets.sandbox.isolation import Backend
from edgepack_assets.sandbox.jobs import CallJob
from edgepack_assets.sandbox.resource_usage import process_ids
from edgepack_assets.sandbox.sandbox import Sandbox

_ATTEMPTS = Path(__file__).with_name("escape_attempts.py")
_LIMITS = {"time_limit": 60.0, "memory_limit": 0.25, "disk_limit": 0.05, "isolation": "best_effort"}
_SHORT = {**_LIMITS, "time_limit": 1.0}
_TOO_MUCH = 384 << 20
"""Bytes, beyond both limits."""
_ENFORCED, _SAMPLED = "enforced by the kernel", "sampled twice a second: the code was ended"
_BY_KERNEL = "was stopped by the kernel: it took more than"
_NOTICED = ("was stopped: it took more than", "was stopped: it wrote more than")
_BY_LIMIT = {
    "memory_limit": {
        "allocate": "memory of one process",
        "allocate_in_parts": "memory of many processes",
        "allocate_without_first_thread": "memory of processes without their first thread",
        "map_file_in_memory": "a file in memory behind one mapped page",
        "map_without_file": "shared memory behind one mapped page",
        "map_device": "shared memory of a device behind one mapped page",
        "send_memory": "a file in memory on its way through a socket",
        "fill_sockets": "what sockets hold",
    },
    "disk_limit": {
        "fill": "one file",
        "fill_in_parts": "many files",
        "keep_removed_open": "removed files that are open",
        "keep_removed_mapped": "removed files behind one mapped page",
        "send_removed": "removed files on their way through a socket",
    },
}
"""What code can take beyond a limit, by the function in escape_attempts.py that tries it."""
_SEEN_ON_DISK_ALONE = {"keep_removed_mapped"}
"""What shows to an ordinary user only as space that is missing on the disk, which others free and fill meanwhile."""
_TRIES_ON_BUSY_DISK = 3


@dataclass(frozen=True)
class Tried:
    """The backend that isolates children, the protections that it does not give here, and a row for each protection."""

    backend: Backend
    missing: tuple[str, ...]
    rows: list[CheckRow]


def try_protections(settings: RuntimeSettings, backends: list[Backend] | None = None) -> Tried:
    """Try each protection and limit once, in about 10 s, with the first of `backends` that works."""
    with (
        _Bait() as bait,
        scratch_folder() as folder,
        Sandbox(settings.model_copy(update=_LIMITS), backends=backends) as sandbox,
        Sandbox(settings.model_copy(update=_SHORT), backends=[sandbox.isolation.backend]) as hurried,
    ):

        def attempt(name: str, using: Sandbox = sandbox, **arguments: Any) -> Any:
            job = CallJob(folder, _ATTEMPTS, name, arguments)
            try:
                return using.run(f"trying to {name}", _plain_python(), [], job)
            except ComponentError as error:
                return str(error).splitlines()[0]

        rows = [
            _row("another process's environment", attempt("read_environments", canary=bait.canary)),
            _row("files of this machine", attempt("read", path=str(bait.file))),
            _row("writing outside of the work folder", _written(bait, attempt("write", folder=str(bait.folder)))),
            _row("the network", attempt("connect", port=bait.port)),
            _row("the host of a virtual machine", attempt("reach_host")),
            _row("keys that the kernel holds for this user", attempt("read_keys", canary=bait.canary)),
            _row("system calls that namespaces do not isolate", attempt("call_kernel")),
            _row("being root", attempt("be_root")),
            _row("regaining rights", attempt("regain_rights", path=str(bait.file))),
            _row("changing the process that forks the jobs", attempt("change_child")),
            _row("outliving others when memory runs out", attempt("outlive_others")),
            *(
                _limit_on_busy_disk(f"runtime.{limit}: {taken}", partial(attempt, name, size=_TOO_MUCH))
                if name in _SEEN_ON_DISK_ALONE
                else _limit(f"runtime.{limit}: {taken}", attempt(name, size=_TOO_MUCH))
                for limit, each in _BY_LIMIT.items()
                for name, taken in each.items()
            ),
            _row("processes without end", attempt("fork", count=2000)),
            _row("outliving its job", _left(bait, attempt("leave_behind", marker=bait.marker))),
        ]
        outcome = attempt("hang", using=hurried)
        held = "ran longer than" in str(outcome)
        rows.append(CheckRow("time beyond runtime.time_limit", held, "ended" if held else str(outcome), "ended"))
        return Tried(sandbox.isolation.backend, sandbox.isolation.missing, rows)


def _row(name: str, got: object) -> CheckRow:
    """`got` is what the code gained: nothing, if the protection holds."""
    return CheckRow(name, got is None, "refused" if got is None else str(got), "refused")


def _limit(name: str, got: object) -> CheckRow:
    """As `_part`, of a limit: it also holds if the sandbox found too much and ended the code."""
    if got is None or _BY_KERNEL in str(got):
        return CheckRow(name, True, _ENFORCED, "enforced or sampled")
    is_sampled = any(words in str(got) for words in _NOTICED)
    return CheckRow(name, is_sampled, _SAMPLED if is_sampled else f"does not hold: {got}", "enforced or sampled")


def _limit_on_busy_disk(name: str, attempt: Callable[[], object]) -> CheckRow:
    """As `_limit`, tried again where it did not hold, as another program may just have freed as much."""
    row = _limit(name, attempt())
    for _ in range(_TRIES_ON_BUSY_DISK - 1):
        if row.passed:
            break
        row = _limit(name, attempt())
    return row


class _Bait:
    """Things on this machine that model code must not reach."""

    def __init__(self) -> None:
        self.canary = f"edgepack-canary-{uuid.uuid4().hex}"
        self.marker = f"600.{uuid.uuid4().int % 10**12:012}"

    def __enter__(self) -> _Bait:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="edgepack-bait-"))
            self.folder = Path(folder)
            self.folder.chmod(0o777)
            self.file = self.folder / "file"
            self.file.write_text(self.canary)
            self.file.chmod(0o644)
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            self.port = listener.getsockname()[1]
            _hold_key(self.canary, stack)
            other = subprocess.Popen(["sleep", "600"], env={"PATH": os.defpath, "CANARY": self.canary})
            stack.callback(other.wait)
            stack.callback(other.kill)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.left_behind():
            os.kill(pid, 9)
        self._stack.close()

    def left_behind(self) -> list[int]:
        """Processes that were started with the marker as an argument."""
        return [pid for pid, words in _command_lines() if self.marker.encode() in words]


def _hold_key(name: str, stack: contextlib.ExitStack) -> None:
    """Have the kernel hold a key for this session, as Kerberos does, where it holds any."""
    numbers = {"x86_64": (248, 250), "aarch64": (217, 219)}.get(os.uname().machine)
    if numbers is None:
        return
    add_key, keyctl = numbers
    session, revoke = -3, 3
    libc = ctypes.CDLL(None)
    key = libc.syscall(add_key, b"user", name.encode(), b"hush", 4, session)
    if key > 0:
        stack.callback(libc.syscall, keyctl, revoke, key)


def _command_lines() -> Iterator[tuple[int, list[bytes]]]:
    for pid in process_ids():
        with contextlib.suppress(OSError):
            yield pid, Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def _written(bait: _Bait, outcome: object) -> object:
    strange = sorted(path.name for path in bait.folder.iterdir() if path != bait.file)
    return f"it wrote {', '.join(strange)}" if strange else outcome


def _left(bait: _Bait, outcome: object) -> object:
    return "a process that it started runs on" if bait.left_behind() else outcome


def _plain_python() -> Environment:
    """The interpreter that this project runs on, without any package."""
    python = Path(getattr(sys, "_base_executable", sys.executable))
    lock = Lock(key="", python="", platform=PLATFORM, requirements=(), packages=())
    return Environment(Path(sys.base_prefix), python, lock, kept=True)
