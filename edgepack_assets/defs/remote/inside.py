"""What runs in a job: the run of a request, told to the mailbox.

The job's machine is empty: home, temporary folder and caches are its own. Models and data come from the registry,
artefacts, locks and wheels from the artefact store. Who it is in Azure, the node says.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import dagster as dg

from edgepack_assets.artefacts.store import open_backend
from edgepack_assets.config.digest import use_digest
from edgepack_assets.config.loader import CONFIG_VARIABLE, load_settings
from edgepack_assets.config.registry_settings import AzureCredentialSettings
from edgepack_assets.config.schema import Settings
from edgepack_assets.defs.instance import HOME_VARIABLE
from edgepack_assets.defs.remote import mailbox as mail
from edgepack_assets.defs.remote.dagster_in_job import run_in_job
from edgepack_assets.defs.remote.mailbox import Mailbox, Sender
from edgepack_assets.defs.remote.output_files import send_outputs
from edgepack_assets.defs.remote.request import (
    CONFIG_NAME,
    FILES,
    REQUEST,
    RunRequest,
    differing_versions,
    python_version,
    software,
    unpack,
)
from edgepack_assets.errors import EdgepackError, IsolationError
from edgepack_assets.masking import without_secrets
from edgepack_assets.sandbox.self_test import try_protections

LoadDefinitions = Callable[[Path], dg.Definitions]
_TIME_LIMIT = 300.0
_OUTPUTS = Path(".edgepack", "outputs")
_WHAT_TO_CHANGE = (
    "Let the container make namespaces (compute.docker_args: --cap-add=SYS_ADMIN, --security-opt=seccomp=unconfined, "
    "--security-opt=apparmor=unconfined), install bubblewrap in the job's environment, or set runtime.isolation to "
    "best_effort if you trust the models"
)
_log = logging.getLogger("edgepack.job")


def main(arguments: Sequence[str], load: LoadDefinitions) -> int:
    """Do the run of a job. `load` gives the definitions for a configuration file. Returns the exit code: 0 if the run
    succeeded, 1 if it did not, 2 if it was not begun."""
    parser = argparse.ArgumentParser(prog="edgepack-job")
    parser.add_argument("--root", required=True)
    parser.add_argument("--job", required=True)
    parser.add_argument("--client-id")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        credential = AzureCredentialSettings(type="managed_identity", client_id=given.client_id)
        box = Mailbox(open_backend(given.root, credential, _TIME_LIMIT), given.job)
        if not box.claim():
            box.write(f"{mail.MESSAGES}/{mail.RESTARTED}", b"")
            _log.error(
                f"{given.job} was begun by another process before: the service has started it again. Nothing done"
            )
            return 2
        request = RunRequest.from_json(box.read(REQUEST))
        with Sender(box) as sender:
            return _work(request, box, sender, load)
    except EdgepackError as error:
        _log.error(without_secrets(str(error)))
        return 2


def _work(request: RunRequest, box: Mailbox, sender: Sender, load: LoadDefinitions) -> int:
    sender.message(mail.HELLO, versions=software(), python=python_version(), node=platform.node())
    try:
        if (difference := differing_versions(request.versions, software())) is not None:
            raise EdgepackError(difference)
        with tempfile.TemporaryDirectory(prefix="edgepack-run-") as folder:
            settings = _prepare(request, box, Path(folder))
            _check_isolation(settings)
            result = run_in_job(load(settings.file), request, sender.event)
            send_outputs(settings.file.parent / _OUTPUTS, box.write)
    except EdgepackError as error:
        sentence = without_secrets(str(error))
        _log.error(sentence)
        sender.message(mail.CLOSED, success=False, refused={"sentence": sentence, "error": type(error).__name__})
        return 2
    except BaseException as error:
        sender.message(mail.CLOSED, success=False, reason=without_secrets(f"{type(error).__name__}: {error}"))
        raise
    reason = without_secrets(result.reason) if result.reason else None
    sender.message(mail.CLOSED, success=result.success, reason=reason)
    return 0 if result.success else 1


def _prepare(request: RunRequest, box: Mailbox, folder: Path) -> Settings:
    """Write the job's edgepack.yaml and the files that it names, and have everything in this process use it."""
    config = folder / CONFIG_NAME
    config.write_text(request.config, encoding="utf-8")
    if (files := box.read(FILES)) is not None:
        unpack(files, folder)
    os.environ[CONFIG_VARIABLE] = str(config)
    # Where the project's own home would be, so that nobody is told that runs are kept elsewhere.
    os.environ[HOME_VARIABLE] = str(folder / ".edgepack" / "dagster")
    os.environ.setdefault("SIMATICAI_TELEMETRY", "deny")
    use_digest(config, request.config_digest)
    return load_settings(config)


def _check_isolation(settings: Settings) -> None:
    """What `edgepack doctor` tries. Raises IsolationError if isolation is required and does not hold here."""
    if settings.runtime.isolation != "required":
        return
    try:
        tried = try_protections(settings.runtime)
    except EdgepackError as error:
        raise IsolationError(f"model code cannot be isolated on the job's node: {error}. {_WHAT_TO_CHANGE}") from error
    for row in tried.rows:
        _log.info(f"isolation: {row.name}: {row.found}")
    failed = [*tried.missing, *(f"{row.name}: {row.found}" for row in tried.rows if not row.passed)]
    if failed:
        raise IsolationError(
            f"model code is not isolated on the job's node as runtime.isolation: required says ({'; '.join(failed)}). "
            f"{_WHAT_TO_CHANGE}"
        )
