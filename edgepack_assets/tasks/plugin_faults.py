"""Failures in the sandbox that are the model type's own, not the model's: they name the plug-in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgepack_assets.errors import ComponentError
from edgepack_assets.model_types import Plugin
from edgepack_assets.sandbox.child_main import PluginFileError, RecordError
from edgepack_assets.sandbox.sandbox import TaskFailedError


@contextmanager
def naming_plugin(plugin: Plugin, code: str = "") -> Iterator[None]:
    """Raise a ComponentError that names the plug-in, if a file of it lacks what it must define, or if a record or an
    answer is not as its `component_spec` declares; also if `code` of it raised, the words for what ran and what was
    wanted of it. Without these words such an error is left to the caller. A refusal in words for the user passes."""
    try:
        yield
    except TaskFailedError as error:
        if error.failure.type == PluginFileError.__name__:
            raise ComponentError(f"{plugin}: {error.failure.message}") from None
        if error.failure.type == RecordError.__name__:
            raise ComponentError(
                f"{plugin}: its component_spec declares something else than its write_payload writes or its component "
                f"answers: {error}"
            ) from None
        if code and not error.failure.for_user:
            raise ComponentError(f"{plugin}: {code}; it raised {error.failure.type}: {error}") from None
        raise
