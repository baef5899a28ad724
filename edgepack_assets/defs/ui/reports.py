"""Reports of packages, served beside Dagster's own pages: where the metadata of deployment_package links to."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgepack_assets.artefacts.store import open_store
from edgepack_assets.config.loader import load_settings
from edgepack_assets.errors import EdgepackError
from edgepack_assets.partitions import ModelKey
from edgepack_assets.tasks.reports.package_page import HTML, report_of

_PATH = "/edgepack/report"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox",
    "X-Content-Type-Options": "nosniff",
}
"""The page has no script; one that came into it all the same is not run, and cannot act as Dagster's UI."""


async def _report(request: Request) -> Response:
    try:
        page = await run_in_threadpool(_read, request.path_params["partition"])
    except EdgepackError as error:
        return PlainTextResponse(f"{error}\n", 404)
    return Response(page, media_type=HTML, headers=_HEADERS)


def _read(partition: str) -> bytes:
    key = ModelKey.parse(partition)
    store = open_store(load_settings())
    return report_of(store.load("deployment_package", str(key)), store)


def report_routes(prefix: str) -> list[Route]:
    """Where reports are, for a web server with this --path-prefix, if it has one. Without it as well: there links lead
    that were copied from elsewhere."""
    return [Route(f"{each}{_PATH}/{{partition}}", _report, methods=["GET"]) for each in dict.fromkeys((prefix, ""))]


class PrefixedLinks:
    """Puts the web server's --path-prefix before links to reports in what it answers to the UI.

    The metadata of an asset hold a path, as no run knows under which address people see the UI. The pages of Dagster
    show such a link as it is."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._link = f'"{_PATH}/'
        self._prefixed = f'"{prefix}{_PATH}/'

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or one WebSocket with what it sends."""
        start: Message | None = None

        async def send_prefixed(message: Message) -> None:
            nonlocal start
            if message["type"] == "websocket.send" and message.get("text"):
                message = {**message, "text": message["text"].replace(self._link, self._prefixed)}
            elif message["type"] == "http.response.start":
                start = message  # its length is known with the body
                return
            elif message["type"] == "http.response.body" and start is not None:
                if not message.get("more_body"):
                    body = message.get("body", b"").replace(self._link.encode(), self._prefixed.encode())
                    MutableHeaders(raw=start["headers"])["content-length"] = str(len(body))
                    message = {**message, "body": body}
                await send(start)
                start = None
            await send(message)

        is_answer = scope["type"] == "websocket" or (scope["type"] == "http" and scope["path"].endswith("/graphql"))
        await self._app(scope, receive, send_prefixed if is_answer else send)
