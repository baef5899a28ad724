"""Runs a command, and kills it with all that it started when the parent process ends.

A resolver may ask an index for an hour. Without this it would go on after its run was killed. Started as
`python -I -S exit_with_parent.py COMMAND...`, as the leader of a process group; standard library only. Its standard
input is a pipe that the parent holds open and never writes to: the pipe closes when the parent ends.
"""

import os
import select
import signal
import sys
from typing import NoReturn


def main(command: "list[str]") -> NoReturn:
    """Run the command and exit with its exit code, or by its signal."""
    parent = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    # The command would inherit the signals that this interpreter ignores (SIGPIPE, SIGXFSZ) and those that its parent
    # ignores or blocks. Dagster handles SIGTERM like SIGINT, and a shell's background processes ignore SIGINT.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    defaults = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    pid = os.posix_spawn(command[0], command, os.environ, setsigdef=defaults)
    ended = os.pidfd_open(pid)
    events = select.poll()
    events.register(ended, select.POLLIN)
    events.register(parent, 0)  # no data, only the closing of the pipe
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
