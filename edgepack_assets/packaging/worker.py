"""Packaging in a process of its own.

simaticai takes half a second to import (it compiles a grammar), and it changes the logging of the process that does.
So a worker imports it while the model is inspected, and Dagster's own process never does. Both ends are this
project's code: calls and answers cross as pickles.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from typing import IO, Any

from edgepack_assets.errors import EdgepackError, PackageError, TransientError
from edgepack_assets.filesystem.atomic_files import is_transient


class PackagingWorker:
    """Starts at the first `start` or `call`, serves one call after the other, ends with `close`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin to import the SDK, if that has not begun."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            # -P: a file in the working directory must not stand in for a library
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of config_package.py or deployment_package.py, as `module.function`.

        Raises what it raises, if that is an EdgepackError; PackageError if the worker failed otherwise, TransientError
        if it was killed or the machine ran out of something."""
        self.start()
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        try:
            pickle.dump((function, arguments), self._process.stdin)
            self._process.stdin.flush()
            failed, value = pickle.load(self._process.stdout)
        except (BrokenPipeError, EOFError):
            code = self._process.wait()
            # A signal is the machine's (out of memory, a shutdown), not the package's.
            kind = TransientError if code < 0 else PackageError
            raise kind(f"{function}: the packaging process ended with code {code}") from None
        if failed:
            raise value
        return value

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


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer calls until the other end closes."""
    from edgepack_assets.packaging import config_package, deployment_package

    modules = {"config_package": config_package, "deployment_package": deployment_package}
    while True:
        try:
            name, arguments = pickle.load(requests)
        except EOFError:
            return
        module, _, function = name.partition(".")
        try:
            answer: tuple[bool, Any] = (False, getattr(modules[module], function)(*arguments))
        except EdgepackError as error:
            answer = (True, error)
        except Exception as error:  # noqa: BLE001 - told to the caller, who knows which model it was about
            kind = TransientError if isinstance(error, OSError) and is_transient(error) else PackageError
            answer = (True, kind(f"{name} failed: {type(error).__name__}: {error}"))
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    # Answers have a stream of their own: what the SDK prints goes where errors go.
    with os.fdopen(os.dup(1), "wb") as stream:
        os.dup2(2, 1)
        serve(sys.stdin.buffer, stream)
