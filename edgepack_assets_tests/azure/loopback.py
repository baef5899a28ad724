"""All of the loopback Azure started together, and the environment that points a process at it."""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from edgepack_assets_tests.azure.certificates import trusted_file, write_certificates
from edgepack_assets_tests.azure.control_plane import ControlPlane
from edgepack_assets_tests.azure.faults import Faults
from edgepack_assets_tests.azure.identity import IMDS, LOGIN, Identity, Principal
from edgepack_assets_tests.azure.jobs import ARTIFACTS, Jobs
from edgepack_assets_tests.azure.server import Proxy
from edgepack_assets_tests.azure.storage import Storage

DATA_SCIENTIST = "AzureML Data Scientist"
BLOB_CONTRIBUTOR = "Storage Blob Data Contributor"
SOVEREIGN_STORAGE = ("core.chinacloudapi.cn", "core.usgovcloudapi.net")


class LoopbackAzure:
    """A tenant with a service principal that may do what the project needs, a workspace, a registry, storage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca, certificate, key = write_certificates(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.faults = Faults()
        self.identity = Identity(str(uuid.uuid4()))
        roles = {DATA_SCIENTIST, BLOB_CONTRIBUTOR}
        self.principal = self.identity.add(
            Principal(str(uuid.uuid4()), roles, secret=f"canary-{uuid.uuid4().hex}~secret")
        )
        self.storage = Storage("plantstorage", self.identity, folder)
        self.azure_ml = ControlPlane(self.identity, self.storage)
        self.jobs = Jobs(self.azure_ml.compute, self.identity, folder, lambda: self.node_environ)
        self.azure_ml.jobs = self.jobs
        self.proxy = Proxy(context, self.faults)
        self.proxy.route("management.azure.com", self.azure_ml.management)
        self.proxy.route("management.chinacloudapi.cn", self.azure_ml.management)
        for region in (".api.azureml.ms", ".experiments.azureml.net", ".api.ml.azure.cn"):
            self.proxy.route(region, self.azure_ml.regional)
        self.proxy.route(LOGIN, self.identity.login)
        for login in ("login.chinacloudapi.cn", "login.microsoftonline.us"):
            self.proxy.route(login, self.identity.login)
        self.proxy.route(IMDS, self.identity.imds)
        sovereign = [f"{self.storage.account}.blob.{suffix}" for suffix in SOVEREIGN_STORAGE]
        for host in (self.storage.host, self.storage.mirror, *sovereign):
            self.proxy.stream(host, self.storage.serve)

    def start(self) -> None:
        self.proxy.start()
        self.storage.start()
        with self.in_force():
            self.storage.make_container(self.azure_ml.container)
            self.storage.make_container(ARTIFACTS)

    def stop(self) -> None:
        self.jobs.reset()
        self.proxy.stop()
        self.storage.stop()

    def reset(self) -> None:
        """Nothing registered, nothing going wrong, the first service principal only."""
        self.faults.clear()
        self.azure_ml.reset()
        self.storage.reset()
        self.identity.reset(self.principal)
        self.proxy.seen.clear()
        self.proxy.refused.clear()
        self.proxy.errors.clear()
        self.proxy.passes_on = False
        self.proxy.sign_ins = 0

    def pass_on(self) -> None:
        """From now on hosts that are none of Azure's are reached, and trusted in this process's environment."""
        self.proxy.passes_on = True
        os.environ.update(self.environ)

    @property
    def environ(self) -> dict[str, str]:
        """What a process needs to reach this Azure and no other, and to be the service principal there."""
        proxy = f"http://127.0.0.1:{self.proxy.port}"
        trusted = str(trusted_file(self.ca) if self.proxy.passes_on else self.ca)
        return {
            "HTTPS_PROXY": proxy,
            "HTTP_PROXY": proxy,
            "NO_PROXY": "127.0.0.1,localhost",
            "REQUESTS_CA_BUNDLE": trusted,
            "SSL_CERT_FILE": trusted,
            "AZURE_TENANT_ID": self.identity.tenant_id,
            "AZURE_CLIENT_ID": self.principal.client_id,
            "AZURE_CLIENT_SECRET": self.principal.secret,
        }

    @property
    def node_environ(self) -> dict[str, str]:
        """What a node of a compute cluster needs to reach this Azure; it is nobody there but for its own identity."""
        return {name: value for name, value in self.environ.items() if not name.startswith("AZURE_")}

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """This process's environment is `environ`, until the block ends."""
        others = [name for name in os.environ if name.lower() in ("https_proxy", "http_proxy", "no_proxy", "all_proxy")]
        before = {name: os.environ.get(name) for name in {*self.environ, *others}}
        for name in others:
            del os.environ[name]
        os.environ.update(self.environ)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def registry_section(self, kind: str = "workspace") -> dict[str, str]:
        """The `registry` section of edgepack.yaml for the workspace or the registry."""
        if kind == "registry":
            return {"type": "azure_ml", "registry_name": self.azure_ml.registry_name}
        return {
            "type": "azure_ml",
            "subscription_id": self.azure_ml.subscription_id,
            "resource_group": self.azure_ml.resource_group,
            "workspace_name": self.azure_ml.workspace_name,
        }


@contextlib.contextmanager
def running() -> Iterator[LoopbackAzure]:
    """A loopback Azure for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="loopback-azure-") as folder:
        azure = LoopbackAzure(Path(folder))
        try:
            azure.start()
            yield azure
        finally:
            azure.stop()
