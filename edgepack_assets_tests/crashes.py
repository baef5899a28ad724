"""Real crashes and real disk errors, for tests of what must survive them."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from typing import Any

_CALLS = ("fchmod", "fsync", "link", "mkdir", "open", "rename", "replace", "sendfile", "unlink", "utime")
"""Every call of `os` through which a file or folder changes."""


def killed_at_each_step(action: Callable[[int], object]) -> Iterator[int]:
    """Run `action(step)` in a child that is killed (SIGKILL, so no clean-up runs) right before its first such
    call, then in one killed before its second, and so on; yields after each death, until one ends well."""
    for step in itertools.count(1):
        child = os.fork()
        if child == 0:
            try:
                _kill_before_call(step)
                action(step)
            except BaseException:  # noqa: BLE001 (a forked child must not return to pytest)
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "the child failed; its traceback is on stderr"
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
        yield step


def _kill_before_call(step: int) -> None:
    calls = itertools.count(1)

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return run

    for name in _CALLS:
        setattr(os, name, deadly(getattr(os, name)))


@contextlib.contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Files cannot grow beyond `room` bytes: the write that would do so fails in the operating system."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
