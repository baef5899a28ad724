"""Maps errors to Dagster's: transient ones are retried a bounded number of times, others fail at once.

A retry policy on an asset would do the opposite: it retries whatever it does not know, an error in code included.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster._core.errors import DagsterUserCodeProcessError
from dagster_shared.error import SerializableErrorInfo

from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets.filesystem.atomic_files import is_transient

RETRIES = 3
DELAY = 5.0
"""Seconds before the first retry; four times as many before each later one."""


class PlainFailure(DagsterUserCodeProcessError, dg.Failure):  # noqa: N818 - a dg.Failure, as Dagster names it
    """A failure that is no bug: the run page shows its sentence, without a stack trace. It is not retried.

    Dagster puts the stack of whatever a step raises into the event, but takes what a `DagsterUserCodeProcessError`
    brings along as it is."""

    def __init__(self, sentence: str, error: str) -> None:
        """`error` is the name of the class of errors.py that the failure belongs to."""
        shown = SerializableErrorInfo(f"{sentence}\n", [], error)
        super().__init__(sentence, user_code_process_error_infos=[shown])  # type: ignore[no-untyped-call]
        dg.Failure.__init__(self, description=sentence, metadata={"error": error}, allow_retries=False)


@contextmanager
def as_dagster_failure(subject: str, retry_number: int) -> Iterator[None]:
    """Turn an EdgepackError into a `PlainFailure` that names `subject`, and an error that may pass (of
    the registry, a storage, the network, a full disk) into `dg.RetryRequested`. Other errors pass as they are, not
    retried."""
    try:
        yield
    except (TransientError, OSError) as error:
        if isinstance(error, OSError) and not is_transient(error):
            raise
        failure = dg.Failure(
            description=f"{subject}: {error}", metadata={"error": type(error).__name__, "transient": True}
        )
        raise dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=DELAY * 4**retry_number) from failure
    except EdgepackError as error:
        raise PlainFailure(f"{subject}: {error}", type(error).__name__) from None
