"""The entrypoint that gives states the numbers of the package before, as a Python process of its own imports it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.errors import ModelError
from edgepack_assets.model_types.renumbering import put_in_front, settings, shipped

OWN = """
step = 1


def process_input(data):
    return None if data["x"] is None else {"prediction": data["x"], "step": step}
"""
WITH_PARAMETERS = """

def update_parameters(params):
    global step
    step = params["step"]
"""


def component(folder: Path, own: str, numbers: dict[Any, Any]) -> Path:
    (folder / "entrypoint.py").write_text(own)
    (folder / "model.json").write_text(json.dumps({"file": "model.pkl", **settings("prediction", numbers)}))
    put_in_front(folder)
    return folder


def answers(folder: Path, values: list[Any]) -> list[Any]:
    code = (
        "import json, entrypoint\nentrypoint.update_parameters({'step': 7})\n"
        f"print(json.dumps([entrypoint.process_input({{'x': x}}) for x in {values!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    found: list[Any] = json.loads(done.stdout)
    return found


def test_answers_get_the_numbers_of_the_package_before(tmp_path: Path) -> None:
    folder = component(tmp_path, OWN + WITH_PARAMETERS, {0: 2, 1: 0, 2: 1})
    found = answers(folder, [0, 1, None, 2, 2, 9])
    assert [answer and answer["prediction"] for answer in found] == [2, 0, None, 1, 1, 9]
    assert {answer["step"] for answer in found if answer} == {7}


def test_an_entrypoint_without_parameters_and_with_texts_works_too(tmp_path: Path) -> None:
    folder = component(tmp_path, OWN, {"a": "b", "b": "a"})
    assert [answer["prediction"] for answer in answers(folder, ["a", "b", "c"])] == ["b", "a", "c"]


def test_an_inspection_tells_the_shipped_numbers() -> None:
    assert shipped(range(3), {}) == [0, 1, 2]
    assert shipped(range(3), {"renumbering": [[0, 2], [1, 0], [2, 1]]}) == [2, 0, 1]
    assert shipped(None, {"renumbering": [[0, 2]]}) == []


@pytest.mark.parametrize(
    "name", ["model_entrypoint.py", "model_entrypoint.cpython-311-x86_64-linux-gnu.so", "model_entrypoint"]
)
def test_a_module_of_the_model_that_would_be_imported_in_its_place_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ModelError, match=rf"ships {name}, a name that the component needs itself"):
        component(tmp_path, OWN, {0: 1})
    assert (tmp_path / "entrypoint.py").read_text() == OWN
