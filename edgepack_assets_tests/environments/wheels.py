"""Wheels made by hand, and a package index on the loopback interface that serves them: no test needs a network."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import socket
import struct
import threading
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import quote, unquote


def wheel(
    name: str,
    version: str,
    tag: str = "py3-none-any",
    *,
    requires: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
    python: str | None = None,
) -> tuple[str, bytes]:
    """(file name, bytes) of a wheel. `tag` may start with a build number: "1-py3-none-any"."""
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {line}\n" for line in requires)
    needs += f"Requires-Python: {python}\n" if python else ""
    content = {
        **(files if files is not None else {f"{name}.py": f"TAG = {tag!r}\n"}),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n{_tags(tag)}",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
        f"{len(text.encode())}\n"
        for path, text in content.items()
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in {**content, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), text)
    return f"{name}-{version}-{tag}.whl", buffer.getvalue()


def _tags(tag: str) -> str:
    python, abi, platforms = tag.split("-")[-3:]
    return "".join(f"Tag: {p}-{abi}-{one}\n" for p in python.split(".") for one in platforms.split("."))


@dataclass(frozen=True)
class Answer:
    """What a troubled index sends: `length` is the Content-Length that it tells, of `body` if None; `reset` breaks
    the connection off at once."""

    status: int = 200
    body: bytes = b""
    length: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    reset: bool = False


@dataclass
class Index:
    """A simple index (PEP 503). `claims` replaces what it tells of a file's hash; "" tells nothing. `trouble` may
    answer a path in its place; it may also wait. `metadata` is what it tells of a wheel's METADATA (PEP 658).
    `caching` lets answers be remembered for ten minutes, as PyPI does."""

    wheels: dict[str, bytes] = field(default_factory=dict)
    claims: dict[str, str] = field(default_factory=dict)
    credentials: str | None = None
    asked: list[str] = field(default_factory=list)
    yanked: set[str] = field(default_factory=set)
    metadata: dict[str, bytes] = field(default_factory=dict)
    caching: bool = False
    trouble: Callable[[str], Answer | None] = lambda path: None

    def add(self, *wheels: tuple[str, bytes]) -> None:
        self.wheels.update(wheels)

    @property
    def url(self) -> str:
        return self.url_with(self.credentials)

    def url_with(self, credentials: str | None) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{f'{credentials}@' if credentials else ''}{host!s}:{port}/simple"

    def __enter__(self) -> Index:
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.append(self.path)
                if (wrong := index.trouble(self.path)) is not None:
                    self.send_wrong(wrong)
                    return
                status, body = index.answer(self.path, self.headers.get("Authorization"))
                self.send_response(status)
                if status == 401:
                    self.send_header("WWW-Authenticate", 'Basic realm="index"')
                self.send_header("Content-Type", "text/html" if "/files/" not in self.path else "application/zip")
                if index.caching:
                    self.send_header("Cache-Control", "max-age=600")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def send_wrong(self, wrong: Answer) -> None:
                self.close_connection = True
                if wrong.reset:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                    return
                self.send_response(wrong.status)
                self.send_header("Content-Type", "text/html" if "/files/" not in self.path else "application/zip")
                for name, value in wrong.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(wrong.body) if wrong.length is None else wrong.length))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(wrong.body)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Answer no more: connections are refused."""
        if not self._thread.is_alive():
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str, authorization: str | None) -> tuple[int, bytes]:
        if self.credentials is not None:
            told = base64.b64encode(unquote(self.credentials).encode()).decode()
            if authorization != f"Basic {told}":
                return 401, b"who are you?"
        if path.startswith("/files/"):
            name = unquote(path.removeprefix("/files/"))
            data = self.metadata.get(name[:-9]) if name.endswith(".metadata") else self.wheels.get(name)
            return (200, data) if data is not None else (404, b"")
        wanted = path.removeprefix("/simple/").strip("/")
        found = [
            f'<a href="/files/{quote(name)}{self._fragment(name)}"{self._marks(name)}>{name}</a><br>'
            for name in self.wheels
            if re.sub(r"[-_.]+", "-", name.split("-")[0]).lower() == wanted
        ]
        return (200, "\n".join(["<!DOCTYPE html>", *found]).encode()) if found else (404, b"")

    def _marks(self, name: str) -> str:
        yanked = ' data-yanked="it was wrong"' if name in self.yanked else ""
        return yanked + (' data-dist-info-metadata="true" data-core-metadata="true"' if name in self.metadata else "")

    def _fragment(self, name: str) -> str:
        claim = self.claims.get(name, f"sha256={hashlib.sha256(self.wheels[name]).hexdigest()}")
        return f"#{claim}" if claim else ""
