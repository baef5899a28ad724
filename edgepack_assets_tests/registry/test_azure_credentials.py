"""Who the project is in Azure: which managed identity, what ids from files of Windows come to."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.registry_settings import AzureMLRegistrySettings
from edgepack_assets.errors import ConfigError, EdgepackError, TransientError
from edgepack_assets.registry.azure_ml import AzureMLRegistry
from edgepack_assets.registry.base import Kind
from edgepack_assets_tests.azure.faults import page, status
from edgepack_assets_tests.azure.identity import Principal
from edgepack_assets_tests.azure.loopback import BLOB_CONTRIBUTOR, DATA_SCIENTIST, LoopbackAzure
from edgepack_assets_tests.registry.conftest import Clock, azure_ml

PLACES = ("configuration", "AZURE_CLIENT_ID", "DEFAULT_IDENTITY_CLIENT_ID")


@pytest.fixture
def managed(azure: LoopbackAzure, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The client ids of three managed identities of this machine, one for each place an id may come from."""
    for name in ("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"):
        monkeypatch.delenv(name)
    roles = {DATA_SCIENTIST, BLOB_CONTRIBUTOR}
    made = {place: Principal(str(uuid.uuid4()), roles, managed=True) for place in PLACES}
    for principal in made.values():
        azure.identity.add(principal)
    return {place: principal.client_id for place, principal in made.items()}


@pytest.mark.parametrize("machine", ["virtual machine", "Azure ML compute"])
@pytest.mark.parametrize("kind", ["managed_identity", "default"])
@pytest.mark.parametrize("given", [PLACES, PLACES[1:], PLACES[2:], PLACES[:1], ()])
def test_the_first_place_that_names_a_managed_identity_is_asked_for(  # noqa: PLR0917 - fixtures and parameters
    azure: LoopbackAzure, managed: dict[str, str], monkeypatch: pytest.MonkeyPatch, machine: str, kind: str,
    given: tuple[str, ...],
) -> None:  # fmt: skip
    if machine == "Azure ML compute":
        monkeypatch.setenv("MSI_ENDPOINT", "http://169.254.169.254/MSI/auth")
        monkeypatch.setenv("MSI_SECRET", "x")
    for place in given:
        if place != "configuration":
            monkeypatch.setenv(place, managed[place])
    configured = {"client_id": managed["configuration"]} if "configuration" in given else {}
    registry = azure_ml(azure, "workspace", credential={"type": kind, **configured})
    assert registry.names(Kind.MODEL) == []
    assert azure.identity.asked_for[-1] == (managed[given[0]] if given else None)


@pytest.mark.parametrize("value", ["clientid", "", " "])
def test_a_compute_without_an_identity_names_none(
    azure: LoopbackAzure, managed: dict[str, str], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """Azure ML sets DEFAULT_IDENTITY_CLIENT_ID to "clientid" there."""
    monkeypatch.setenv("DEFAULT_IDENTITY_CLIENT_ID", value)
    azure_ml(azure, "workspace", credential={"type": "managed_identity"}).names(Kind.MODEL)
    assert azure.identity.asked_for[-1] is None


def test_an_identity_that_the_machine_has_not_is_named_with_its_place(
    azure: LoopbackAzure, managed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = str(uuid.uuid4())
    monkeypatch.setenv("AZURE_CLIENT_ID", other)
    with pytest.raises(EdgepackError, match=rf"no such managed identity.*asked for: {other}, of .*AZURE_CLIENT_ID"):
        azure_ml(azure, "workspace", credential={"type": "managed_identity"}).names(Kind.MODEL)


def test_the_machines_identity_service_may_fail_for_a_moment(
    azure: LoopbackAzure, managed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    who = {"type": "managed_identity"}
    for fault in (page(200), status(503, "busy"), status(410, "updating"), status(404, "starting")):
        azure.faults.add("169.254", fault)
    assert azure_ml(azure, "workspace", credential=who).names(Kind.MODEL) == []
    assert len(clock.pauses) == 4
    azure.faults.add("169.254", page(200), times=1000)
    with pytest.raises(TransientError, match=r"an HTML page with status 200 from 169\.254"):
        azure_ml(azure, "workspace", credential=who).names(Kind.MODEL)


@pytest.mark.parametrize("kind", ["service_principal", "default"])
def test_sign_in_may_fail_for_longer_than_a_moment(
    azure: LoopbackAzure, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    clock = Clock(monkeypatch)
    azure.faults.add("^POST login", status(503, "temporarily_unavailable"), times=6)
    registry = azure_ml(azure, "workspace", credential={"type": kind}, time_limit=120)
    assert registry.names(Kind.MODEL) == []
    assert 10 < sum(clock.pauses) < 120


# Ids as files of Windows and pipelines have them -------------------------------------------------------------------

CONFIG = """\
registry:
  type: azure_ml
  subscription_id: ${SUBSCRIPTION}
  resource_group: ${GROUP}
  workspace_name: ${WORKSPACE}
  credential: {type: service_principal, tenant_id: "${TENANT}", client_id: "${CLIENT}"}
model_types:
  press: {implementation: state_identifier, model_name: press, package_name: Press, raw_data: {name: raw}}
"""


@pytest.mark.parametrize("around", ["{}\r", "{}\r\n", " {}", "{}\t", "\u00a0{} "])
def test_space_around_an_id_is_no_part_of_it(
    azure: LoopbackAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, around: str
) -> None:
    ids = {
        "SUBSCRIPTION": azure.azure_ml.subscription_id, "GROUP": azure.azure_ml.resource_group,
        "WORKSPACE": azure.azure_ml.workspace_name, "TENANT": azure.identity.tenant_id,
        "CLIENT": azure.principal.client_id, "AZURE_CLIENT_SECRET": azure.principal.secret,
    }  # fmt: skip
    for name, value in ids.items():
        monkeypatch.setenv(name, around.format(value))
    (tmp_path / "edgepack.yaml").write_text(CONFIG)
    registry = load_settings(tmp_path / "edgepack.yaml").registry
    assert isinstance(registry, AzureMLRegistrySettings)
    assert AzureMLRegistry(registry).names(Kind.MODEL) == []
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID"):
        monkeypatch.setenv(name, around.format(azure.environ[name]))
    assert azure_ml(azure, "registry", credential={"type": "service_principal"}).names(Kind.MODEL) == []
    with pytest.raises(ConfigError, match=r"variable AZURE_\w+ begins or ends with a space or line end"):
        azure_ml(azure, "registry").names(Kind.MODEL)  # azure-identity itself reads it


@pytest.mark.parametrize("kind", ["service_principal", "default"])
def test_an_id_of_the_environment_that_is_none_is_refused_in_words(
    azure: LoopbackAzure, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("AZURE_TENANT_ID", "plant tenant")
    with pytest.raises(ConfigError, match=r"registry\.credential: .*tenant"):
        azure_ml(azure, "workspace", credential={"type": kind}).names(Kind.MODEL)


@pytest.mark.parametrize(
    ("key", "line"), [("SUBSCRIPTION", 3), ("GROUP", 4), ("WORKSPACE", 5), ("TENANT", 6), ("CLIENT", 6)]
)
@pytest.mark.parametrize("value", ["a b", "a\rb", "a\tb", "\ufeffa", "a\u200b", "a\x00"])
def test_space_inside_an_id_is_refused_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, line: int, value: str
) -> None:
    for name in ("SUBSCRIPTION", "GROUP", "WORKSPACE", "TENANT", "CLIENT"):
        monkeypatch.setenv(name, "a")
    text = CONFIG
    if "\x00" in value:
        text = CONFIG.replace(f"${{{key}}}", '"a\\0b"').replace('""a\\0b""', '"a\\0b"')
    else:
        monkeypatch.setenv(key, value)
    (tmp_path / "edgepack.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"edgepack\.yaml:{line}: registry\..*holds no space, line end or invisible"):
        load_settings(tmp_path / "edgepack.yaml")
