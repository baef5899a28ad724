"""Importing simaticai without its side effects.

It needs a telemetry decision before it saves anything (ours is "deny" unless the user chose), and on import
it replaces the root logger's handlers, which would cut Dagster's logs off.
"""

from __future__ import annotations

import importlib
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
        try:
            yield
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            logging.getLogger("simaticai").setLevel(logging.WARNING)


def import_ahead(*modules: str) -> threading.Thread:
    """Import the runner, with it simaticai, and then `modules` in the background.

    simaticai takes about two seconds (it compiles a grammar), plotting and scikit-learn another one and a half, best
    spent while children work. Whoever needs one of them meanwhile waits on Python's own import lock."""

    def load() -> None:
        for module in ("edgepack_assets.runtime.runner", *modules):
            importlib.import_module(module)

    thread = threading.Thread(target=load, name="import ahead", daemon=True)
    thread.start()
    return thread
