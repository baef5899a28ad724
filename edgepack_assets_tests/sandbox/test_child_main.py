"""What the child does with records and answers. Its own process and its end are the matter of test_sandbox.py."""

from __future__ import annotations

import array
import gzip
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack_assets.sandbox import child_main

Run = Callable[..., tuple[dict[str, Any], list[Any]]]
_numbers = itertools.count()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run an entrypoint given as source over records; what it told, and its results."""
    monkeypatch.syspath_prepend(tmp_path)

    def running(
        source: str,
        records: list[Any],
        inputs: dict[str, str] | None = None,
        outputs: dict[str, str] | None = None,
        **job: Any,
    ) -> tuple[dict[str, Any], list[Any]]:
        module = f"entrypoint_{next(_numbers)}"
        (tmp_path / f"{module}.py").write_text(source)
        with gzip.open(tmp_path / "records", "wt") as stream:
            stream.writelines(json.dumps(record) + "\n" for record in records)
        told = child_main.run(
            {
                "entrypoint": module,
                "parameters": {},
                "inputs": [{"name": n, "type": t} for n, t in (inputs or {"x": "Integer"}).items()],
                "outputs": [{"name": n, "type": t} for n, t in (outputs or {"y": "Integer"}).items()],
                "records": str(tmp_path / "records"),
                "results": str(tmp_path / "results"),
                "times": str(tmp_path / "times"),
                "until_answers": None,
                **job,
            }
        )
        with gzip.open(tmp_path / "results", "rt") as stream:
            return told, [json.loads(line) for line in stream]

    return running


ECHO = "def process_input(data):\n    return {'y': data['x']}\n"
ODD_ONLY = "def process_input(data):\n    return {'y': data['x']} if data['x'] % 2 else None\n"
COUNT = [{"x": number} for number in range(7)]


def answer(expression: str) -> str:
    return f"import collections\ndef process_input(data):\n    return {{'y': {expression}}}\n"


def test_every_record_has_its_entry_and_none_is_kept(run: Run, tmp_path: Path) -> None:
    told, results = run(ODD_ONLY, COUNT)
    assert results == [{"record": n, "outputs": {"y": n} if n % 2 else None} for n in range(7)]
    assert (told["records"], told["answered"]) == (7, 3)
    times = array.array("d", (tmp_path / "times").read_bytes())
    assert len(times) == 7
    assert told["latency"]["sum"] == pytest.approx(sum(times))
    assert 0 <= told["latency"]["p50"] <= told["latency"]["p95"] <= told["latency"]["max"] == max(times)


def test_it_stops_after_the_wanted_number_of_answers(run: Run) -> None:
    told, results = run(ODD_ONLY, COUNT, until_answers=2)
    assert [entry["record"] for entry in results] == [0, 1, 2, 3]
    assert (told["records"], told["answered"]) == (4, 2)


def test_an_empty_payload_gives_empty_results(run: Run) -> None:
    told, results = run(ECHO, [])
    assert results == []
    assert told == {"records": 0, "answered": 0, "latency": {"p50": 0.0, "p95": 0.0, "max": 0.0, "sum": 0.0}}


def test_equal_runs_give_equal_bytes(run: Run, tmp_path: Path) -> None:
    run(ODD_ONLY, COUNT)
    first = (tmp_path / "results").read_bytes()
    run(ODD_ONLY, COUNT)
    assert (tmp_path / "results").read_bytes() == first


def test_parameters_reach_the_entrypoint_before_the_first_record(run: Run) -> None:
    source = (
        "def update_parameters(p):\n    global step\n    step = p['step']\n"
        "def process_input(data):\n    return {'y': data['x'] * step}\n"
    )
    _, results = run(source, COUNT[:3], parameters={"step": 10})
    assert [entry["outputs"]["y"] for entry in results] == [0, 10, 20]


def test_a_payload_may_lack_values_and_carry_a_timestamp(run: Run) -> None:
    source = "def process_input(data):\n    return {'y': -1 if data.get('x') is None else data['x']}\n"
    _, results = run(source, [{"x": None}, {}, {"x": 3, "timestamp": "2024"}])
    assert [entry["outputs"]["y"] for entry in results] == [-1, -1, 3]


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        ("Integer", 1.0, "input 'x' is declared Integer, but the payload holds 1.0"),
        ("Integer", True, "but the payload holds True"),
        ("Double", "1", "is declared Double, but the payload holds '1'"),
        ("Double", False, "but the payload holds False"),
        ("Boolean", 0, "is declared Boolean, but the payload holds 0"),
        ("String", 3, "is declared String, but the payload holds 3"),
        ("StringArray", ["a", 1], "is declared StringArray, but the payload holds"),
        ("DoubleArray", [1.5, "2"], "is declared DoubleArray, but the payload holds"),
        ("IntegerArray", 3, "is declared IntegerArray, but the payload holds 3"),
    ],
)
def test_a_payload_value_of_another_type_is_refused_with_its_record(
    run: Run, kind: str, value: object, told: str
) -> None:
    with pytest.raises(child_main.RecordError) as error:
        run("def process_input(data):\n    return None\n", [{}, {}, {"x": value}], {"x": kind})
    assert error.value.record == 2
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("record", "told"),
    [([1], "the payload holds [1], not an object"), ({"x": 1, "z": 2}, "inputs that are not declared: z")],
)
def test_a_payload_record_of_another_shape_is_refused(run: Run, record: object, told: str) -> None:
    with pytest.raises(child_main.RecordError) as error:
        run(ECHO, [{"x": 0}, record])
    assert error.value.record == 1
    assert told in str(error.value)


IMAGE_SET = "dict(version='1.0', cameraid='c', timestamp='t', detail=[], more={})"
NUMPY_LIKE = "type('int64', (), {'__int__': lambda s: 3, '__index__': lambda s: 3, '__repr__': lambda s: 'int64(3)'})()"


@pytest.mark.parametrize(
    ("kind", "expression", "told"),
    [
        ("Integer", NUMPY_LIKE, "output 'y' is declared Integer, but is int64(3) (int64)"),
        ("Integer", "True", "output 'y' is declared Integer, but is True (bool)"),
        ("Integer", "None", "output 'y' is declared Integer, but is None (NoneType)"),
        ("Double", "float('nan')", "output 'y' is nan"),
        ("Double", "float('-inf')", "output 'y' is -inf"),
        ("Double", "'1.0'", "output 'y' is declared Double, but is '1.0' (str)"),
        ("String", "b'text'", "output 'y' is declared String, but is b'text' (bytes)"),
        ("StringArray", "('a', 'b')", "output 'y' is declared StringArray, but is ('a', 'b') (tuple)"),
        ("DoubleArray", "[1.0, float('nan')]", "the answer cannot be written as JSON: Out of range float"),
        ("Integer", "2**63", "output 'y' is declared Integer, but is 9223372036854775808 (int)"),
        ("Integer", "-2**63 - 1", "output 'y' is declared Integer"),
        ("Double", "10**400", "output 'y' is declared Double"),
        ("Integer", "10**5000", "output 'y' is declared Integer, but is (cannot be shown: ValueError) (int)"),
        ("Double", "10**5000", "output 'y' is declared Double, but is (cannot be shown: ValueError) (int)"),
        ("Object", "10**5000", "output 'y' is declared Object (a dict of one str and one bytes), but is"),
        ("ImageSet", IMAGE_SET.format("10**5000"), "the answer cannot be written as JSON"),
        (
            "String",
            "type('Rude', (), {'__repr__': lambda self: 1 / 0})()",
            "output 'y' is declared String, but is (cannot be shown: ZeroDivisionError) (Rude)",
        ),
        ("ImageSet", IMAGE_SET.format("{1}"), "the answer cannot be written as JSON: Object of type set"),
        (
            "ImageSet",
            IMAGE_SET.format("(lambda l: l.append(l) or l)([])"),
            "the answer cannot be written as JSON: Circular",
        ),
    ],
)
def test_an_output_of_another_type_is_refused_with_its_record(run: Run, kind: str, expression: str, told: str) -> None:
    with pytest.raises(child_main.RecordError) as error:
        run(answer(f"({expression}) if data['x'] else {{'a': 1}}"), [{"x": 1}], outputs={"y": kind})
    assert error.value.record == 0
    assert told in str(error.value)


@pytest.mark.parametrize("number", ["1", "1.5", "10**30"])
def test_numbers_that_are_doubles_pass(run: Run, number: str) -> None:
    _, results = run(answer(number), [{"x": 1}], outputs={"y": "Double"})
    assert results[0]["outputs"] == {"y": eval(number)}  # noqa: S307


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("{}", "missing y; undeclared none"),
        ("{'y': 1, 'Z': 2}", "missing none; undeclared Z"),
        ("{'Y': 1}", "missing y; undeclared Y"),
        ("[1]", "process_input returned list, not a dict or None"),
        ("False", "process_input returned bool, not a dict or None"),
    ],
)
def test_an_answer_of_another_shape_is_refused(run: Run, returned: str, told: str) -> None:
    with pytest.raises(child_main.RecordError) as error:
        run(f"def process_input(data):\n    return {returned} if data['x'] == 4 else None\n", COUNT)
    assert error.value.record == 4
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("raise KeyError('ph9')", "KeyError: 'ph9'"),
        ("import sys; sys.exit(0)", "SystemExit: the code called sys.exit(0)"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise MemoryError", "MemoryError"),
        ("raise Rude", "Rude: (cannot be shown: ZeroDivisionError)"),
    ],
)
def test_what_the_component_raises_carries_its_record_and_traceback(run: Run, statement: str, told: str) -> None:
    source = (
        "class Rude(Exception):\n    def __str__(self):\n        return 1 / 0\n"
        f"def process_input(data):\n    if data['x'] == 5:\n        {statement}\n"
    )
    with pytest.raises(child_main.RecordError) as error:
        run(source, COUNT)
    failure = child_main._failure(error.value)
    assert (failure["record"], failure["message"]) == (5, told)
    assert "in process_input" in failure["traceback"]
    json.dumps(failure)


def test_only_an_import_error_names_a_module() -> None:
    assert child_main._failure(ModuleNotFoundError("gone", name="si.code"))["name"] == "si.code"
    assert child_main._failure(NameError("gone", name="x"))["name"] is None


def test_each_job_of_a_child_draws_its_own_random_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are forks of one process: with its state a model that answers at random would repeat its answers."""
    np.random.random()  # as scikit-learn's import does, this makes the state
    monkeypatch.setattr(child_main, "_LIMITS", {"isolated": False}, raising=False)
    monkeypatch.setattr(child_main, "_STATUS", os.open(os.devnull, os.O_WRONLY), raising=False)
    monkeypatch.setattr(child_main, "_do", lambda file: Path(file).write_text(f"{np.random.random()}"))
    drawn = {tmp_path / str(number): child_main._fork(str(tmp_path / str(number))) for number in range(3)}
    os.close(child_main._STATUS)
    assert set(drawn.values()) == {0}
    assert len({file.read_text() for file in drawn}) == 3
