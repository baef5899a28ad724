"""What a webhook is sent besides the message: no credentials but its own, through the configured proxy."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.defs.sensors.webhook import post_json
from edgepack_assets.errors import TransientError


class Server:
    """Keeps the path and headers of each request; answers with `status`, a redirect to itself."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.status = 200
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                server.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                self.send_response(server.status)
                self.send_header("Location", f"http://localhost:{server.port}/elsewhere")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *_: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.http.server_port


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server()
    threading.Thread(target=made.http.serve_forever, daemon=True).start()
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password a-secret-of-the-user\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield made
    made.http.shutdown()
    made.http.server_close()


def test_no_credentials_of_the_user_are_sent(server: Server) -> None:
    import requests

    requests.post(f"http://127.0.0.1:{server.port}/plain", json={}, timeout=10)
    assert "authorization" in server.seen.pop()[1]  # what requests does by itself
    post_json(f"http://127.0.0.1:{server.port}/hook", {"a": 1})
    ((path, headers),) = server.seen
    assert path == "/hook"
    assert "authorization" not in headers


@pytest.mark.parametrize(("before", "sent"), [("me:p%40ss@", "me:p@ss"), ("me:@", "me:")])
def test_credentials_in_its_address_are_sent(server: Server, before: str, sent: str) -> None:
    post_json(f"http://{before}127.0.0.1:{server.port}/hook", {})
    ((_, headers),) = server.seen
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")).decode() == sent


def test_a_redirect_gets_nothing(server: Server) -> None:
    server.status = 307
    with pytest.raises(TransientError, match="redirects are not followed"):
        post_json(f"http://me:pass@127.0.0.1:{server.port}/hook", {})
    assert [path for path, _ in server.seen] == ["/hook"]


def test_the_proxy_of_the_environment_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.port}")
    post_json("http://hook.plant.example/path", {})
    ((path, headers),) = server.seen
    assert path == "http://hook.plant.example/path"
    assert "authorization" not in headers


def test_the_certificates_of_the_environment_are_used(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests

    used: list[Any] = []
    send = requests.Session.send

    def record(self: requests.Session, request: requests.PreparedRequest, **more: Any) -> requests.Response:
        used.append(more["verify"])
        return send(self, request, **more)

    monkeypatch.setattr(requests.Session, "send", record)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    post_json(f"http://127.0.0.1:{server.port}/hook", {})
    assert used == [str(tmp_path / "ca.pem")]
