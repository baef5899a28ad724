"""What runs of components give: the results that a child left, checked line by line; times and latency; and the parts
of a run of several components put together.
"""

from __future__ import annotations

import gzip
import math
import os
import shutil
import tempfile
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack_assets.errors import ComponentError
from edgepack_assets.filesystem.atomic_files import disk_errors
from edgepack_assets.sandbox import child_main
from edgepack_assets.sandbox.child_main import RecordError, result_line
from edgepack_assets.sandbox.child_output import printable
from edgepack_assets.sandbox.untrusted_files import open_output
from edgepack_assets.sandbox.value_types import Tensor, from_json

if TYPE_CHECKING:
    import numpy as np

_RESULTS_LIMIT = 16 * 1000**3
_LONGEST_LINE = 16 << 20
_LONGEST_TENSORS = 256 << 20
"""Characters of a line, and of one with arrays, whose bytes are three quarters of it: 300 pictures of 224x224."""
_GZIP_OVERHEAD = 1 << 16
_FIRST_PART, _PART_SIZE = 16, 256 << 20
"""Of a payload that several components run over: the records of the first part; for the further ones so many that what
the components give each other has about that many bytes."""


@dataclass(frozen=True)
class PackageRun:
    """What a run gave: files of results and per-record seconds, counts, latency (seconds: p50, p95, p99, max, sum), and
    the numbers of the records that were answered. Of several components seconds are those of all together, and
    `components` has the latency of each."""

    results: Path
    times: Path
    records: int
    answered: int
    latency: dict[str, float]
    answers: Sequence[int] = ()
    components: Mapping[str, dict[str, float]] = field(default_factory=dict)

    def seconds(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The time of each record, in order."""
        import numpy as np

        return np.fromfile(self.times, dtype=np.float64)


@dataclass(frozen=True)
class ComponentRun:
    """What the run of one component gave."""

    results: Path
    times: Path
    records: int
    answers: Sequence[int]

    @property
    def seconds(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The time of each record, in order."""
        import numpy as np

        return np.fromfile(self.times, dtype=np.float64)


def p99(seconds: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """The time that 99 % of the records do not exceed. The slowest record of several never decides alone: on a machine
    that also does other work, one record may take any time."""
    if not len(seconds):
        return 0.0
    allowed = allowed_late(len(seconds))
    import numpy as np

    return float(np.partition(seconds, len(seconds) - 1 - allowed)[len(seconds) - 1 - allowed])


def allowed_late(records: int) -> int:
    """How many of so many records may be late: 1 %, or one of several."""
    return max(records // 100, 1 if records > 1 else 0)


def latency_of(seconds: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    """Seconds per record: median, 95th and 99th percentile, largest; and their sum."""
    if not len(seconds):
        return dict.fromkeys(("p50", "p95", "max", "sum", "p99"), 0.0)
    import numpy as np

    ordered = np.sort(seconds)

    def at(share: float) -> float:
        return float(ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)])

    return {
        "p50": at(0.5), "p95": at(0.95), "max": float(ordered[-1]), "sum": math.fsum(ordered), "p99": p99(seconds),
    }  # fmt: skip


def check_results(
    subject: str, results: Path, records: int, outputs: dict[str, str], tensors: bool = False
) -> array[int]:
    """The records that were answered, if there is one line for each, in order, with what the component declares:
    whatever ran in the child may have written another one. `tensors`: as in `result_line`."""
    lines, characters, answered = 0, 0, array("Q")
    longest, tensor = (_LONGEST_TENSORS, _as_the_child_s) if tensors else (_LONGEST_LINE, None)
    try:
        with open_output(results, _RESULTS_LIMIT, subject) as stream, gzip.open(stream) as unpacked:
            while line := unpacked.readline(longest):
                if lines == records:
                    raise ValueError(f"they are not one line for each of {records} records")
                if line != b'{"record": %d, "outputs": null}\n' % lines:
                    answered.append(lines)
                    entry = from_json(line, tensor)
                    if line != result_line(entry["outputs"], outputs, lines, tensors):
                        raise ValueError(f"line {lines} is no answer to record {lines}")
                lines += 1
                characters += len(line)
            # gzip passes over zeros at the end, and empty members: a sparse file would be stored in full
            if os.fstat(stream.fileno()).st_size > characters + characters // 8 + _GZIP_OVERHEAD:
                raise ValueError("the file is larger than what it holds")
    except RecordError as error:
        raise ComponentError(f"{subject} left a false answer to record {lines}: {printable(str(error))}") from None
    except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ComponentError(f"{subject} left results that cannot be read: {printable(str(error))}") from None
    if lines != records:
        raise ComponentError(f"{subject} left results that are not one line for each of {records} records")
    return answered


def _as_the_child_s(tensor: Tensor) -> object:
    """The array as `result_line` knows it: child_main.py has loaded value_types.py by its path, as in the child."""
    return child_main.value_types.Tensor(tensor.dtype, tensor.shape, tensor.data)


class SeveralRuns:
    """Puts the runs of several components together, part by part of the payload. `folder` takes the files."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder = folder
        self._names = names
        self._answers = array("Q")
        self._seconds: list[list[np.ndarray[Any, np.dtype[np.float64]]]] = [[] for _ in names]
        self._largest = 0
        self.records = 0
        with disk_errors(self._results):
            self._write(self._results, [])

    @property
    def _results(self) -> Path:
        return self._folder / "results.jsonl.gz"

    @property
    def answered(self) -> int:
        """Records that the last component answered so far."""
        return len(self._answers)

    def parts(self, records: Path) -> Iterator[tuple[Path, int]]:
        """Files with the next records of a payload, and how many. Each is gone when the next one comes."""
        with gzip.open(records) as lines:
            size = _FIRST_PART
            while taken := list(islice(lines, size)):
                folder = Path(tempfile.mkdtemp(prefix="part-", dir=self._folder))
                part = folder / "records.jsonl.gz"
                with disk_errors(part):
                    self._write(part, taken)
                yield part, len(taken)
                shutil.rmtree(folder)
                size = max(1, min(_PART_SIZE // max(1, self._largest), 100_000))

    def saw(self, run: ComponentRun) -> None:
        """Take note of how large an answer of a component is."""
        self._largest = max(self._largest, run.results.stat().st_size // max(1, run.records))

    def add(self, ran: Sequence[ComponentRun]) -> None:
        """The runs of all components over one part."""
        last = ran[-1]
        with gzip.open(last.results) as lines, disk_errors(self._results):
            self._write(self._results, (_numbered(line, self.records) for line in lines), "ab")
        self._answers.extend(self.records + number for number in last.answers)
        for seconds, run in zip(self._seconds, ran, strict=True):
            seconds.append(run.seconds)
        self.records += last.records

    def finished(self) -> PackageRun:
        """All of it."""
        import numpy as np

        seconds = [np.concatenate([np.zeros(0), *parts]) for parts in self._seconds]
        together = np.sum(seconds, axis=0)
        times = self._folder / "times.f64"
        with disk_errors(times):
            together.tofile(times)
        latency = {name: latency_of(each) for name, each in zip(self._names, seconds, strict=True)}
        return PackageRun(
            self._results, times, self.records, self.answered, latency_of(together), self._answers, latency
        )

    @staticmethod
    def _write(path: Path, lines: Iterator[bytes] | list[bytes], mode: str = "wb") -> None:
        with (
            path.open(mode) as file,
            gzip.GzipFile(filename="", mode="wb", compresslevel=1, mtime=0, fileobj=file) as stream,
        ):
            stream.writelines(lines)


def _numbered(line: bytes, first: int) -> bytes:
    """A line of results of a part, with the record's number in the whole payload."""
    start, _, rest = line.partition(b", ")
    return b'{"record": %d, %b' % (int(start.rpartition(b" ")[2]) + first, rest)
