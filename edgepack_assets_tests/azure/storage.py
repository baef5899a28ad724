"""Blob storage: Azurite, with TLS and OAuth, under the real host names; what a principal may do is checked here.

Azurite is installed once, by npm, into the project's .cache folder. EDGEPACK_AZURITE may name a folder that has
it already (the parent of its node_modules)."""

from __future__ import annotations

import base64
import http.client
import os
import re
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from edgepack_assets_tests.azure.http import Request, blob_error
from edgepack_assets_tests.azure.identity import Identity

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

VERSION = "3.35.0"
CACHE = Path(__file__).parents[2] / ".cache" / f"azurite-{VERSION}"
_MAIN = Path("node_modules/azurite/dist/src/blob/main.js")
_PIECE = 1 << 20
_COPIED = "0xC0FFEE"
"""How the ETag of a copy begins: no copy has the ETag of what it is a copy of."""
_WRITERS = {"Storage Blob Data Contributor", "Storage Blob Data Owner"}
_READERS = _WRITERS | {"Storage Blob Data Reader"}


def missing() -> str:
    """Why Azurite cannot run here; empty if it can."""
    lacking = [name for name in ("node", "npm") if shutil.which(name) is None]
    return f"{' and '.join(lacking)} not installed: Azurite, which stands for blob storage, needs it" if lacking else ""


def installed() -> Path:
    """Azurite's main script, installed if it is not yet."""
    given = os.environ.get("EDGEPACK_AZURITE")
    if given:
        return Path(given) / _MAIN
    CACHE.parent.mkdir(exist_ok=True)
    with filelock.FileLock(CACHE.with_suffix(".lock")):
        if not (CACHE / _MAIN).is_file():
            with tempfile.TemporaryDirectory(dir=CACHE.parent) as aside:
                subprocess.run(
                    ["npm", "install", "--prefix", aside, f"azurite@{VERSION}", "--no-audit", "--no-fund",
                     "--loglevel=error"],
                    check=True, stdin=subprocess.DEVNULL, timeout=300,
                )  # fmt: skip
                Path(aside).rename(CACHE)
                Path(aside).mkdir()  # what the context manager removes
    return CACHE / _MAIN


class Storage:
    """One storage account. `sas_lifetime` is that of the SAS which the control plane hands out.

    `mirror` is the host of a second account that holds copies of all of it, as a registry keeps them: the same bytes
    and MD5s under ETags of their own."""

    def __init__(self, account: str, identity: Identity, folder: Path) -> None:
        self.account = account
        self.key = base64.b64encode(os.urandom(64)).decode()
        self.host = f"{account}.blob.core.windows.net"
        self.mirror = f"{account}2.blob.core.windows.net"
        self.sas_lifetime = timedelta(hours=1)
        self._identity = identity
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self._port = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.load_verify_locations(folder / "ca.pem")

    @property
    def connection_string(self) -> str:
        """For clients of storage alone (adlfs, compute logs); it needs the loopback's environment too."""
        return (
            f"DefaultEndpointsProtocol=https;AccountName={self.account};AccountKey={self.key};"
            "EndpointSuffix=core.windows.net"
        )

    def start(self) -> None:
        command = [
            "node", str(installed()), "--blobHost", "127.0.0.1", "--blobPort", "0", "--oauth", "basic",
            "--cert", str(self._folder / "server.pem"), "--key", str(self._folder / "server.key"),
            "--skipApiVersionCheck", "--inMemoryPersistence", "--silent", "--disableTelemetry",
        ]  # fmt: skip
        if shutil.which("setpriv"):  # a test run that is killed leaves nothing behind
            command = ["setpriv", "--pdeathsig", "TERM", *command]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self._folder,
            env={"PATH": os.environ["PATH"], "AZURITE_ACCOUNTS": f"{self.account}:{self.key}"},
        )
        assert self._process.stdout is not None
        told = []
        for line in self._process.stdout:
            told.append(line)
            if match := re.search(r"successfully listen\w* on https://127\.0\.0\.1:(\d+)", line):
                self._port = int(match[1])
                return
        raise RuntimeError(f"Azurite did not start: {''.join(told)}")

    def stop(self) -> None:
        if self._process is not None:
            # Asked to end, it waits for connections that its clients keep; and it keeps nothing that could be lost.
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()

    def reset(self) -> None:
        """Signatures live for an hour."""
        self.sas_lifetime = timedelta(hours=1)

    def client(self, container: str) -> ContainerClient:
        """Straight to Azurite: what a test makes go wrong is not meant for the loopback's own requests."""
        from azure.storage.blob import ContainerClient

        url, ca = f"https://127.0.0.1:{self._port}/{self.account}", str(self._folder / "ca.pem")
        return ContainerClient(url, container, credential=self.key, connection_verify=ca, retry_total=0)

    def make_container(self, name: str) -> None:
        with self.client(name) as client:
            client.create_container()

    def sas(self, container: str, permissions: str = "racwdl") -> str:
        """A SAS token on a container."""
        from azure.storage.blob import generate_container_sas

        return generate_container_sas(
            self.account,
            container,
            account_key=self.key,
            permission=permissions,
            start=datetime.now(UTC) - timedelta(days=2),
            expiry=datetime.now(UTC) + self.sas_lifetime,
        )

    def serve(self, request: Request, source: Any, length: int) -> tuple[int, Mapping[str, str], Iterator[bytes]]:
        """Pass a request on to Azurite, in pieces both ways."""
        if refusal := self._refusal(request):
            _drain(source, length)
            return refusal.status, {**refusal.headers, "Content-Length": str(len(refusal.body))}, iter([refusal.body])
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, context=self._context, timeout=120)
        headers = {name: value for name, value in request.headers.items() if not name.startswith("proxy-")}
        headers["connection"] = "close"
        copied = request.host == self.mirror
        if copied:
            headers["host"] = self.host
            headers |= {k: v.replace(_COPIED, "") for k, v in headers.items() if k.startswith("if-")}
        body = _pieces(source, length) if length else None
        connection.request(request.method, request.target, body=body, headers=headers)
        found = connection.getresponse()
        # A HEAD's length and an answer in chunks are passed on as they are meant.
        named = {k: v for k, v in found.getheaders() if k.lower() not in ("connection", "keep-alive", "date", "server")}
        if copied:
            named |= {k: v.replace('"', '"' + _COPIED, 1) for k, v in named.items() if k.lower() == "etag"}
        if "chunked" in named.pop("transfer-encoding", named.pop("Transfer-Encoding", "")):
            whole = found.read()
            connection.close()
            if copied:
                whole = whole.replace(b"<Etag>", b"<Etag>" + _COPIED.encode())
            return found.status, {**named, "Content-Length": str(len(whole))}, iter([whole])

        return found.status, named, _closing(connection, found)

    def _refusal(self, request: Request) -> Any:
        authorization = request.headers.get("authorization", "")
        if not authorization.lower().startswith("bearer"):
            return None  # a SAS or a key, which Azurite checks
        principal, audience = self._identity.of(authorization)
        if principal is None or "storage.azure.com" not in audience:
            return blob_error(401, "InvalidAuthenticationInfo", "Server failed to authenticate the request.")
        wanted = _READERS if request.method in ("GET", "HEAD") else _WRITERS
        if not principal.roles & wanted:
            return blob_error(
                403,
                "AuthorizationPermissionMismatch",
                "This request is not authorized to perform this operation using this permission.",
            )
        return None


def _closing(connection: http.client.HTTPSConnection, found: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while piece := found.read(_PIECE):
            yield piece
    finally:
        connection.close()


def _pieces(source: Any, length: int) -> Iterator[bytes]:
    while length > 0:
        piece = source.read(min(length, _PIECE))
        if not piece:
            raise ConnectionError("the client went away")
        length -= len(piece)
        yield piece


def _drain(source: Any, length: int) -> None:
    for _ in _pieces(source, length):
        pass
