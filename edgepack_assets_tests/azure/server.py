"""The proxy that every request goes through: CONNECT to a known host name ends in our own TLS, right here."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from edgepack_assets_tests.azure.faults import Exchange, Faults, Reset
from edgepack_assets_tests.azure.http import Request, Response

Route = Callable[[Request], Response]
Stream = Callable[[Request, Any, int], tuple[int, Mapping[str, str], Iterator[bytes]]]
"""(request without its body, the body's stream, its length) to (status, headers, pieces of the body)."""


class Proxy:
    """Routes by host name. `seen` lists what was asked and answered; unknown hosts are refused and kept apart,
    or with `passes_on` reached, through the proxy `upstream` if there is one (a package index, by hand). The next
    `sign_ins` connections are refused, as by a proxy that wants a sign-in."""

    def __init__(self, context: ssl.SSLContext, faults: Faults) -> None:
        self.faults = faults
        self.seen: list[tuple[str, int]] = []
        self.refused: list[str] = []
        self.errors: list[str] = []
        self.passes_on = False
        self.upstream = ""
        self.sign_ins = 0
        self._routes: list[tuple[str, Route]] = []
        self._streams: list[tuple[str, Stream]] = []
        self._context = context
        proxy = self

        class Handler(_Handler):
            def setup(self) -> None:
                self.proxy = proxy
                super().setup()

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that goes away is no error; a fault of ours is told by `Proxy.errors`."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]

    def route(self, suffix: str, handler: Route) -> None:
        """Hosts ending in `suffix` are answered by `handler`."""
        self._routes.append((suffix, handler))

    def stream(self, suffix: str, handler: Stream) -> None:
        """Likewise, with bodies passed on in pieces."""
        self._streams.append((suffix, handler))

    def knows(self, host: str) -> bool:
        return any(host.endswith(suffix) for suffix, _ in [*self._routes, *self._streams])

    def find(self, host: str) -> tuple[Route | None, Stream | None]:
        route = next((handler for suffix, handler in self._routes if host.endswith(suffix)), None)
        return route, next((handler for suffix, handler in self._streams if host.endswith(suffix)), None)

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, name="loopback-azure", daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def tls(self, connection: socket.socket) -> ssl.SSLSocket:
        return self._context.wrap_socket(connection, server_side=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: Proxy
    secure_host = ""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Quiet: `Proxy.seen` has it."""

    def do_CONNECT(self) -> None:
        host = self.path.rpartition(":")[0]
        if self.proxy.sign_ins > 0:
            self.proxy.sign_ins -= 1
            self.send_error(407, "Proxy Authentication Required")
            return
        if not self.proxy.knows(host) and self.proxy.passes_on:
            self._tunnel()
            return
        if not self.proxy.knows(host):
            self.proxy.refused.append(host)
            self.send_error(502, f"the loopback Azure has no {host}")
            return
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.wfile.flush()
        self.connection = self.proxy.tls(self.connection)
        self.rfile = self.connection.makefile("rb", -1)
        self.wfile = self.connection.makefile("wb", 0)  # type: ignore[assignment]
        self.secure_host = host
        self.close_connection = False

    def _tunnel(self) -> None:
        """Bytes both ways between the client and a host that is none of ours, by the proxy in force before, if any."""
        host, _, port = self.path.rpartition(":")
        before = urlsplit(self.proxy.upstream)
        address = (before.hostname, before.port or 3128) if before.hostname else (host, int(port))
        with socket.create_connection(address, timeout=30) as other:
            if before.hostname:
                other.sendall(f"CONNECT {self.path} HTTP/1.1\r\nHost: {self.path}\r\n\r\n".encode())
            else:
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            other.settimeout(None)
            answers = threading.Thread(target=_pump, args=(other, self.connection), daemon=True)
            answers.start()
            _pump(self.connection, other)
            answers.join()
        self.close_connection = True

    def _any(self) -> None:
        split = urlsplit(self.path)
        host = self.secure_host or split.hostname or ""
        target = self.path if self.secure_host else split._replace(scheme="", netloc="").geturl()
        headers = {name.lower(): value for name, value in self.headers.items()}
        length = int(headers.get("content-length", 0))
        request = Request(self.command, host, target, headers)
        route, stream = self.proxy.find(host)
        fault = self.proxy.faults.take(request)
        if stream is not None and fault is None:
            self._pass_on(request, stream, length)
            return
        body = self._chunked() if headers.get("transfer-encoding") == "chunked" else self.rfile.read(length)
        request = Request(self.command, host, target, headers, body)

        def true_answer() -> Response:
            if route is not None:
                return route(request)
            if stream is None:
                self.proxy.refused.append(host)
                return Response(502)
            with contextlib.closing(_Bytes(body)) as source:
                status, named, pieces = stream(request, source, len(body))
                return Response(status, b"".join(pieces), named)

        try:
            response = fault.act(Exchange(request, true_answer)) if fault is not None else true_answer()
        except Reset:
            self.proxy.seen.append((str(request), 0))
            self._break()
            return
        except Exception:  # noqa: BLE001 - a bug of the loopback must be seen by the test
            self.proxy.errors.append(f"{request}\n{traceback.format_exc()}")
            response = Response(500)
        self.proxy.seen.append((str(request), response.status))
        self._send(response)

    do_GET = do_PUT = do_POST = do_HEAD = do_PATCH = do_DELETE = _any

    def _send(self, response: Response) -> None:
        headers = {name.lower(): value for name, value in response.headers.items()}
        head = self.command == "HEAD" or response.status in (204, 304)
        length = headers.pop("content-length", str(len(response.body)))
        self.send_response(response.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if not head:
            self.wfile.write(response.body)
            if len(response.body) < int(length):
                self._break()

    def _pass_on(self, request: Request, stream: Stream, length: int) -> None:
        status, headers, pieces = stream(request, self.rfile, length)
        self.proxy.seen.append((str(request), status))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        for piece in pieces:
            self.wfile.write(piece)

    def _chunked(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _break(self) -> None:
        """A reset, as a dying load balancer gives it."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            self.connection.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def close(self) -> None:
        self._data = b""
