"""Importing in the background what the later steps of a run need, while children work."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence

from edgepack_assets.model_types.figures import new_figure, png
from edgepack_assets.tasks.pages.compiled_templates import load_templates

_threads: list[threading.Thread] = []


def start(modules: Sequence[str]) -> None:
    """Begin to import `modules`, what draws pictures and what writes pages, a second of importing, unless that was
    done."""
    if not _threads:
        # No daemon: a process that ends while a library of C++ is imported is aborted, even if its run succeeded.
        thread = threading.Thread(target=_load, args=[modules], name="import ahead")
        _threads.append(thread)
        thread.start()


def finish() -> None:
    """Wait until it is done: two threads in the imports of one library may see half of it."""
    for thread in _threads:
        thread.join()


def _load(modules: Sequence[str]) -> None:
    for module in modules:
        importlib.import_module(module)
    figure = new_figure(1, 1)
    figure.add_subplot()
    png(figure)  # much of matplotlib is imported, and its fonts are looked up, by the first figure
    load_templates()
