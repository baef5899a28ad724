"""Azure ML's control plane: a workspace under management.azure.com and a registry under its region's address.

Both hold assets (models, data) as containers with versions, in the shapes that the service was recorded to answer
with: a registry accepts a version (202, no body) and copies its files, then names now one and now another storage
account for them; lists and reads tell the same URI differently; a container counts what it gives out next. Lists come
in pages and from an index that may lag; reads by name and version are current."""

from __future__ import annotations

import copy
import re
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from edgepack_assets_tests.azure.compute import Compute
from edgepack_assets_tests.azure.http import Request, Response, answer, arm_error
from edgepack_assets_tests.azure.identity import Identity
from edgepack_assets_tests.azure.jobs import ARTIFACTS, Jobs
from edgepack_assets_tests.azure.storage import Storage

PLURALS = ("models", "data")
_VIEWS = ("ActiveOnly", "ArchivedOnly", "All")
_LATER = {"autoDeleteSetting": None, "provisioningState": "Succeeded", "stage": None, "intellectualProperty": None}
"""What the versions of the API that know stages tell of a model."""
_CONTAINER_NAME = r"[a-zA-Z0-9][a-zA-Z0-9\-_.]{0,254}"


@dataclass
class Asset:
    """One version as it is kept. `indexed` is when lists show it."""

    properties: dict[str, Any]
    created: str
    indexed: float
    modified: str = ""
    reads: int = 0


@dataclass
class Shelf:
    """The assets of a workspace or registry: [plural][name][version]."""

    base: str
    assets: dict[str, dict[str, dict[str, Asset]]] = field(default_factory=lambda: {plural: {} for plural in PLURALS})
    archived_containers: set[tuple[str, str]] = field(default_factory=set)
    deleted: set[tuple[str, str, str]] = field(default_factory=set)
    """Versions that were there: a registry gives their numbers to nobody."""


class ControlPlane:
    """The state and its handlers. `page_size`, `index_lag` (seconds), `conflict_status` and `identity_based`
    (whether the datastore holds no credential) may be set by a test."""

    def __init__(self, identity: Identity, storage: Storage, location: str = "westeurope") -> None:
        self.subscription_id = str(uuid.uuid4())
        self.resource_group = "plant-rg"
        self.workspace_name = "plant-ws"
        self.registry_name = "plant-registry"
        self.location = location
        self.container = f"azureml-blobstore-{uuid.uuid4()}"
        self.page_size = 3
        self.index_lag = 0.0
        self.conflict_status = 400
        self.identity_based = False
        self.lro_polls = 0
        self._identity = identity
        self._storage = storage
        self.jobs: Jobs | None = None
        """Set by whoever can give jobs a folder and an environment."""
        self._lock = threading.RLock()
        group = f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
        provider = f"{group}/providers/Microsoft.MachineLearningServices"
        self.workspace = Shelf(f"{provider}/workspaces/{self.workspace_name}")
        self.registry = Shelf(f"{provider}/registries/{self.registry_name}")
        self.compute = Compute(self.workspace.base, self.subscription_id, location, storage)
        self._operations: dict[str, tuple[int, str]] = {}
        self._temporary: dict[str, str] = {}

    def reset(self) -> None:
        """Nothing registered, no special behaviour."""
        with self._lock:
            for shelf in (self.workspace, self.registry):
                shelf.assets = {plural: {} for plural in PLURALS}
                shelf.archived_containers = set()
                shelf.deleted = set()
            self._temporary.clear()
        if self.jobs is not None:
            self.jobs.reset()
        self.compute.reset()
        self.page_size, self.index_lag, self.conflict_status, self.identity_based = 3, 0.0, 400, False
        self.lro_polls = 0

    # requests ---------------------------------------------------------------------------------------------

    def management(self, request: Request) -> Response:
        """management.azure.com"""
        refusal = self._refusal(request, f"https://{request.host}")
        if refusal is not None:
            return refusal
        path = request.path
        parts = path.strip("/").split("/")
        if len(parts) < 2 or parts[0] != "subscriptions":
            return arm_error(404, "NotFound", f"no route: {path}")
        if parts[1] != self.subscription_id:
            message = f"The subscription '{parts[1]}' could not be found."
            return arm_error(404, "SubscriptionNotFound", message)
        if match := re.fullmatch(r".*/locations/[^/]+/computeOperationsStatus/([0-9a-f-]+)", path):
            return self.compute.handle_operation(match[1])
        if len(parts) > 3 and parts[3].lower() != self.resource_group:
            return arm_error(404, "ResourceGroupNotFound", f"Resource group '{parts[3]}' could not be found.")
        base = self.workspace.base.lower()
        if not (path.lower() + "/").startswith(base + "/"):
            message = f"The Resource '{'/'.join(parts[5:8])}' under resource group '{parts[3]}' was not found."
            return arm_error(404, "ResourceNotFound", message)
        rest = path[len(base) :].strip("/").split("/") if len(path) > len(base) else []
        if not rest:
            return answer(200, self._workspace_body())
        if rest[0] == "datastores":
            return self._datastores(request, rest[1:])
        if rest[0] in PLURALS:
            return self._assets(request, self.workspace, rest, "https://management.azure.com")
        if (found := self._work(request, rest)) is not None:
            return found
        return arm_error(404, "NotFound", f"no route: {path}")

    def regional(self, request: Request) -> Response:
        """<region>.api.azureml.ms and cert-<region>.experiments.azureml.net: the discovery of registries, a registry's
        own assets, the operations on them; the run history of a workspace."""
        if request.path == "/discovery":
            host = f"https://{request.host}"
            return answer(200, {"api": host, "history": host, "studio": "https://ml.azure.com", "mlflow": host})
        refusal = self._refusal(request, "")
        if refusal is not None:
            return refusal
        if match := re.fullmatch(r"/registrymanagement/v1\.0/registries/([^/]+)/discovery", request.path):
            if match[1] != self.registry_name:
                return arm_error(404, "NotFound", f"Registry {match[1]} not found")
            return answer(200, self._discovery_body())
        if match := re.fullmatch(r"/assetstore/v1\.0/operations/([0-9a-f]+)", request.path):
            return self._poll(match[1])
        runs = re.escape(f"/history/v1.0{self.workspace.base}/runs/")
        if (match := re.fullmatch(f"(?i){runs}([^/]+)/details", request.path)) and self.jobs is not None:
            return self.jobs.details(match[1])
        path = request.path.removeprefix("/mferp/managementfrontend")
        base = self.registry.base
        if not path.startswith(base + "/"):
            return arm_error(404, "NotFound", f"no route: {request.path}")
        rest = path[len(base) :].strip("/").split("/")
        if rest[0] == "tempdatarefs" and request.method == "PUT":
            return self._temporary_reference(request, rest[1], rest[3])
        if rest[0] == "datarefs" and request.method == "POST":
            return self._data_reference(request)
        if rest[0] in PLURALS:
            host = f"https://{request.host}/mferp/managementfrontend"
            return self._assets(request, self.registry, rest, host)
        return arm_error(404, "NotFound", f"no route: {request.path}")

    def _work(self, request: Request, rest: list[str]) -> Response | None:
        """Jobs and what they need; None for a path that is none of theirs."""
        principal, _ = self._identity.of(request.headers.get("authorization", ""))
        if rest[0] == "computes" and principal is not None:
            return self.compute.handle_computes(request, rest[1:], principal)
        if rest == ["providers", "Microsoft.Authorization", "permissions"] and principal is not None:
            return self.compute.permissions(principal)
        if rest[0] == "environments":
            return self.compute.handle_environments(request, rest[1:])
        if rest[0] == "codes":
            return self.compute.handle_codes(request, rest[1:])
        if rest[0] == "jobs" and self.jobs is not None:
            return self.jobs.handle(request, rest[1:])
        return None

    # assets -----------------------------------------------------------------------------------------------

    def put(self, shelf: Shelf, plural: str, name: str, version: str, properties: dict[str, Any]) -> Asset:
        """Put a version on the shelf, as somebody else's pipeline may have done, whatever its version is."""
        now = _now()
        model: dict[str, Any] = {"flavors": {}, "modelType": "custom_model", "jobName": None}
        model |= {"originAssetId": None} if shelf is self.registry else _LATER
        data = {"dataType": "uri_folder"}
        whole = {
            "description": None, "tags": {}, "properties": {}, "isArchived": False, "isAnonymous": False,
            **(model if plural == "models" else data),
            **{key: value for key, value in properties.items() if value is not None},
        }  # fmt: skip
        uri = _uri(plural)
        whole[uri] = self._long(plural, str(whole[uri]))
        with self._lock:
            asset = Asset(whole, now, time.monotonic() + self.index_lag, now if plural == "models" else "")
            shelf.assets[plural].setdefault(name, {})[version] = asset
        return asset

    def _assets(self, request: Request, shelf: Shelf, rest: list[str], host: str) -> Response:
        plural, *inside = rest
        if request.query.get("listviewtype", "All") not in _VIEWS:
            return arm_error(400, "ValidationError", f"listViewType {request.query['listviewtype']} is not valid")
        with self._lock:
            if not inside:
                names = sorted(shelf.assets[plural])
                shown = [
                    self._container_body(shelf, plural, name)
                    for name in names
                    if self._visible(request, (plural, name) in shelf.archived_containers)
                    and any(self._indexed(asset) for asset in shelf.assets[plural][name].values())
                ]
                return self._page(request, shown, host)
            name = inside[0]
            versions = shelf.assets[plural].get(name)
            if len(inside) == 1:
                return self._missing(name) if not versions else self._found(shelf, plural, name)
            if len(inside) == 2:
                found = [
                    self._version_body(shelf, plural, name, version, asset, listed=True)
                    for version, asset in sorted((versions or {}).items(), key=lambda item: item[1].created)
                    if self._indexed(asset) and self._visible(request, asset.properties["isArchived"])
                ]
                if not versions and shelf is self.workspace:  # a registry answers with an empty list
                    return self._missing(name)
                return self._page(request, found[::-1], host)
            version = inside[2]
            if request.method == "PUT":
                return self._put(request, shelf, plural, name, version)
            if not versions or version not in versions:
                return self._missing(f"{self._id_base(shelf)}/{plural}/{name}/versions/{version}")
            versions[version].reads += 1
            return answer(200, self._version_body(shelf, plural, name, version, versions[version]))

    def _put(self, request: Request, shelf: Shelf, plural: str, name: str, version: str) -> Response:
        properties = request.json["properties"]
        uri = _uri(plural)
        if not re.fullmatch(_CONTAINER_NAME, name):
            return arm_error(400, "ValidationError", f"The name {name!r} is not valid")
        if plural == "models" and not re.fullmatch(r"[1-9][0-9]*", version):
            return arm_error(400, "UserError", "Model version must be a positive integer")
        if any(not isinstance(value, str) for value in (properties.get("tags") or {}).values()):
            return arm_error(400, "ValidationError", "tags must be strings")
        if (plural, name, version) in shelf.deleted:
            return self._deleted(plural, name, version)
        known = shelf.assets[plural].get(name, {}).get(version)
        if known is None:
            asset = self.put(shelf, plural, name, version, properties)
            return self._done(request, shelf, plural, name, version, asset, 201)
        if self._of_main(known.properties[uri]) != self._of_main(self._long(plural, properties[uri])):
            if self.conflict_status == 409:
                return arm_error(409, "Conflict", f"{name}:{version} exists already with another {uri}")
            return arm_error(
                400,
                "UserError",
                f"A resource with this name and version already exists. If you are trying to create a new resource, "
                f"use a different name or version. If you are trying to update an existing resource, the existing "
                f"resource's {uri} cannot be changed. Only tags, description, and isArchived can be updated.",
            )
        for key in ("tags", "description", "isArchived"):
            known.properties[key] = properties.get(key) or type(known.properties[key] or "")()
        known.properties["isArchived"] = bool(properties.get("isArchived"))
        known.modified = _now()
        return self._done(request, shelf, plural, name, version, known, 200)

    def _done(
        self, request: Request, shelf: Shelf, plural: str, name: str, version: str, asset: Asset, status: int
    ) -> Response:
        """What a workspace answers to a PUT; a registry says only where to ask whether it is done."""
        if shelf is self.workspace:
            location = {"Location": request.url} if status == 201 else {}
            return answer(status, self._version_body(shelf, plural, name, version, asset), **location)
        operation = uuid.uuid4().hex
        self._operations[operation] = (self.lro_polls, f"{self._id_base(shelf)}/{plural}/{name}/versions/{version}")
        url = f"https://{self.location}.api.azureml.ms/assetstore/v1.0/operations/{operation}"
        return answer(202, None, Location=url, x_ms_async_operation_timeout="PT1H")

    def _poll(self, operation: str) -> Response:
        if operation not in self._operations:
            return arm_error(404, "UserError", f"Operation {operation} not found")
        left, asset_id = self._operations[operation]
        if left:
            self._operations[operation] = (left - 1, asset_id)
            return Response(202)
        return answer(200, {"assetId": asset_id})

    def _page(self, request: Request, items: list[dict[str, Any]], host: str) -> Response:
        start = int(request.query.get("$skip", "0") or 0)
        size = min(self.page_size, int(request.query.get("$top") or self.page_size))
        more = {}
        if start + size < len(items) and "$top" not in request.query:
            others = "&".join(f"{k}={v}" for k, v in request.query.items() if k != "$skip")
            path = request.path.removeprefix("/mferp/managementfrontend")
            more = {"nextLink": f"{host}{path}?{others}&$skip={start + size}"}
        return answer(200, {"value": items[start : start + size], **more})

    @staticmethod
    def _visible(request: Request, archived: bool) -> bool:
        view = request.query.get("listviewtype", "ActiveOnly")
        return {"ActiveOnly": not archived, "ArchivedOnly": archived, "All": True}[view]

    @staticmethod
    def _indexed(asset: Asset) -> bool:
        return asset.indexed <= time.monotonic()

    @staticmethod
    def _missing(what: str) -> Response:
        return arm_error(404, "UserError", f"Could not find asset with ID: {what}", inner="NotFoundError")

    def _deleted(self, plural: str, name: str, version: str) -> Response:
        asset = f"{self._id_base(self.registry)}/{plural}/{name}/versions/{version}"
        words = "was deleted at 07/17/2023 16:50:49 +00:00, it cannot be recreated. Please try again with a different"
        return arm_error(400, "UserError", f"Asset {asset} {words} version.")

    def _found(self, shelf: Shelf, plural: str, name: str) -> Response:
        return answer(200, self._container_body(shelf, plural, name))

    def _container_body(self, shelf: Shelf, plural: str, name: str) -> dict[str, Any]:
        versions = shelf.assets[plural][name]
        newest = max(versions.items(), key=lambda item: item[1].created)[0]
        numbers = [int(version) for version in versions if version.isdigit()]
        kind = {} if plural == "models" else {"dataType": next(iter(versions.values())).properties["dataType"]}
        nothing = None if shelf is self.registry else {}
        return {
            "id": f"{self._id_base(shelf)}/{plural}/{name}",
            "name": name,
            "type": plural if shelf is self.registry else f"Microsoft.MachineLearningServices/workspaces/{plural}",
            "properties": {
                "description": None, "tags": nothing, "properties": nothing,
                "isArchived": (plural, name) in shelf.archived_containers,
                "latestVersion": newest, "nextVersion": str(max(numbers, default=0) + 1), **kind,
            },
            "systemData": self._system(versions[newest]),
        }  # fmt: skip

    def _version_body(
        self, shelf: Shelf, plural: str, name: str, version: str, asset: Asset, listed: bool = False
    ) -> dict[str, Any]:
        body = {
            "id": f"{self._id_base(shelf)}/{plural}/{name}/versions/{version}",
            "name": version,
            "type": f"Microsoft.MachineLearningServices/workspaces/{plural}/versions",
            "properties": copy.deepcopy(asset.properties),
            "systemData": self._system(asset),
        }
        uri = _uri(plural)
        if shelf is self.registry:
            body |= {"name": name if plural == "models" else version, "type": plural}
            if asset.reads % 2:
                body["properties"][uri] = self._of_mirror(asset.properties[uri])
        elif listed and plural == "data":
            inside = asset.properties[uri].partition("/datastores/")[2]
            if asset.properties[uri].startswith("azureml://subscriptions/"):
                body["properties"][uri] = f"azureml://workspaces/{self._workspace_id()}/datastores/{inside}"
        return body

    def _id_base(self, shelf: Shelf) -> str:
        return shelf.base if shelf is self.workspace else f"azureml://registries/{self.registry_name}"

    @staticmethod
    def _system(asset: Asset) -> dict[str, str]:
        by = {"createdAt": asset.created, "createdBy": "plant", "createdByType": "Application"}
        if not asset.modified:
            return {**by, "lastModifiedAt": asset.created}
        return {**by, "lastModifiedAt": asset.modified, "lastModifiedBy": "plant", "lastModifiedByType": "Application"}

    def _long(self, plural: str, uri: str) -> str:
        inside = re.sub(r"(?i)^azureml://(subscriptions/.*/workspaces/[^/]+/)?datastores/", "", uri)
        if inside == uri:
            return uri
        groups = "resourceGroups" if plural == "models" else "resourcegroups"
        return (
            f"azureml://subscriptions/{self.subscription_id}/{groups}/{self.resource_group}"
            f"/workspaces/{self.workspace_name}/datastores/{inside}"
        )

    def _of_mirror(self, uri: str) -> str:
        return uri.replace(self._storage.host, self._storage.mirror)

    def _of_main(self, uri: str) -> str:
        return uri.replace(self._storage.mirror, self._storage.host)

    def _workspace_id(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, self.workspace.base))

    # storage ----------------------------------------------------------------------------------------------

    def _datastores(self, request: Request, rest: list[str]) -> Response:
        containers = {"workspaceblobstore": self.container, "workspaceartifactstore": ARTIFACTS}
        known = {name: self._datastore_body(name, container) for name, container in containers.items()}
        if not rest:
            return answer(200, {"value": list(known.values()), "nextLink": None})
        if rest[0] not in known:
            return arm_error(404, "UserError", f"Error when getting datastore {rest[0]}: No datastore with that name")
        if rest[1:] == ["listSecrets"]:
            if self.identity_based:
                return answer(200, {"secretsType": "None"})
            if (request.json or {}).get("expirableSecret"):
                return answer(200, {"secretsType": "Sas", "sasToken": "?" + self._storage.sas(containers[rest[0]])})
            return answer(200, {"secretsType": "AccountKey", "key": self._storage.key})
        return answer(200, known[rest[0]])

    def _datastore_body(self, name: str, container: str) -> dict[str, Any]:
        return {
            "id": f"{self.workspace.base}/datastores/{name}",
            "name": name,
            "type": "Microsoft.MachineLearningServices/workspaces/datastores",
            "properties": {
                "description": None, "tags": None, "properties": None, "isDefault": name == "workspaceblobstore",
                "credentials": {"credentialsType": "None" if self.identity_based else "AccountKey"},
                "intellectualProperty": None, "subscriptionId": self.subscription_id,
                "resourceGroup": self.resource_group, "datastoreType": "AzureBlob",
                "accountName": self._storage.account, "containerName": container,
                "endpoint": "core.windows.net", "protocol": "https",
                "serviceDataAccessAuthIdentity": "WorkspaceSystemAssignedIdentity",
            },
            "systemData": {"createdAt": "2026-01-01T00:00:00.0146435+00:00", "createdByType": "Application"},
        }  # fmt: skip

    def _temporary_reference(self, request: Request, name: str, version: str) -> Response:
        match = re.fullmatch(
            r"azureml://registries/[^/]+/(models|data)/([^/]+)/versions/([^/]+)", request.json["assetId"]
        )
        assert match is not None, request.json
        if version in self.registry.assets[match[1]].get(name, {}):
            return arm_error(409, "UserError", f"{name}:{version} already exists")
        if (match[1], name, version) in self.registry.deleted:
            return self._deleted(match[1], name, version)
        with self._lock:
            container = self._temporary.get(request.json["assetId"])
            if container is None:
                container = f"plant-regi-{uuid.uuid4()}"
                self._storage.make_container(container)
                self._temporary[request.json["assetId"]] = container
        return answer(200, self._reference(container, "", "rcwl"))

    def _data_reference(self, request: Request) -> Response:
        found = urlsplit(request.json["blobUri"])
        container, _, path = found.path.strip("/").partition("/")
        return answer(200, self._reference(container, path, "rl", found.netloc))

    def _reference(self, container: str, path: str, permissions: str, host: str = "") -> dict[str, Any]:
        """To write: a container, its port told. To read: the blob or folder, the signature for all of its container."""
        host = host or self._storage.host
        blob = f"https://{host}/{container}/{path}" if path else f"https://{host}:443/{container}"
        account = f"/subscriptions/{self.subscription_id}/resourceGroups/azureml-rg/providers/Microsoft.Storage"
        return {
            "blobReferenceForConsumption": {
                "blobUri": blob,
                "storageAccountArmId": f"{account}/storageAccounts/{host.partition('.')[0]}",
                "credential": {
                    "credentialType": "SAS",
                    "sasUri": f"https://{host}/{container}?{self._storage.sas(container, permissions)}",
                    "wasbsUri": None,
                },
            },
            "imageReferenceForConsumption": None,
            "temporaryDataReferenceId": str(uuid.uuid4()),
            "temporaryDataReferenceType": None,
        }

    # what everything shares -------------------------------------------------------------------------------

    def _refusal(self, request: Request, audience: str) -> Response | None:
        principal, given = self._identity.of(request.headers.get("authorization", ""))
        if principal is None:
            return arm_error(
                401, "InvalidAuthenticationToken", "The access token is missing, expired or not valid.",
                WWW_Authenticate='Bearer authorization_uri="https://login.microsoftonline.com/"',
            )  # fmt: skip
        if audience and not given.rstrip("/").startswith(audience):
            return arm_error(401, "InvalidAuthenticationTokenAudience", f"The audience {given} is not {audience}.")
        reads = request.method == "GET"
        able = {"AzureML Data Scientist", "Contributor", "Owner", "AzureML Registry User"}
        if principal.roles & able or (reads and "Reader" in principal.roles):
            return None
        words = "/".join(request.path.removeprefix("/mferp/managementfrontend").split("/")[7:10:2])
        return arm_error(
            403,
            "AuthorizationFailed",
            f"The client '{principal.client_id}' does not have authorization to perform action "
            f"'Microsoft.MachineLearningServices/{words}/{'read' if reads else 'write'}' over scope '{request.path}' "
            "or the scope is invalid. If access was recently granted, please refresh your credentials.",
        )

    def _workspace_body(self) -> dict[str, Any]:
        return {
            "id": self.workspace.base,
            "name": self.workspace_name,
            "type": "Microsoft.MachineLearningServices/workspaces",
            "location": self.location,
            "tags": {},
            "kind": "Default",
            "sku": {"name": "Basic", "tier": "Basic"},
            "identity": {"type": "SystemAssigned", "principalId": str(uuid.uuid4()), "tenantId": str(uuid.uuid4())},
            "properties": {
                "friendlyName": self.workspace_name, "description": "", "provisioningState": "Succeeded",
                "workspaceId": self._workspace_id(), "hbiWorkspace": False,
                "storageAccount": f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
                f"/providers/Microsoft.Storage/storageAccounts/{self._storage.account}",
                "discoveryUrl": f"https://{self.location}.api.azureml.ms/discovery", "publicNetworkAccess": "Enabled",
            },
            "systemData": {"createdAt": "2026-01-01T00:00:00Z", "createdByType": "User"},
        }  # fmt: skip

    def _discovery_body(self) -> dict[str, Any]:
        registry_id = str(uuid.uuid5(uuid.NAMESPACE_URL, self.registry.base))
        return {
            "registryId": registry_id,
            "registryName": self.registry_name,
            "tenantId": self._identity.tenant_id,
            "primaryRegion": self.location,
            "regions": [self.location],
            "subscriptionId": self.subscription_id,
            "resourceGroup": self.resource_group,
            "workspaceName": None,
            "primaryRegionResourceProviderUri": f"https://cert-{self.location}.experiments.azureml.net/",
            "registryFqdns": {
                self.location: {"uri": f"https://{registry_id}.registry.{self.location}.api.azureml.ms"},
            },
        }


def _now() -> str:
    """Seven digits of a second, as the service tells them."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}7+00:00"


def _uri(plural: str) -> str:
    return "modelUri" if plural == "models" else "dataUri"
