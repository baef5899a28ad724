"""Runs code that we don't trust: isolated from this machine, in the component's own environment, with an allow-list of
environment variables, limits on time, memory and disk, and results in a format that executes nothing.

A `Sandbox` keeps one child per environment in use, which has imported its heavy libraries, but no model code, and
forks a process for each job: importing scikit-learn takes longer than answering a recording.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments.environment import Environment
from edgepack_assets.errors import ComponentError
from edgepack_assets.sandbox.child_output import quoted, without_folder
from edgepack_assets.sandbox.child_process import ChildProcess, identity_of
from edgepack_assets.sandbox.isolation import Backend, Isolation, isolation_for
from edgepack_assets.sandbox.jobs import SandboxJob
from edgepack_assets.sandbox.untrusted_files import open_output, take_output

_RESULT_LIMIT = 8 << 20
"""Bytes of JSON: as values of Python they take some twenty times that."""
_GIB = 1 << 30
_QUIET = logging.Logger("quiet", logging.CRITICAL + 1)


@dataclass(frozen=True)
class ChildFailure:
    """What a child reported about its failure: exception type, message, module name (ImportError), record, traceback.

    `for_user`: the component's own code refuses something, in words for the user (its exception's class has
    `is_for_user`). `importing`: the library that could not be imported ahead of the job."""

    type: str
    message: str
    name: str | None
    record: int | None
    traceback: str
    for_user: bool = False
    importing: str | None = None


_FAILURE = TypeAdapter(ChildFailure)


class TaskFailedError(ComponentError):
    """Code in the child raised. `failure` is what the child reported."""

    def __init__(self, subject: str, failure: ChildFailure) -> None:
        at = "" if failure.record is None else f" at record {failure.record}"
        limit = " (runtime.memory_limit in edgepack.yaml)" if failure.type == "MemoryError" else ""
        message = f"{subject} failed{at}: {failure.message or failure.type}{limit}"
        if failure.importing:
            message = f"{subject} failed: {failure.importing} cannot be imported: {failure.type}: {failure.message}"
        super().__init__(message if failure.for_user else f"{message}\n{failure.traceback}")
        self.failure = failure


class Sandbox:
    """Runs jobs in child processes. Use as a context manager, or `close` it: the child is ended then.

    `backends` are the ones to try for isolation, in this order; all by default."""

    def __init__(
        self, settings: RuntimeSettings, log: logging.Logger | None = None, backends: Sequence[Backend] | None = None
    ) -> None:
        self._settings = settings
        self._backends = backends
        self.log: Any = log or logging.getLogger(__name__)
        self._child: ChildProcess | None = None
        self._isolation: Isolation | None = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            child.end(self.log)

    def release(self) -> None:
        """Have nothing left that another model must not meet. The child stays only if its jobs were isolated from
        this machine in every way: it forks a process for each, ends all that they start, and takes no further job if
        one has changed what the next one would inherit."""
        if self._child is not None and (self.isolation.missing or self._child.has_ended()):
            self.close()
        self._isolation = None  # what is missing is said again: the next run has a log of its own

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Start a child before there is a run that what is missing of the isolation can be said to: it is said when the
        run asks for it."""
        log, self.log = self.log, _QUIET
        try:
            yield
        finally:
            self.log, self._isolation = log, None

    @property
    def isolation(self) -> Isolation:
        """How children are isolated. Raises IsolationError if that is required and does not work here."""
        if self._isolation is None:
            self._isolation = isolation_for(self._settings.isolation, self._backends)
            if self._isolation.backend != "none" and self._isolation.missing:
                self.log.warning(
                    f"model code is isolated by {self._isolation.backend}, but on this machine it does not hold that "
                    f"{', '.join(self._isolation.missing)} (`edgepack doctor` tries it); with `runtime.isolation: "
                    "required` it would not run at all"
                )
            elif self._isolation.missing:
                self.log.warning(
                    "model code is NOT isolated on this machine: it runs as this user, with its files, processes and "
                    "network in reach. Install bubblewrap or allow user namespaces (`edgepack doctor` tries them); "
                    "with `runtime.isolation: required` it would not run at all"
                )
        return self._isolation

    def prepare(self, environment: Environment, child_imports: Iterable[str]) -> None:
        """Start a child that imports `child_imports` while this process does something else.

        Raises EnvironmentBuildError if the environment's interpreter does not start, IsolationError."""
        modules = tuple(child_imports)
        child = self._child
        if child is None or child.identity != identity_of(environment, modules) or child.has_ended():
            self.close()
            self._child = ChildProcess(environment, modules, self._settings, self.isolation)

    def run(
        self,
        subject: str,
        environment: Environment,
        child_imports: Iterable[str],
        job: SandboxJob,
        *,
        inputs: Mapping[str, Path] | None = None,
        outputs: Mapping[str, Path] | None = None,
    ) -> Any:
        """Do `job` and return its value.

        The job works on copies: of its `folder`, which is its working directory, of its `file`, if it has one, and
        of `inputs`. Files that it writes for `outputs` are put there. `subject` names it in errors. Raises
        TaskFailedError if the code raised, ComponentError if it ran too long, used too much memory or disk, died or
        returned something that is not JSON; TransientError if it was killed from outside. Outputs are not trusted
        either: open them with `open_output`.
        """
        self.prepare(environment, child_imports)
        assert self._child is not None
        try:
            with self._child.job(job, inputs or {}, outputs or {}) as laid_out:
                self._child.do(subject, laid_out, self.log)
                value = _value(subject, laid_out.result, self._child.work)
                for name, path in (outputs or {}).items():
                    limit = int(self._settings.disk_limit * _GIB)
                    take_output(laid_out.outputs[name], path, limit, subject, below=self._child.work)
                return value
        except TaskFailedError:
            raise  # the job reported this itself; the child is sound
        except BaseException:
            self.close()
            raise


def _value(subject: str, result: Path, work: Path) -> Any:
    """What a result file says. The child is not trusted to have written it as child_main.py does."""
    with open_output(result, _RESULT_LIMIT, subject, below=work) as stream:
        text = stream.read(_RESULT_LIMIT + 1)
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
        if document.keys() == {"value"}:
            return document["value"]
        failure = _FAILURE.validate_python(document["error"])
    except (AttributeError, KeyError, ValueError, RecursionError, ValidationError) as error:
        raise ComponentError(
            f"{subject} gave a result that is not one: {type(error).__name__}: {error!s:.200}"
        ) from None
    raise TaskFailedError(
        subject,
        ChildFailure(
            type=quoted(failure.type[:200]), message=quoted(without_folder(failure.message, work)[:10_000]),
            name=failure.name and quoted(failure.name[:200]), record=failure.record,
            traceback=f"| {quoted(without_folder(failure.traceback, work)[-20_000:])}", for_user=failure.for_user,
            importing=failure.importing and quoted(failure.importing[:200]),
        ),
    )  # fmt: skip


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
