"""ASGI middleware that refuses requests which a foreign web page could have sent.

The UI has no sign-in. Whoever reaches it may launch runs, and every web page that is open in a browser on this machine
reaches its loopback address. So a request is served only if

- its Host is a name that is allowed. Otherwise a page could let its own name point to this machine (DNS rebinding);
- its Origin, if there is one, is that very Host. For requests without Origin that change something, the same holds for
  Referer; and Sec-Fetch-Site, which every browser sends to this machine, must be absent or say same-origin;
- what changes something has a JSON body or none. HTML forms cannot send JSON.

Programs such as curl send none of these headers and are served, also at `/report_asset_materialization/...`, where
programs report what was made outside of a run: they run on this machine, or came through the proxy. This is no access
control: who may reach the UI at all is for a proxy with sign-in to decide (docs/operations.md).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
_AUTHORITY = re.compile(r"([^:\[\]]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.ASCII)
_SAFE_METHODS = {"GET", "HEAD"}
_SINGLE_HEADERS = ("host", "origin", "referer", "content-type", "accept", "sec-fetch-site")

logger = logging.getLogger("dagster-webserver")


class RequestGuard:
    """The middleware. `allowed_hosts` are the names, besides loopback's, under which browsers reach the UI."""

    def __init__(self, app: ASGIApp, allowed_hosts: Collection[str] = ()) -> None:
        self._app = app
        self._allowed_hosts = LOOPBACK_HOSTS | {host.lower() for host in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        reason = self._reason_to_refuse(scope)
        if reason is None:
            await self._app(scope, receive, _without_framing(send))
            return
        logger.warning("Refused %s %s: %s", scope.get("method", "WebSocket"), ascii(scope["path"]), reason)
        if scope["type"] == "websocket":
            # Before it is accepted, closing a WebSocket is answered with 403.
            await WebSocket(scope, receive, send).close(code=1008)
        else:
            await PlainTextResponse(f"Refused: {reason}\n", status_code=403)(scope, receive, send)

    def _reason_to_refuse(self, scope: Scope) -> str | None:
        headers = HTTPConnection(scope).headers
        for name in _SINGLE_HEADERS:
            if len(headers.getlist(name)) > 1:
                return f"the header {name} is given twice"
        host = headers.get("host", "").lower()
        matched = _AUTHORITY.fullmatch(host)
        if matched is None or matched[1] not in self._allowed_hosts:
            return (
                f"the host {host!a} is not allowed. Open the UI as http://localhost, or start it with "
                "`--allow-host NAME` if this is its name behind a proxy"
            )
        own_origins = (f"http://{host}", f"https://{host}")
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in own_origins:
            return f"the page of the origin {origin!a} is not the UI at {host}"
        changes_something = scope["type"] == "websocket" or scope["method"] not in _SAFE_METHODS
        if origin is None and _is_sent_by_another_site(headers, own_origins, changes_something):
            return f"another site sent this request to the UI at {host}"
        if scope["type"] == "http" and changes_something:
            return _unsuitable_body(headers)
        return None


def _is_sent_by_another_site(headers: Headers, own_origins: tuple[str, str], changes_something: bool) -> bool:
    """By what browsers say if they give no Origin. A link on another page may open the UI in a tab, not in a frame."""
    site = headers.get("sec-fetch-site")
    if site not in (None, "same-origin"):
        # "none" is an address that a person typed: that reads, and changes nothing.
        follows_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if changes_something or not (follows_link or site == "none"):
            return True
    referer = headers.get("referer")
    if referer is None or not changes_something:
        return False
    return not any(f"{referer.lower()}/".startswith(f"{origin}/") for origin in own_origins)


def is_json(headers: Headers) -> bool:
    """Whether the media type itself is JSON. `text/plain; application/json` is text, which any page may send.

    Lower case, as Dagster demands: it would else look for the query in the address."""
    return headers.get("content-type", "").partition(";")[0].strip() == "application/json"


def _unsuitable_body(headers: Headers) -> str | None:
    if "content-type" not in headers:
        if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
            return None
        return "a request with a body must have the Content-Type application/json"
    return None if is_json(headers) else "the body's Content-Type must be application/json"


def _without_framing(send: Send) -> Send:
    """Keeps other sites from showing the UI in a frame, where a user could be led to click on its buttons."""

    async def send_with_header(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["X-Frame-Options"] = "SAMEORIGIN"
        await send(message)

    return send_with_header
