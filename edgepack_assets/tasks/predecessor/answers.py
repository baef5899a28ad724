"""What the package before answers to a payload: recorded, kept, or from a run of it.

How that is compared with the answers of a new package is in numbering.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.environments.lock import LOCKS, Lock, read_generation, split_name
from edgepack_assets.errors import PackageError
from edgepack_assets.model_types.interface import Payload, Results
from edgepack_assets.packaging.component_runs import PackageRun
from edgepack_assets.partitions import ModelKey
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.package_run import run_package
from edgepack_assets.tasks.packages.download import registered_zip
from edgepack_assets.tasks.packages.tags import LOCK_DIGEST, LOCK_KEY, SERVER_LOCK_DIGEST, SERVER_LOCK_KEY
from edgepack_assets.tasks.payload_data import open_payload
from edgepack_assets.tasks.predecessor.find import Predecessor, recorded
from edgepack_assets.tasks.predecessor.kept_answers import answers_key, keep_answers, kept_answers


@contextmanager
def answers_to(
    payload_data: Artefact, predecessor: Predecessor, key: ModelKey, context: TaskContext
) -> Iterator[Results]:
    """What the predecessor answers to a payload: as it was recorded or kept, else from a run of the registered package,
    whose results are kept.

    The results may be gone after the block. Raises EdgepackError if it cannot be run."""
    known, records = recorded(predecessor, context), payload_data.parts["records"]
    if known is not None and known.payload_data.parts["records"] == records:
        yield context.results_of(known.validation_results)
        return
    locks = [lock.digest for lock in _locks(predecessor, context) if lock is not None]
    kept_as = answers_key(predecessor.package.resolve().digest, locks, records)
    if (kept := kept_answers(kept_as, context.store, context.log)) is not None:
        yield kept
        return
    context.log.info(f"running {predecessor} over the payload of {key}, to compare its answers")
    with run_registered(predecessor, open_payload(payload_data, context), key, context) as run:
        keep_answers(kept_as, run.results, context.store)
        yield Results(run.results)


@contextmanager
def run_registered(
    predecessor: Predecessor, payload: Payload, key: ModelKey, context: TaskContext
) -> Iterator[PackageRun]:
    """Run a registered package over a payload, in its own environment; `key` names its model type.

    The files of the run are gone after the block. Raises EdgepackError if it cannot be run."""
    lock, server_lock = _locks(predecessor, context)
    with context.work_folder() as work:
        path = registered_zip(predecessor.package, work, context.registry)
        environment = context.environment(lock)
        server = context.environment(server_lock) if server_lock is not None else None
        run, _ = run_package(f"running {predecessor}", path, environment, payload, key, work, context, server=server)
        yield run


def _locks(predecessor: Predecessor, context: TaskContext) -> tuple[Lock, Lock | None]:
    """The lock of its environment, and the one that stands for the server's GPU runtime, if it has that."""
    lock = _lock(predecessor, context, LOCK_KEY, LOCK_DIGEST)
    if SERVER_LOCK_KEY not in predecessor.package.tags:
        return lock, None
    return lock, _lock(predecessor, context, SERVER_LOCK_KEY, SERVER_LOCK_DIGEST)


def _lock(predecessor: Predecessor, context: TaskContext, key_tag: str, digest_tag: str) -> Lock:
    key, digest = (predecessor.package.tags.get(tag, "") for tag in (key_tag, digest_tag))
    for name in context.store.names(LOCKS, key) if key else ():
        document = context.store.get_named(LOCKS, name) if split_name(name)[0] == key else None
        if document is not None and (lock := read_generation(name, document).lock).digest == digest:
            return lock
    raise PackageError(
        f"{predecessor} cannot be run: its lock {digest[:12] or '(its tags name none)'} is not in the artefact store"
    )
