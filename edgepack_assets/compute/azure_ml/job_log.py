"""The last lines of a job's log, read from the workspace's own storage.

The SDK's `stream` waits for the end, returns normally for a job that was cancelled, and needs the account's key."""

from __future__ import annotations

from edgepack_assets.azure.blob_container import Blob
from edgepack_assets.azure.errors import AbsentError, RefusedError
from edgepack_assets.masking import without_secrets
from edgepack_assets.registry.azure_ml.datastores import Places

_DATASTORE = "workspaceartifactstore"
_JOB_LOGS = ("user_logs/std_log.txt", "azureml-logs/70_driver_log.txt")
"""Of the runtime in use and the one before."""
_BUILD_LOG = "azureml-logs/20_image_build_log.txt"
_MOST_BYTES = 64 << 10


def job_log_tail(places: Places, name: str, line_count: int) -> str:
    """The last lines of what the job itself wrote, else of its environment's build; empty if there is none yet."""
    return _tail(places, name, line_count, (*_JOB_LOGS, _BUILD_LOG))


def build_log_tail(places: Places, name: str, line_count: int) -> str:
    """The last lines of the build of the job's environment; empty if there is none."""
    return _tail(places, name, line_count, (_BUILD_LOG,))


def _tail(places: Places, name: str, line_count: int, wanted: tuple[str, ...]) -> str:
    container = places.datastore(_DATASTORE)
    folder = f"ExperimentRun/dcid.{name}"
    # A prefix of its own for each kind of log: a job may have thousands of other files.
    blobs: dict[str, Blob] = {}
    for part in dict.fromkeys(path.partition("/")[0] for path in wanted):
        _, found = container.find(f"{folder}/{part}", is_folder=True)
        blobs |= {f"{part}/{blob.name}": blob for blob in found}
    for path in wanted:
        blob = blobs.get(path)
        if blob is None or blob.size == 0:  # of an empty one, no range can be read
            continue
        start = max(0, blob.size - _MOST_BYTES)

        def read(client: object, blob: Blob = blob, start: int = start) -> bytes:
            source = client.get_blob_client(blob.full_name)  # type: ignore[attr-defined]
            data: bytes = source.download_blob(start, blob.size - start, max_concurrency=1).readall()
            return data

        try:
            data = container.call(f"reading the log of job {name}", read)
        except (AbsentError, RefusedError):
            continue  # it was removed or cut meanwhile
        lines = data.decode("utf-8", errors="replace").splitlines()
        if start and len(lines) > 1:
            lines = lines[1:]  # begins in the middle
        return without_secrets("\n".join(lines[-line_count:]))
    return ""
