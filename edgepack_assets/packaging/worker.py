"""Packaging in a process of its own.

simaticai takes its time to import (see sdk.py), and it changes the logging of the process that does. So a worker
imports it while raw data is read, and Dagster's own process never does. `PackagingWorker` has a method for each
function of config_package.py, deployment_package.py and delta_package.py that the tasks call, with the function's own
signature. Both ends are this project's code: calls and answers cross as pickles.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edgepack_assets.errors import EdgepackError, PackageError, TransientError
from edgepack_assets.filesystem.atomic_files import disk_errors, is_transient
from edgepack_assets.filesystem.temp_folders import Scratch
from edgepack_assets.packaging.sdk import import_sdk
from edgepack_assets.packaging.stamp import COMPONENT

if TYPE_CHECKING:
    from edgepack_assets.artefacts.store import ArtefactStore
    from edgepack_assets.checks import CheckRow
    from edgepack_assets.environments.lock import Lock
    from edgepack_assets.model_types.interface import ComponentSpec
    from edgepack_assets.model_types.pipeline import PipelineComponent
    from edgepack_assets.packaging.delta_package import Delta
    from edgepack_assets.packaging.stamp import Stamp


_GRACE = 10.0
"""Seconds in which a worker ends that has closed its stream of answers."""


class PackagingWorker:
    """Starts at `start` or the first call, serves one call after the other, of any thread, ends with `close`.

    Every method that packages raises what the function of the same name raises, if that is an EdgepackError;
    PackageError if the worker failed otherwise, TransientError if it was killed or the machine ran out of something.
    `output`: a file that what the worker prints is appended to; None: where errors of this process go."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch: Scratch | None = None
        self._calling = threading.Lock()
        self.output: Path | None = None

    def start(self) -> None:
        """Begin to import the SDK, if that has not begun."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            # -P: a file in the working directory must not stand in for a library
            self._scratch = Scratch()  # the SDK leaves folders behind when it is killed
            with contextlib.ExitStack() as stack:
                errors = None if self.output is None else stack.enter_context(self.output.open("ab"))
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    stderr=errors, env={**os.environ, "TMPDIR": str(self._scratch.path)},
                )  # fmt: skip

    def build_config_package(  # noqa: PLR0917 - as the function
        self, component_folder: Path, spec: ComponentSpec, lock: Lock, package_name: str, description: str, work: Path
    ) -> Path:
        """The config package of a component, in `work`: see config_package.py."""
        package: Path = self._call(
            "build_config_package", component_folder, spec, lock, package_name, description, work
        )
        return package

    def build_pipeline_package(
        self, components: Sequence[PipelineComponent], lock: Lock, package_name: str, description: str, work: Path
    ) -> Path:
        """The config package of several components, in `work`: see config_package.py."""
        package: Path = self._call("build_pipeline_package", components, lock, package_name, description, work)
        return package

    def config_package_rows(
        self, config_package: Path, lock: Lock, components: Sequence[str] = (COMPONENT,)
    ) -> list[CheckRow]:
        """Rows of config_package.is_fit: see deployment_package.py."""
        rows: list[CheckRow] = self._call("config_package_rows", config_package, lock, components)
        return rows

    def expected_contents(self, config_package: Path, lock: Lock) -> dict[str, str]:
        """The contents that the deployment package must have: see deployment_package.py."""
        contents: dict[str, str] = self._call("expected_contents", config_package, lock)
        return contents

    def build_deployment_package(  # noqa: PLR0917 - as the function
        self, config_package: Path, lock: Lock, store: ArtefactStore, registered_name: str, stamp: Stamp, work: Path,
        digests: Mapping[str, str] | None = None,
    ) -> Path:  # fmt: skip
        """The stamped deployment package, in `work`: see deployment_package.py."""
        package: Path = self._call(
            "build_deployment_package", config_package, lock, store, registered_name, stamp, work, digests
        )
        return package

    def build_delta_package(self, origin: Path, package: Path, work: Path) -> Delta:
        """The delta of two deployment packages, in `work`: see delta_package.py."""
        delta: Delta = self._call("build_delta_package", origin, package, work)
        return delta

    def interrupt(self) -> None:
        """Kill the worker. A call that another thread has made fails with TransientError, the next one starts anew."""
        process = self._process
        if process is not None:
            process.kill()

    def _call(self, function: str, *arguments: Any) -> Any:
        with self._calling:
            return self._answer(function, *arguments)

    def _answer(self, function: str, *arguments: Any) -> Any:
        self.start()
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        try:
            pickle.dump((function, arguments, self.output), self._process.stdin)
            self._process.stdin.flush()
            failed, value = pickle.load(self._process.stdout)
        except (BrokenPipeError, EOFError, pickle.UnpicklingError):  # it ended before its answer, or within it
            code = self._end_code(self._process)
            # A signal is the machine's (out of memory, a shutdown), not the package's.
            kind = TransientError if code < 0 else PackageError
            raise kind(f"{function}: the packaging process ended with code {code}") from None
        except BaseException:
            self.close()  # the answer to this call must not be taken for that to the next one
            raise
        if failed:
            raise value
        return value

    @staticmethod
    def _end_code(process: subprocess.Popen[bytes]) -> int:
        try:
            return process.wait(_GRACE)
        except subprocess.TimeoutExpired:  # it wrote no answer, and stays
            process.kill()
            return process.wait()

    def close(self) -> None:
        """End the worker."""
        if self._process is not None:
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.kill()
            with contextlib.suppress(BrokenPipeError):  # what a dead worker did not read is of no use
                self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait()
            self._process = None
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            with disk_errors(scratch.path, "removed"):
                scratch.remove()


def served_functions() -> Mapping[str, Callable[..., Any]]:
    """The functions that PackagingWorker has methods for."""
    from edgepack_assets.packaging.config_package import build_config_package, build_pipeline_package
    from edgepack_assets.packaging.delta_package import build_delta_package
    from edgepack_assets.packaging.deployment_package import (
        build_deployment_package,
        config_package_rows,
        expected_contents,
    )

    functions = (
        build_config_package,
        build_pipeline_package,
        config_package_rows,
        expected_contents,
        build_deployment_package,
        build_delta_package,
    )
    return {function.__name__: function for function in functions}


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer calls until the other end closes. The SDK is imported before the first one comes."""
    import_sdk()
    functions = served_functions()
    while True:
        try:
            name, arguments, output = pickle.load(requests)
        except EOFError:
            return
        if output is not None:
            _print_to(output)
        try:
            answer: tuple[bool, Any] = (False, functions[name](*arguments))
        except EdgepackError as error:
            answer = (True, error)
        except Exception as error:  # noqa: BLE001 - reported to the caller, who knows which model it was about
            kind = TransientError if isinstance(error, OSError) and is_transient(error) else PackageError
            answer = (True, kind(f"{name} failed: {type(error).__name__}: {error}"))
        pickle.dump(answer, answers)
        answers.flush()


def _print_to(output: Path) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    with output.open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)


if __name__ == "__main__":
    # Answers have a stream of their own: what the SDK prints goes where errors go.
    with os.fdopen(os.dup(1), "wb") as stream:
        os.dup2(2, 1)
        serve(sys.stdin.buffer, stream)
