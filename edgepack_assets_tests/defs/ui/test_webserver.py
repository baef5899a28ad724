"""The guarded web server on a real Dagster instance and a real port, attacked by bytes on the wire.

A change that anybody can make, were he let in, shows whether a request took effect: GraphQL sets the limit of a pool,
and a materialization is reported for an asset. What a browser itself sends is in e2e/test_ui.py.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import pytest
import uvicorn
from click.testing import CliRunner
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.artefacts.store import open_store
from edgepack_assets.cli.main import main
from edgepack_assets.config.loader import load_settings
from edgepack_assets.defs.ui.guard import RequestGuard
from edgepack_assets.defs.ui.reports import PrefixedLinks
from edgepack_assets.defs.ui.webserver import (
    ALLOWED_HOSTS_VARIABLE,
    GuardedWebserver,
    allowed_hosts,
    guarded,
    names_code,
)
from edgepack_assets.errors import ConfigError, EdgepackError
from edgepack_assets.tasks.reports.package_page import HTML, REPORT

PLANT_HOST = "edgepack.plant.example"
MUTATION = 'mutation Attack { setConcurrencyLimit(concurrencyKey: "attacked", limit: 1) }'
JSON_BODY = json.dumps({"query": MUTATION})
JSON = {"Content-Type": "application/json"}
Headers = dict[str, str] | list[tuple[str, str]]


class Server:
    """A guarded web server, and what was changed through it."""

    def __init__(self, instance: dg.DagsterInstance, port: int) -> None:
        self.instance = instance
        self.port = port
        self.host = f"127.0.0.1:{port}"

    def send(self, method: str, target: str, headers: Headers = (), body: str = "") -> tuple[int, str]:
        """One request, byte by byte as given: no client library tidies it up. A Host is added if none is given."""
        given = list(headers.items()) if isinstance(headers, dict) else list(headers)
        if not any(name.lower() == "host" for name, _ in given):
            given.insert(0, ("Host", self.host))
        if body:
            given.append(("Content-Length", str(len(body.encode()))))
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in given), "Connection: close"]
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall("\r\n".join([*lines, "", body]).encode("latin-1"))
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        head, _, content = answer.decode("utf-8", "replace").partition("\r\n\r\n")
        self.answered_headers = head.lower()
        return int(head.split()[1]), content

    def takes_effect(self, method: str, target: str, headers: Headers = (), body: str = "") -> bool:
        """Whether a request changed something. One that did not is answered as the client's fault."""
        for key in self.instance.event_log_storage.get_concurrency_keys():
            self.instance.event_log_storage.delete_concurrency_limit(key)
        self.instance.wipe_assets(self.instance.all_asset_keys())
        status, said = self.send(method, target, headers, body)
        changed = bool(self.instance.event_log_storage.get_concurrency_keys() or self.instance.all_asset_keys())
        assert changed == (status == 200), (status, changed, said)
        assert changed or 400 <= status < 500, said
        return changed


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch, dg.instance_for_test() as instance:
        patch.setenv(ALLOWED_HOSTS_VARIABLE, PLANT_HOST)
        with serving(instance) as served:
            yield served


@contextmanager
def serving(instance: dg.DagsterInstance, prefix: str = "") -> Iterator[Server]:
    with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as context:
        app = GuardedWebserver(context, prefix).create_asgi_app()
        running = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
        thread = threading.Thread(target=running.run, daemon=True)
        thread.start()
        while not running.started:
            assert thread.is_alive()
            time.sleep(0.02)
        yield Server(instance, running.servers[0].sockets[0].getsockname()[1])
        running.should_exit = True
        thread.join(30)


# What works ----------------------------------------------------------------------------------------------


def test_a_program_without_origin_is_served(server: Server) -> None:
    assert server.takes_effect("POST", "/graphql", JSON, JSON_BODY)
    assert server.takes_effect("POST", "/graphql", {"content-type": "application/json; charset=utf-8"}, JSON_BODY)
    assert server.takes_effect("POST", "/report_asset_materialization/pressed")
    assert server.takes_effect("POST", "/report_asset_materialization/pressed", JSON, '{"description": "made"}')


def test_the_report_of_a_package_is_served_as_a_page_that_cannot_act(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "edgepack.yaml"
    config.write_text(
        "registry: {path: registry}\nartefacts: {root: artefacts}\nmodel_types:\n  press: {implementation: "
        "state_identifier, model_name: m, package_name: Press, raw_data: {name: raw}}\n"
    )
    monkeypatch.setenv("EDGEPACK_CONFIG", str(config))
    store = open_store(load_settings(config))
    report = store.put_bytes(b"<!doctype html>the report", HTML)
    for version, observations in ((1, {REPORT: report}), (2, {})):
        store.save(
            Artefact(
                asset="deployment_package", partition=f"press:{version}", parts={}, facts={}, observations=observations
            )
        )
    assert server.send("GET", "/edgepack/report/press:1") == (200, "<!doctype html>the report")
    assert "content-type: text/html; charset=utf-8" in server.answered_headers
    assert "; sandbox" in server.answered_headers
    status, said = server.send("GET", "/edgepack/report/press:2")
    assert (status, said) == (
        404, "the package of press:2 has no report in the artefact store: edgepack package press:2 --from "
        "validation_results makes it\n",
    )  # fmt: skip
    for other in ("press:3", "nonsense", "%00", "press:1%0a"):
        assert server.send("GET", f"/edgepack/report/{other}")[0] == 404
    # a path, which is no partition: Dagster's own page
    assert "model_types" not in server.send("GET", "/edgepack/report/..%2f..%2fedgepack.yaml")[1]
    assert server.send("GET", "/edgepack/report/press:1", {"Host": "evil.example"})[0] >= 400
    with serving(server.instance, "/plant") as prefixed:
        for path in ("/plant/edgepack/report/press:1", "/edgepack/report/press:1"):
            assert prefixed.send("GET", path) == (200, "<!doctype html>the report")
        assert prefixed.send("GET", "/plant/edgepack/report/press:1", {"Host": "evil.example"})[0] >= 400


def test_the_link_to_a_report_has_the_prefix_of_the_web_server(server: Server) -> None:
    link = dg.MetadataValue.url("/edgepack/report/press:1")
    server.instance.report_runless_asset_event(dg.AssetMaterialization("linked", metadata={"report": link}))
    query = """{assetOrError(assetKey: {path: ["linked"]}) {... on Asset {assetMaterializations {
        metadataEntries {... on UrlMetadataEntry {url}}}}}}"""
    with serving(server.instance, "/plant") as prefixed:
        for each, prefix in ((server, ""), (prefixed, "/plant")):
            status, text = each.send("POST", f"{prefix}/graphql", JSON, json.dumps({"query": query}))
            [made] = json.loads(text)["data"]["assetOrError"]["assetMaterializations"]
            assert status == 200
            assert {"url": f"{prefix}/edgepack/report/press:1"} in made["metadataEntries"]


def test_a_link_that_the_run_page_is_sent_has_the_prefix_too() -> None:
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": '{"url":"/edgepack/report/press:1"}'})
        await send({"type": "websocket.send", "bytes": b"other"})

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(PrefixedLinks(app, "/plant")({"type": "websocket", "path": "/plant/graphql"}, None, send))  # type: ignore[arg-type]
    assert [each.get("text", each.get("bytes")) for each in sent] == [
        None, '{"url":"/plant/edgepack/report/press:1"}', b"other",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "host", ["127.0.0.1:{port}", "localhost:{port}", "[::1]:{port}", "LocalHost", "localhost:8080"]
)
def test_the_ui_is_served_under_every_loopback_name_and_a_forwarded_port(server: Server, host: str) -> None:
    host = host.format(port=server.port)
    page = {"Host": host, "Accept": "text/html"}
    assert server.send("GET", "/runs", page)[0] == 200
    own = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin", **JSON}
    assert server.takes_effect("POST", "/graphql?op=Attack", own, JSON_BODY)


def test_the_name_that_a_proxy_serves_is_allowed(server: Server) -> None:
    for origin in (f"https://{PLANT_HOST}", f"https://{PLANT_HOST}:8443"):
        headers = {"Host": origin.removeprefix("https://"), "Origin": origin, **JSON}
        assert server.takes_effect("POST", "/graphql", headers, JSON_BODY)


def test_pages_and_downloads_cannot_be_framed(server: Server) -> None:
    for path in ("/", "/graphql", "/runs/1"):
        status, _ = server.send("GET", path, {"Accept": "text/html"})
        assert status == 200
        assert "x-frame-options: sameorigin" in server.answered_headers


def test_a_link_on_another_page_opens_the_ui_in_a_tab_only(server: Server) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Referer": "https://chat.example/"}
    assert server.send("GET", "/runs", {**link, "Sec-Fetch-Dest": "document"})[0] == 200
    assert server.send("GET", "/runs", {**link, "Sec-Fetch-Dest": "iframe"})[0] == 403
    image = {**link, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    assert server.send("GET", "/logs/x/compute_logs/y.out", image)[0] == 403


# Foreign hosts and origins -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example", "evillocalhost",
        "localhost.", "127.0.0.1.:{port}", "0.0.0.0:{port}", "127.1:{port}", "127.0.0.2", "2130706433", "[::]", "::1",
        "[::ffff:127.0.0.1]:{port}", "[::1].evil.example", "[::1]evil.example:80", "user@localhost:{port}",
        "localhost:{port}@evil.example", "localhost:{port}:80", "localhost:", "localhost:http",
        "localhost, evil.example", "evil.example#localhost", "evil.example/localhost", "", " ", "plant.example",
        "x.edgepack.plant.example",
    ],
)  # fmt: skip
def test_a_foreign_host_is_refused_whatever_is_asked(server: Server, host: str) -> None:
    headers = {"Host": host.format(port=server.port)}
    assert not server.takes_effect("POST", "/graphql", {**headers, **JSON}, JSON_BODY)
    for path in ("/", "/server_info", "/graphql", "/logs/x.out", "/favicon.png"):
        status, said = server.send("GET", path, {**headers, "Accept": "text/html"})
        assert 400 <= status < 500
        assert status == 400 or "is not allowed" in said


def test_other_headers_do_not_make_a_foreign_host_allowed(server: Server) -> None:
    foreign = "evil.example"
    for name in ("X-Forwarded-Host", "X-Host", "X-Original-Host", "Forwarded", "X-Forwarded-Server"):
        value = f"host={server.host}" if name == "Forwarded" else server.host
        assert server.send("GET", "/", {"Host": foreign, name: value})[0] == 403
        assert server.send("GET", "/", {name: foreign})[0] == 200
    for first, second in ((server.host, foreign), (foreign, server.host), (server.host, server.host)):
        assert server.send("GET", "/", [("Host", first), ("host", second)])[0] in (400, 403)
    assert server.send("GET", f"http://{server.host}/server_info", {"Host": foreign})[0] == 403


def test_a_request_without_host_is_refused(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(b"GET /server_info HTTP/1.0\r\n\r\n")
        assert connection.recv(65536).split()[1] in (b"400", b"403")


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example", "null", "", "http://localhost", "http://127.0.0.1:1", "http://localhost:{port}",
        "http://127.0.0.1:{port}.evil.example", "http://evil.example:{port}", "http://127.0.0.1:{port}@evil.example",
        "http://127.0.0.1:{port}/", "127.0.0.1:{port}", "ftp://127.0.0.1:{port}", "file://", "http://[::1]:{port}",
        "http://127.0.0.1:{port} http://evil.example", "https://edgepack.plant.example",
    ],
)  # fmt: skip
def test_a_foreign_origin_changes_and_reads_nothing(server: Server, origin: str) -> None:
    headers = {"Origin": origin.format(port=server.port), **JSON}
    assert not server.takes_effect("POST", "/graphql", headers, JSON_BODY)
    assert not server.takes_effect("POST", "/report_asset_materialization/pressed", headers, "{}")
    assert not server.takes_effect("POST", "/report_asset_materialization/pressed", {"Origin": headers["Origin"]})
    assert server.send("GET", "/server_info", headers)[0] == 403
    assert server.send("OPTIONS", "/graphql", headers)[0] == 403


def test_another_site_is_known_without_origin(server: Server) -> None:
    for sign in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": ""},
        {"Referer": "https://evil.example/"},
        {"Referer": f"http://{server.host}.evil.example/"},
        {"Referer": f"http://{server.host}@evil.example/"},
    ):
        assert not server.takes_effect("POST", "/graphql", {**JSON, **sign}, JSON_BODY), sign
        for headers, body in ((sign, ""), ({**JSON, **sign}, "{}")):
            assert not server.takes_effect("POST", "/report_asset_materialization/pressed", headers, body), sign
            assert not server.takes_effect("POST", "/report_asset_check/pressed", headers, body), sign
    assert server.send("GET", "/server_info", {"Sec-Fetch-Site": "none"})[0] == 200  # an address that a person typed
    assert server.takes_effect("POST", "/graphql", {**JSON, "Referer": f"http://{server.host}/runs"}, JSON_BODY)
    twice = [*JSON.items(), ("Origin", f"http://{server.host}"), ("Origin", "https://evil.example")]
    assert not server.takes_effect("POST", "/graphql", twice, JSON_BODY)


# GraphQL otherwise than as JSON by POST ------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/graphql", "/%67raphql", "/graphql%0A", "/x/../graphql", "//graphql", "/graphql/"])
@pytest.mark.parametrize(
    "query",
    [
        MUTATION,
        "#\n, , " + MUTATION,
        "\ufeff" + MUTATION,
        "query Harmless { version } " + MUTATION,
        'mutation Attack { ...f } fragment f on Mutation { setConcurrencyLimit(concurrencyKey: "attacked", limit: 1) }',
    ],
)
def test_a_mutation_in_the_address_changes_nothing(server: Server, path: str, query: str) -> None:
    target = f"{path}?query={quote(query)}&operationName=Attack"
    assert server.instance.event_log_storage.get_concurrency_keys() == set()
    own_page = {"Origin": f"http://{server.host}", "Sec-Fetch-Site": "same-origin"}
    for method in ("GET", "HEAD", "POST", "PUT", "QUERY"):
        for headers in ({}, own_page, {"Accept": "text/html"}, {"Accept": "application/json"}):
            for content_type in ({}, {"Content-Type": "text/plain"}):
                server.send(method, target, {**headers, **content_type})
        assert server.instance.event_log_storage.get_concurrency_keys() == set(), method  # nothing takes one away
    two = [("Accept", "application/json"), ("Accept", "text/html")]
    assert server.send("GET", target, two)[0] == 403


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain", "text/plain; application/json", "multipart/form-data; boundary=application/json",
        "application/x-www-form-urlencoded", "application/graphql", "application/jsonp", "text/plain, application/json",
        "", ";application/json", "application/json, text/plain",
    ],
)  # fmt: skip
def test_only_json_is_taken(server: Server, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    assert not server.takes_effect("POST", "/graphql", headers, JSON_BODY)
    assert not server.takes_effect("POST", "/graphql", headers, MUTATION)
    assert not server.takes_effect("POST", f"/graphql?query={quote(MUTATION)}", headers, "x=1")
    assert not server.takes_effect("POST", "/report_asset_materialization/pressed", headers, "{}")


def test_a_body_without_its_type_is_refused(server: Server) -> None:
    assert not server.takes_effect("POST", "/graphql", {}, JSON_BODY)
    assert not server.takes_effect("POST", "/report_asset_materialization/pressed", {}, "{}")
    chunked = {"Transfer-Encoding": "chunked"}
    assert server.send("POST", "/report_asset_materialization/pressed", chunked)[0] in (400, 403)
    twice = [("Content-Type", "text/plain"), ("Content-Type", "application/json")]
    assert not server.takes_effect("POST", "/graphql", twice, JSON_BODY)


# WebSockets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", [None, "http://{host}"])
def test_the_uis_own_websocket_is_served(server: Server, origin: str | None) -> None:
    address = f"ws://{server.host}/graphql"
    with connect(address, origin=origin and origin.format(host=server.host), subprotocols=["graphql-ws"]) as socket_:
        socket_.send('{"type": "connection_init"}')
        assert json.loads(socket_.recv(60)) == {"type": "connection_ack"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost"},
        {"Sec-Fetch-Site": "same-site"},
        {"Referer": "https://evil.example/"},
        {"Origin": "http://127.0.0.1.evil.example"},
    ],
)
def test_a_foreign_pages_websocket_is_refused(server: Server, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{server.host}/graphql", additional_headers=headers, subprotocols=["graphql-ws"])
    assert refused.value.response.status_code == 403


def test_a_websocket_of_a_foreign_host_is_refused(server: Server) -> None:
    with (
        socket.create_connection(("127.0.0.1", server.port)) as connection,
        pytest.raises(InvalidStatus) as refused,
        connect(f"ws://evil.example:{server.port}/graphql", sock=connection, subprotocols=["graphql-ws"]),
    ):
        pass
    assert refused.value.response.status_code == 403


# The rules by themselves ---------------------------------------------------------------------------------


def _is_served(headers: list[tuple[bytes, bytes]], method: str = "POST") -> bool:
    reached = []

    async def app(scope: object, receive: object, send: object) -> None:
        reached.append(scope)

    async def nothing(*_: object) -> dict[str, str]:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": method, "path": "/graphql", "headers": headers}
    asyncio.run(RequestGuard(app, [PLANT_HOST])(scope, nothing, nothing))
    return bool(reached)


@given(st.binary(max_size=40), st.sampled_from([b"", b"localhost", b"127.0.0.1:3000", b"[::1]"]), st.booleans())
def test_only_the_allowed_hosts_themselves_are_served(noise: bytes, name: bytes, leads: bool) -> None:
    host = noise + name if leads else name + noise
    if _is_served([(b"host", host)], "GET"):
        assert re.sub(rb":\d{1,5}\Z", b"", host.lower()) in {b"localhost", b"127.0.0.1", b"[::1]", PLANT_HOST.encode()}


@given(st.binary(max_size=40))
def test_only_the_uis_own_origin_is_served(origin: bytes) -> None:
    headers = [(b"host", b"localhost:3000"), (b"content-type", b"application/json"), (b"origin", origin)]
    assert _is_served(headers) == (origin.lower() in (b"http://localhost:3000", b"https://localhost:3000"))


# How it is started ---------------------------------------------------------------------------------------


def test_what_dagster_dev_starts_is_guarded_or_refused() -> None:
    assert guarded(["py", "-m", "dagster_webserver", "--port", "1"]) == [
        "py", "-m", "edgepack_assets.defs.ui.webserver", "--port", "1",
    ]  # fmt: skip
    daemon = ["py", "-m", "dagster._daemon", "run"]
    assert guarded(daemon) == daemon
    with pytest.raises(EdgepackError, match="might run without protection"):
        guarded(["py", "-m", "dagster_webserver.new", "--port", "1"])


def test_names_to_allow_are_plain_host_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOWED_HOSTS_VARIABLE, " one.example, [fd00::1],two ")
    assert allowed_hosts() == ["one.example", "[fd00::1]", "two"]
    for name in ("*", "*.example", "https://one.example", "one.example:3000", "one.example/", "a@b", "ä.example", "."):
        monkeypatch.setenv(ALLOWED_HOSTS_VARIABLE, name)
        with pytest.raises(ConfigError, match=r"is no host name.*without scheme"):
            allowed_hosts()


@pytest.mark.parametrize("command", ["ui", "webserver"])
def test_the_command_refuses_a_name_that_it_cannot_allow(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "edgepack.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, [command, "--allow-host", "https://one.example", "--port", "0"])
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: --allow-host"), done.stderr


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["-w", "not-there.yaml"], True),
        (["--workspace=workspace.yaml", "--read-only"], True),
        (["-m", "module"], True),
        (["--grpc-port", "4000"], True),
        (["--read-only", "-p3001"], False),
        ([], False),
    ],
)
def test_options_that_name_the_code_are_known(options: list[str], names: bool) -> None:
    assert names_code(options) is names


_IN_THE_BACKGROUND = """
import time
from unittest.mock import patch
import dagster_webserver.cli
from dagster._utils.interrupts import setup_interrupt_handlers
from edgepack_assets.defs.ui import webserver

def serve(*_, **__):
    setup_interrupt_handlers()  # as Dagster's commands do
    try:
        print("serves", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("ends")

with patch.object(dagster_webserver.cli, "main", serve), patch.object(webserver.dev.dev_command, "main", serve):
    {command}
"""


@pytest.mark.parametrize("command", ["webserver.run_webserver()", "webserver.run_dev([])"])
def test_what_a_script_starts_in_the_background_can_be_ended(command: str) -> None:
    """There a shell has SIGINT ignored."""
    code = _IN_THE_BACKGROUND.replace("{command}", command)
    shell = ["sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, code]
    with subprocess.Popen(shell, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "serves\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=30)[0] == "ends\n"
