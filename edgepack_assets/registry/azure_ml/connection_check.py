"""The connection to Azure ML, checked step by step: where it breaks, and what is missing there."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from edgepack_assets.azure.calls import Remote
from edgepack_assets.azure.clouds import current_cloud
from edgepack_assets.azure.errors import where
from edgepack_assets.config.registry_settings import AzureMLRegistrySettings
from edgepack_assets.errors import EdgepackError
from edgepack_assets.registry.azure_ml.client import Assets
from edgepack_assets.registry.azure_ml.datastores import UPLOAD_DATASTORE, Places
from edgepack_assets.registry.base import Kind
from edgepack_assets.text_format import counted

_LONGEST_STEP = 30.0
"""Seconds for one call: whoever looks whether the connection holds waits for no outage to end."""


class Step(NamedTuple):
    """One step: what was checked, whether it holds, and what was found or is to be done."""

    step: str
    ok: bool
    words: str


def check_connection(settings: AzureMLRegistrySettings) -> Iterator[Step]:
    """Check the connection, yielding each step when it is done; the first one that fails is the last.

    Nothing is left behind but, where deleting is not allowed, a blob of a few bytes. Of a registry, whose versions
    cannot be taken back, only a place to upload to is asked for: always the same, which stays empty."""
    remote = Remote(settings, min(settings.time_limit, _LONGEST_STEP))
    assets = Assets(remote)
    places = Places(assets)
    steps: list[tuple[str, Callable[[], str]]] = [
        ("credential", lambda: _credential(assets, settings)),
        ("token", lambda: _token(assets)),
        ("registry" if settings.registry_name else "workspace", lambda: _place(assets)),
        ("models and data", lambda: _lists(assets)),
    ]
    if settings.registry_name:
        steps.append(("writing", lambda: _registry_place(assets)))
    else:
        steps += [("datastore", lambda: _datastore(places)), ("storage", lambda: _storage(places))]
    for name, step in steps:
        try:
            yield Step(name, True, step())
        except EdgepackError as error:
            yield Step(name, False, str(error))
            return


def _credential(assets: Assets, settings: AzureMLRegistrySettings) -> str:
    return f"{settings.credential.type} ({type(assets.credential).__name__})"


def _token(assets: Assets) -> str:
    scope = f"{current_cloud().management}/.default"
    assets.remote.call("signing in", lambda: assets.credential.get_token(scope))
    return "Azure gave a token"


def _place(assets: Assets) -> str:
    client: Any = assets.client
    settings = assets.settings
    if settings.registry_name:
        return f"{where(settings)}: found"
    workspace = assets.remote.call("reading the workspace", lambda: client.workspaces.get(settings.workspace_name))
    return f"{where(settings)}: readable, in {workspace.location}"


def _lists(assets: Assets) -> str:
    return f"{counted(len(assets.names(Kind.MODEL)), 'model')}, {counted(len(assets.names(Kind.DATA)), 'data asset')}"


def _registry_place(assets: Assets) -> str:
    container = assets.api.writable(Kind.MODEL, "edgepack-connection-check", 1)
    return f"a place to upload to was given, in {container.account_name}; no file was written and nothing registered"


def _datastore(places: Places) -> str:
    places.datastore(UPLOAD_DATASTORE).find(f"edgepack/{uuid.uuid4().hex}")
    return f"{UPLOAD_DATASTORE}: its files can be listed"


def _storage(places: Places) -> str:
    container = places.datastore(UPLOAD_DATASTORE)
    name = f"edgepack/connection-check/{uuid.uuid4().hex}"
    data = b"edgepack"
    container.call("writing a blob", lambda c: c.get_blob_client(name).upload_blob(data))
    back = container.call("reading it", lambda c: c.get_blob_client(name).download_blob().readall())
    if back != data:
        raise EdgepackError(f"{name}: storage gives back other bytes than were written")
    try:
        container.call("deleting it", lambda c: c.get_blob_client(name).delete_blob())
    except EdgepackError:
        return f"can be written and read; deleting is not allowed, so {name} stays (the project needs no more)"
    return "can be written and read"
