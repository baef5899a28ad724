"""Where an artefact store's files can lie: one root for each backend."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from edgepack_assets.artefacts.backend import Backend
from edgepack_assets.artefacts.store import open_backend
from edgepack_assets.config.registry_settings import AzureCredentialSettings


def root_url(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of an empty root of a backend."""
    if kind == "local":
        return str(folder / "store")
    if kind == "memory":
        return f"memory://{uuid.uuid4().hex}/store"
    azure = request.getfixturevalue("azure")
    host = azure.storage.host.replace(".blob.", ".dfs.")
    return f"abfs://{azure.azure_ml.container}@{host}/{uuid.uuid4().hex}/artefacts"


@pytest.fixture(params=["local", "memory", "abfs"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    url = root_url(request.param, request, tmp_path)
    yield open_backend(url, AzureCredentialSettings(), 20)
    if request.param == "memory":
        file_system, root = fsspec.core.url_to_fs(url)
        if file_system.exists(root):
            file_system.rm(root, recursive=True)
