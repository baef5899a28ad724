"""Reports of packages, served beside Dagster's own pages: where the metadata of deployment_package links to."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from edgepack_assets.artefacts.store import open_store
from edgepack_assets.config.loader import load_settings
from edgepack_assets.errors import EdgepackError
from edgepack_assets.partitions import ModelKey
from edgepack_assets.tasks.package_report import HTML, report_of

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


REPORT_ROUTE = Route(f"{_PATH}/{{partition}}", _report, methods=["GET"])
