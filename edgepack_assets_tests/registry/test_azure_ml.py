"""What is Azure ML's own: versions of other people, archived ones, pages, credentials, secrets, many at once."""

from __future__ import annotations

import json
import logging
import multiprocessing
import uuid
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgepack_assets.azure.blob_container import Blob
from edgepack_assets.cli.main import main
from edgepack_assets.config.registry_settings import AzureMLRegistrySettings
from edgepack_assets.errors import CorruptError, EdgepackError, NotFoundError
from edgepack_assets.quickstart import __main__ as quickstart
from edgepack_assets.registry.azure_ml import AzureMLRegistry, check_connection
from edgepack_assets.registry.azure_ml.contents import below
from edgepack_assets.registry.azure_ml.datastores import AtUrl, InDatastore, parse
from edgepack_assets.registry.base import Kind, files_of, latest
from edgepack_assets_tests.azure.certificates import key_pem, new_key, self_signed
from edgepack_assets_tests.azure.identity import Principal
from edgepack_assets_tests.azure.loopback import BLOB_CONTRIBUTOR, DATA_SCIENTIST, LoopbackAzure
from edgepack_assets_tests.registry.conftest import azure_ml


def contents(path: Path) -> dict[str, bytes]:
    return {name: file.read_bytes() for name, file in files_of(path)}


def as_the_sdk_does(registry: AzureMLRegistry, path: Path, **fields: Any) -> None:
    """A model registered by somebody's training pipeline: by azure-ai-ml alone, uploading as it does."""
    from azure.ai.ml.entities import Model

    registry._assets.client.models.create_or_update(Model(path=str(path), **fields))


# Versions of other people ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["workspace", "registry"])
@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_model_registered_by_a_training_pipeline_is_as_good(
    azure: LoopbackAzure, model: Path, tmp_path: Path, kind: str, what: str
) -> None:
    registry = azure_ml(azure, kind)
    path = model if what == "folder" else model / "data" / "model.pkl"
    as_the_sdk_does(registry, path, name="press", version="4", tags={"run": "17"}, type="custom_model")
    found = registry.get(Kind.MODEL, "press", 4)
    resolved = found.resolve()
    assert (resolved.size, resolved.is_folder) == (sum(map(len, contents(path).values())), what == "folder")
    assert dict(found.tags) == {"run": "17"}
    again = azure_ml(azure, kind).get(Kind.MODEL, "press", 4)
    assert (again, again.resolve()) == (found, resolved)
    assert len(resolved.digest) == 64
    assert contents(registry.download(found, tmp_path / "out")) == contents(path)
    assert registry.register(Kind.MODEL, "press", path, {}).version == 5


def test_copies_in_several_accounts_are_one_version(azure: LoopbackAzure, model: Path, tmp_path: Path) -> None:
    """A registry names now one and now another; files uploaded in blocks have no MD5, and each copy its own ETag."""
    shelf = azure.azure_ml.registry
    container = "plant-regi-blocks"
    azure.storage.make_container(container)
    with azure.storage.client(container) as client:
        client.get_blob_client("m/model.pkl").stage_block("MQ==", b"weights")
        client.get_blob_client("m/model.pkl").commit_block_list(["MQ=="])
    uri = {"modelUri": f"https://{azure.storage.host}/{container}/m"}
    azure.azure_ml.put(shelf, "models", "press", "1", uri)
    first, second, third = (azure_ml(azure, "registry").get(Kind.MODEL, "press", 1) for _ in range(3))
    assert len({found.location for found in (first, second, third)}) == 2
    assert first == second == third
    assert first.resolve() == second.resolve() == third.resolve()
    for number, found in enumerate((first, second, third)):
        got = azure_ml(azure, "registry").download(found, tmp_path / str(number))
        assert contents(got) == {"model.pkl": b"weights"}
    registry = azure_ml(azure, "registry")
    made = registry.register(Kind.MODEL, "press", model, {"lot": "7"})
    for number in range(2):
        made = registry.set_tags(made, {"seen": str(number)})
    assert (made.version, dict(made.tags)) == (2, {"lot": "7", "seen": "1"})


def test_tags_of_a_registry_leave_the_rest_of_a_version_as_it_is(azure: LoopbackAzure) -> None:
    shelf = azure.azure_ml.registry
    fields = {
        "modelUri": f"https://{azure.storage.host}/c/m", "modelType": "mlflow_model", "description": "theirs",
        "flavors": {"sklearn": {"data": {"sklearn_version": "1.5"}}}, "properties": {"a": "b"}, "tags": None,
    }  # fmt: skip
    azure.azure_ml.put(shelf, "models", "press", "1", fields)
    kept = shelf.assets["models"]["press"]["1"].properties
    kept["tags"] = None
    before = dict(kept)
    registry = azure_ml(azure, "registry")
    assert registry._assets.api.change_tags(Kind.MODEL, "press", 1, {"ours": "1"}, ())
    assert not registry._assets.api.change_tags(Kind.MODEL, "press", 2, {"ours": "1"}, ())
    assert kept == {**before, "tags": {"ours": "1"}}


def test_a_datastore_of_another_workspace_is_not_taken_for_ours(azure: LoopbackAzure, tmp_path: Path) -> None:
    inside = "workspaces/other/datastores/workspaceblobstore/paths/x"
    group = f"azureml://subscriptions/{azure.azure_ml.subscription_id}/resourcegroups/{azure.azure_ml.resource_group}"
    registry = azure_ml(azure, "workspace")
    azure.azure_ml.put(azure.azure_ml.workspace, "models", "press", "1", {"modelUri": "azureml://datastores/d/paths/x"})
    kept = azure.azure_ml.workspace.assets["models"]["press"]["1"].properties
    kept["modelUri"] = f"{group}/{inside}"
    with pytest.raises(EdgepackError, match=r"press:1 lies in a datastore of another workspace"):
        registry.download(registry.get(Kind.MODEL, "press", 1), tmp_path)


def test_looking_at_many_versions_of_others_lists_no_files_until_one_is_used(azure: LoopbackAzure, model: Path) -> None:
    registry = azure_ml(azure, "workspace")
    for version in ("1", "2", "3", "4"):
        as_the_sdk_does(registry, model, name="press", version=version)
    azure.proxy.seen.clear()
    found = registry.versions(Kind.MODEL, "press")
    assert [version.version for version in found] == [1, 2, 3, 4]
    before = len(azure.proxy.seen)
    # no attribute asks for anything, nor does what a debugger or a comparison reads
    for version in found:
        assert [getattr(version, name) for name in dir(version) if not callable(getattr(type(version), name, None))]
        assert (f"{version!r}", version == found[0]) != ("", None)
    assert len(azure.proxy.seen) == before
    assert [asked for asked, _ in azure.proxy.seen if "blob." in asked] == []
    assert found[0].resolve().digest == found[3].resolve().digest  # the SDK uploads equal bytes to one place
    assert found[0].resolve() == found[0].resolve()
    assert len([asked for asked, _ in azure.proxy.seen if "comp=list" in asked]) == 2


def test_files_of_others_that_change_are_not_handed_out_as_what_was_looked_at(
    azure: LoopbackAzure, model: Path, tmp_path: Path
) -> None:
    registry = azure_ml(azure, "workspace")
    as_the_sdk_does(registry, model, name="press", version="1")
    found = registry.get(Kind.MODEL, "press", 1)
    digest, path = found.resolve().digest, found.location.split("/paths/")[1]
    (model / "MLmodel").write_text("other")
    registry._places.datastore("workspaceblobstore").upload([(path + "/MLmodel", model / "MLmodel")], "a change")
    with pytest.raises(CorruptError, match=r"have changed since it was looked up"):
        registry.download(found, tmp_path / "out")
    again = registry.get(Kind.MODEL, "press", 1)
    assert again.resolve().digest != digest
    assert contents(registry.download(again, tmp_path / "out")) == contents(model)


def test_a_version_that_names_no_files_is_told_when_it_is_used(azure: LoopbackAzure, tmp_path: Path) -> None:
    registry = azure_ml(azure, "workspace")
    put, nothing = azure.azure_ml.put, "azureml://datastores/workspaceblobstore/paths/no"
    put(azure.azure_ml.workspace, "models", "press", "1", {"modelUri": nothing})
    put(
        azure.azure_ml.workspace,
        "data",
        "raw",
        "1",
        {"dataUri": "https://example.com/table.csv", "dataType": "uri_file"},
    )
    gone = f"https://{azure.storage.host}/gone/x"
    put(azure.azure_ml.workspace, "models", "press", "1", {"modelUri": gone})
    put(azure.azure_ml.workspace, "models", "other", "1", {"modelUri": "azureml://datastores/lost/paths/x"})
    with pytest.raises(CorruptError, match=r"gone/x: press:1 names files that are not there"):
        registry.download(latest(registry, Kind.MODEL, "press"), tmp_path)
    with pytest.raises(EdgepackError, match=r"there is no datastore lost"):
        registry.download(latest(registry, Kind.MODEL, "other"), tmp_path)
    put(azure.azure_ml.workspace, "models", "press", "1", {"modelUri": nothing})
    assert latest(registry, Kind.MODEL, "press").version == 1
    with pytest.raises(CorruptError, match=r"press:1 names files that are not there"):
        registry.download(latest(registry, Kind.MODEL, "press"), tmp_path)
    with pytest.raises(EdgepackError, match=r"example.com/table.csv: lies where this project cannot read"):
        registry.download(latest(registry, Kind.DATA, "raw"), tmp_path)


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("azureml://datastores/d/paths/a/b c", InDatastore("d", "a/b c")),
        ("azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/d/paths/a/", InDatastore("d", "a/")),
        ("azureml://jobs/j/outputs/artifacts/paths/m", InDatastore("workspaceartifactstore", "ExperimentRun/dcid.j/m")),
        ("https://a.blob.core.windows.net/c/x%20y/z", AtUrl("https://a.blob.core.windows.net", "c", "x y/z")),
        ("wasbs://c@a.blob.core.windows.net/x", AtUrl("https://a.blob.core.windows.net", "c", "x")),
        ("azureml://workspaces/0-1/datastores/d/paths/a", InDatastore("d", "a")),
        ("azureml://locations/l/workspaces/0-1/datastores/d/paths/a", InDatastore("d", "a")),
        ("https://a.dfs.core.chinacloudapi.cn/c/x", AtUrl("https://a.blob.core.chinacloudapi.cn", "c", "x")),
        ("https://a.blob.core.usgovcloudapi.net:443/c/x", AtUrl("https://a.blob.core.usgovcloudapi.net:443", "c", "x")),
        ("abfss://c@a.dfs.core.windows.net/x", AtUrl("https://a.blob.core.windows.net", "c", "x")),
    ],
)  # fmt: skip
def test_where_a_uri_points(uri: str, place: object) -> None:
    assert parse(uri) == place


def test_the_command_lists_what_it_cannot_read_and_the_quickstart_keeps_out(
    azure: LoopbackAzure,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "edgepack.yaml"
    entry = {
        "implementation": "state_identifier",
        "model_name": "press",
        "package_name": "Press",
        "raw_data": {"name": "raw"},
    }
    file.write_text(json.dumps({"registry": azure.registry_section(), "model_types": {"press": entry}}))
    monkeypatch.setenv("EDGEPACK_CONFIG", str(file))
    uri = {"dataUri": "https://example.com/table.csv", "dataType": "uri_file"}
    azure.azure_ml.put(azure.azure_ml.workspace, "data", "raw", "1", uri)
    mine = azure_ml(azure, "workspace").register(Kind.DATA, "raw", model, {})
    done = CliRunner().invoke(main, ["data", "list", "raw", "--json"])
    assert done.exit_code == 0, done.output
    assert [(found["version"], found["digest"]) for found in json.loads(done.stdout)] == [(1, None), (2, mine.digest)]
    assert "?" in CliRunner().invoke(main, ["data", "list"]).output
    assert quickstart.main() == 1
    assert "do not belong in a shared registry; run" in capsys.readouterr().err
    assert azure_ml(azure, "workspace").names(Kind.MODEL) == []


# Lists -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["workspace", "registry"])
def test_the_latest_model_is_the_highest_number_in_force_on_whatever_page(azure: LoopbackAzure, kind: str) -> None:
    shelf = azure.azure_ml.workspace if kind == "workspace" else azure.azure_ml.registry

    def put(name: str, version: str, **properties: Any) -> None:
        azure.azure_ml.put(shelf, "models", name, version, {"modelUri": "azureml://datastores/d/paths/x", **properties})

    for version in ("9", "2", "10", "1", "2024-01", "v3", "007", "3", "20", "0"):
        put("press", version, isArchived=version == "20")
    for number in range(8):
        put(f"other{number}", "1")
    shelf.archived_containers.add(("models", "other3"))
    registry = azure_ml(azure, kind)
    assert [found.version for found in registry.versions(Kind.MODEL, "press")] == [1, 2, 3, 9, 10]
    assert latest(registry, Kind.MODEL, "press").version == 10
    assert registry.names(Kind.MODEL) == [*(f"other{n}" for n in range(8) if n != 3), "press"]
    for version in (20, "2024-01", "007"):
        with pytest.raises(NotFoundError, match=rf"'press' has no version {version}; its versions are: 1, 2, 3, 9, 10"):
            registry.get(Kind.MODEL, "press", version)


@pytest.mark.parametrize("kind", ["workspace", "registry"])
def test_the_number_of_an_archived_version_is_not_given_out_again(azure: LoopbackAzure, model: Path, kind: str) -> None:
    registry = azure_ml(azure, kind)
    shelf = azure.azure_ml.workspace if kind == "workspace" else azure.azure_ml.registry
    registry.register(Kind.MODEL, "press", model, {})
    registry.register(Kind.MODEL, "press", model, {})
    shelf.assets["models"]["press"]["2"].properties["isArchived"] = True
    assert registry.register(Kind.MODEL, "press", model, {}).version == 3


# Credentials -----------------------------------------------------------------------------------------------------


def test_every_kind_of_credential_reaches_models_and_files(
    azure: LoopbackAzure, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    azure.azure_ml.identity_based = True  # storage asks for the credential too
    key = new_key()
    certificate = self_signed(key, "edgepack")
    pem = tmp_path / "certificate.pem"
    from cryptography.hazmat.primitives.serialization import Encoding

    pem.write_bytes(key_pem(key) + certificate.public_bytes(Encoding.PEM))
    token = tmp_path / "token"
    token.write_text(f"federated-{uuid.uuid4()}")
    roles = {DATA_SCIENTIST, BLOB_CONTRIBUTOR}
    made = {
        "secret": Principal(str(uuid.uuid4()), roles, secret="other~secret"),  # noqa: S106 - of this test
        "certificate": Principal(str(uuid.uuid4()), roles, certificate=certificate),
        "workload": Principal(str(uuid.uuid4()), roles, federated_token=token.read_text()),
        "machine": Principal(str(uuid.uuid4()), roles, managed=True),
    }
    for principal in made.values():
        azure.identity.add(principal)
    monkeypatch.setenv("PLANT_SECRET", "other~secret")
    tenant = azure.identity.tenant_id
    service = {"type": "service_principal", "tenant_id": tenant}
    settings: dict[str, dict[str, Any]] = {
        "secret": {**service, "client_secret_variable": "PLANT_SECRET"},
        "certificate": {**service, "certificate_path": pem},
        "workload": {"type": "workload_identity", "tenant_id": tenant, "token_file_path": token},
        "machine": {"type": "managed_identity"},
    }
    for number, (name, who) in enumerate(settings.items(), 1):
        registry = azure_ml(azure, "workspace", credential={**who, "client_id": made[name].client_id})
        version = registry.register(Kind.MODEL, "press", model, {"by": name})
        assert version.version == number
        assert contents(registry.download(version, tmp_path / name)) == contents(model)


@pytest.mark.parametrize("kind", ["workspace", "registry"])
def test_another_cloud_is_asked_where_it_is(
    azure: LoopbackAzure, model: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "AzureChinaCloud")
    registry = azure_ml(azure, kind)
    assert registry.register(Kind.MODEL, "press", model, {}).version == 1
    assert all(step.ok for step in check_connection(registry.settings))
    hosts = {asked.split()[1].split("/")[0] for asked, _ in azure.proxy.seen}
    assert {"login.chinacloudapi.cn"} < hosts
    assert ("management.chinacloudapi.cn" if kind == "workspace" else "chinaeast2.api.ml.azure.cn") in hosts
    assert "management.azure.com" not in hosts
    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "Elsewhere")
    with pytest.raises(EdgepackError, match=r"AZUREML_CURRENT_CLOUD is 'Elsewhere'; the clouds .*AzureUSGovernment"):
        azure_ml(azure, kind).names(Kind.MODEL)


def test_a_secret_is_written_nowhere(
    azure: LoopbackAzure, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    canary = azure.principal.secret
    caplog.set_level(logging.DEBUG)
    errors = []
    who = {"type": "service_principal"}
    for kind in ("workspace", "registry"):
        registry = azure_ml(azure, kind, credential=who)
        made = registry.register(Kind.MODEL, "press", model, {"lot": "7"})
        registry.download(registry.set_tags(made, {"a": "b"}), tmp_path / kind)
        (tmp_path / f"{kind}.txt").write_text(f"{made} {registry.settings} {made!r}")
    azure.principal.expired_secret = True
    for asked in (canary, canary + "x"):
        monkeypatch.setenv("AZURE_CLIENT_SECRET", asked)
        with pytest.raises(EdgepackError) as caught:
            azure_ml(azure, "workspace", credential=who).names(Kind.MODEL)
        errors.append(f"{caught.value!r} {caught.value.__cause__!r}")
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    shelves = (azure.azure_ml.workspace, azure.azure_ml.registry)
    kept = [shelf.assets["models"]["press"]["1"].properties for shelf in shelves]
    everything = "\n".join([caplog.text, json.dumps(kept), *errors, *(data.decode("latin-1") for data in written)])
    assert "signing in to Azure failed" in everything
    assert canary not in everything
    for token in azure.identity.tokens:
        assert token not in everything
    for secret in (azure.storage.key, "sig="):
        assert secret not in "\n".join([json.dumps(kept), *errors])


def test_the_log_holds_nothing_of_what_every_call_repeats(
    azure: LoopbackAzure,
    model: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.INFO)
    registry = azure_ml(azure, "workspace")
    registry.download(registry.register(Kind.MODEL, "press", model, {}), tmp_path / "out")
    assert registry.versions(Kind.MODEL, "none") == []
    assert [record for record in caplog.records if not record.name.startswith("edgepack_assets")] == []
    assert capfd.readouterr() == ("", "")


# Many at once ----------------------------------------------------------------------------------------------------


def _register_many(me: int, all_settings: list[AzureMLRegistrySettings], model: Path, start: Any, answers: Any) -> None:
    registries = [AzureMLRegistry(settings) for settings in all_settings]
    for number, registry in enumerate(registries):
        registry.names(Kind.MODEL)
        start.wait()
        for n in range(5):
            made = registry.register(Kind.MODEL, "press", model, {"by": f"{me}-{n}"})
            answers.put((number, made.version, made.tags["by"]))


def test_processes_that_register_at_once_all_get_a_version_of_their_own(azure: LoopbackAzure, model: Path) -> None:
    """Two processes, in the workspace and then in the registry: each one imports azure-ai-ml, for three seconds."""
    azure.azure_ml.index_lag = 3600
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(2), context.Queue()
    registries = [azure_ml(azure, kind, time_limit=60) for kind in ("workspace", "registry")]
    shared = ([registry.settings for registry in registries], model, start, answers)
    processes = [context.Process(target=_register_many, args=(me, *shared)) for me in range(2)]
    for process in processes:
        process.start()
    given: list[dict[int, str]] = [{}, {}]
    for _ in range(2 * 2 * 5):
        number, version, by = answers.get(timeout=120)
        given[number][version] = by
    for process in processes:
        process.join(60)
    for registry, by_version in zip(registries, given, strict=True):
        assert sorted(by_version) == list(range(1, 11))
        assert {n: registry.get(Kind.MODEL, "press", n).tags["by"] for n in by_version} == by_version


def test_two_who_tag_at_once_lose_no_tag(azure: LoopbackAzure, model: Path) -> None:
    """The other one's tags come between our reading and our writing."""
    from edgepack_assets_tests.azure.faults import Exchange
    from edgepack_assets_tests.azure.http import Response

    registry = azure_ml(azure, "workspace")
    made = registry.register(Kind.MODEL, "press", model, {"keep": "1"})
    kept = azure.azure_ml.workspace.assets["models"]["press"]["1"].properties

    def overwritten(exchange: Exchange) -> Response:
        before = dict(kept["tags"])
        answer = exchange.answer()
        kept["tags"] = {**before, "theirs": "1"}
        return answer

    azure.faults.add(r"^PUT [^?]*/models/", overwritten)
    tagged = registry.set_tags(made, {"ours": "1"})
    assert dict(tagged.tags) == {"keep": "1", "ours": "1", "theirs": "1"}


def test_a_blob_that_would_lie_too_deep_is_not_downloaded(tmp_path: Path) -> None:
    assert below(tmp_path, Blob("a/" * 99 + "x", "x", 1, "", "")) == tmp_path.joinpath(*["a"] * 99, "x")
    with pytest.raises(CorruptError, match="more than 100 deep"):
        below(tmp_path, Blob("a/" * 3_000 + "x", "x", 1, "", ""))
