"""Whether the edge keeps up: the time of records against the cycle that the package declares."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack_assets.checks import CheckRow, all_pass
from edgepack_assets.errors import ComponentError, EdgepackError
from edgepack_assets.model_types import model_type
from edgepack_assets.model_types.interface import PayloadWriter, Trial
from edgepack_assets.packaging.runner import PackageRun
from edgepack_assets.partitions import ModelKey
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets.tasks.validation_results import pace, try_out, validate
from edgepack_assets_tests.tasks.plant import Plant

CYCLE = 250
FAST, SLOW = 0.01, 30.0
MEAN, P99, ANSWERS, LATE = "mean", "p99 time for a record", "p99 time for a record with an answer", "records"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("times")


def ran(folder: Path, seconds: Sequence[float], answers: Sequence[int] = ()) -> PackageRun:
    times = folder / "times.f64"
    times.write_bytes(array("d", seconds).tobytes())
    return PackageRun(folder / "nowhere", times, len(seconds), len(answers), {}, array("Q", answers))


def too_slow(run: PackageRun) -> list[str]:
    names = [part.name for part in pace(run, CYCLE) if not part.passed]
    return [MEAN if name.startswith(MEAN) else LATE if name.startswith(LATE) else name for name in names]


WINDOWS = range(299, 24_000, 300)
"""The records of a recording that complete a window."""


@pytest.mark.parametrize(
    ("seconds", "answers", "expected"),
    [
        ([], (), []),
        ([0.25] * 100, (), []),
        ([0.2501] * 100, (), [MEAN, P99, LATE]),
        ([FAST] * 99 + [SLOW], (), []),
        ([FAST] * 98 + [SLOW] * 2, (), [MEAN, P99, LATE]),
        ([FAST] * 98 + [0.3] * 2, (), [P99, LATE]),
        ([FAST] * 990 + [0.3] * 10, (), []),
        ([FAST] * 989 + [0.3] * 11, (), [P99, LATE]),
        # rare, but each so long that the others wait ever longer
        ([FAST] * 995 + [SLOW * 10] * 5, (), [MEAN]),
        ([SLOW], (), [MEAN, P99, LATE]),
        ([FAST, SLOW], (0, 1), []),
        # every answer of a model with windows is late: one in 300 records
        ([0.3 if n in WINDOWS else FAST for n in range(24_000)], WINDOWS, [ANSWERS]),
        ([SLOW if n == 299 else FAST for n in range(24_000)], WINDOWS, []),
    ],
)
def test_records_must_be_done_before_the_next_one_comes(
    folder: Path, seconds: list[float], answers: Sequence[int], expected: list[str]
) -> None:
    assert too_slow(ran(folder, seconds, answers)) == expected


class Tried(Trial):
    """Is told a number of answers, and believes no negative one."""

    function = "try_it"
    arguments = {"a": 1}  # noqa: RUF012
    inputs = {"records": Path("nowhere")}  # noqa: RUF012

    def rows(self, told: object) -> tuple[list[CheckRow], list[dict[str, Any]]]:
        assert isinstance(told, int)
        if told < 0:
            raise ComponentError("fewer than none")
        return [CheckRow("tried", False, str(told), "", warns=True)], [{"told": told}]


def trying(answer: int | Exception) -> Any:
    """What a trial comes to when the child gives this answer."""
    jobs: list[Any] = []

    def run(what: str, environment: Any, child_imports: Any, job: Any, inputs: Any) -> int:
        jobs.append((what, job.function, job.arguments, str(job.folder), inputs))
        if isinstance(answer, Exception):
            raise answer
        return answer

    context = SimpleNamespace(
        model_type=lambda key: model_type("image_classification"), child_imports=lambda key, lock: [],
        sandbox=SimpleNamespace(run=run), log=logging.getLogger(__name__),
    )  # fmt: skip
    environment = SimpleNamespace(lock=None)
    found = try_out(ModelKey("images", 1), Tried(), Path("component"), cast(Any, environment), cast(Any, context))
    assert jobs == [("try_it of images:1", "try_it", {"a": 1}, "component", {"records": Path("nowhere")})]
    return found


def test_what_is_tried_beside_validating_only_warns() -> None:
    rows, table = trying(3)
    assert all_pass(rows) and not rows[0].passed
    assert table == [{"told": 3}]


@pytest.mark.parametrize("answer", [ComponentError("it hung"), -1])
def test_a_trial_that_fails_leaves_what_was_validated_alone(
    answer: int | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    assert trying(answer) == ([], [])
    assert "it hung" in caplog.text or "fewer than none" in caplog.text


def test_a_fault_of_ours_is_no_failed_trial() -> None:
    with pytest.raises(EdgepackError, match="disk"):
        trying(EdgepackError("disk"))


@pytest.mark.environments
def test_a_payload_that_is_not_what_the_component_declares_names_the_plug_in(
    plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validated, store = plant.validated(1), plant.built.store
    # the writer itself looks at the first lines only
    writer = PayloadWriter(tmp_path / "records", tmp_path / "sources")
    with writer.open():
        writer.add_lines(['{"x": 1.0}'] * 20 + ['{"x": oops}'])
    payload = validated.payload_data.model_copy(
        update={
            "parts": {"records": store.put_file(writer.records, "x"), "sources": store.put_file(writer.sources, "x")},
            "facts": {**validated.payload_data.facts, "records": writer.count},
        }
    )
    said = (
        r"^the model type state_identifier \(edgepack-assets .*\): its component_spec declares something else than its "
        r"write_payload writes or its component answers: validating press:1 failed at record 20: the payload holds "
        r'{"x": oops}, which is not JSON: [^\n]*$'
    )
    with Sandbox(plant.built.settings) as sandbox, pytest.raises(ComponentError, match=said):
        validate(ModelKey("press", 1), payload, validated.config_package, plant.task_context(sandbox))


@given(st.lists(st.floats(0, CYCLE / 1000), min_size=1, max_size=300), st.floats(0, 1e6), st.data())
def test_one_slow_record_never_warns_wherever_it_is(
    folder: Path, seconds: list[float], slow: float, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(seconds)))
    answers = data.draw(st.lists(st.integers(0, len(seconds)), min_size=2, unique=True).map(sorted))
    assert too_slow(ran(folder, [*seconds[:at], slow, *seconds[at:]], answers)) == []


def test_it_says_how_many_were_late(folder: Path) -> None:
    (row,) = [part for part in pace(ran(folder, [FAST] * 500 + [0.3, 0.4]), CYCLE) if part.name.startswith(LATE)]
    assert (row.passed, row.found) == (True, "2 of 502, the longest took 400.000 ms")
    assert row.wanted.startswith("at most 5 (1 %")


def test_a_package_without_a_cycle_has_nothing_to_keep_up_with(folder: Path) -> None:
    assert all_pass(pace(ran(folder, [9.0]), None))
