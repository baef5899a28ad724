"""`edgepack package run` and `verify-run`: a registered package over a recording of the user's, or once more over the
payload that it was validated with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from edgepack_assets.errors import ComponentError, EdgepackError, NotFoundError
from edgepack_assets.model_types.interface import Payload, PayloadWriter, Results, read_lines
from edgepack_assets.packaging.contract import read_contract
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.base import RegisteredVersion
from edgepack_assets.sandbox.sandbox import TaskFailedError
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.final_run import equal
from edgepack_assets.tasks.packages.download import registered_zip
from edgepack_assets.tasks.payload_data import make_payload, open_payload, raw_data_of
from edgepack_assets.tasks.predecessor.answers import run_registered
from edgepack_assets.tasks.predecessor.find import Predecessor, recorded
from edgepack_assets.text_format import counted

_MOST_SHOWN = 5


@dataclass(frozen=True)
class RecordingAnswers:
    """What a package answered to a recording: `records` are those of the recording, `latency` is in seconds for a
    record."""

    results: Results
    payload: Payload
    records: int
    answered: int
    latency: dict[str, float]

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row for each answer: its record, the file if it came from one, and the outputs."""
        files = {source["record"]: source["file"] for source in read_lines(self.payload.sources)}
        has_files = any(file is not None for file in files.values())
        for answer in self.results.answers():
            file = {"file": files.get(answer.record) or ""} if has_files else {}
            yield {"record": answer.record, **file, **answer.outputs}


@contextmanager
def run_recording(
    key: ModelKey, package: RegisteredVersion, recording: Path, context: TaskContext
) -> Iterator[RecordingAnswers]:
    """Run a registered package over a file or folder. The answers are gone after the block.

    Raises EdgepackError in one sentence if the recording does not fit."""
    if not recording.exists():
        raise NotFoundError(f"{recording}: no such file or folder")
    with context.work_folder() as work:
        writer, scratch = PayloadWriter(work / "records", work / "sources"), work / "recording"
        scratch.mkdir()
        with writer.open():
            context.model_type(key).write_recording(recording.resolve(), writer, context.entry(key), scratch)
        _check_inputs(package, recording, writer, work, context)
        payload = Payload(writer.records, writer.sources, writer.count)
        with one_sentence(package, recording), run_registered(_of(package, key), payload, key, context) as run:
            yield RecordingAnswers(Results(run.results), payload, run.records, run.answered, run.latency)


def _check_inputs(
    package: RegisteredVersion, recording: Path, writer: PayloadWriter, work: Path, context: TaskContext
) -> None:
    """Hold the names in the records to what this package declares, which need not be as edgepack.yaml is today."""
    if not writer.count:
        raise EdgepackError(f"{recording} holds no records")
    declared = read_contract(registered_zip(package, work / "interface", context.registry)).inputs
    given = writer.preview[0].keys()
    if declared.keys() != given:
        raise EdgepackError(
            f"{recording} does not fit {package}, which takes {', '.join(declared)}: its records hold "
            f"{', '.join(given)}"
        )


@contextmanager
def one_sentence(package: RegisteredVersion, what: object) -> Iterator[None]:
    """Errors of the component without its traceback."""
    try:
        yield
    except TaskFailedError as error:
        at = "" if error.failure.record is None else f" at record {error.failure.record}"
        message = error.failure.message or error.failure.type
        raise ComponentError(f"{package} fails on {what}{at}: {' '.join(message.split())}") from error


@dataclass(frozen=True)
class Verified:
    """Whether a package answers as recorded. `differing` of `records` have another answer, the first of which `first`
    tells; `recorded` is False if there is nothing to compare with."""

    payload: str
    records: int
    answered: int
    recorded: bool
    differing: int = 0
    first: tuple[str, ...] = ()

    @property
    def is_same(self) -> bool:
        """Every answer is the recorded one."""
        return self.recorded and not self.differing

    def __str__(self) -> str:
        """In a sentence."""
        done = f"{self.answered} of {counted(self.records, 'record')} of {self.payload} answered"
        if not self.recorded:
            return (
                f"{done}, but what was answered when it was validated is not in the artefact store: there is nothing "
                "to compare with"
            )
        if not self.differing:
            return f"{done}, each as recorded when it was validated"
        return f"{done}, {self.differing} of them not as recorded: {'; '.join(self.first)}"


def verify_run(key: ModelKey, package: RegisteredVersion, context: TaskContext) -> Verified:
    """Run a registered package over the payload that it was validated with; over the raw data that edgepack.yaml names
    now, if that is not in the artefact store any more. Raises EdgepackError if it cannot be run."""
    predecessor = _of(package, key)
    known = recorded(predecessor, context)
    payload_data = known.payload_data if known is not None else make_payload(key, context)[0]
    raw, payload = raw_data_of(payload_data), open_payload(payload_data, context)
    named = f"{raw['name']}:{raw['version']}"
    with one_sentence(package, named), run_registered(predecessor, payload, key, context) as run:
        if known is None:
            return Verified(named, run.records, run.answered, recorded=False)
        differing = 0
        first: list[str] = []
        theirs = read_lines(context.store.fetch(known.validation_results.parts["results"]))
        for number, (ours, other) in enumerate(zip_longest(read_lines(run.results), theirs)):
            if not equal(ours, other):
                differing += 1
                if len(first) < _MOST_SHOWN:
                    first.append(f"record {number} is {_outputs(ours)}, was {_outputs(other)}")
        return Verified(named, run.records, run.answered, recorded=True, differing=differing, first=tuple(first))


def _outputs(entry: Any) -> str:
    outputs = entry.get("outputs") if isinstance(entry, dict) else None
    return "nothing" if outputs is None else f"{outputs!r:.200}"


def _of(package: RegisteredVersion, key: ModelKey) -> Predecessor:
    return Predecessor(package, key.version)
