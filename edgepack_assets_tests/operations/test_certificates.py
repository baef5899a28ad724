"""Which certificate authorities each part trusts, as the doctor shows it."""

from __future__ import annotations

from pathlib import Path

import certifi
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from edgepack_assets.operations.certificates import TrustedAuthorities, trusted_authorities
from edgepack_assets_tests.azure.certificates import key_pem, new_key, self_signed
from edgepack_assets_tests.azure.loopback import LoopbackAzure
from edgepack_assets_tests.registry.conftest import azure_ml

VARIABLES = (
    "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "PIP_CERT", "UV_SYSTEM_CERTS",
    "UV_NATIVE_TLS",
)  # fmt: skip


@pytest.fixture(autouse=True)
def none_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def rows(with_azure: bool = True) -> dict[str, TrustedAuthorities]:
    return {row.part.split(",")[0].split()[0]: row for row in trusted_authorities(with_azure)}


def test_where_nothing_is_set_each_part_has_its_own_list() -> None:
    assert [*rows()] == ["Azure", "uv", "pip", "the"]
    assert [*rows(with_azure=False)] == ["uv", "pip", "the"]
    assert all("not set" in row.source and not row.problem for row in rows().values())


@pytest.mark.parametrize(
    ("variable", "parts"),
    [
        ("REQUESTS_CA_BUNDLE", {"Azure", "pip", "the"}), ("CURL_CA_BUNDLE", {"Azure", "pip", "the"}),
        ("SSL_CERT_FILE", {"uv"}), ("SSL_CERT_DIR", {"uv"}), ("PIP_CERT", {"pip"}),
    ],
)  # fmt: skip
def test_each_variable_is_shown_for_the_parts_that_read_it(
    variable: str, parts: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(certifi.where())
    (tmp_path / "0a1b2c3d.0").write_bytes(file.read_bytes())
    monkeypatch.setenv(variable, str(tmp_path if variable == "SSL_CERT_DIR" else file))
    found = rows()
    assert {part for part, row in found.items() if row.source.startswith(f"{variable}=")} == parts
    assert not any(row.problem for row in found.values())
    monkeypatch.setenv(variable, str(tmp_path / "nowhere"))
    assert {part for part, row in rows().items() if row.problem == "is no such file"} == parts


def test_what_holds_no_certificates_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ca.pem"
    for content in (b"", b"text", key_pem(new_key()), self_signed(key := new_key(), "a").public_bytes(Encoding.DER)):
        file.write_bytes(content)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(file))
        assert rows()["Azure"].problem == "holds no certificates in PEM form"
    file.write_bytes(self_signed(key, "a").public_bytes(Encoding.PEM))
    assert rows()["Azure"].source.endswith("(1 certificate)")
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "empty"))
    assert rows()["Azure"].problem == "is an empty folder"


@pytest.mark.parametrize("name", ["UV_SYSTEM_CERTS", "UV_NATIVE_TLS"])
def test_uv_may_trust_what_the_machine_trusts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "true")
    assert rows()["uv"].source.endswith(f"{name}: this machine's store")
    monkeypatch.setenv(name, "0")
    assert rows()["uv"].source.endswith("uv's own list")


def test_azure_trusts_by_the_first_variable_that_is_shown(
    azure: LoopbackAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables that azure-ai-ml and azure-identity really read, and that SSL_CERT_FILE is none of them."""
    from edgepack_assets.errors import EdgepackError
    from edgepack_assets.registry.base import Kind

    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    monkeypatch.setenv("SSL_CERT_FILE", str(azure.ca))
    with pytest.raises(EdgepackError, match=r"(?i)certificate|SSL"):
        azure_ml(azure, "workspace", time_limit=3).names(Kind.MODEL)
    for name in ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, str(azure.ca))
            assert azure_ml(azure, "workspace").names(Kind.MODEL) == []
