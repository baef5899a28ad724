"""Whether a stamped package answers as was validated: what differs, and what is not enough to tell."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.errors import PackageError
from edgepack_assets.packaging.runner import PackageRunner
from edgepack_assets.packaging.stamp import contents, read_stamp
from edgepack_assets.partitions import ModelKey
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets.tasks.final_run import TOLERANCE, equal, execute
from edgepack_assets_tests.packaging import tiny
from edgepack_assets_tests.tasks.plant import Plant

KEY = ModelKey("press", 1)
Line = dict[str, Any]


@pytest.fixture
def run(plant: Plant, tmp_path: Path) -> Callable[[Callable[[list[Line]], object]], None]:
    """Execute the stamped package against validation results to which something was done."""
    package = tiny.build_deployment(plant.built.config, plant.built.lock, plant.built.store, 1, tmp_path)

    def running(tamper: Callable[[list[Line]], object]) -> None:
        validated = plant.validated(1)
        store = plant.built.store
        results = validated.validation_results
        with gzip.open(store.fetch(results.parts["results"]), "rt") as stream:
            lines = [json.loads(line) for line in stream]
        tamper(lines)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        blob = store.put_bytes(gzip.compress(text.encode(), mtime=0), "x")
        tampered = Artefact(**{**dict(results), "parts": {**results.parts, "results": blob}})
        with Sandbox(plant.built.settings) as sandbox:
            found = contents(package, read_stamp(package))
            execute(
                KEY, package, found, validated.payload_data, tampered, plant.built.lock, plant.task_context(sandbox)
            )

    return running


def at(number: int, **outputs: Any) -> Callable[[list[Line]], None]:
    """Replace outputs of a record."""

    def tamper(lines: list[Line]) -> None:
        lines[number]["outputs"] |= outputs

    return tamper


# The component answers records 0, 3, 4, 6, 7: the second record holds nothing, each third call gives nothing.


def test_equal_answers_pass(run: Any) -> None:
    run(lambda lines: None)
    run(at(0, y=10.0 * (1 + TOLERANCE / 2)))


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (
            at(0, y=10.0 * (1 + TOLERANCE * 2)),
            r"Tiny-Echo-edge_1.zip answers record 0 with \{'y': 10.0, .* 10.00000002",
        ),
        (at(3, text="echange"), "answers record 3 with .*échange.*, but was validated with .*'echange'"),
        (at(3, seen=5), "answers record 3"),
        (at(3, seen=4.0), "answers record 3"),
        (lambda lines: lines[3].update(outputs=None), "answers record 3 with .* but was validated with None"),
        (lambda lines: lines[1].update(outputs={"y": 1.0}), "answers record 1 with None, but was validated with .*1.0"),
        (lambda lines: lines.pop(1), "answers record 1 with None, but was validated with None"),
        (lambda lines: lines.__delitem__(slice(2, None)), "answers record 2 with None, but was validated with nothing"),
    ],
)
def test_one_answer_that_differs_is_refused(run: Any, tamper: Any, told: str) -> None:
    with pytest.raises(PackageError, match=told):
        run(tamper)


def test_the_whole_payload_is_compared_if_the_configuration_says_so(plant: Plant, run: Any) -> None:
    late = at(6, text="changed")
    run(late)  # after the second answer
    plant.run_whole_payload = True
    run(lambda lines: None)
    with pytest.raises(PackageError, match=r"answers record 6 with .*but was validated with .*changed"):
        run(late)


@pytest.mark.parametrize("whole", [False, True])
def test_a_run_that_stopped_early_proves_nothing(
    plant: Plant, run: Any, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child tells how far it came, and it is not trusted."""
    plant.run_whole_payload = whole
    real = PackageRunner.run

    def short(self: PackageRunner, *args: Any, **kwargs: Any) -> Any:
        found = real(self, *args, **kwargs)
        with gzip.open(found.results, "rb") as stream:
            lines = stream.readlines()[:2]
        found.results.write_bytes(gzip.compress(b"".join(lines)))
        return replace(found, records=2, answered=2)

    plant.validated(1)
    monkeypatch.setattr(PackageRunner, "run", short)
    with pytest.raises(PackageError, match=r"Tiny-Echo-edge_1.zip stopped after 2 of 8 records"):
        run(lambda lines: None)


def test_what_is_equal() -> None:
    assert equal({"a": [1.0, 2]}, {"a": [1.0 + 1e-12, 2]})
    assert equal(float(0), -0.0)
    for ours, theirs in [
        (1, True), (1, 1.0), ("1", 1), (None, False), ([1.0], [1.0, 2.0]), ({"a": 1}, {"b": 1}), ([1.0], [1.1]),
        (0.0, 1e-300),
    ]:  # fmt: skip
        assert not equal(ours, theirs)
        assert not equal(theirs, ours)
