"""The jobs that a sandbox's child does, as this process describes them. child_main.py does them.

Files that cross the border are not part of a job: `Sandbox.run` takes them as `inputs` and `outputs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class CallJob:
    """Import `file` and call its `function` with `arguments` (JSON). A copy of `folder` is the working directory and
    first on sys.path. If `file` is a child_tasks.py, it can import the modules child_*.py beside it. Where `arguments`
    is an object, the paths of inputs and outputs are added to it by name."""

    folder: Path
    file: Path
    function: str
    arguments: object

    def as_message(self) -> dict[str, Any]:
        """The job as child_main.py reads it."""
        return {"task": "call", **vars(self)}


@dataclass(frozen=True)
class RunJob:
    """Feed the input file `records` to `process_input` of the module `entrypoint` in a copy of `folder`, as the
    inference server would; write the output files `results` and `times`.

    `input_types` and `output_types` are what pipeline_config.yml declares: {"name", "type"} of each variable.
    `until_answers`: stop after so many answers. `count`: how many records there are, for messages of progress.
    `follows`: the records are the `results` of the component before it, in a package of several, whose records without
    an answer it does not see. `precedes`: another component takes the answers, so they may hold numpy arrays."""

    folder: Path
    entrypoint: str
    parameters: Mapping[str, Any]
    input_types: Sequence[Mapping[str, str]]
    output_types: Sequence[Mapping[str, str]]
    until_answers: int | None = None
    count: int | None = None
    follows: bool = False
    precedes: bool = False

    def as_message(self) -> dict[str, Any]:
        """The job as child_main.py reads it."""
        message = {"task": "run", **vars(self)}
        return message | {"inputs": message.pop("input_types"), "outputs": message.pop("output_types")}


SandboxJob = CallJob | RunJob
