"""What runs inside the child process, in the component's own environment. Standard library only.

Started as `python -I -B child.py`. Reads one JSON line with modules to import ahead, then one with the job,
and writes `result.json` into the work folder: {"value": ...} or {"error": {...}}. Jobs:

- call: import a file and call one of its functions with the job's arguments (inspect_model, prepare);
- run: feed payload records to the component's entrypoint as the inference server would, one answer or none a
  record. Records and answers are gzipped JSON lines: nothing is executed when either side reads them.
"""

import array
import gzip
import importlib
import importlib.util
import itertools
import json
import math
import os
import sys
import time
import traceback

_CHECKS = {
    "Integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "Double": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "Boolean": lambda value: isinstance(value, bool),
    "String": lambda value: isinstance(value, str),
    "StringArray": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
}


class RecordError(Exception):
    """The component, or the payload, broke the declared types at a record."""

    def __init__(self, record: int, message: str) -> None:
        super().__init__(message)
        self.record = record


def call(job: dict) -> object:
    """Call a function of a file that does not ship with the component."""
    spec = importlib.util.spec_from_file_location("edgepack_child_tasks", job["file"])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return getattr(module, job["function"])(job["arguments"])


def run(job: dict) -> dict:
    """Feed records to the entrypoint until the payload, or the wanted number of answers, is reached."""
    entrypoint = importlib.import_module(job["entrypoint"])
    process_input = entrypoint.process_input
    if hasattr(entrypoint, "update_parameters"):
        entrypoint.update_parameters(dict(job["parameters"]))
    inputs = [(variable["name"], variable["type"]) for variable in job["inputs"]]
    outputs = {variable["name"]: variable["type"] for variable in job["outputs"]}
    times = array.array("d")
    answered = 0
    wanted = job["until_answers"]
    with (
        gzip.open(job["records"], "rt", encoding="utf-8") as records,
        gzip.GzipFile(filename="", mode="wb", compresslevel=1, mtime=0, fileobj=open(job["results"], "wb")) as results,
    ):
        for number, line in enumerate(records):
            record = json.loads(line)
            _check_inputs(record, inputs, number)
            started = time.perf_counter()
            try:
                answer = process_input(record)
            except Exception as error:
                raise RecordError(number, f"{type(error).__name__}: {error}") from error
            times.append(time.perf_counter() - started)
            if answer is None:
                results.write(b'{"record": %d, "outputs": null}\n' % number)
                continue
            _check_outputs(answer, outputs, number)
            results.write(json.dumps({"record": number, "outputs": answer}, allow_nan=False).encode() + b"\n")
            answered += 1
            if wanted is not None and answered >= wanted:
                break
    with open(job["times"], "wb") as stream:
        times.tofile(stream)
    return {"records": len(times), "answered": answered, "latency": _latency(times)}


def _check_inputs(record: dict, inputs: list, number: int) -> None:
    for name, kind in inputs:
        value = record.get(name)
        if value is not None and kind in _CHECKS and not _CHECKS[kind](value):
            raise RecordError(number, f"input {name!r} is declared {kind}, but the payload holds {value!r:.100}")


def _check_outputs(answer: object, outputs: dict, number: int) -> None:
    if not isinstance(answer, dict):
        raise RecordError(number, f"process_input returned {type(answer).__name__}, not a dict or None")
    if answer.keys() != outputs.keys():
        missing = ", ".join(sorted(outputs.keys() - answer.keys())) or "none"
        undeclared = ", ".join(sorted(map(str, answer.keys() - outputs.keys()))) or "none"
        raise RecordError(number, f"the answer's outputs differ from those declared: missing {missing}; "
                                  f"undeclared {undeclared}")
    for name, kind in outputs.items():
        value = answer[name]
        if kind in _CHECKS and not _CHECKS[kind](value):
            raise RecordError(number, f"output {name!r} is declared {kind}, but is {value!r:.100} "
                                      f"({type(value).__name__})")
        if isinstance(value, float) and not math.isfinite(value):
            raise RecordError(number, f"output {name!r} is {value}")


def _latency(times: array.array) -> dict:
    """Seconds per record: median, 95th percentile, largest; and their sum."""
    ordered = sorted(times)
    if not ordered:
        return {"p50": 0.0, "p95": 0.0, "max": 0.0, "sum": 0.0}

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]

    return {"p50": at(0.5), "p95": at(0.95), "max": ordered[-1], "sum": math.fsum(ordered)}


def main() -> int:
    """Import ahead, wait for the job, do it, write the result."""
    for module in json.loads(sys.stdin.readline()):
        importlib.import_module(module)
    line = sys.stdin.readline()
    if not line:
        return 0  # the host has no job for this child after all
    job = json.loads(line)
    os.chdir(job["folder"])
    sys.path.insert(0, job["folder"])
    try:
        result = {"value": {"call": call, "run": run}[job["task"]](job)}
        text = json.dumps(result, allow_nan=False)
    except Exception as error:
        cause = error.__cause__ if isinstance(error, RecordError) and error.__cause__ else error
        frames = itertools.chain.from_iterable(
            frame.splitlines(keepends=True) for frame in traceback.format_exception(cause))
        text = json.dumps({"error": {
            "type": type(cause).__name__, "message": str(error), "name": getattr(cause, "name", None),
            "record": getattr(error, "record", None), "traceback": "".join(frames)[-20_000:],
        }})
    aside = f"{job['result']}.tmp"
    with open(aside, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(aside, job["result"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
