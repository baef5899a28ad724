"""Which Python and which scikit-learn wrote a pickle, as far as its bytes tell. Standard library only.

A job for a child, in the environment that failed to load the pickle: `origin` reads it without loading it. Whatever the
pickle names is replaced by a class that does nothing, so none of its code runs; cloudpickle's code objects are looked
at, and the bytecode of this very Python is distinguished from others.
"""

import contextlib
import io
import opcode
import pickle
import re
from pathlib import Path
from typing import Any

_ARGUMENTS_BEFORE_3_11, _ARGUMENTS_SINCE_3_11 = 16, 18
"""Of types.CodeType: 3.8 to 3.10; since 3.11 with a qualified name and a table of exceptions."""
_BYTECODE = 6
_BEFORE_RESUME = {"COPY_FREE_VARS", "MAKE_CELL", "RETURN_GENERATOR", "POP_TOP", "CACHE"}
_VERSION = re.compile(
    rb"_sklearn_version(?:(?:\x94|q.|r.{4})?(?:\x8c(.)|X(.)\0\0\0)|\n(?:p[0-9]+\n)?V)([0-9][0-9A-Za-z.]{2,19})",
    re.DOTALL,
)
"""scikit-learn's own note in an estimator's state: the key, memoized or not; the value's length and text. Protocol 0
has lines in place of lengths."""


def origin(arguments: "dict[str, Any]") -> "dict[str, Any]":
    """{"bytecode": "none", "this" (of the Python that runs here), "older" (than 3.11) or "other",
    "scikit_learn": version or None} for the pickle at `file`."""
    data = Path(arguments["file"]).read_bytes()
    reader = _Reader(data)
    match = _VERSION.search(data)
    length = match[1] or match[2] if match else None
    version = match[3][: ord(length) if length else None].decode("ascii") if match else None
    return {"bytecode": reader.bytecode(), "scikit_learn": version}


class _Nothing:
    """Stands for whatever a pickle names or makes, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> "Any":
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> "_Nothing":
        return _Nothing()

    def __setitem__(self, *_: Any) -> None:
        pass

    def append(self, *_: Any) -> None:
        """As a list's."""

    extend = add = __setstate__ = append


def _as_bytes(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")


class _Reader(pickle.Unpickler):
    """Reads a pickle and keeps the arguments of its code objects."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        calls: list[tuple[Any, ...]] = []
        self.calls = calls

        class Code(_Nothing):
            def __new__(cls, *arguments: Any) -> "Any":
                calls.append(arguments)
                return object.__new__(cls)

        class BuiltinType(_Nothing):
            def __new__(cls, *arguments: Any) -> "Any":
                return Code if arguments == ("CodeType",) else _Nothing()

        self._code, self._builtin_type = Code, BuiltinType

    def find_class(self, module: str, name: str) -> "Any":
        """A class that does nothing. What was named is neither imported nor looked up."""
        if (module, name) == ("_codecs", "encode"):  # how protocols 0 to 2 write bytes
            return _as_bytes
        if name == "CodeType":
            return self._code
        return self._builtin_type if name == "_builtin_type" else type("Nothing", (_Nothing,), {})

    def persistent_load(self, _: Any) -> "Any":
        """As for any other object."""
        return _Nothing()

    def bytecode(self) -> str:
        """Whose bytecode the pickle holds; as far as it can be read, joblib's own format has other bytes in between."""
        with contextlib.suppress(Exception):  # a damaged pickle raises anything; what came before it tells enough
            self.load()
        lengths = {len(arguments) for arguments in self.calls}
        if _ARGUMENTS_BEFORE_3_11 in lengths:
            return "older"
        since = [arguments[_BYTECODE] for arguments in self.calls if len(arguments) == _ARGUMENTS_SINCE_3_11]
        codes = [code for code in since if isinstance(code, bytes)]
        if not codes:
            return "none"
        return "this" if all(map(is_of_this_python, codes)) else "other"


def is_of_this_python(code: bytes) -> bool:
    """Whether this Python could have written the bytecode of a function: each instruction is one that it knows, its
    inline caches are empty, and it begins as all functions do."""
    caches: Any = opcode._inline_cache_entries  # type: ignore[attr-defined]
    names = []
    at = 0
    while at < len(code):
        name = opcode.opname[code[at]]
        entries = caches.get(name, 0) if isinstance(caches, dict) else caches[code[at]]
        at += 2 + 2 * entries
        if name.startswith("<") or at > len(code) or any(code[at - 2 * entries : at]):
            return False
        names.append(name)
    return "RESUME" in names and set(names[: names.index("RESUME")]) <= _BEFORE_RESUME
