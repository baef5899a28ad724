"""Runs a command that ends, with all that it started, when the process that wants its answer ends.

A resolver that asks an index may take an hour; nobody waits for it after a run was killed. Started as
`python -I -S exit_with_parent.py COMMAND...`, as the leader of a process group; standard library only. Its standard
input is a pipe that the host holds open and never writes to.
"""

import os
import select
import signal
import sys
from typing import NoReturn


def main(command: "list[str]") -> NoReturn:
    """Run the command and end as it ended."""
    host = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    # What this interpreter ignores (SIGPIPE, SIGXFSZ), and what whoever started it ignores or blocks, the command would
    # too: Dagster gives SIGTERM the handling of SIGINT, which a shell has ignored by what it starts in the background.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    defaults = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    pid = os.posix_spawn(command[0], command, os.environ, setsigdef=defaults)
    ended = os.pidfd_open(pid)
    events = select.poll()
    events.register(ended, select.POLLIN)
    events.register(host, 0)  # only its closing
    if ended not in dict(events.poll()):
        os.killpg(0, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
