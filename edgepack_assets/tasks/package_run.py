"""Running a package over a payload, with the libraries that its model type wants imported ahead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgepack_assets.environments.environment import Environment
from edgepack_assets.model_types.interface import Payload
from edgepack_assets.packaging.component_runs import PackageRun
from edgepack_assets.packaging.runner import PackageRunner
from edgepack_assets.partitions import ModelKey
from edgepack_assets.tasks.context import TaskContext


def run_package(  # noqa: PLR0917 - what is run, on what, and where
    subject: str,
    package: Path,
    environment: Environment,
    payload: Payload,
    key: ModelKey,
    work: Path,
    context: TaskContext,
    *,
    server: Environment | None = None,
    wheels: Mapping[str, Mapping[str, str]] | None = None,
    until_answers: int | None = None,
    known: PackageRun | None = None,
) -> tuple[PackageRun, PackageRunner]:
    """Run a config or deployment package in the sandbox: what it answered, and the runner with its extracted files.
    Both have their files in `work`. `subject` names it in errors, `key` its model type. `known`: the same package's
    run over the same payload, which is taken. The rest is as packaging/runner.py says.

    Raises TaskFailedError with the component's traceback and the record, ComponentError or PackageError."""
    with PackageRunner(package, work, context.sandbox, environment, wheels, server) as runner:
        run = known or runner.run(
            subject, payload.records, context.child_imports(key, environment.lock), until_answers, payload.count,
            context.child_imports(key, server.lock) if server else (),
        )  # fmt: skip
    return run, runner
