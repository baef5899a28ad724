"""Entrypoint of a component whose states have the numbers of the package before.

The model numbers its states as its training happened to. model.json says under `renumbering` which number each has in
the package before, and in which output; the model type's own entrypoint, model_entrypoint.py, does the work.
"""

import json
from pathlib import Path
from typing import Any

import model_entrypoint

_settings = json.loads((Path(__file__).parent / "model.json").read_text(encoding="utf-8"))["renumbering"]
_output: str = _settings["output"]
_numbers: "dict[Any, Any]" = dict(_settings["numbers"])


def process_input(data: "dict[str, Any]") -> "dict[str, Any] | None":
    """The answer of the model type's own entrypoint, with the number of the package before."""
    answer: dict[str, Any] | None = model_entrypoint.process_input(data)
    if answer is None:
        return None
    return {**answer, _output: _numbers.get(answer[_output], answer[_output])}


def update_parameters(params: "dict[str, Any]") -> None:
    """Pass on changed pipeline parameters."""
    if hasattr(model_entrypoint, "update_parameters"):
        model_entrypoint.update_parameters(params)
