"""Importing in the background what the later steps of a run need, while children work."""

from __future__ import annotations

import importlib
import threading

_MODULES = ("matplotlib.backends.backend_agg", "sklearn.metrics")
"""A second and a half of importing."""

_threads: list[threading.Thread] = []


def start() -> None:
    """Begin, unless that was done."""
    if not _threads:
        thread = threading.Thread(target=_load, name="import ahead", daemon=True)
        _threads.append(thread)
        thread.start()


def finish() -> None:
    """Wait until it is done: two threads in the imports of one library may see half of it."""
    for thread in _threads:
        thread.join()


def _load() -> None:
    for module in _MODULES:
        importlib.import_module(module)
