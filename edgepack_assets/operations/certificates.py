"""Which certificate authorities each part that uses TLS trusts, and which environment variable says so.

The parts read different variables. So behind a proxy with its own authority one part may work while another does not.
The sources are the parts' own documents: requests (REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE), uv (SSL_CERT_FILE,
SSL_CERT_DIR, UV_SYSTEM_CERTS), pip (the variables of requests; PIP_CERT only if these are not set).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgepack_assets.text_format import counted


@dataclass(frozen=True)
class TrustedAuthorities:
    """What one part trusts. `problem` describes what is wrong with the value in force, or is empty."""

    part: str
    source: str
    problem: str = ""


_REQUESTS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_YES = frozenset({"1", "true", "yes", "on", "y", "t"})


def trusted_authorities(with_azure: bool) -> Iterator[TrustedAuthorities]:
    """A row for each part; those of Azure only if the configuration uses Azure."""
    if with_azure:
        yield _row("Azure ML, sign-in and Azure storage", _REQUESTS, "certifi's list")
    yield _row("uv, which locks", ("SSL_CERT_FILE", "SSL_CERT_DIR"), _uv_default())
    yield _row("pip, which fetches wheels", (*_REQUESTS, "PIP_CERT"), "this machine's store and certifi's list")
    yield _row("the webhook of failed runs", _REQUESTS, "certifi's list")


def _uv_default() -> str:
    for name in ("UV_SYSTEM_CERTS", "UV_NATIVE_TLS"):
        if os.environ.get(name, "").strip().lower() in _YES:
            return f"{name}: this machine's store"
    return "uv's own list"


def _row(part: str, variables: tuple[str, ...], otherwise: str) -> TrustedAuthorities:
    for name in variables:
        if value := os.environ.get(name):
            source, problem = _examine(Path(value)) if os.pathsep not in value else _examine_all(value)
            return TrustedAuthorities(part, f"{name}={value}" + (f" ({source})" if source else ""), problem)
    return TrustedAuthorities(part, f"{' and '.join(variables)} not set: {otherwise}")


def _examine_all(value: str) -> tuple[str, str]:
    """uv takes several folders in SSL_CERT_DIR; one that is valid is enough."""
    examined = [_examine(Path(part)) for part in value.split(os.pathsep) if part]
    return next((each for each in examined if not each[1]), examined[0] if examined else ("", "names nothing"))


def _examine(path: Path) -> tuple[str, str]:
    """(content of a file or folder of certificates, what is wrong with it)."""
    try:
        if path.is_dir():
            return ("a folder", "") if any(path.iterdir()) else ("", "is an empty folder")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cafile=path)
    except FileNotFoundError:
        return "", "is no such file"
    except ssl.SSLError:
        return "", "holds no certificates in PEM form"
    except OSError as error:
        return "", f"cannot be read: {error.strerror or error}"
    count = context.cert_store_stats()["x509"]
    return (counted(count, "certificate"), "") if count else ("", "holds no certificates in PEM form")
