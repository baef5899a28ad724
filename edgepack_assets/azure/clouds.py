"""The clouds of Azure: where each is managed, signed in to, asked for a registry, and how its storage is called."""

from __future__ import annotations

import os
from dataclasses import dataclass

from edgepack_assets.errors import ConfigError

VARIABLE = "AZUREML_CURRENT_CLOUD"
"""The environment variable that azure-ai-ml takes the cloud's name from; the SDK sets it itself when it is unset."""
AUTHORITY_VARIABLE = "AZURE_AUTHORITY_HOST"
"""Where to sign in, whatever the cloud: azure-identity's variable."""


@dataclass(frozen=True)
class Cloud:
    """URLs of one cloud, without a slash at the end, and the suffix of its storage accounts."""

    management: str
    discovery: str
    authority: str
    storage: str


PUBLIC = Cloud(
    "https://management.azure.com",
    "https://eastus.api.azureml.ms",
    "https://login.microsoftonline.com",
    "core.windows.net",
)
_CLOUDS = {
    "AzureCloud": PUBLIC,
    "AzureChinaCloud": Cloud(
        "https://management.chinacloudapi.cn",
        "https://chinaeast2.api.ml.azure.cn",
        "https://login.chinacloudapi.cn",
        "core.chinacloudapi.cn",
    ),
    "AzureUSGovernment": Cloud(
        "https://management.usgovcloudapi.net",
        "https://usgovarizona.api.ml.azure.us",
        "https://login.microsoftonline.us",
        "core.usgovcloudapi.net",
    ),
}


def current_cloud() -> Cloud:
    """The cloud that the environment names. Raises ConfigError for one that is not known."""
    name = os.environ.get(VARIABLE, "AzureCloud")
    if name not in _CLOUDS:
        raise ConfigError(
            f"the environment variable {VARIABLE} is {name!r}; the clouds that can be used are: {', '.join(_CLOUDS)}"
        )
    return _CLOUDS[name]


def check_storage_suffix(suffix: str) -> None:
    """Refuse storage of a cloud in which nobody signs in: a token of another cloud is worth nothing there. A suffix
    that is none of the known ones (a private DNS zone) stands for itself."""
    if AUTHORITY_VARIABLE in os.environ or suffix == current_cloud().storage:
        return
    for name, cloud in _CLOUDS.items():
        if cloud.storage == suffix:
            raise ConfigError(
                f"artefacts.root lies in {name} ({suffix}): set the environment variable {VARIABLE} to {name}, so that "
                "signing in happens there too"
            )
