"""Calling uv, which resolves requirements and builds environments."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from edgepack_assets.errors import EnvironmentBuildError

PASSED_ON = (
    "PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "http_proxy", "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "UV_SYSTEM_CERTS", "UV_NATIVE_TLS", "UV_CACHE_DIR",
    "PYENV_ROOT",
)  # fmt: skip
"""What uv and pip may know of this process: where things lie, how to reach the network and whom to trust there. No
other PIP_*, UV_INDEX* or PYTHON* variable, which would make a lock depend on the shell it was made in; the index is
configuration."""


@cache
def _uv() -> str:
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError) as error:
        raise EnvironmentBuildError(
            f"uv, which locks and builds the components' environments, is not there ({error}): "
            "install this project again, e.g. `pip install -e .`"
        ) from None


def uv_command(*arguments: str) -> list[str]:
    """The command line of a uv call that reads no uv.toml and shows no progress. Raises EnvironmentBuildError."""
    return [_uv(), "--no-config", "--no-progress", "--color", "never", *arguments]


def uv_environment(work: Path | None = None) -> dict[str, str]:
    """The environment of a uv call. `work` is where it puts temporary files, and leaves them when it is killed."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return passed if work is None else {**passed, "TMPDIR": str(work)}
