"""Pictures that a process draws before the steps that show them come to it.

The process is a fork of this one, which has imported all that draws. It takes what it draws from files, hands over PNG
bytes, and ends. Whatever goes wrong there is none of the run's: the step that needs the picture draws it itself.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import signal
import struct
import tempfile
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgepack_assets.filesystem.atomic_files import disk_errors
from edgepack_assets.tasks.ahead.work_beside import end_with

LONGEST = 60.0
"""Seconds that a step waits for a picture before it draws it itself."""
_LENGTH = struct.Struct("<q")
_NO_PICTURE = -1

Draw = Callable[[], bytes | None]


@dataclass(frozen=True)
class Picture:
    """PNG bytes, or that there is nothing to draw."""

    png: bytes | None


class DrawnAhead:
    """At most one process, which draws pictures one after the other."""

    def __init__(self) -> None:
        self._process: int | None = None
        self._told: IO[bytes] | None = None
        self._pictures: IO[bytes] | None = None
        self._read = 0
        self._inputs: list[Hashable] = []
        self._drawn: dict[Hashable, Picture] = {}

    def start(self, pictures: Sequence[tuple[Hashable, Draw]]) -> None:
        """Begin to draw. Each picture comes with all that decides about it. No other thread may import or draw
        meanwhile. Raises EdgepackError if there is no room for them or no process."""
        self.close()
        parent = os.getpid()
        with disk_errors(Path(tempfile.gettempdir())):
            self._pictures = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by `close`
            reader, writer = os.pipe()
            self._told = os.fdopen(reader, "rb", buffering=0)
            try:
                self._process = os.fork()
                if self._process == 0:
                    _draw([draw for _, draw in pictures], self._pictures.fileno(), writer, parent)
            finally:
                os.close(writer)
        self._inputs, self._read = [inputs for inputs, _ in pictures], 0

    def take(self, inputs: Hashable) -> Picture | None:
        """The picture of just these inputs; waits for it. None if it is not drawn there. It may be taken once."""
        until = time.monotonic() + LONGEST
        while inputs in self._inputs:
            length = self._next_length(until)
            if length is None:
                self.close()
                return None
            self._drawn[self._inputs.pop(0)] = Picture(None if length == _NO_PICTURE else self._next(length))
        return self._drawn.pop(inputs, None)

    def _next(self, length: int) -> bytes:
        assert self._pictures is not None
        # The other process writes at the position that both share.
        png = os.pread(self._pictures.fileno(), length, self._read)
        self._read += length
        return png

    def _next_length(self, until: float) -> int | None:
        """Bytes of the next picture; None if there is none."""
        assert self._told is not None
        if not select.select([self._told], [], [], max(0.0, until - time.monotonic()))[0]:
            return None
        data = self._told.read(_LENGTH.size)
        length: int | None = _LENGTH.unpack(data)[0] if len(data) == _LENGTH.size else None
        return length

    def close(self) -> None:
        """End the process, if it still draws."""
        process, self._process = self._process, None
        if process is not None:
            os.kill(process, signal.SIGKILL)  # it is not waited for yet, so its number is no other process's
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, 0)
        for file in (self._told, self._pictures):
            if file is not None:
                file.close()
        self._told = self._pictures = None
        self._inputs, self._drawn = [], {}


def _draw(pictures: Sequence[Draw], target: int, told: int, parent: int) -> None:
    """What the forked process does: it never returns. It touches nothing that it has from the run: no log, whose
    records go into Dagster's database, no connection and no lock."""
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        if not end_with(parent):
            return
        logging.disable(logging.CRITICAL)
        gc.disable()
        _close_all_but({0, 1, 2, target, told})
        for draw in pictures:
            png = draw()
            _write(target, png or b"")
            _write(told, _LENGTH.pack(_NO_PICTURE if png is None else len(png)))
        status = 0
    finally:
        os._exit(status)


def _close_all_but(kept: set[int]) -> None:
    """Files, pipes and locks of the run: whoever waits for the end of one must not wait for this process."""
    last = 2
    for number in sorted(kept - {0, 1, 2}):
        os.closerange(last + 1, number)
        last = number
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))


def _write(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]
