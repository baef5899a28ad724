"""Azure ML workspaces and registries behind the `Registry` interface.

    registry.py          the interface: versions, downloads that are verified, registrations that are identified
    contents.py          our own tags, and the names of a version's files
    client.py            assets as azure-ai-ml knows them
    asset_api.py         requests without the SDK: putting versions and tags, places of a registry
    datastores.py        where an asset's bytes lie, and with what right they are read and written
    connection_check.py  the connection, checked step by step

Calls, credentials, clouds and blobs are in edgepack_assets/azure/, which artefacts in Azure storage use too.
Nothing here is imported unless the configuration names Azure ML, and azure.ai.ml (four seconds) not before the
first remote call.
"""

from __future__ import annotations

from edgepack_assets.registry.azure_ml.connection_check import Step, check_connection
from edgepack_assets.registry.azure_ml.registry import AzureMLRegistry

__all__ = ["AzureMLRegistry", "Step", "check_connection"]
