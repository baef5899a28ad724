"""What goes wrong in Azure, one defect each: overcome where it passes, told in words where it does not."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from edgepack_assets.azure import blob_container, calls
from edgepack_assets.azure.errors import StoragePlace
from edgepack_assets.config.registry_settings import AzureCredentialSettings
from edgepack_assets.errors import CorruptError, EdgepackError, NotFoundError, TransientError, VersionTakenError
from edgepack_assets.registry.azure_ml import AzureMLRegistry, asset_api, check_connection
from edgepack_assets.registry.base import Kind, RegisteredVersion, content_digest, files_of
from edgepack_assets_tests.azure.faults import (
    Act,
    Exchange,
    changed,
    cut,
    empty_list,
    lost_answer,
    reset,
    stall,
    status,
)
from edgepack_assets_tests.azure.http import Response, answer
from edgepack_assets_tests.azure.loopback import LoopbackAzure
from edgepack_assets_tests.registry.conftest import Clock, azure_ml

BLOB = r"plantstorage2?\.blob"
ANY = r"\.azure\.com|azureml\.ms|blob\."
KINDS = ["workspace", "registry"]


@pytest.fixture(params=KINDS)
def registry(request: pytest.FixtureRequest, azure: LoopbackAzure) -> AzureMLRegistry:
    return azure_ml(azure, request.param)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Waiting moves the clock and takes no time."""
    return Clock(monkeypatch)


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Ends every stall at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def contents(path: Path) -> dict[str, bytes]:
    return {name: file.read_bytes() for name, file in files_of(path)}


def steps(registry: AzureMLRegistry, model: Path, out: Path) -> RegisteredVersion:
    """Everything the project does with a registry."""
    made = registry.register(Kind.MODEL, "press", model, {"lot": "7"})
    assert registry.names(Kind.MODEL) == ["press"]
    assert registry.versions(Kind.MODEL, "press") == [made]
    tagged = registry.set_tags(made, {"seen": "yes"})
    assert contents(registry.download(tagged, out)) == contents(model)
    return tagged


PASSING: dict[str, Act] = {
    "429": status(429, "TooManyRequests", Retry_After="0"),
    "503": status(503, "ServiceUnavailable"),
    "500": status(500, "InternalServerError"),
    "reset": reset,
    "lost_answer": lost_answer,
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_passing_fault_of_any_request_is_overcome(
    azure: LoopbackAzure, registry: AzureMLRegistry, model: Path, tmp_path: Path, fault: str
) -> None:
    """First every request once, in the order in which they come; lost answers to a PUT among them."""
    rules = [
        azure.faults.add(pattern, PASSING[fault])
        for pattern in (
            r"^GET [^?]*/versions\?", r"^GET [^?]*/versions/\d+\?", r"^PUT [^?]*/(models)/press/versions/1\?",
            r"^GET [^?]*/(models)\?", r"^GET [^?]*/datastores/|^GET .*discovery", r"listSecrets|tempdatarefs",
            rf"^PUT {BLOB}", rf"^GET {BLOB}.*comp=list", rf"^GET {BLOB}(?!.*comp=list)", r"^POST login",
        )
    ]  # fmt: skip
    tagged = steps(registry, model, tmp_path / "out")
    assert (tagged.version, dict(tagged.tags)) == (1, {"lot": "7", "seen": "yes"})
    assert all(rule.hits for rule in rules), [rule.pattern for rule in rules if not rule.hits]


@pytest.mark.parametrize("fault", ["503", "reset"])
def test_a_lasting_fault_is_told_as_one_that_may_pass(
    azure: LoopbackAzure, registry: AzureMLRegistry, fault: str
) -> None:
    azure.faults.add(r"/models|discovery", PASSING[fault], times=100)
    with pytest.raises(TransientError, match=r"429|503|cannot be reached"):
        registry.versions(Kind.MODEL, "press")
    assert len(azure.proxy.seen) < 12


def test_a_long_wait_that_azure_asks_for_is_not_waited_out(azure: LoopbackAzure) -> None:
    azure.faults.add("/models", status(429, "TooManyRequests", Retry_After="600"), times=100)
    with pytest.raises(TransientError, match=r"throttling.*600 s more would pass the limit of 20 s, registry\.time"):
        azure_ml(azure, "workspace").versions(Kind.MODEL, "press")


def test_a_stalled_answer_is_left_and_asked_for_again(
    azure: LoopbackAzure, model: Path, tmp_path: Path, released: threading.Event
) -> None:
    registry = azure_ml(azure, "workspace", time_limit=4)
    for pattern in (r"^GET [^?]*/versions\?", r"^PUT [^?]*/models/", rf"^PUT {BLOB}", rf"^GET {BLOB}(?!.*comp=list)"):
        azure.faults.add(pattern, stall(60, released))
    assert steps(registry, model, tmp_path / "out").version == 1


@pytest.mark.parametrize("what", ["^GET [^?]*/models", "^POST login", "listSecrets"])
def test_no_call_outlasts_the_time_limit(
    azure: LoopbackAzure, model: Path, released: threading.Event, what: str
) -> None:
    azure.faults.add(what, stall(60, released), times=100)
    with pytest.raises(TransientError, match=r"no answer within 1 s|cannot be reached"):
        azure_ml(azure, "workspace", time_limit=1).register(Kind.MODEL, "press", model, {})
    assert not released.is_set()


def test_an_answer_that_trickles_in_ends_with_the_time_limit(azure: LoopbackAzure) -> None:
    registry = azure_ml(azure, "workspace", time_limit=1)
    ticks = threading.Event()
    assets = registry._assets

    def trickle() -> None:
        while not ticks.wait(0.01):
            pass

    with pytest.raises(TransientError, match=r"reading nothing .*no answer within 1 s"):
        assets.remote.call("reading nothing", trickle)
    ticks.set()


@pytest.mark.parametrize(
    ("limit", "words"), [(0.05, r"within 0\.05 s, registry\.time_limit; check"), (None, r"within 0\.05 s; check")]
)
def test_a_limit_is_named_only_where_a_setting_says_it(
    limit: float | None, words: str, released: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "DEFAULT_LIMIT", 0.05)
    place = StoragePlace("account", "container", AzureCredentialSettings(), limit)
    with pytest.raises(TransientError, match=words):
        calls.Remote(place).call("reading", lambda: released.wait(60))


# Who we are ----------------------------------------------------------------------------------------------------


def told(registry: AzureMLRegistry) -> str:
    with pytest.raises(EdgepackError) as caught:
        registry.versions(Kind.MODEL, "press")
    assert not isinstance(caught.value, TransientError)
    return str(caught.value)


def test_a_refused_credential_says_what_to_check(azure: LoopbackAzure, monkeypatch: pytest.MonkeyPatch) -> None:
    who = {"credential": {"type": "service_principal"}}
    for variable, value, words in (
        ("AZURE_CLIENT_SECRET", "wrong", "the client secret is wrong.*AADSTS7000215"),
        ("AZURE_CLIENT_ID", "00000000-0000-0000-0000-000000000001", "the application is unknown in this tenant"),
        ("AZURE_TENANT_ID", "00000000-0000-0000-0000-000000000002", "the tenant is unknown|check tenant_id"),
    ):
        for settings in ({}, who):
            with monkeypatch.context() as patch:
                patch.setenv(variable, value)
                assert re.search(words, told(azure_ml(azure, "workspace", **settings)))
    with monkeypatch.context() as patch:
        patch.delenv("AZURE_CLIENT_SECRET")
        assert "variable AZURE_CLIENT_SECRET, which holds" in told(azure_ml(azure, "workspace", **who))
    azure.principal.expired_secret = True
    assert "the client secret has expired" in told(azure_ml(azure, "registry", **who))


def test_a_missing_role_is_named(azure: LoopbackAzure, model: Path) -> None:
    azure.principal.roles = set()
    assert "give it the role AzureML Data Scientist" in told(azure_ml(azure, "workspace"))
    assert "give it the role AzureML Registry User" in told(azure_ml(azure, "registry"))
    azure.principal.roles = {"AzureML Data Scientist"}
    azure.azure_ml.identity_based = True
    with pytest.raises(EdgepackError, match=r"has the role Storage Blob Data Contributor"):
        azure_ml(azure, "workspace").register(Kind.MODEL, "press", model, {})


def test_a_wrong_place_is_told_apart_from_an_absent_model(azure: LoopbackAzure) -> None:
    assert "check registry.subscription_id" in told(azure_ml(azure, "workspace", subscription_id="12345678-0000"))
    assert "check registry.resource_group" in told(azure_ml(azure, "workspace", resource_group="other"))
    assert "check registry.workspace_name" in told(azure_ml(azure, "workspace", workspace_name="other"))
    assert "check registry.registry_name" in told(azure_ml(azure, "registry", registry_name="other"))
    assert azure_ml(azure, "workspace").versions(Kind.MODEL, "press") == []


def test_what_is_missing_in_a_place_is_no_missing_place(azure: LoopbackAzure) -> None:
    """However Azure says it."""
    for kind in KINDS:
        place = azure.azure_ml.workspace_name if kind == "workspace" else azure.azure_ml.registry_name
        for words in (f"no asset press in {kind} {place}", f"{kind}s/{place}/models/press could not be found"):
            azure.faults.add(r"/versions\?", status(404, "UserError", words))
            assert azure_ml(azure, kind).versions(Kind.MODEL, "press") == []
        for words in (f"The {kind} '{place}' could not be found", f"Cannot find {kind} {place}"):
            azure.faults.add(r"/versions\?", status(404, "UserError", words))
            assert f"check registry.{kind}_name" in told(azure_ml(azure, kind))


def test_a_datastore_whose_secrets_are_lost_is_opened_as_ourselves(azure: LoopbackAzure, model: Path) -> None:
    azure.faults.add("listSecrets", status(404, "UserError", "Datastore's secret is not found."))
    assert azure_ml(azure, "workspace").register(Kind.MODEL, "press", model, {}).version == 1


def test_an_account_that_takes_no_keys_is_told(azure: LoopbackAzure, model: Path) -> None:
    azure.faults.add(BLOB, status(403, "KeyBasedAuthenticationNotPermitted"), times=9)
    with pytest.raises(EdgepackError, match=r"takes no keys.*make the datastore identity-based"):
        azure_ml(azure, "workspace").register(Kind.MODEL, "press", model, {})


def test_a_token_that_is_not_accepted_is_no_missing_role(azure: LoopbackAzure) -> None:
    rule = azure.faults.add("/models", status(401, "InvalidAuthenticationToken"), times=100)
    assert "does not accept the credential's token" in told(azure_ml(azure, "workspace"))
    assert len(rule.hits) == 2


def test_a_token_that_expires_on_the_way_costs_no_more_than_a_second_request(
    azure: LoopbackAzure, registry: AzureMLRegistry, model: Path, tmp_path: Path
) -> None:
    expired = status(401, "InvalidAuthenticationToken", "the token has expired")
    rules = [
        azure.faults.add(pattern, expired)
        for pattern in (r"^GET [^?]*/versions\?", r"^PUT [^?]*/models/press/versions/1\?", "listSecrets|tempdatarefs")
    ]
    assert steps(registry, model, tmp_path / "out").version == 1
    assert all(rule.hits for rule in rules)


def test_an_expired_signature_is_asked_for_anew(
    azure: LoopbackAzure, registry: AzureMLRegistry, model: Path, tmp_path: Path
) -> None:
    def expired(exchange: Exchange) -> Response:
        azure.storage.sas_lifetime = timedelta(hours=-1)
        try:
            return exchange.answer()
        finally:
            azure.storage.sas_lifetime = timedelta(hours=1)

    rule = azure.faults.add("listSecrets|tempdatarefs", expired)
    made = registry.register(Kind.MODEL, "press", model, {})
    again = azure.faults.add("listSecrets|/datarefs/", expired)
    assert contents(AzureMLRegistry(registry.settings).download(made, tmp_path / "out")) == contents(model)
    assert rule.hits and again.hits
    azure.storage.sas_lifetime = timedelta(hours=-1)
    with pytest.raises(EdgepackError, match=r"does not accept the key or signature that Azure ML gives"):
        AzureMLRegistry(registry.settings).download(made, tmp_path / "again")


# Versions that others take -------------------------------------------------------------------------------------


def taken_meanwhile(azure: LoopbackAzure, kind: str) -> Act:
    """Somebody else's version appears between our look and our PUT."""

    def act(exchange: Exchange) -> Response:
        shelf = azure.azure_ml.workspace if kind == "workspace" else azure.azure_ml.registry
        version = exchange.request.path.split("/")[-1]
        azure.azure_ml.put(shelf, "models", "press", version, {"modelUri": "azureml://datastores/x/paths/theirs"})
        return exchange.answer()

    return act


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("conflict", [400, 409])
def test_a_version_taken_meanwhile_is_left_as_it_is(
    azure: LoopbackAzure, model: Path, kind: str, conflict: int
) -> None:
    azure.azure_ml.conflict_status = conflict
    registry = azure_ml(azure, kind)
    azure.faults.add(r"^PUT [^?]*/models/", taken_meanwhile(azure, kind))
    with pytest.raises(VersionTakenError, match=r"press:1 is registered already"):
        registry.register(Kind.MODEL, "press", model, {"mine": "1"}, version=1)
    azure.faults.add(r"^PUT [^?]*/models/", taken_meanwhile(azure, kind), times=2)
    made = registry.register(Kind.MODEL, "press", model, {"mine": "1"})
    assert (made.version, dict(made.tags)) == (4, {"mine": "1"})
    shelf = azure.azure_ml.workspace if kind == "workspace" else azure.azure_ml.registry
    assert [asset.properties["tags"].get("mine") for asset in shelf.assets["models"]["press"].values()] == [
        None
    ] * 3 + ["1"]


def test_a_version_whose_tags_are_replaced_at_once_is_not_taken_for_ours(
    azure: LoopbackAzure, registry: AzureMLRegistry, model: Path
) -> None:
    def replaced(exchange: Exchange) -> Response:
        answer = exchange.answer()
        for shelf in (azure.azure_ml.workspace, azure.azure_ml.registry):
            for asset in shelf.assets["models"].get("press", {}).values():
                asset.properties["tags"] = {"edgepack_attempt": "theirs"}
        return answer

    azure.faults.add(r"^PUT [^?]*/models/", replaced)
    with pytest.raises(VersionTakenError):
        registry.register(Kind.MODEL, "press", model, {}, version=1)


def test_a_refusal_that_is_no_conflict_is_told(azure: LoopbackAzure, registry: AzureMLRegistry, model: Path) -> None:
    azure.faults.add(r"^PUT [^?]*/models/", status(400, "ValidationError", "the tag is too long"), times=9)
    with pytest.raises(EdgepackError, match=r"registering model press:1 .* status 400.*the tag is too long"):
        registry.register(Kind.MODEL, "press", model, {})
    assert registry.names(Kind.MODEL) == []


def test_a_lagging_index_gives_no_number_twice(azure: LoopbackAzure, registry: AzureMLRegistry, model: Path) -> None:
    azure.azure_ml.index_lag = 3600
    made = [registry.register(Kind.MODEL, "press", model, {"n": str(n)}) for n in range(3)]
    assert [version.version for version in made] == [1, 2, 3]
    assert registry.versions(Kind.MODEL, "press") == []
    assert registry.get(Kind.MODEL, "press", 2) == made[1]
    assert registry.newest_version(Kind.MODEL, "press") == 3
    assert registry.newest_version(Kind.MODEL, "none") is None


# What a registry takes its time for ------------------------------------------------------------------------------


def test_a_version_is_there_when_the_registry_says_that_it_is_done(azure: LoopbackAzure, model: Path) -> None:
    registry = azure_ml(azure, "registry")
    azure.azure_ml.lro_polls = 2
    made = registry.register(Kind.MODEL, "press", model, {"lot": "7"})
    asked = [status for asked, status in azure.proxy.seen if "/assetstore/v1.0/operations/" in asked]
    assert (made.version, asked) == (1, [202, 202, 200])


def test_an_operation_that_does_not_end_is_left(
    azure: LoopbackAzure, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asset_api, "_LIMITS", 0.1)
    azure.faults.add("/operations/", lambda _: Response(202), times=100)

    def forgotten(exchange: Exchange) -> Response:
        answer = exchange.answer()
        azure.azure_ml.registry.assets["models"].clear()
        return answer

    azure.faults.add(r"^PUT [^?]*/models/", forgotten)
    with pytest.raises(TransientError, match=r"not done after 0\.1 s .*see whether it appears"):
        azure_ml(azure, "registry", time_limit=1).register(Kind.MODEL, "press", model, {})
    assert len([asked for asked, _ in azure.proxy.seen if re.search(r"^PUT [^?]*/models/", asked)]) == 1


ENDS = {
    "failed": answer(200, {"status": "Failed", "error": {"code": "X", "message": "no space"}}),
    "error": answer(200, {"error": {"code": "UserError", "message": "no space"}}),
    "status": answer(400, {"error": {"code": "UserError", "message": "no space"}}),
}


@pytest.mark.parametrize("end", ENDS)
def test_an_operation_that_fails_is_told(azure: LoopbackAzure, model: Path, end: str) -> None:
    def accepted(exchange: Exchange) -> Response:
        response = exchange.answer()
        azure.azure_ml.registry.assets["models"].clear()
        return response

    azure.faults.add(r"^PUT [^?]*/models/", accepted)
    azure.faults.add("/operations/", lambda _: ENDS[end])
    with pytest.raises(EdgepackError, match=r"registering model press:1 .*no space") as caught:
        azure_ml(azure, "registry").register(Kind.MODEL, "press", model, {})
    assert not isinstance(caught.value, TransientError)


@pytest.mark.parametrize("end", [answer(404, {"error": {"code": "UserError", "message": "gone"}}), Response(204)])
def test_an_operation_without_an_end_in_words_is_judged_by_the_version(
    azure: LoopbackAzure, model: Path, end: Response
) -> None:
    azure.faults.add("/operations/", lambda _: end)
    assert azure_ml(azure, "registry").register(Kind.MODEL, "press", model, {}).version == 1


def test_the_number_of_a_deleted_version_is_left_out(azure: LoopbackAzure, model: Path) -> None:
    shelf = azure.azure_ml.registry
    shelf.deleted |= {("models", "press", "1"), ("models", "press", "2")}
    registry = azure_ml(azure, "registry")
    with pytest.raises(VersionTakenError, match=r"press:1 was deleted.*take the next version"):
        registry.register(Kind.MODEL, "press", model, {}, version=1)
    assert registry.register(Kind.MODEL, "press", model, {}).version == 3


# Bytes ---------------------------------------------------------------------------------------------------------


def swapped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


DAMAGE: dict[str, tuple[str, Act]] = {
    "swapped": (rf"^GET {BLOB}.*model\.pkl", changed(swapped)),
    "truncated": (rf"^GET {BLOB}.*model\.pkl", changed(lambda data: data[:-10])),
    "longer": (rf"^GET {BLOB}.*model\.pkl", changed(lambda data: data + b"x")),
    "gone": (rf"^GET {BLOB}.*model\.pkl", status(404, "BlobNotFound")),
    "replaced": (rf"^GET {BLOB}.*model\.pkl", status(412, "ConditionNotMet")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_other_bytes_than_were_registered_are_never_handed_out(
    azure: LoopbackAzure, registry: AzureMLRegistry, model: Path, tmp_path: Path, damage: str
) -> None:
    made = registry.register(Kind.MODEL, "press", model, {})
    rule = azure.faults.add(*DAMAGE[damage], times=100)
    (tmp_path / "there").mkdir()
    for destination in ("there", "made"):
        with pytest.raises(CorruptError):
            registry.download(made, tmp_path / destination)
    assert rule.hits
    assert list((tmp_path / "there").iterdir()) == []
    assert not (tmp_path / "made").exists()


def test_a_download_that_breaks_off_is_continued(
    azure: LoopbackAzure, registry: AzureMLRegistry, model: Path, tmp_path: Path
) -> None:
    made = registry.register(Kind.MODEL, "press", model, {})
    rule = azure.faults.add(rf"^GET {BLOB}.*model\.pkl", cut(100))
    assert contents(registry.download(made, tmp_path / "out")) == contents(model)
    assert rule.hits


def test_files_that_are_gone_or_too_many_are_told_before_a_download(
    azure: LoopbackAzure, model: Path, tmp_path: Path
) -> None:
    registry = azure_ml(azure, "workspace")
    made = registry.register(Kind.MODEL, "press", model, {})
    path = made.location.split("/paths/")[1]
    container = registry._places.datastore("workspaceblobstore")
    container.upload([(path + "/extra", model / "MLmodel"), (path + "-2/other", model / "MLmodel")], "more")
    with pytest.raises(CorruptError, match=r"bytes instead of the 5014 bytes of press:1"):
        registry.download(made, tmp_path / "out")
    _, found = container.find(path)
    for blob in found:
        container.call("deleting", lambda c, name=blob.full_name: c.delete_blob(name))
    with pytest.raises(CorruptError, match=r"the content of press:1 is gone"):
        registry.download(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_empty_answer_is_no_empty_registry_for_what_is_known(
    azure: LoopbackAzure, registry: AzureMLRegistry, model: Path
) -> None:
    made = registry.register(Kind.MODEL, "press", model, {"n": "1"})
    azure.faults.add(r"^GET [^?]*/(models|data|versions)\?", empty_list, times=100)
    assert registry.get(Kind.MODEL, "press", 1) == made
    with pytest.raises(NotFoundError):
        registry.get(Kind.MODEL, "press", 2)
    assert registry.register(Kind.MODEL, "press", model, {"n": "2"}).version == 2


def test_a_file_of_many_pieces_arrives_whole(
    azure: LoopbackAzure, registry: AzureMLRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob_container, "PIECE", 100_000)
    folder = tmp_path / "large"
    folder.mkdir()
    for size in (0, 1, 99_999, 100_000, 100_001, 2_345_678):
        (folder / str(size)).write_bytes(bytes(n % 251 for n in range(size)))
    azure.faults.add(rf"^PUT {BLOB}.*comp=block&", PASSING["503"], times=2, after=5)
    azure.faults.add(rf"^PUT {BLOB}.*comp=blocklist", PASSING["lost_answer"])
    made = registry.register(Kind.DATA, "raw", folder, {})
    assert made.digest == content_digest(folder)[0]
    assert contents(registry.download(made, tmp_path / "out")) == contents(folder)


# The connection, step by step ----------------------------------------------------------------------------------


def last_step(azure: LoopbackAzure, kind: str = "workspace") -> tuple[str, bool, str]:
    return list(check_connection(azure_ml(azure, kind).settings))[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_connection_passes_every_step(azure: LoopbackAzure, kind: str) -> None:
    done = list(check_connection(azure_ml(azure, kind).settings))
    last = ["datastore", "storage"] if kind == "workspace" else ["writing"]
    assert [step.step for step in done] == ["credential", "token", kind, "models and data", *last]
    assert all(step.ok for step in done), done


def test_whether_a_registry_lets_us_write_is_seen_without_leaving_anything_in_it(azure: LoopbackAzure) -> None:
    for _ in range(2):
        name, ok, said = last_step(azure, "registry")
        assert (name, ok) == ("writing", True)
        assert "no file was written and nothing registered" in said
    assert azure.azure_ml.registry.assets == {"models": {}, "data": {}}
    assert len(azure.azure_ml._temporary) == 1  # one place, however often it is asked for
    assert [asked for asked, _ in azure.proxy.seen if "blob." in asked] == []
    azure.principal.roles = {"Reader"}
    name, ok, said = last_step(azure, "registry")
    assert (name, ok) == ("writing", False)
    assert "give it the role AzureML Registry User" in said


BROKEN: dict[str, tuple[Callable[[LoopbackAzure], Any], str, str]] = {
    "expired secret": (lambda azure: setattr(azure.principal, "expired_secret", True), "token", "has expired"),
    "no role": (lambda azure: azure.principal.roles.clear(), "workspace", "AzureML Data Scientist"),
    "no right to blobs": (
        lambda azure: (
            setattr(azure.azure_ml, "identity_based", True),
            azure.principal.roles.remove("Storage Blob Data Contributor"),
        ),
        "datastore",
        "Storage Blob Data Contributor",
    ),
    "reader of blobs": (
        lambda azure: (
            setattr(azure.azure_ml, "identity_based", True),
            setattr(azure.principal, "roles", {"AzureML Data Scientist", "Storage Blob Data Reader"}),
        ),
        "storage",
        "Storage Blob Data Contributor",
    ),
    "lists fail": (
        lambda azure: azure.faults.add("/models", status(403, "AuthorizationFailed"), times=100),
        "models and data",
        "AzureML Data Scientist",
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_the_step_that_fails_says_what_is_missing(azure: LoopbackAzure, broken: str) -> None:
    spoil, step, words = BROKEN[broken]
    spoil(azure)
    name, ok, said = last_step(azure)
    assert (name, ok) == (step, False)
    assert words in said
