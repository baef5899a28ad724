"""Assets of a workspace or registry through azure-ai-ml: listed page by page, and got.

Only public methods of the SDK are used, so that its versions may differ; what they leave out of an answer
(whether a version is archived or failed) is read off the wire."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from edgepack_assets.azure.calls import Backoff, Remote, quiet_logs
from edgepack_assets.azure.clouds import current_cloud
from edgepack_assets.azure.credential import make_credential
from edgepack_assets.azure.errors import AbsentError, RefusedError, where
from edgepack_assets.config.registry_settings import AzureMLRegistrySettings
from edgepack_assets.config.versions import Version, is_version_text
from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets.partitions import is_version
from edgepack_assets.registry.azure_ml.asset_api import DONE_STATES, AssetApi
from edgepack_assets.registry.base import Kind

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.credentials import TokenCredential

_MOST_PAGES = 10_000
_LONGEST_WAIT = 5.0
"""Seconds between two looks at a version that was changed."""
_IN_FORCE = "ActiveOnly"
"""As text: of the SDK's own ListViewType, 1.35 sends a registry the name of the Python object."""


@dataclass(frozen=True)
class Asset:
    """One version as Azure ML describes it. `version` is text: others may use what is no number."""

    kind: Kind
    name: str
    version: str
    type: str
    uri: str
    created: datetime
    tags: Mapping[str, str]
    archived: bool
    state: str = ""
    """`provisioningState` in lower case; empty where the service says nothing of it."""

    @property
    def is_usable(self) -> bool:
        """Whether it is in force and whole: not archived, not failed, not still being made or deleted."""
        return not self.archived and self.state in DONE_STATES


class Assets:
    """The SDK's client, made when it is first needed, and what the project asks of it."""

    def __init__(self, remote: Remote[AzureMLRegistrySettings]) -> None:
        self.remote = remote
        self.settings = remote.settings
        self._lock = threading.Lock()
        self._client: MLClient | None = None
        self._credential: TokenCredential | None = None
        self._noted: dict[str, tuple[bool, str]] = {}
        self.api = AssetApi(remote, lambda: self.credential)
        """What the SDK has no public method for."""

    @property
    def credential(self) -> TokenCredential:
        """Who we are; made once."""
        if self._credential is None:
            quiet_logs()
            self._credential = make_credential(self.settings.credential, self.remote.patience)
        return self._credential

    @property
    def client(self) -> MLClient:
        """The SDK's client; for a registry, making it asks where the registry is."""
        credential = self.credential
        with self._lock:
            if self._client is None:
                current_cloud()  # the SDK knows no word for the user where it is none
                client_class = _import_sdk()
                try:
                    self._client = self.remote.call("finding it", lambda: self._make(client_class, credential))
                except AbsentError as error:
                    raise EdgepackError(
                        f"{where(self.settings)}: there is none of that name: check registry.registry_name: {error}"
                    ) from None
            return self._client

    def _make(self, client_class: type[MLClient], credential: TokenCredential) -> MLClient:
        place = (
            {"registry_name": self.settings.registry_name}
            if self.settings.registry_name
            else {
                "subscription_id": self.settings.subscription_id,
                "resource_group_name": self.settings.resource_group,
                "workspace_name": self.settings.workspace_name,
            }
        )
        ml_client: MLClient = client_class(
            credential,
            **place,
            enable_telemetry=False,
            show_progress=False,
            per_call_policies=[_wire_reader(self._noted)],
            **self.remote.client_options(),
        )
        # Making a client sets its telemetry logger to tell of every call.
        logging.getLogger("azure.ai.ml._telemetry").setLevel(logging.CRITICAL)
        return ml_client

    # reading ----------------------------------------------------------------------------------------------

    def names(self, kind: Kind) -> list[str]:
        """Every name that is not archived, sorted."""
        operations, doing = self._operations(kind), f"listing the {_plural(kind)}"

        def listing() -> Any:
            return operations.list(list_view_type=_IN_FORCE)

        return sorted({str(item.name) for item in self._pages(doing, listing)})

    def versions(self, kind: Kind, name: str, archived: bool = False) -> list[Asset]:
        """The versions of a name that lists show, in no order: those in force, or with `archived` all."""
        operations = self._operations(kind)
        view = "All" if archived else _IN_FORCE
        doing = f"listing the versions of {kind} {name}"
        try:
            entities = list(self._pages(doing, lambda: operations.list(name=name, list_view_type=view)))
        except AbsentError:
            return []
        assets = [self._asset(kind, name, entity) for entity in entities]
        return assets if archived else [asset for asset in assets if not asset.archived]

    def archived(self, kind: Kind, name: str) -> list[Asset]:
        """The archived versions of a name, oldest first.

        The SDK lists only models in force of a registry, whatever it is asked for: there the numbers that the list
        leaves out are looked up one by one."""
        assets = {asset.version: asset for asset in self.versions(kind, name, archived=True)}
        if kind is Kind.MODEL and self.remote.settings.registry_name is not None:
            for number in range(1, (self.newest(kind, name) or 0) + 1):
                if str(number) not in assets and (asset := self.get(kind, name, number)) is not None:
                    assets[asset.version] = asset
        is_sound = is_version if kind is Kind.MODEL else is_version_text
        found = [asset for asset in assets.values() if asset.archived and is_sound(asset.version)]
        return sorted(found, key=lambda asset: (int(asset.version) if kind is Kind.MODEL else 0, asset.created))

    def get(self, kind: Kind, name: str, version: Version) -> Asset | None:
        """A version as it is now, archived or not; None if there is none."""
        entity = self._entity(kind, name, version)
        return None if entity is None else self._asset(kind, name, entity)

    def set_archived(self, kind: Kind, name: str, version: Version, archived: bool) -> bool | None:
        """Archive a version or bring it back, until it reads so; False if it did already, None if there is none."""
        backoff, changed = Backoff(self.remote.limit, _LONGEST_WAIT), False
        while True:
            asset = self.get(kind, name, version)
            if asset is None or asset.archived == archived:
                return None if asset is None else changed
            if changed and not backoff.wait():
                raise TransientError(f"{kind} {name}:{version}: Azure ML does not show it as changed yet; look later")
            self.api.set_archived(kind, name, version, archived)
            changed = True

    def _entity(self, kind: Kind, name: str, version: Version) -> Any:
        operations = self._operations(kind)
        try:
            return self.remote.call(f"reading {kind} {name}:{version}", lambda: operations.get(name, str(version)))
        except AbsentError:
            return None

    def _container(self, kind: Kind, name: str) -> Any:
        """The properties of a name's container, which counts its versions; None if there is none."""
        read = getattr(self._operations(kind), "_get", None)
        if read is None:
            return None
        try:
            return self.remote.call(f"reading {kind} {name}", lambda: read(name)).properties
        except (AbsentError, RefusedError):
            return None

    def labelled_latest(self, kind: Kind, name: str) -> str | None:
        """The version that the service calls the latest, which is the one created last; None if it names none.

        `MLClient.data.get(name, label="latest")` reads the same: the container is current, while lists lag."""
        return str(getattr(self._container(kind, name), "latest_version", "") or "") or None

    def newest(self, kind: Kind, name: str) -> int | None:
        """The highest number that the name's container counts, in one small request where it says one; or None."""
        following = str(getattr(self._container(kind, name), "next_version", "") or "")
        if is_version(following):
            return int(following) - 1 or None
        return max((int(a.version) for a in self.versions(kind, name) if is_version(a.version)), default=None)

    def newest_of_all(self, kind: Kind, most_pages: int) -> dict[str, int] | None:
        """The number that was made last of every name in force, from a list of at most so many pages; None if there
        are more, or if it does not tell the versions. Like every list it may lag."""
        operations, found = self._operations(kind), {}
        listed = self._pages_as_they_are(
            f"listing the {_plural(kind)}", lambda: operations.list(list_view_type=_IN_FORCE)
        )
        for number, page in enumerate(listed):
            if number == most_pages or not all(hasattr(item, "latest_version") for item in page):
                return None
            found.update({
                str(item.name): int(item.latest_version) for item in page if is_version(str(item.latest_version))
            })  # fmt: skip
        return found

    def _pages(self, doing: str, listing: Any) -> Iterator[Any]:
        for page in self._pages_as_they_are(doing, listing):
            yield from page

    def _pages_as_they_are(self, doing: str, listing: Any) -> Iterator[list[Any]]:
        pages = self.remote.call(doing, lambda: iter(listing().by_page()))
        for _ in range(_MOST_PAGES):
            page = self.remote.call(doing, lambda: _next_page(pages))
            if page is None:
                return
            yield page
        raise EdgepackError(f"{doing}: more than {_MOST_PAGES} pages: the list does not end")

    def _asset(self, kind: Kind, name: str, entity: Any) -> Asset:
        context = entity.creation_context
        archived, state = self._noted.get(str(entity.id), (False, ""))
        return Asset(
            kind=kind,
            name=name,
            version=str(entity.version),
            type=str(entity.type or ""),
            uri=str(entity.path or ""),
            created=_time(context.created_at if context is not None else None),
            tags={str(key): str(value) for key, value in (entity.tags or {}).items()},
            archived=archived,
            state=state,
        )

    def _operations(self, kind: Kind) -> Any:
        return self.client.models if kind is Kind.MODEL else self.client.data


def by_number(assets: Iterable[Asset]) -> list[Asset]:
    """The assets whose version is a number, the lowest first; each once, as pages of a list may overlap."""
    numbered = {int(asset.version): asset for asset in assets if is_version(asset.version)}
    return [asset for _, asset in sorted(numbered.items())]


def _plural(kind: Kind) -> str:
    return "models" if kind is Kind.MODEL else "data assets"


def _next_page(pages: Iterator[Any]) -> list[Any] | None:
    # A StopIteration must not cross threads; a page that failed may be asked for again.
    page = next(pages, None)
    return None if page is None else list(page)


def _time(value: Any) -> datetime:
    if isinstance(value, str):
        # The service writes seven digits of a second, one more than Python reads.
        value = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value).replace("Z", "+00:00"))
    if not isinstance(value, datetime):
        return datetime.fromtimestamp(0, UTC)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _import_sdk() -> type[MLClient]:
    """azure.ai.ml, without the log handler that it brings."""
    from azure.ai.ml import MLClient

    for name in ("azure.ai.ml", "azureml"):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
        logger.propagate = True
        logger.setLevel(logging.WARNING)
    # It warns of parts of its own that it uses itself.
    logging.getLogger("azure.ai.ml._utils._experimental").setLevel(logging.ERROR)
    return MLClient


def _wire_reader(noted: dict[str, tuple[bool, str]]) -> Any:
    """A policy that notes of each version in an answer whether it is archived, and its provisioning state: the SDK's
    entities know neither."""
    from azure.core.pipeline.policies import SansIOHTTPPolicy

    class Reader(SansIOHTTPPolicy):  # type: ignore[type-arg]
        def on_response(self, request: Any, response: Any) -> None:
            http = response.http_response
            if (
                request.http_request.method != "GET"
                or http.status_code != 200
                or "/versions" not in request.http_request.url
            ):
                return
            try:
                body = json.loads(http.text())
            except ValueError:
                return  # the SDK finds that out too
            for item in body.get("value", [body]) if isinstance(body, dict) else []:
                properties = item.get("properties") if isinstance(item, dict) else None
                if isinstance(properties, dict) and "id" in item:
                    state = str(properties.get("provisioningState") or "").lower()
                    noted[str(item["id"])] = bool(properties.get("isArchived")), state

    return Reader()
