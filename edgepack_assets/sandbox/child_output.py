"""What a child process prints, on its way to the log: as text, bounded, its end kept for errors."""

from __future__ import annotations

import codecs
import re
import time
from pathlib import Path
from typing import Any

from edgepack_assets.text_format import shortened

_OUTPUT_LIMIT = 256 << 10
"""Bytes of a child's output that reach the log."""
_TAIL = 16 << 10
_TAIL_LINES = 50
_LOG_EVERY = 1.0
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""Control characters, those that nobody sees or that turn a line's direction round, and halves of characters."""
_MARGIN = "\n| "
_PROGRESS = " a second"
"""What every line of sandbox/progress.py holds."""
_LONGEST_NEWS = 120


class ChildOutput:
    """What a child prints: written to the log about once a second, up to a limit; its end is kept for errors."""

    def __init__(self, subject: str, log: Any, folder: Path) -> None:
        """`folder` is where the child works."""
        self._subject = subject
        self._folder = folder
        self._log = log
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._pending = ""
        self._taken = self._dropped = 0
        self._tail = b""
        self._logged = time.monotonic()

    def add(self, chunk: bytes) -> None:
        """Take what was read."""
        self._tail = (self._tail + chunk)[-_TAIL:]
        kept = chunk[: max(0, _OUTPUT_LIMIT - self._taken)]
        self._taken += len(kept)
        self._dropped += len(chunk) - len(kept)
        self._pending += self._decoder.decode(kept)

    def log_lines(self, everything: bool = False) -> None:
        """Log the lines that have come, if it is time; `everything` at the end, with what was not printed."""
        if not everything and time.monotonic() - self._logged < _LOG_EVERY:
            return
        self._logged = time.monotonic()
        lines, _, self._pending = (self._pending, "", "") if everything else self._pending.rpartition("\n")
        if lines.strip():
            self._log.info(f"{self._subject}: {quoted(without_folder(lines, self._folder))}")
        if everything and self._dropped:
            self._log.warning(f"{self._subject}: {self._dropped} further bytes of output were dropped")

    def last_words(self) -> str:
        """The end of the output, for an error message."""
        text = without_folder(self._tail.decode("utf-8", errors="replace"), self._folder)
        lines = printable(text).splitlines()[-_TAIL_LINES:]
        return f"; its last output:{_MARGIN}{_MARGIN.join(lines)}" if lines else "; it printed nothing"


def without_folder(text: str, folder: Path) -> str:
    """`text` without the work folder of a child and what is above a job's files in it: it is gone when the text is
    read. `<folder>/3/in/folder/component/inference.py` becomes `component/inference.py`."""
    return re.sub(rf"{re.escape(str(folder))}(?:/[0-9]+(?:/(?:in/\w+|out))?)?(?:/|(?![\w.-]))", "", text)


def printable(text: str) -> str:
    """Without what would move a terminal's cursor, is not what it looks like, or cannot be stored."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n").replace("\r", "\n"))


def quoted(text: str) -> str:
    """Printable lines, of which none but the first begins where lines of the log do: else a model could write some."""
    return printable(text).strip().replace("\n", _MARGIN)


def newest_line(text: str) -> str:
    """What a message of the log tells about how far the work is, as one printable line: its last line of progress, or
    its last line; empty if there is none."""
    lines = [line.removeprefix(_MARGIN[1:]).strip() for line in printable(text).splitlines()]
    chosen = [line for line in lines if _PROGRESS in line] or list(filter(None, lines))
    line = chosen[-1].replace("\t", " ") if chosen else ""
    return shortened(line, _LONGEST_NEWS)
