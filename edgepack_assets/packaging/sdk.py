"""Importing simaticai without its side effects.

It needs a telemetry decision before it saves anything (ours is "deny" unless the user chose), and on import
it replaces the root logger's handlers, which would cut Dagster's logs off.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from types import ModuleType
from typing import Any

_IMPORTING = threading.Lock()


@contextmanager
def quiet_import() -> Iterator[None]:
    """Import simaticai inside this block."""
    os.environ.setdefault("SIMATICAI_TELEMETRY", "deny")
    with _IMPORTING:
        root = logging.getLogger()
        handlers, level = list(root.handlers), root.level
        try:
            with _no_garbage(), _without_slow_libraries():
                _compile_grammar_when_needed()
                yield
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            logging.getLogger("simaticai").setLevel(logging.WARNING)


@contextmanager
def _no_garbage() -> Iterator[None]:
    """What is imported or compiled inside this block makes so many objects that the garbage collector, which finds
    nothing in them, would take longer."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def import_sdk() -> None:
    """Import what the packaging uses of it: a tenth of a second, the first time in a process."""
    with quiet_import():
        import simaticai.deploy.pipeline
        import simaticai.deployment  # noqa: F401 - the functions that use it find it loaded


_LATER = ("onnx", "requests")
"""Libraries that take half of the SDK's import. A package that is built from a lock needs neither: requests talks to an
index, and of onnx, which brings numpy, only a GPU component needs more than the message types."""


class _StandIn(ModuleType):
    """Stands in for a library while the SDK is imported. What is looked up in it is the library's own, which is
    imported then."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # of a module, as import looks for them
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _without_slow_libraries() -> Iterator[None]:
    """Import the SDK with stand-ins for `_LATER`, unless they or the SDK are imported already."""
    missing = [name for name in _LATER if name not in sys.modules]
    specs = {name: importlib.util.find_spec(name) for name in missing if "simaticai.deployment" not in sys.modules}
    later = {name: _StandIn(name) for name, spec in specs.items() if spec is not None}
    sys.modules.update(later)
    try:
        if "onnx" in later:
            _give_message_types(later["onnx"], specs["onnx"])
        yield
    finally:
        for name, module in later.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _give_message_types(onnx: ModuleType, spec: Any) -> None:
    """What the SDK takes from onnx when it is imported: the types, and a function that it calls for a GPU component."""
    onnx.__path__ = spec.submodule_search_locations
    types = importlib.import_module("onnx.onnx_ml_pb2")
    del sys.modules[types.__name__]  # onnx imports it again, and gets the same types

    def load(*arguments: Any, **options: Any) -> Any:
        return importlib.import_module("onnx").load(*arguments, **options)

    vars(onnx).update(TensorProto=types.TensorProto, load=load)


_PARSER = "simaticai.helpers.pep508"
_PIN = re.compile(r"([a-zA-Z0-9](?:[-_.a-zA-Z0-9]*[a-zA-Z0-9])?)==([-_.*+!a-zA-Z0-9]+)")
"""A line of a lock, as the SDK's grammar of requirements reads it: a name and one version."""


def _compile_grammar_when_needed() -> None:
    """Have the SDK compile its grammar of requirements, half of the time of its import, when it meets one that is no
    pin. A lock, which is all that it reads here, holds pins alone."""
    if _PARSER in sys.modules:
        return
    import parsley  # type: ignore[import-untyped]  # what the SDK's grammar is written for; it has no types

    compile_grammar = parsley.makeGrammar
    parsley.makeGrammar = partial(_when_needed, compile_grammar)
    try:
        from simaticai.helpers import pep508
    finally:
        parsley.makeGrammar = compile_grammar
    parse_any = pep508.parse_line

    def parse_line(line: str) -> Any:
        pin = _PIN.fullmatch(line)
        return pep508.Spec(pin[1], [], [("==", pin[2])], None) if pin else parse_any(line)

    pep508.parse_line = parse_line


def _when_needed(compile_grammar: Callable[..., Any], *grammar: Any, **options: Any) -> Callable[[str], Any]:
    """A parser whose grammar is compiled when it first gets something to parse."""

    @cache
    def compiled() -> Any:
        with _no_garbage():
            return compile_grammar(*grammar, **options)

    def parse(text: str) -> Any:
        return compiled()(text)

    return parse
