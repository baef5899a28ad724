"""The process that has loaded the definitions, and forks those that make runs.

The daemon starts it with one end of a pair of sockets (start.py). For each connection that comes over it, it forks a
process that serves it. It opens no database and starts no thread before a fork: SQLite's locks and threads do not
survive one. It ends when the daemon does, when code or configuration have changed, when memory is short, or after
`IDLE` seconds without a fork.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack_assets.defs.lean_dagster import import_lean
from edgepack_assets.defs.run_processes.loaded_code import LOOKS, LoadedCode
from edgepack_assets.defs.run_processes.memory import memory_is_short
from edgepack_assets.defs.run_processes.messages import FORK, LOADED, PID_BYTES

if TYPE_CHECKING:
    from dagster._core.instance.ref import InstanceRef
    from dagster._core.origin import RepositoryPythonOrigin

IDLE = 600.0
_FIRST_TO_END = 300
"""Of 1000: how much sooner than the daemon these end when memory runs out. A run is made again, and what a model does
ends first (sandbox/isolation.py)."""


def main(descriptor: int, began: int, origin_text: str, ref_text: str, location: str) -> None:
    """Load the repository of `origin_text`, and fork until there is no more need. `began`: when this process was
    started, in nanoseconds since 1970."""
    import_lean()
    from dagster._core.instance import DagsterInstance
    from dagster._core.instance.ref import InstanceRef
    from dagster._core.origin import RepositoryPythonOrigin
    from dagster._serdes import deserialize_value

    _end_before_the_daemon()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C of the terminal ends the daemon, and that ends this
    origin, ref = deserialize_value(origin_text, RepositoryPythonOrigin), deserialize_value(ref_text, InstanceRef)
    code = LoadedCode(began, [Path(".env").absolute()])
    with DagsterInstance.from_ref(ref) as instance:
        instance.inject_env_vars(location)
    from edgepack_assets.config.loader import find_config

    code.note([find_config()])
    _load(origin)
    code.note()
    gc.freeze()
    with socket.socket(fileno=descriptor) as daemon:
        daemon.sendall(LOADED)
        last = time.monotonic()
        while True:
            _let_go_of_ended()
            if not select.select([daemon], [], [], LOOKS)[0]:
                if time.monotonic() - last > IDLE or memory_is_short() or code.has_changed():
                    return
                continue
            message, descriptors, _, _ = socket.recv_fds(daemon, len(FORK), 1)
            if message != FORK or code.has_changed():  # nothing: the daemon is gone
                return
            _fork(descriptors[0], daemon, ref, code)
            last = time.monotonic()


def _load(origin: RepositoryPythonOrigin) -> None:
    from dagster._utils.hosted_user_process import recon_repository_from_origin

    recon_repository_from_origin(origin).get_definition()
    # What every run imports, which starts no thread and opens no file.
    import edgepack_assets.defs.run_processes.serve  # noqa: F401


def _end_before_the_daemon(file: Path = Path("/proc/self/oom_score_adj")) -> None:
    with contextlib.suppress(OSError):  # it is no condition for a run
        file.write_text(str(max(_FIRST_TO_END, int(file.read_text()))))


def _let_go_of_ended() -> None:
    """Each stays in the system's list until its end is asked for."""
    with contextlib.suppress(ChildProcessError):  # there is none
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _fork(descriptor: int, daemon: socket.socket, ref: InstanceRef, code: LoadedCode) -> None:
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        raise SystemExit(f"{threads} threads run after the definitions were loaded: this process cannot be forked")
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork() != 0:
        os.close(descriptor)
        return
    daemon.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from edgepack_assets.defs.run_processes.serve import serve

    with Connection(descriptor) as connection:
        os.write(descriptor, os.getpid().to_bytes(PID_BYTES, "big"))
        serve(connection, ref, code)
    raise SystemExit


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:6])
