"""What Azure ML says of a job, and what it means: the phase, why it failed, whether another attempt may succeed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from edgepack_assets.azure.errors import AbsentError
from edgepack_assets.compute.base import JobPhase
from edgepack_assets.errors import EdgepackError
from edgepack_assets.masking import without_secrets
from edgepack_assets.registry.azure_ml.client import Assets

_WORKSPACE_VERSION = "2024-10-01-preview"
_QUEUE_TAG = "_aml_system_ComputeTargetStatus"
"""In it the service writes what the cluster does while a job waits for it."""

_PHASES = {
    "Running": JobPhase.RUNNING,
    "Finalizing": JobPhase.RUNNING,
    "CancelRequested": JobPhase.RUNNING,
    "Completed": JobPhase.SUCCEEDED,
    "Failed": JobPhase.FAILED,
    "Canceled": JobPhase.CANCELLED,
    "NotResponding": JobPhase.NOT_RESPONDING,
    "Unknown": JobPhase.NOT_RESPONDING,
}
"""Every other status (NotStarted, Starting, Provisioning, Preparing, Queued, Paused, and those that are not known yet)
means that the job's command does not run, which `start_time_limit` bounds."""

_INFRASTRUCTURE = re.compile(
    r"(?i)preempt|evict|node (was )?(lost|unusable|unhealthy|removed|reclaimed)|unusable node|heartbeat|"
    r"\b(Service|System|Transient|InternalServer)(Error|Fault)\b|ServiceUnavailable|node\w* (went|became) "
)
_IMAGE_BUILD = re.compile(
    r"(?i)image ?build|build(ing)? (the )?(docker )?(image|environment)|environment build|ResolvePackageNotFound|"
    r"conda env(ironment)? (create|update)|failed to build (the )?environment"
)


def phase_of(status: str) -> JobPhase:
    """What a job's status means."""
    return _PHASES.get(status, JobPhase.WAITING)


def is_infrastructure(error: str) -> bool:
    """Whether a job failed for a reason that lies neither in the model nor in the configuration."""
    return _INFRASTRUCTURE.search(error) is not None


def is_image_build(error: str) -> bool:
    """Whether a job failed because its environment could not be built."""
    return _IMAGE_BUILD.search(error) is not None


def queue_state(tags: Mapping[str, Any]) -> str:
    """What the service says of a waiting job's place in the queue: `AllocationState Resizing, CurrentNodeCount 0`."""
    text = str(tags.get(_QUEUE_TAG) or "")
    try:
        told = json.loads(text)
    except ValueError:
        return without_secrets(text[:300])
    if not isinstance(told, dict):
        return without_secrets(text[:300])
    return ", ".join(f"{key} {value}" for key, value in told.items() if isinstance(value, (str, int)))[:300]


class RunHistory:
    """The service that knows why a job failed and when it started and ended, which the job itself does not tell."""

    def __init__(self, assets: Assets) -> None:
        self._assets = assets
        self._base = ""

    def details(self, name: str) -> dict[str, Any]:
        """The details of a job's run; empty if the service does not know them (yet)."""
        try:
            found = self._assets.api.ask_url(f"reading the details of job {name}", f"{self._runs()}/{name}/details")
        except AbsentError:
            return {}
        return found if isinstance(found, dict) else {}

    def _runs(self) -> str:
        if not self._base:
            doing = "asking where the workspace's run history is"
            workspace = self._assets.api.ask_workspace(doing, "GET", "", _WORKSPACE_VERSION) or {}
            discovery = str((workspace.get("properties") or {}).get("discoveryUrl") or "")
            services = self._assets.api.ask_url(doing, discovery) if discovery.startswith("https://") else None
            base = services.get("api") if isinstance(services, dict) else None
            if not isinstance(base, str) or not base.startswith("https://"):
                raise EdgepackError(f"{doing}: the workspace's discovery address {discovery} does not say it")
            settings = self._assets.settings
            self._base = (
                f"{base.rstrip('/')}/history/v1.0/subscriptions/{settings.subscription_id}/resourceGroups/"
                f"{settings.resource_group}/providers/Microsoft.MachineLearningServices/workspaces/"
                f"{settings.workspace_name}/runs"
            )
        return self._base


def error_of(details: Mapping[str, Any]) -> str | None:
    """`code: message` of a failed run; None if nothing is said."""
    outer: Any = details.get("error")
    inner = outer.get("error", outer) if isinstance(outer, dict) else None
    if not isinstance(inner, dict):
        return None
    codes = [str(inner.get("code") or "")]
    deeper = inner.get("innerError")
    while isinstance(deeper, dict) and len(codes) < 5:
        codes.append(str(deeper.get("code") or ""))
        deeper = deeper.get("innerError")
    code = "/".join(each for each in codes if each)
    message = " ".join(str(inner.get("message") or "").split())[:1500]
    return without_secrets(": ".join(each for each in (code, message) if each)) or None


def times_of(details: Mapping[str, Any]) -> dict[str, str]:
    """When the run started and ended, as the service writes times."""
    return {
        name: str(details[key])
        for name, key in (("started", "startTimeUtc"), ("ended", "endTimeUtc"))
        if details.get(key)
    }
