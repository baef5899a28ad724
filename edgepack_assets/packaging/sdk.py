"""Importing simaticai without its side effects.

It needs a telemetry decision before it saves anything (ours is "deny" unless the user chose), and on import
it replaces the root logger's handlers, which would cut Dagster's logs off.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_IMPORTING = threading.Lock()


@contextmanager
def quiet_import() -> Iterator[None]:
    """Import simaticai inside this block."""
    os.environ.setdefault("SIMATICAI_TELEMETRY", "deny")
    with _IMPORTING:
        root = logging.getLogger()
        handlers, level = list(root.handlers), root.level
        # The grammar that it compiles makes so many objects that the garbage collector, which finds nothing in them,
        # takes two of the two and a half seconds.
        collects = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collects:
                gc.enable()
            root.handlers[:] = handlers
            root.setLevel(level)
            logging.getLogger("simaticai").setLevel(logging.WARNING)


def import_sdk() -> None:
    """Import what the packaging uses of it: half a second, the first time in a process."""
    with quiet_import():
        import simaticai.deploy.pipeline
        import simaticai.deployment  # noqa: F401 - the functions that use it find it loaded
