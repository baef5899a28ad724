"""What passes by itself is waited for until `time_limit`; what was accepted and came to nothing is a failure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack_assets.azure import calls
from edgepack_assets.azure.answers import retry_after
from edgepack_assets.errors import EdgepackError, NotFoundError, TransientError, VersionTakenError
from edgepack_assets.registry.azure_ml import AzureMLRegistry
from edgepack_assets.registry.base import Kind, files_of
from edgepack_assets_tests.azure.control_plane import Shelf
from edgepack_assets_tests.azure.faults import Act, Exchange, page, reset, status
from edgepack_assets_tests.azure.http import Response, answer
from edgepack_assets_tests.azure.loopback import LoopbackAzure
from edgepack_assets_tests.registry.conftest import Clock, azure_ml

KINDS = ["workspace", "registry"]
PUT_MODEL = r"^PUT [^?]*/registries/[^?]*/(models)/press/versions|^PUT [^?]*/workspaces/[^?]*/(models)/press/versions"
OPERATION = "https://westeurope.api.azureml.ms/assetstore/v1.0/operations/0123456789abcdef"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Waiting moves the clock and takes no time."""
    return Clock(monkeypatch)


def shelf_of(azure: LoopbackAzure, kind: str) -> Shelf:
    return azure.azure_ml.workspace if kind == "workspace" else azure.azure_ml.registry


def contents(path: Path) -> dict[str, bytes]:
    return {name: file.read_bytes() for name, file in files_of(path)}


def puts(azure: LoopbackAzure) -> int:
    return sum(1 for asked, _ in azure.proxy.seen if re.search(PUT_MODEL, asked))


# Until the limit -------------------------------------------------------------------------------------------------


@given(
    st.floats(0.1, 1000),
    st.lists(st.none() | st.floats(0, 2000), max_size=60),
)
def test_no_pause_passes_the_limit_and_none_is_given_up_early(limit: float, asked: list[float | None]) -> None:
    passed = [0.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "now", lambda: passed[0])
        backoff = calls.Backoff(limit)
        for wish in asked:
            pause = backoff.pause(wish)
            if pause is None:
                assert passed[0] + (wish or 0) >= limit * 0.9
                return
            assert wish is None or pause == wish
            passed[0] += pause
            assert 0 <= passed[0] <= limit


@pytest.mark.parametrize("fault", [status(503, "ServiceUnavailable"), reset, page(200), page(502)])
@pytest.mark.parametrize("what", [r"/versions\?|discovery", "^POST login"])
def test_attempts_go_on_until_the_limit_and_no_longer(
    azure: LoopbackAzure, clock: Clock, fault: Act, what: str
) -> None:
    azure.faults.add(what, fault, times=1000)
    with pytest.raises(TransientError, match=r"tried for 120 s, registry\.time_limit"):
        azure_ml(azure, "workspace", time_limit=120).versions(Kind.MODEL, "press")
    assert 100 < sum(clock.pauses) <= 120
    assert len(clock.pauses) < 30
    assert max(clock.pauses) <= 20


def test_an_outage_shorter_than_the_limit_is_overcome(
    azure: LoopbackAzure, clock: Clock, model: Path, tmp_path: Path
) -> None:
    for what in (r"/versions\?", PUT_MODEL, r"plantstorage\.blob", "^POST login", r"/datastores/"):
        azure.faults.add(what, status(503, "ServerBusy"), times=4)
    registry = azure_ml(azure, "workspace", time_limit=120)
    made = registry.register(Kind.MODEL, "press", model, {})
    assert contents(registry.download(made, tmp_path / "out")) == contents(model)
    assert puts(azure) == 5
    assert sum(clock.pauses) > 20  # four attempts were over within 8 s once


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("0", 0), ("2.5", 2.5), ("-3", None), ("soon", None), ("", None), ("\u00b2", None), ("inf", None),
     ("nan", None)],
)  # fmt: skip
def test_how_long_an_answer_asks_to_wait(header: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": header}) == seconds
    assert retry_after({"x-ms-retry-after-ms": "250", "Retry-After": header}) == 0.25


def test_an_answer_may_ask_to_wait_until_a_time() -> None:
    for ahead, least, most in ((40, 30, 40), (-40, 0, 0)):
        until = datetime.now(UTC) + timedelta(seconds=ahead)
        for text in (format_datetime(until, usegmt=True), format_datetime(until.replace(tzinfo=None))):
            found = retry_after({"Retry-After": text})
            assert found is not None
            assert least <= found <= most


# A conflict, a wait ----------------------------------------------------------------------------------------------


def in_nine_seconds(exchange: Exchange) -> Response:
    """Retry-After as an HTTP date."""
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=9), usegmt=True)
    return status(503, "ServerBusy", Retry_After=until)(exchange)


BUSY: dict[str, tuple[Act, float]] = {
    "operation": (
        status(409, "Conflict", "Conflict of operation, another operation on same entity is already running"), 0
    ),
    "conflict": (status(409, "Conflict", "conflicting state"), 0),
    "conflict with Retry-After": (status(409, "Conflict", "conflicting state", Retry_After="11"), 11),
    "429": (status(429, "TooManyRequests", Retry_After="12"), 12),
    "503": (status(503, "ServerBusy", Retry_After="13"), 13),
    "locked": (status(423, "Locked", Retry_After="14"), 14),
    "date": (in_nine_seconds, 5),
    "html": (page(200), 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("busy", BUSY)
def test_what_passes_is_put_again_after_a_look(
    azure: LoopbackAzure, clock: Clock, model: Path, kind: str, busy: str
) -> None:
    act, wait = BUSY[busy]
    registry = azure_ml(azure, kind, time_limit=60)
    rule = azure.faults.add(PUT_MODEL, act, times=2)
    made = registry.register(Kind.MODEL, "press", model, {"lot": "7"})
    assert (made.version, len(rule.hits), puts(azure)) == (1, 2, 3)
    assert sum(pause >= wait for pause in clock.pauses) >= 2
    rule = azure.faults.add(PUT_MODEL, act, times=2)
    assert dict(registry.set_tags(made, {"seen": "yes"}).tags) == {"lot": "7", "seen": "yes"}
    assert len(rule.hits) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_done_under_a_refusal_is_not_done_twice(azure: LoopbackAzure, model: Path, kind: str) -> None:
    def done_and_refused(exchange: Exchange) -> Response:
        exchange.answer()
        return status(429, "TooManyRequests", Retry_After="3")(exchange)

    azure.faults.add(PUT_MODEL, done_and_refused)
    assert azure_ml(azure, kind).register(Kind.MODEL, "press", model, {}).version == 1
    assert puts(azure) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_conflict_that_stays_ends_with_the_limit(azure: LoopbackAzure, clock: Clock, model: Path, kind: str) -> None:
    azure.faults.add(PUT_MODEL, status(409, "Conflict", "conflicting state"), times=1000)
    with pytest.raises(EdgepackError, match=r"registering model press:1 .* status 409: .*conflicting state"):
        azure_ml(azure, kind, time_limit=60).register(Kind.MODEL, "press", model, {})
    assert 50 < sum(clock.pauses) <= 60
    with pytest.raises(NotFoundError):
        azure_ml(azure, kind).get(Kind.MODEL, "press", 1)


@pytest.mark.parametrize("asked", ["600", "a day of next year"])
def test_a_wait_beyond_the_limit_is_not_waited(azure: LoopbackAzure, clock: Clock, model: Path, asked: str) -> None:
    if asked != "600":
        asked = format_datetime(datetime.now(UTC) + timedelta(days=400), usegmt=True)
    azure.faults.add(PUT_MODEL, status(503, "ServerBusy", Retry_After=asked), times=1000)
    with pytest.raises(TransientError, match="passing fault"):
        azure_ml(azure, "workspace").register(Kind.MODEL, "press", model, {})
    assert sum(clock.pauses) < 20
    assert puts(azure) == 1


# Accepted first, made afterwards ----------------------------------------------------------------------------------


def accepted(azure: LoopbackAzure, kind: str, state: str, **headers: str) -> Act:
    """The version is there at once, in the state "Creating" or another, as Azure Resource Manager has it of resources
    that are made asynchronously (provisioningState)."""

    def act(exchange: Exchange) -> Response:
        true = exchange.answer()
        name, version = exchange.request.path.split("/")[-3], exchange.request.path.split("/")[-1]
        asset = shelf_of(azure, kind).assets["models"][name][version]
        asset.properties["provisioningState"] = state
        if headers:
            return answer(201, {"properties": asset.properties}, **headers)
        if kind == "registry":
            return true
        return answer(201, {**json.loads(true.body), "properties": asset.properties})

    return act


def becomes(azure: LoopbackAzure, kind: str, state: str) -> Act:
    """A read that finds the version in another state than before."""

    def act(exchange: Exchange) -> Response:
        shelf_of(azure, kind).assets["models"]["press"]["1"].properties["provisioningState"] = state
        return exchange.answer()

    return act


READ = r"^GET [^?]*/models/press/versions/1\?"


@pytest.mark.parametrize("kind", KINDS)
def test_a_version_that_is_being_made_is_waited_for(azure: LoopbackAzure, clock: Clock, model: Path, kind: str) -> None:
    azure.faults.add(PUT_MODEL, accepted(azure, kind, "Creating"))
    azure.faults.add(READ, becomes(azure, kind, "Succeeded"), after=4)
    assert azure_ml(azure, kind).register(Kind.MODEL, "press", model, {"lot": "7"}).version == 1
    assert puts(azure) == 1
    assert clock.pauses


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["Failed", "Canceled"])
def test_a_version_that_comes_to_nothing_is_a_failure(azure: LoopbackAzure, model: Path, kind: str, end: str) -> None:
    azure.faults.add(PUT_MODEL, accepted(azure, kind, "Creating"))
    azure.faults.add(READ, becomes(azure, kind, end), after=3)
    registry = azure_ml(azure, kind)
    with pytest.raises(EdgepackError, match=rf"press:1.*could not do it \({end.lower()}\)") as caught:
        registry.register(Kind.MODEL, "press", model, {})
    assert not isinstance(caught.value, (TransientError, VersionTakenError))
    assert registry.versions(Kind.MODEL, "press") == []
    assert registry.register(Kind.MODEL, "press", model, {}).version == 2  # its number is used up


@pytest.mark.parametrize("kind", KINDS)
def test_why_it_came_to_nothing_is_told(azure: LoopbackAzure, model: Path, kind: str) -> None:
    azure.faults.add(PUT_MODEL, accepted(azure, kind, "Creating", Azure_AsyncOperation=OPERATION))
    azure.faults.add("/operations/", lambda _: answer(200, {"status": "InProgress"}), times=2)
    failed = {"status": "Failed", "error": {"code": "CopyFailed", "message": "the source blob is not readable"}}
    azure.faults.add("/operations/", lambda exchange: becomes(azure, kind, "Failed")(exchange) and answer(200, failed))
    with pytest.raises(EdgepackError, match=r"could not do it \(failed\): the source blob is not readable"):
        azure_ml(azure, kind).register(Kind.MODEL, "press", model, {})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answered", [201, 202])
def test_an_operation_that_failed_is_a_failure_though_the_version_can_be_read(
    azure: LoopbackAzure, model: Path, kind: str, answered: int
) -> None:
    """The version of the API that a registry is asked with tells no state of a version."""

    def act(exchange: Exchange) -> Response:
        exchange.answer()
        header = "Azure-AsyncOperation" if answered == 201 else "Location"
        return Response(answered, b"", {header: OPERATION})

    azure.faults.add(PUT_MODEL, act)
    failed = {"status": "Failed", "error": {"code": "CopyFailed", "message": "no space"}}
    azure.faults.add("/operations/", lambda _: answer(200, failed))
    with pytest.raises(EdgepackError, match=r"could not do it \(failed\): no space") as caught:
        azure_ml(azure, kind).register(Kind.MODEL, "press", model, {})
    assert not isinstance(caught.value, TransientError)


@pytest.mark.parametrize("kind", KINDS)
def test_a_version_that_is_never_done_ends_with_the_limit(
    azure: LoopbackAzure, clock: Clock, model: Path, kind: str
) -> None:
    azure.faults.add(PUT_MODEL, accepted(azure, kind, "Creating"))
    with pytest.raises(TransientError, match=r"(not done|not done it yet).*see whether it appears"):
        azure_ml(azure, kind, time_limit=30).register(Kind.MODEL, "press", model, {})
    assert puts(azure) == 1
    assert sum(clock.pauses) > 20


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", ["Creating", "Updating", "Deleting", "Failed", "Canceled"])
def test_a_version_that_is_not_whole_is_not_offered_until_it_is(
    azure: LoopbackAzure, model: Path, tmp_path: Path, kind: str, state: str
) -> None:
    registry = azure_ml(azure, kind)
    made = [registry.register(Kind.MODEL, "press", model, {}) for _ in range(2)]
    kept = shelf_of(azure, kind).assets["models"]["press"]["2"].properties
    kept["provisioningState"] = state
    assert registry.versions(Kind.MODEL, "press") == made[:1]
    with pytest.raises(NotFoundError, match=rf"press:2 is not there for use: .* {state.lower()} \(provisioningState\)"):
        registry.get(Kind.MODEL, "press", 2)
    assert registry.newest_version(Kind.MODEL, "press") == 2  # a hint, which a sensor follows until it is there
    kept["provisioningState"] = "Succeeded"
    assert registry.versions(Kind.MODEL, "press") == made
    assert contents(registry.download(registry.get(Kind.MODEL, "press", 2), tmp_path / "out")) == contents(model)


# Proxies ---------------------------------------------------------------------------------------------------------

PAGES = {
    "lists": r"/models\?",
    "a version": r"/versions/\d+\?",
    "sign-in": "^POST login",
    "storage": r"^GET plantstorage2?\.blob",
    "discovery": "discovery",
    "places": "tempdatarefs|/datarefs/|listSecrets",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", [200, 403, 404, 502])
@pytest.mark.parametrize("content_type", ["text/html", "application/json"])
def test_a_page_of_a_proxy_is_overcome_if_it_goes_away(  # noqa: PLR0917 - fixtures and three parameters
    azure: LoopbackAzure, model: Path, tmp_path: Path, kind: str, code: int, content_type: str
) -> None:
    rules = [azure.faults.add(pattern, page(code, content_type)) for pattern in PAGES.values()]
    registry = azure_ml(azure, kind)
    assert registry.names(Kind.MODEL) == []
    made = registry.register(Kind.MODEL, "press", model, {})
    assert contents(registry.download(made, tmp_path / "out")) == contents(model)
    assert sum(bool(rule.hits) for rule in rules) >= 5, [rule.pattern for rule in rules if not rule.hits]


@pytest.mark.parametrize("what", PAGES)
def test_a_page_of_a_proxy_that_stays_is_told_as_one(
    azure: LoopbackAzure, model: Path, tmp_path: Path, what: str
) -> None:
    kind = "registry" if what in ("discovery", "places") else "workspace"
    made = azure_ml(azure, kind).register(Kind.MODEL, "press", model, {})
    azure.faults.add(PAGES[what], page(200), times=1000)

    def everything() -> None:
        registry = azure_ml(azure, kind)
        registry.names(Kind.MODEL)
        registry.download(registry.get(Kind.MODEL, "press", made.number), tmp_path / "out")

    with pytest.raises(TransientError, match=r"an HTML page with status 200 from .*does a proxy.*answer\?"):
        everything()


def test_a_page_that_is_the_models_own_file_is_none_of_a_proxy(
    azure: LoopbackAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from azure.storage.blob import ContentSettings

    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "index.html").write_bytes(b"<!doctype html><html></html>")
    registry = azure_ml(azure, "workspace")
    made = registry.register(Kind.DATA, "raw", folder, {})
    path = made.location.split("/paths/")[1]
    with azure.storage.client(azure.azure_ml.container) as client:
        client.get_blob_client(f"{path}/index.html").set_http_headers(ContentSettings(content_type="text/html"))
    assert contents(registry.download(made, tmp_path / "out")) == contents(folder)


def test_a_proxy_that_wants_a_sign_in_is_told_as_one(azure: LoopbackAzure, clock: Clock) -> None:
    azure.proxy.sign_ins = 2
    assert azure_ml(azure, "workspace").names(Kind.MODEL) == []
    azure.proxy.sign_ins = 1000
    with pytest.raises(TransientError, match=r"the proxy wants a sign-in \(407\): write http://USER:PASSWORD"):
        azure_ml(azure, "workspace").names(Kind.MODEL)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", [b'{"value": [', b"null", b"[]", b'"text"', b"{}", b"\xff\xfe"])
def test_an_answer_that_is_none_is_an_error_in_words(azure: LoopbackAzure, model: Path, kind: str, body: bytes) -> None:
    """Cut off, of another shape, or no text at all: never a traceback."""
    broken: Callable[[Exchange], Response] = lambda _: Response(200, body, {"Content-Type": "application/json"})  # noqa: E731
    for what in (r"discovery|/workspaces/[^/]+\?", "tempdatarefs|listSecrets", PUT_MODEL, READ):
        azure.faults.clear()
        azure.faults.add(what, broken, times=1000)
        registry: AzureMLRegistry = azure_ml(azure, kind, time_limit=5)
        try:
            registry.register(Kind.MODEL, "press", model, {})
        except EdgepackError as error:
            assert str(error)


# Tags of an MLflow model -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("leaf", ["model.dir", "state-identifier-1.0", "v1.2/model", ".hidden"])
def test_tags_of_an_mlflow_model_whose_folder_has_a_dot_are_set(azure: LoopbackAzure, kind: str, leaf: str) -> None:
    """azure-ai-ml takes it for a file ("Model of type mlflow_model cannot register a file")."""
    fields = {
        "modelUri": f"azureml://datastores/workspaceblobstore/paths/{leaf}", "modelType": "mlflow_model",
        "flavors": {"sklearn": {"data": {"sklearn_version": "1.5"}}}, "properties": {"a": "b"}, "jobName": "job-1",
        "description": "theirs", "tags": {"keep": "1"},
    }  # fmt: skip
    shelf = shelf_of(azure, kind)
    azure.azure_ml.put(shelf, "models", "press", "1", fields)
    before = dict(shelf.assets["models"]["press"]["1"].properties)
    registry = azure_ml(azure, kind)
    sent: list[bytes] = []

    def noted(exchange: Exchange) -> Response:
        sent.append(exchange.request.body)
        return exchange.answer()

    azure.faults.add(PUT_MODEL, noted)
    changed = registry._assets.api.change_tags(Kind.MODEL, "press", 1, {"ours": "1"}, ["none"])
    assert changed
    after = shelf.assets["models"]["press"]["1"].properties
    assert after == {**before, "tags": {"keep": "1", "ours": "1"}}
    put = json.loads(sent[0])["properties"]
    assert {key: put[key] for key in fields if key not in ("tags", "modelUri")} == {
        key: fields[key] for key in fields if key not in ("tags", "modelUri")
    }
