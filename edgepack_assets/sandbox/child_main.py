"""What runs inside the child process, in the component's own environment. Standard library only.

Started as `python -I -B child_main.py STATUS LIMITS`. It reads one JSON line with the modules to import in advance, and
then one line for each job, with the path of the job's file. It forks a process for each job, because importing
scikit-learn takes longer than most jobs. This process itself never runs the model's code. The fork writes `result.json`
to the path that the job names: {"value": ...} or {"error": {...}}. When the fork and all that it started are gone, this
process writes two numbers to the descriptor STATUS: the fork's exit status, and 1 if it takes another job or 0 if the
next job needs a new child. Jobs:

- call: import a file and call one of its functions with the job's arguments (inspect_model, prepare);
- run: feed payload records to the component's entrypoint as the inference server would, one answer or none a
  record. Records and answers are gzipped JSON lines: nothing is executed when either side reads them. The records of a
  component that follows another one are the answers of that one.
"""

import array
import contextlib
import gc
import gzip
import importlib
import importlib.util
import io
import json
import math
import os
import select
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn, cast

_TRACEBACK = 20_000
_LOOK_AT_CLOCK_EVERY = 256
_REAP_EVERY = 200  # milliseconds
_RESULTS_AT_ONCE = 1 << 16
"""Bytes of results: to compress each line by itself takes a tenth of a run."""
_SCRATCH = "/dev/shm"  # noqa: S108 - of this namespace
_FAILED_IMPORT: dict[str, Any] = {}
"""Why a library could not be imported ahead: no job can do without it then."""


def _load(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


child_limits = _load("edgepack_child_limits", Path(__file__).with_name("child_limits.py"))
value_types = _load("edgepack_value_types", Path(__file__).with_name("value_types.py"))
progress = _load("edgepack_progress", Path(__file__).with_name("progress.py"))


_ALWAYS_ALLOWED = frozenset({"timestamp"})  # the server may hand a record's time along without it being declared


class RecordError(Exception):
    """The component, or the payload, broke the declared types at a record. Raised from the component's own exception,
    it stands for that one."""

    is_for_user = True

    def __init__(self, record: int, message: str) -> None:
        super().__init__(message)
        self.record = record


class PluginFileError(Exception):
    """A file of the model type is no Python, or lacks what it must define."""

    is_for_user = True


def call(job: dict[str, Any]) -> object:
    """Call a function of a file that does not ship with the component, nor do the modules beside it."""
    file = Path(job["file"])
    sys.path.append(str(file.parent))  # the last one: the component's own modules come first
    try:
        module = _load("edgepack_child_tasks", file)
    except SyntaxError as error:
        if error.filename is None or Path(error.filename).parent != file.parent:  # a module of the model's
            raise
        raise PluginFileError(f"{Path(error.filename).name} is no Python: {error.msg}, line {error.lineno}") from error
    function = getattr(module, job["function"], None)
    if function is None:
        raise PluginFileError(f"{file.name} defines no function {job['function']}")
    return function(job["arguments"] | job["paths"] if job["paths"] else job["arguments"])


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Feed records to the entrypoint until the payload, or the wanted number of answers, is reached."""
    output = os.dup(1)  # the component may close or replace sys.stdout
    reported = progress.Progress(lambda line: os.write(output, f"{line}\n".encode()), "records", job.get("count"))
    entrypoint = importlib.import_module(job["entrypoint"])
    process_input = getattr(entrypoint, "process_input", None)
    if process_input is None:
        raise PluginFileError(f"{job['entrypoint']}.py, which ships, defines no function process_input")
    if hasattr(entrypoint, "update_parameters"):
        entrypoint.update_parameters(dict(job["parameters"]))
    inputs = {v["name"]: (v["type"], value_types.check_of(v["type"])) for v in job["inputs"]}
    outputs = {variable["name"]: variable["type"] for variable in job["outputs"]}
    times: array.array[float] = array.array("d")
    answered = 0
    wanted = job["until_answers"]
    with (
        gzip.open(job["records"], "rt", encoding="utf-8") as records,
        Path(job["results"]).open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=1, mtime=0, fileobj=file) as packed,
        io.BufferedWriter(cast(io.RawIOBase, packed), _RESULTS_AT_ONCE) as results,
    ):
        for number, line in enumerate(records):
            try:
                record = _answer_before(line) if job.get("follows", False) else value_types.from_json(line)
            except ValueError as error:
                shown = f"{line.rstrip():.100}"
                raise RecordError(number, f"the payload holds {shown}, which is not JSON: {error}") from None
            if record is None and job.get("follows", False):
                times.append(0.0)
                results.write(b'{"record": %d, "outputs": null}\n' % number)
                continue
            _check_inputs(record, inputs, number, job.get("follows", False))
            started = time.perf_counter()
            try:
                answer = process_input(record)
            except BaseException as error:  # nothing outside of the component interrupts this process
                words = _words(error)
                raise RecordError(number, type(error).__name__ + (f": {words}" if words else "")) from error
            times.append(time.perf_counter() - started)
            if number % _LOOK_AT_CLOCK_EVERY == 0:
                reported.at(number, f"{answered:,} answers")
            if answer is None:
                results.write(b'{"record": %d, "outputs": null}\n' % number)
                continue
            results.write(result_line(answer, outputs, number, job.get("precedes", False)))
            answered += 1
            if wanted is not None and answered >= wanted:
                break
    with Path(job["times"]).open("wb") as file:
        times.tofile(file)
    return {"records": len(times), "answered": answered, "latency": _latency(times)}


def _answer_before(line: str) -> Any:
    """What the component before answered to a record, with its arrays."""

    def array_of(tensor: Any) -> Any:
        np = importlib.import_module("numpy")  # the component's own
        return np.frombuffer(tensor.data, tensor.dtype).reshape(tensor.shape).copy()

    return value_types.from_json(line, array_of)["outputs"]


def _check_inputs(
    record: object, inputs: dict[str, tuple[str, Callable[[Any], bool]]], number: int, tensors: bool = False
) -> None:
    if not isinstance(record, dict):
        raise RecordError(number, f"the payload holds {_shown(record):.100}, not an object")
    if not record.keys() <= inputs.keys() and (undeclared := record.keys() - inputs.keys() - _ALWAYS_ALLOWED):
        raise RecordError(number, f"the payload holds inputs that are not declared: {_listed(undeclared)}")
    for name, (kind, is_valid) in inputs.items():
        value = record.get(name)
        if tensors and value_types.is_tensor(value, kind):
            continue
        if value is not None and not is_valid(value):
            declared = f"{kind}{value_types.wanted(kind)}"
            raise RecordError(
                number, f"input {name!r} is declared {declared}, but the payload holds {_shown(value):.100}"
            )


def result_line(answer: object, outputs: dict[str, str], number: int, tensors: bool = False) -> bytes:
    """An answer as a line of results, if it is what the component declares. The host holds what it reads to the same.
    With `tensors` values may be arrays: a NaN in one is for the next component to judge. Raises RecordError."""
    if not isinstance(answer, dict):
        raise RecordError(number, f"process_input returned {type(answer).__name__}, not a dict or None")
    if answer.keys() != outputs.keys():
        missing, undeclared = _listed(outputs.keys() - answer.keys()), _listed(answer.keys() - outputs.keys())
        differing = f"missing {missing}; undeclared {undeclared}"
        raise RecordError(number, f"the answer's outputs differ from those declared: {differing}")
    for name, kind in outputs.items():
        value = answer[name]
        if tensors and value_types.is_tensor(value, kind):
            continue
        if not value_types.check_of(kind)(value):
            declared, shown = f"{kind}{value_types.wanted(kind)}", f"{_shown(value):.100} ({type(value).__name__})"
            raise RecordError(number, f"output {name!r} is declared {declared}, but is {shown}")
        if isinstance(value, float) and not math.isfinite(value):
            raise RecordError(number, f"output {name!r} is {value}")
    try:
        line: bytes = value_types.to_json({"record": number, "outputs": answer}, tensors).encode() + b"\n"
        if b"\\ud" in line:
            # half of a character is no text that can be stored
            json.dumps(answer, ensure_ascii=False, default=repr).encode()
        return line
    except (TypeError, ValueError, RecursionError) as error:
        raise RecordError(number, f"the answer cannot be written as JSON: {error}") from None


def _listed(names: Iterable[object]) -> str:
    return ", ".join(sorted(_shown(name, str) for name in names)) or "none"


def _latency(times: "array.array[float]") -> dict[str, float]:
    """Seconds per record: median, 95th percentile, largest; and their sum."""
    ordered = sorted(times)
    if not ordered:
        return {"p50": 0.0, "p95": 0.0, "max": 0.0, "sum": 0.0}

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]

    return {"p50": at(0.5), "p95": at(0.95), "max": ordered[-1], "sum": math.fsum(ordered)}


def _words(error: BaseException) -> str:
    if not isinstance(error, SystemExit):
        return _shown(error, str)
    return f"the code called sys.exit({_shown(error.code):.100})"


def _shown(value: object, how: Callable[[object], str] = repr) -> str:
    try:
        return how(value)
    except Exception as worse:  # noqa: BLE001 - its class may be the model's own, and a whole number too long to print
        return f"(cannot be shown: {type(worse).__name__})"


def _failure(error: BaseException) -> dict[str, Any]:
    cause = error.__cause__ if isinstance(error, RecordError) and error.__cause__ else error
    return {
        "type": type(cause).__name__,
        "message": _words(error),
        "name": str(cause.name) if isinstance(cause, ImportError) and cause.name else None,
        "record": getattr(error, "record", None),
        # a refusal of the component's own, whose text says all; its class ships to the edge, without this project
        "for_user": getattr(type(cause), "is_for_user", False) is True,
        "traceback": "".join(traceback.format_exception(cause))[-_TRACEBACK:],
    }


def _end_with_host(watched: bool) -> None:
    """Give the component an empty stdin. Unless somebody else watches, see to it that nobody keeps computing for a
    host that is gone: its end of our stdin closes then."""
    pipe = os.dup(0)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    if watched:
        os.close(pipe)
        return
    hang_up = select.poll()
    hang_up.register(pipe, 0)  # only its closing: what is written to it is not for this process

    def watch() -> None:
        hang_up.poll()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="watch host", daemon=True).start()


def _do(file: str) -> None:
    """Do one job and write its result. Runs in a fork, in a session of its own."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    child_limits.set_dumpable(True)
    _end_with_host(watched=_LIMITS["isolated"])
    job = json.loads(Path(file).read_bytes())
    job |= job["paths"]
    os.environ["HOME"] = os.environ["TMPDIR"] = job["home"]
    os.chdir(job["folder"])
    sys.path.insert(0, job["folder"])
    child_limits.limit(_LIMITS)
    try:
        answer = _FAILED_IMPORT or {"value": {"call": call, "run": run}[job["task"]](job)}
        text = json.dumps(answer, allow_nan=False)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the model's code raises is reported to the host
        text = json.dumps({"error": _failure(error)})
    aside = Path(f"{job['result']}.tmp")
    aside.write_text(text, encoding="utf-8")
    aside.replace(job["result"])


def _fork(file: str) -> int:
    """Do a job in a fork; its exit status (negative: the signal) when all it started is gone."""
    # Libraries may have started threads of their own on import; those that do are safe to fork.
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        pid = os.fork()
    if pid == 0:
        os.close(_STATUS)
        _renew_random_state()
        _exit_after(lambda: _do(file))
    _wait_for(pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if _LIMITS["isolated"]:
        # This is the first process of its namespace: it reaches all others there, and inherits those left alone.
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
    return code


def _renew_random_state() -> None:
    """Python does so with its own random numbers after a fork, numpy does not: all jobs of a child would get the same,
    and a model whose answers are random would pass for one that repeats them."""
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()


def _wait_for(pid: int) -> None:
    """Wait until the job has ended, and end with the host, whose end of our stdin closes then."""
    ended = os.pidfd_open(pid)
    events = select.poll()
    events.register(ended, select.POLLIN)
    events.register(0, 0)
    try:
        while ended not in (ready := dict(events.poll(_REAP_EVERY))):
            if 0 in ready:
                os.killpg(pid, signal.SIGKILL)
                os._exit(1)
            # Those whose parent is gone are the first process's to reap; unreaped they count as running.
            while (other := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and other.si_pid != pid:
                os.waitpid(other.si_pid, 0)
    finally:
        os.close(ended)


def _cleared() -> bool:
    """Whether nothing that a job left outside of its work folder is there for the next one."""
    if Path(os.environ["HOME"]).is_relative_to(_SCRATCH):
        return False  # the work folder lies there: what is in it is the host's to take out first
    for entry in os.scandir(_SCRATCH):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            Path(entry.path).unlink()
    return not os.listdir(_SCRATCH)  # noqa: PTH208


def _exit_after(work: Callable[[], None]) -> NoReturn:
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - printed on stderr, which the host passes on
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):  # the component may have closed it
                stream.flush()
        os._exit(status)  # threads that the model started must not keep the process


def main() -> None:
    """Import ahead, then do a job for each line."""
    # A job must not look into, change or end the process that forks the next one.
    child_limits.set_dumpable(False)
    child_limits.refuse_calls(_LIMITS["filter"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.pop("PWD", None)  # bubblewrap's
    # to be read while it runs, and not lost if it crashes
    cast(io.TextIOWrapper, sys.stdout).reconfigure(line_buffering=True)
    # Looking for garbage among what is imported takes a tenth of the time, and copies the pages of each job.
    gc.disable()
    for module in json.loads(sys.stdin.readline()):
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - reported to the host as the failure of each job
            _FAILED_IMPORT["error"] = _failure(error) | {"importing": module}
            break
    gc.freeze()
    gc.enable()
    unchanged = child_limits.inherited()
    while line := sys.stdin.readline():
        code = _fork(json.loads(line))
        again = child_limits.inherited() == unchanged and (not _LIMITS["isolated"] or _cleared())
        os.write(_STATUS, b"%d %d\n" % (code, again))
        if not again:
            return


if __name__ == "__main__":
    _STATUS = int(sys.argv[1])
    _LIMITS = json.loads(sys.argv[2])
    _exit_after(main)
