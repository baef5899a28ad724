"""The artefact store in Azure storage: what goes wrong there, and what must not be seen of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from edgepack_assets.artefacts import blob_cache
from edgepack_assets.artefacts import store as artefact_store
from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.artefacts.azure_backend import parse
from edgepack_assets.artefacts.store import ArtefactStore, open_store
from edgepack_assets.azure.blob_container import PIECE
from edgepack_assets.config.loader import load_settings
from edgepack_assets.errors import ConfigError, CorruptError, EdgepackError, TransientError
from edgepack_assets_tests.azure import faults
from edgepack_assets_tests.azure.faults import Exchange
from edgepack_assets_tests.azure.http import Response
from edgepack_assets_tests.azure.loopback import LoopbackAzure
from edgepack_assets_tests.registry.conftest import Clock

HOST = "plantstorage.dfs.core.windows.net"
BIG = PIECE * 2 + 12_345
ENTRY = """
model_types:
  press: {implementation: state_identifier, model_name: m, package_name: P, raw_data: {name: r}}
"""


def url(azure: LoopbackAzure, container: str = "") -> str:
    return f"abfs://{container or azure.azure_ml.container}@{HOST}/{uuid.uuid4().hex}"


@pytest.fixture
def store(azure: LoopbackAzure, tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(url(azure), tmp_path / "cache", time_limit=20)


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big"
    path.write_bytes(os.urandom(BIG))
    return path


def again(store: ArtefactStore, cache: Path) -> ArtefactStore:
    """The same store as another machine has it."""
    return ArtefactStore(store.root_url, cache, time_limit=20)


def test_a_url_names_account_container_and_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    named = ("plantstorage", "core.windows.net", "box", "a/b c")
    assert parse(f"abfs://box@{HOST}/a//b%20c/") == named
    assert parse(f"abfss://box@{HOST.replace('dfs', 'blob')}") == (*named[:3], "")
    with pytest.raises(ConfigError, match="names no storage account"):
        parse("abfs://box/a")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "plantstorage")
    assert parse("abfs://box/a/b c") == named
    for wrong in (f"abfs://box@{HOST}/a?sig=canary", f"abfs://x:canary@{HOST}/a", "abfs://box@canary/a", "abfs://BOX/a",
                  "abfs://a--canary/a"):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            parse(wrong)
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("cloud", "suffix"),
    [("AzureChinaCloud", "core.chinacloudapi.cn"), ("AzureUSGovernment", "core.usgovcloudapi.net"),
     ("AzureCloud", "core.windows.net")],
)  # fmt: skip
def test_artefacts_lie_in_the_cloud_that_is_configured(
    azure: LoopbackAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cloud: str, suffix: str
) -> None:
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", cloud)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "plantstorage\r\n")
    container = azure.azure_ml.container
    roots = (f"abfs://{container}/x", f"abfs://{container}@plantstorage.dfs.{suffix}/x", f"abfs://{container}/x\r")
    for number, root in enumerate(roots):
        store = ArtefactStore(root, tmp_path / f"cache-{number}", time_limit=20)
        assert store.fetch(store.put_bytes(b"bytes", "x")).read_bytes() == b"bytes"
    seen = [(text.split()[0], text.split()[1].split("/")[0]) for text, _ in azure.proxy.seen]
    assert {host for _, host in seen if "plantstorage" in host} == {f"plantstorage.blob.{suffix}"}
    login = {"AzureChinaCloud": "login.chinacloudapi.cn", "AzureUSGovernment": "login.microsoftonline.us"}
    tokens = {host for method, host in seen if method == "POST" and host.startswith("login.")}
    assert tokens == {login.get(cloud, "login.microsoftonline.com")}


def test_artefacts_in_another_cloud_than_the_one_signed_in_to_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    root = "abfs://box@plantstorage.dfs.core.chinacloudapi.cn/x"
    with pytest.raises(
        ConfigError, match=r"lies in AzureChinaCloud.*set the environment variable AZUREML_CURRENT_CLOUD"
    ):
        parse(root)
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://login.chinacloudapi.cn")
    assert parse(root)[1] == "core.chinacloudapi.cn"
    monkeypatch.delenv("AZURE_AUTHORITY_HOST")
    assert parse("abfs://box@plantstorage.dfs.storage.plant.example/x")[1] == "storage.plant.example"
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "Elsewhere")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "plantstorage")
    with pytest.raises(ConfigError, match="AZUREML_CURRENT_CLOUD is 'Elsewhere'"):
        parse("abfs://box/x")


def test_a_page_of_a_proxy_in_front_of_storage_is_told_as_one(
    azure: LoopbackAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch)
    store = ArtefactStore(url(azure), tmp_path / "cache", time_limit=20)
    for method in ("PUT", "GET", "HEAD"):
        azure.faults.add(rf"^{method} plantstorage\.blob", faults.page(200))
        azure.faults.add(rf"^{method} plantstorage\.blob", faults.page(403))
    blob = store.put_bytes(b"bytes", "x")
    assert again(store, tmp_path / "other").fetch(blob).read_bytes() == b"bytes"
    azure.faults.add(r"plantstorage\.blob", faults.page(200), times=1000)
    with pytest.raises(TransientError, match=r"an HTML page with status 200 from plantstorage\.blob"):
        again(store, tmp_path / "third").fetch(blob)


def test_a_file_of_many_pieces_appears_whole(store: ArtefactStore, big: Path, tmp_path: Path) -> None:
    blob = store.put_file(big, "x")
    assert store.put_file(big, "x") == store.put_bytes(big.read_bytes(), "x") == blob
    assert again(store, tmp_path / "other").fetch(blob).read_bytes() == big.read_bytes()


def test_a_file_that_changes_under_way_is_not_kept(
    store: ArtefactStore, big: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size in (BIG, 100):
        big.write_bytes(os.urandom(size))
        digest = artefact_store.file_digest(big)
        big.write_bytes(os.urandom(size))
        with monkeypatch.context() as patch, pytest.raises(EdgepackError, match="big changed while it was read"):
            patch.setattr(artefact_store, "file_digest", lambda _, digest=digest: digest)
            store.put_file(big, "x")
        assert not store.has(digest)


def test_who_dies_in_the_middle_of_an_upload_leaves_nothing_to_be_seen(
    azure: LoopbackAzure, store: ArtefactStore, big: Path
) -> None:
    digest = artefact_store.file_digest(big)
    arrived, released = threading.Event(), threading.Event()

    def hold(exchange: Exchange) -> Response:
        arrived.set()
        released.wait(60)
        return exchange.answer()

    azure.faults.add(r"^PUT .*comp=blocklist", hold)
    code = (
        "import sys; from pathlib import Path; from edgepack_assets.artefacts.store import ArtefactStore\n"
        "ArtefactStore(sys.argv[1], Path(sys.argv[2])).put_file(Path(sys.argv[3]), 'x')"
    )
    child = subprocess.Popen([sys.executable, "-c", code, store.root_url, str(big.parent / "c"), str(big)])
    try:
        assert arrived.wait(60)  # every block is there, and the last request is under way
        assert not store.has(digest)
        assert store.garbage([], 0) == []
        child.send_signal(signal.SIGKILL)
        child.wait(30)
        azure.faults.clear()
        blob = store.put_file(big, "x")  # while the dead one's last request is still on the wire
    finally:
        released.set()
        child.kill()
        child.wait(30)
    assert store.fetch(blob).read_bytes() == big.read_bytes()


@pytest.mark.parametrize("size", [100, BIG])
def test_two_who_put_the_same_bytes_both_succeed(
    azure: LoopbackAzure, store: ArtefactStore, tmp_path: Path, size: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    met = threading.Barrier(2)

    def together(exchange: Exchange) -> Response:
        met.wait(60)
        return exchange.answer()

    azure.faults.add(r"^PUT .*(comp=blocklist|/blobs/[^?]*$)", together, times=2)
    others: list[object] = []
    thread = threading.Thread(target=lambda: others.append(again(store, tmp_path / "other").put_file(path, "x")))
    thread.start()
    blob = store.put_file(path, "x")
    thread.join(60)
    assert others == [blob]
    assert again(store, tmp_path / "third").fetch(blob).read_bytes() == path.read_bytes()


def test_passing_faults_and_lost_answers_are_overcome(
    azure: LoopbackAzure, store: ArtefactStore, big: Path, tmp_path: Path
) -> None:
    for fault in (faults.status(503, "ServerBusy"), faults.reset, faults.lost_answer):
        azure.faults.add(r"^PUT ", fault)
        azure.faults.add(r"^PUT .*comp=block&", fault)
        azure.faults.add(r"^PUT .*comp=blocklist", fault)
        azure.faults.add(r"^GET .*/blobs/", fault)
    blob = store.put_file(big, "x")
    azure.faults.add(r"^PUT .*/locks/", faults.lost_answer)
    assert store.put_named("locks", "k", {"by": 1}) == {"by": 1}
    azure.faults.add(r"^PUT .*/manifests/", faults.lost_answer)
    made = Artefact(asset="metrics", partition="press:1", parts={"x": blob})
    store.save(made)
    other = again(store, tmp_path / "other")
    assert other.load("metrics", "press:1") == made
    assert other.fetch(blob).read_bytes() == big.read_bytes()
    azure.faults.add(r"^DELETE ", faults.lost_answer)
    assert len(other.remove(other.garbage([], -60))) == 2  # in the store, and its copy
    assert not store.has(blob.digest)


def test_a_fault_that_lasts_is_transient_and_says_where(azure: LoopbackAzure, store: ArtefactStore) -> None:
    azure.faults.add(r"\.blob\.", faults.status(503, "ServerBusy"), times=1000)
    with pytest.raises(TransientError, match=r"container azureml-.* of the storage account plantstorage.*503"):
        store.put_bytes(b"x", "x")


def test_what_is_refused_says_what_to_check(azure: LoopbackAzure, store: ArtefactStore, tmp_path: Path) -> None:
    missing = ArtefactStore(url(azure, "no-such-box"), tmp_path / "cache", time_limit=20)
    for attempt in (
        lambda: missing.put_bytes(b"x", "x"),
        lambda: missing.load("metrics", "press:1"),
        lambda: missing.get_named("locks", "k"),
        lambda: list(missing.manifests()),
        lambda: missing.garbage([], 0),
    ):
        with pytest.raises(EdgepackError, match=r"container no-such-box .*: there is no such container"):
            attempt()
    azure.principal.roles = {"Storage Blob Data Reader"}
    assert store.get_named("locks", "k") is None
    with pytest.raises(EdgepackError, match="has the role Storage Blob Data Contributor on it"):
        store.put_bytes(b"x", "x")
    azure.principal.roles = set()
    with pytest.raises(EdgepackError, match="has the role Storage Blob Data Contributor on it"):
        store.get_named("locks", "k")
    azure.principal.expired_secret = True
    with pytest.raises(EdgepackError, match="the client secret has expired") as caught:
        again(store, tmp_path / "other").put_bytes(b"x", "x")
    assert azure.principal.secret not in str(caught.value)


def test_truncated_and_swapped_bytes_are_never_taken(
    azure: LoopbackAzure, store: ArtefactStore, tmp_path: Path
) -> None:
    blob = store.put_bytes(b"good bytes", "x")
    azure.faults.add(r"^GET .*/blobs/", faults.changed(lambda body: b"evil bytes"))
    with pytest.raises(CorruptError, match=rf"abfs://.*{blob.digest}: bytes differ"):
        store.fetch(blob)
    azure.faults.add(r"^GET .*/blobs/", faults.cut(4))
    assert store.fetch(blob).read_bytes() == b"good bytes"
    assert list((tmp_path / "cache").rglob("*.tmp")) == []


def test_a_blob_that_is_used_while_it_is_removed_survives(azure: LoopbackAzure, store: ArtefactStore) -> None:
    blob = store.put_bytes(b"text", "x")
    [item] = store.garbage([], -60)
    other = ArtefactStore(store.root_url, Path("unused"), time_limit=20)

    def used_first(exchange: Exchange) -> Response:
        assert other.has(blob.digest)
        return exchange.answer()

    azure.faults.add(r"^DELETE ", used_first)
    assert store.remove([item]) == []
    assert other.has(blob.digest)


def test_local_copies_are_pruned_when_nobody_needs_or_uses_them(store: ArtefactStore, tmp_path: Path) -> None:
    blobs = {name: store.put_bytes(name.encode(), "x") for name in ("needed", "unused", "recent", "forgotten")}
    paths = {name: store.fetch(blob) for name, blob in blobs.items()}
    torn = paths["needed"].with_name(".x.tmp")
    torn.write_bytes(b"half")
    for path, age in ((paths["needed"], 7200), (paths["unused"], 7200), (torn, 7200),
                      (paths["forgotten"], blob_cache.KEPT + 3600)):  # fmt: skip
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    found = store.garbage([blobs["needed"].digest, blobs["forgotten"].digest], 3600)
    assert {item.path for item in found} == {str(paths["unused"]), str(paths["forgotten"]), str(torn)}
    store.fetch(blobs["unused"])
    assert len(store.remove(found)) == 2
    assert not torn.exists()
    assert {name for name, path in paths.items() if path.exists()} == {"needed", "unused", "recent"}
    assert store.fetch(blobs["forgotten"]).read_bytes() == b"forgotten"


def test_the_configured_store_is_opened_as_the_registry_is(
    azure: LoopbackAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "edgepack.yaml"
    root = f"artefacts: {{root: '{url(azure)}'}}\n"
    file.write_text(f"{root}{ENTRY}")
    assert load_settings(file).runtime.isolation == "required"
    who = "credential: {type: service_principal, client_secret_variable: PLANT_SECRET}"
    section = ", ".join(f"{key}: {value}" for key, value in azure.registry_section().items())
    file.write_text(f"registry: {{{section}, {who}}}\n{root}{ENTRY}")
    monkeypatch.setenv("PLANT_SECRET", azure.principal.secret)
    monkeypatch.delenv("AZURE_CLIENT_SECRET")
    store = open_store(load_settings(file))
    assert store.read_bytes(store.put_bytes(b"x", "x")) == b"x"
