"""What the doctor says of a package index: asked by uv and by pip as a run asks it."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments import index_check
from edgepack_assets.environments.index_check import ask_with_pip, ask_with_uv
from edgepack_assets.errors import EnvironmentBuildError
from edgepack_assets_tests.azure.certificates import write_certificates
from edgepack_assets_tests.azure.faults import PAGE
from edgepack_assets_tests.environments.plain import NOWHERE
from edgepack_assets_tests.environments.wheels import Answer, Index, wheel

TOOLS = {"uv": ask_with_uv, "pip": ask_with_pip}
Ask = Callable[[RuntimeSettings], str]


@pytest.fixture(params=TOOLS)
def ask(request: pytest.FixtureRequest) -> Ask:
    return TOOLS[request.param]


def settings(url: str) -> RuntimeSettings:
    return RuntimeSettings(index_url=url)


def refusal(ask: Ask, url: str) -> str:
    with pytest.raises(EnvironmentBuildError) as caught:
        ask(settings(url))
    return str(caught.value)


def test_an_index_that_answers_is_sound(index: Index, ask: Ask) -> None:
    index.add(wheel(index_check.NAME, "9.8"))
    assert "9.8" in ask(settings(index.url))
    assert not [path for path in index.asked if "/files/" in path and path.endswith(".whl") and "metadata" in path]


@pytest.mark.parametrize("status", [200, 404])
def test_what_answers_and_is_no_index_is_told(index: Index, ask: Ask, status: int) -> None:
    """A proxy's page is a list of no files for uv and pip."""
    index.trouble = lambda path: Answer(status, PAGE)
    said = refusal(ask, index.url)
    assert f"has no {index_check.NAME}: it is no package index" in said
    assert "existing locks need no index" in said


def test_credentials_of_an_index_are_told_to_nobody(index: Index, ask: Ask) -> None:
    index.add(wheel(index_check.NAME, "9.8"))
    index.credentials = "plant:right-canary"
    assert "9.8" in ask(settings(index.url))
    assert "canary" not in refusal(ask, index.url_with("plant:wrong-canary"))


def test_an_index_that_cannot_be_reached_is_told(ask: Ask) -> None:
    assert "check runtime.index_url" in refusal(ask, NOWHERE) or "check the network" in refusal(ask, NOWHERE)


def test_whom_to_trust_is_said_where_a_certificate_is_not_trusted(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    ca, certificate, key = write_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Index() as index:
        index._server.socket = context.wrap_socket(index._server.socket, server_side=True)
        index.add(wheel(index_check.NAME, "9.8"))
        url = index.url.replace("http://", "https://")
        variables = ["SSL_CERT_FILE"] if ask is ask_with_uv else ["PIP_CERT", "REQUESTS_CA_BUNDLE"]
        said = refusal(ask, url)
        assert "its certificate is not trusted: name the file of the authority" in said
        for variable in variables:
            assert variable in said
            with monkeypatch.context() as patch:
                patch.setenv(variable, str(ca))
                assert "9.8" in ask(settings(url))
