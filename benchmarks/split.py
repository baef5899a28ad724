"""Where the time of one run goes, told by a run in a process of its own: waiting for model code, for the SDK and for
uv, our own code, and Dagster. Arguments: the partition, a file for the answer (JSON, seconds)."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from edgepack_assets.definitions import defs
from edgepack_assets.defs.assets import declare
from edgepack_assets.environments import environment, resolver
from edgepack_assets.packaging.worker import PackagingWorker
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets.tasks.ahead.built_package import BuiltAhead

SPENT: dict[str, float] = {"model code": 0.0, "SDK": 0.0, "uv and pip": 0.0, "assets": 0.0}


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, its time added to `name`."""

    def timing(*arguments: Any, **named: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return function(*arguments, **named)  # nobody waits for it
        began = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            SPENT[name] += time.perf_counter() - began

    return timing


def main(partition: str, told: Path) -> None:
    """Run everything for the partition and write the split."""
    Sandbox.run = timed("model code", Sandbox.run)  # type: ignore[method-assign]
    PackagingWorker._call = timed("SDK", PackagingWorker._call)  # type: ignore[method-assign]
    BuiltAhead.take = timed("SDK", BuiltAhead.take)  # type: ignore[method-assign]
    for module in (environment, resolver):
        module.run_command = timed("uv and pip", module.run_command)  # type: ignore[attr-defined]
    inside = declare.as_dagster_failure

    @contextlib.contextmanager
    def failures(*arguments: Any) -> Iterator[None]:
        began = time.perf_counter()
        try:
            with inside(*arguments):
                yield
        finally:
            SPENT["assets"] += time.perf_counter() - began

    declare.as_dagster_failure = failures
    job = defs.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.get() as instance:
        job.execute_in_process(instance=instance, partition_key=partition)
        (record,) = instance.get_run_records(limit=1)
    assert record.start_time is not None and record.end_time is not None
    whole = record.end_time - record.start_time
    waiting = SPENT["model code"] + SPENT["SDK"] + SPENT["uv and pip"]
    told.write_text(
        json.dumps(
            {
                "whole": whole,
                "waiting for model code": SPENT["model code"],
                "waiting for the SDK": SPENT["SDK"],
                "waiting for uv and pip": SPENT["uv and pip"],
                "our own code": SPENT["assets"] - waiting,
                "Dagster": whole - SPENT["assets"],
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
