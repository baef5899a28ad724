"""Azure ML's computes, environments and code assets, in the shapes that the service was recorded to answer with.

A cluster is created by a long-running operation; an environment and a code asset are put at once."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from edgepack_assets_tests.azure.http import Request, Response, answer, arm_error
from edgepack_assets_tests.azure.identity import Principal
from edgepack_assets_tests.azure.storage import Storage

COMPUTE_OPERATOR = "AzureML Compute Operator"
SIZES = {"STANDARD_DS3_V2", "STANDARD_F4S_V2", "STANDARD_NC6S_V3"}
"""Sizes of nodes that the region has."""
_ACTIONS = "Microsoft.MachineLearningServices/workspaces"
ROLES = {
    "AzureML Data Scientist": {
        "actions": [f"{_ACTIONS}/*/read", f"{_ACTIONS}/*/action", f"{_ACTIONS}/*/delete", f"{_ACTIONS}/*/write"],
        "notActions": [
            f"{_ACTIONS}/delete", f"{_ACTIONS}/write", f"{_ACTIONS}/computes/*/write",
            f"{_ACTIONS}/computes/*/delete", f"{_ACTIONS}/computes/listKeys/action", f"{_ACTIONS}/listKeys/action",
        ],
    },
    COMPUTE_OPERATOR: {"actions": [f"{_ACTIONS}/computes/*"], "notActions": []},
    "Contributor": {"actions": ["*"], "notActions": ["Microsoft.Authorization/*/Write"]},
    "Reader": {"actions": ["*/read"], "notActions": []},
}  # fmt: skip
"""What the built-in roles allow, as Azure lists it."""


@dataclass
class _Operation:
    name: str
    looks_left: int
    error: tuple[str, str] | None


@dataclass
class Compute:
    """The state and its handlers. What a test may set:

    `creation_refusal` (status, code, message) answers a PUT of a cluster; `creation_error` (code, message) is what the
    operation ends with; `creation_looks` how often it is still under way."""

    base: str
    subscription_id: str
    location: str
    storage: Storage
    lock: threading.RLock = field(default_factory=threading.RLock)
    computes: dict[str, dict[str, Any]] = field(default_factory=dict)
    environments: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    codes: dict[str, dict[str, Any]] = field(default_factory=dict)
    running_on: Callable[[str], list[str]] = lambda _: []
    """The names of the jobs that run on a cluster."""
    creation_refusal: tuple[int, str, str] | None = None
    creation_error: tuple[str, str] | None = None
    creation_looks: int = 0
    _operations: dict[str, _Operation] = field(default_factory=dict)
    _containers: dict[str, str] = field(default_factory=dict)

    def reset(self) -> None:
        """Nothing there, nothing going wrong."""
        with self.lock:
            for each in (self.computes, self.environments, self.codes, self._operations, self._containers):
                each.clear()
        self.creation_refusal, self.creation_error, self.creation_looks = None, None, 0

    def add_cluster(self, name: str, kind: str = "AmlCompute", state: str = "Succeeded", **own: Any) -> dict[str, Any]:
        """A compute that is there already."""
        scale = {"minNodeCount": 0, "maxNodeCount": 4, "nodeIdleTimeBeforeScaleDown": "PT2H"}
        properties = {"vmSize": "STANDARD_DS3_V2", "vmPriority": "Dedicated", "osType": "Linux", "scaleSettings": scale}
        body = {
            "location": self.location,
            "identity": {"type": "SystemAssigned", "principalId": str(uuid.uuid4())},
            "properties": {"computeType": kind, "disableLocalAuth": True, "properties": {**properties, **own}},
        }
        return self._keep(name, body, state)

    # computes ---------------------------------------------------------------------------------------------

    def handle_computes(self, request: Request, rest: list[str], principal: Principal) -> Response:
        """`computes[/NAME[/listNodes]]`"""
        with self.lock:
            if not rest:
                return answer(200, {"value": [self._compute_body(name) for name in self.computes]})
            name = rest[0]
            if request.method == "PUT":
                return self._put_compute(request, name, principal)
            self._advance(name)
            if name not in self.computes:
                return Response(404)  # as recorded: without a body
            if rest[1:] == ["listNodes"]:
                return answer(200, {"nodes": self._nodes(name), "nextLink": None})
            return answer(200, self._compute_body(name))

    def _put_compute(self, request: Request, name: str, principal: Principal) -> Response:
        if not principal.roles & {COMPUTE_OPERATOR, "Contributor", "Owner"}:
            return arm_error(
                403,
                "AuthorizationFailed",
                f"The client '{principal.client_id}' with object id '{uuid.uuid4()}' does not have authorization to "
                f"perform action '{_ACTIONS}/computes/write' over scope '{request.path}' or the scope is invalid.",
            )
        if self.creation_refusal is not None:
            return arm_error(*self.creation_refusal)
        body = request.json
        size = str(body["properties"]["properties"]["vmSize"])
        if size.upper() not in SIZES:
            message = f"The specified VM size {size} is not available in the region {body['location']}."
            return arm_error(400, "BadArgument", message)
        known = self.computes.get(name)
        if known is not None and known["properties"]["provisioningState"] == "Creating":
            return arm_error(409, "Conflict", f"A compute {name} with that name is created already")
        self._keep(name, body, "Creating")
        operation = str(uuid.uuid4())
        self._operations[operation] = _Operation(name, self.creation_looks, self.creation_error)
        url = (
            f"https://management.azure.com/subscriptions/{self.subscription_id}/providers/Microsoft.MachineLearning"
            f"Services/locations/{self.location}/computeOperationsStatus/{operation}?api-version=2023-08-01-preview"
        )
        return answer(201, self._compute_body(name), Azure_AsyncOperation=url, Retry_After="1")

    def handle_operation(self, operation: str) -> Response:
        """The operation's status."""
        with self.lock:
            known = self._operations.get(operation)
            if known is None:
                return arm_error(404, "NotFound", f"no operation {operation}")
            self._look(known)
            if known.looks_left >= 0:
                return answer(200, {"status": "InProgress"}, Retry_After="1")
            if known.error is not None:
                code, message = known.error
                return answer(200, {"status": "Failed", "error": {"code": code, "message": message}})
            return answer(200, {"status": "Succeeded", "percentComplete": 100.0})

    def _advance(self, name: str) -> None:
        for known in self._operations.values():
            if known.name == name and known.looks_left >= 0:
                self._look(known)

    def _look(self, operation: _Operation) -> None:
        """Creating goes on whoever looks, at the operation or at the compute."""
        operation.looks_left -= 1
        if operation.looks_left == -1 and operation.name in self.computes:
            if operation.error is not None:
                del self.computes[operation.name]
            else:
                self.computes[operation.name]["properties"]["provisioningState"] = "Succeeded"

    def _keep(self, name: str, body: dict[str, Any], state: str) -> dict[str, Any]:
        own = dict(body["properties"].get("properties") or {})
        now = _now()
        own = {"errors": None, **own, "allocationState": "Steady", "currentNodeCount": 0, "targetNodeCount": 0}
        self.computes[name] = {
            "location": body.get("location") or self.location,
            "identity": body.get("identity"),
            "tags": body.get("tags"),
            "properties": {
                **body["properties"], "properties": own, "computeLocation": body.get("location"),
                "provisioningState": state, "provisioningErrors": None, "createdOn": now, "modifiedOn": now,
                "isAttachedCompute": False, "resourceId": None,
            },
        }  # fmt: skip
        return self.computes[name]

    def _compute_body(self, name: str) -> dict[str, Any]:
        kept = self.computes[name]
        nodes = len(self.running_on(name))
        own = {**kept["properties"]["properties"], "currentNodeCount": nodes, "targetNodeCount": nodes}
        return {
            "id": f"{self.base}/computes/{name}",
            "name": name,
            "type": "Microsoft.MachineLearningServices/workspaces/computes",
            **kept,
            "properties": {**kept["properties"], "properties": own},
        }

    def _nodes(self, name: str) -> list[dict[str, Any]]:
        return [
            {
                "nodeId": f"tvmps_{uuid.uuid5(uuid.NAMESPACE_URL, job).hex}_d", "port": 50000 + number,
                "privateIpAddress": f"10.0.0.{4 + number}", "publicIpAddress": "52.0.0.1", "nodeState": "running",
                "runId": job,
            }
            for number, job in enumerate(self.running_on(name))
        ]  # fmt: skip

    # environments -----------------------------------------------------------------------------------------

    def handle_environments(self, request: Request, rest: list[str]) -> Response:
        """`environments/NAME/versions/VERSION`"""
        if len(rest) != 3 or rest[1] != "versions":
            return arm_error(404, "NotFound", f"no route: {request.path}")
        key = (rest[0], rest[2])
        with self.lock:
            if request.method == "PUT":
                properties = request.json["properties"]
                known = self.environments.get(key)
                if known is not None:
                    fixed = ("image", "condaFile", "build")
                    if any(known.get(each) != properties.get(each) for each in fixed):
                        return arm_error(400, "UserError", "A resource with this name and version already exists.")
                self.environments[key] = {**properties, "environmentType": "UserCreated", "osType": "Linux"}
                return answer(201 if known is None else 200, self._environment_body(*key))
            if key not in self.environments:
                what = f"{self.base}/environments/{key[0]}/versions/{key[1]}"
                return arm_error(404, "UserError", f"Environment with ID: {what} not found", inner="NotFoundError")
            return answer(200, self._environment_body(*key))

    def _environment_body(self, name: str, version: str) -> dict[str, Any]:
        return {
            "id": f"{self.base}/environments/{name}/versions/{version}",
            "name": version,
            "type": "Microsoft.MachineLearningServices/workspaces/environments/versions",
            "properties": self.environments[name, version],
            "systemData": {"createdAt": _now(), "createdBy": "plant", "createdByType": "Application"},
        }

    # code -------------------------------------------------------------------------------------------------

    def handle_codes(self, request: Request, rest: list[str]) -> Response:
        """`codes/NAME/versions[/VERSION[/startPendingUpload]]`, and the search by the content's hash."""
        name, version = rest[0], rest[2] if len(rest) > 2 else ""
        with self.lock:
            if not version:
                wanted = request.query.get("hash")
                found = [key for key, each in self.codes.items() if each["properties"].get("hash_sha256") == wanted]
                return answer(200, {"value": [self._code_body(key) for key in found]})
            if rest[3:] == ["startPendingUpload"]:
                return answer(200, self._place(name))
            key = f"{name}/versions/{version}"
            if request.method == "PUT":
                if key in self.codes:
                    return arm_error(400, "UserError", "A code version cannot be changed", inner="Immutable")
                properties = request.json["properties"]
                self.codes[key] = {**properties, "properties": properties.get("properties") or {}}
                return answer(201, self._code_body(key))
            return answer(200, self._code_body(key)) if key in self.codes else arm_error(404, "UserError", "no code")

    def _place(self, name: str) -> dict[str, Any]:
        if name not in self._containers:
            self._containers[name] = f"{name[:30]}-{uuid.uuid4().hex[:20]}"
            self.storage.make_container(self._containers[name])
        container = self._containers[name]
        url = f"https://{self.storage.host}/{container}"
        group = self.base.partition("/providers/")[0]
        return {
            "blobReferenceForConsumption": {
                "blobUri": url,
                "storageAccountArmId": f"{group}/providers/Microsoft.Storage/storageAccounts/{self.storage.account}",
                "credential": {"credentialType": "SAS", "sasUri": f"{url}?{self.storage.sas(container, 'rcwl')}"},
            },
            "pendingUploadId": str(uuid.uuid4()),
            "pendingUploadType": "TemporaryBlobReference",
        }

    def _code_body(self, key: str) -> dict[str, Any]:
        return {
            "id": f"{self.base}/codes/{key}",
            "name": key.rpartition("/")[2],
            "type": "Microsoft.MachineLearningServices/workspaces/codes/versions",
            "properties": self.codes[key],
            "systemData": {"createdAt": _now(), "createdBy": "plant", "createdByType": "Application"},
        }

    def code_place(self, code_id: str) -> tuple[str, str]:
        """(container, folder) of a code asset's files."""
        match = re.search(r"/codes/(.+/versions/.+)$", code_id)
        assert match is not None, code_id
        container, _, folder = self.codes[match[1]]["codeUri"].partition(f"{self.storage.host}/")[2].partition("/")
        return container, folder.strip("/")

    # roles ------------------------------------------------------------------------------------------------

    @staticmethod
    def permissions(principal: Principal) -> Response:
        """What somebody may do in the workspace, as Azure lists it."""
        none: dict[str, list[str]] = {"dataActions": [], "notDataActions": []}
        return answer(200, {"value": [{**ROLES[role], **none} for role in sorted(principal.roles) if role in ROLES]})


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}7+00:00"
