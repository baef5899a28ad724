"""Checks for `edgepack doctor` that the package index can be reached, is trusted, and is an index.

uv and pip ask it with the settings that they have in a run. They look up one package, and download no wheel."""

from __future__ import annotations

import re
import subprocess
import sys

from edgepack_assets.config.schema import EDGE_PYTHONS, RuntimeSettings
from edgepack_assets.environments.resolver import index_variables, redact
from edgepack_assets.environments.subprocesses import run_command, shown
from edgepack_assets.environments.uv import uv_command, uv_environment
from edgepack_assets.environments.wheels import PLATFORM
from edgepack_assets.errors import EnvironmentBuildError
from edgepack_assets.filesystem.temp_folders import scratch_folder

NAME = "numpy"
"""The package that is looked up: every component needs it."""
_ANSWER_TIME = 10
_TIME_LIMIT = 40.0
_TLS = re.compile(
    r"(?i)invalid peer certificate|UnknownIssuer|CERTIFICATE_VERIFY_FAILED|SSLError|certificate verify failed|"
    r"ssl certificate|suitable TLS CA certificate"
)
_NOTHING_THERE = re.compile(
    r"(?i)not found in the package registry|there are no versions of|no matching distribution|from versions: none"
)


def ask_with_uv(settings: RuntimeSettings) -> str:
    """Look the package up with uv, which resolves locks. Returns the answer as text. Raises EnvironmentBuildError."""
    with scratch_folder() as work:
        asked, answer = work / "requirements.in", work / "requirements.txt"
        asked.write_text(f"{NAME}\n", encoding="utf-8")
        done = run_command(
            uv_command("pip", "compile", "--quiet", "--no-deps", "--no-header", "--no-annotate", "--refresh",
                       "--python", sys.executable, "--python-version", EDGE_PYTHONS[-1],
                       "--python-platform", PLATFORM, "--only-binary", ":all:",
                       "--output-file", str(answer), str(asked)),
            "asking the package index with uv", _TIME_LIMIT,
            uv_environment(work) | index_variables(settings, "UV")
            | {"UV_HTTP_RETRIES": "0", "UV_HTTP_TIMEOUT": str(_ANSWER_TIME)},
        )  # fmt: skip
        _check(done, settings, "SSL_CERT_FILE, or set UV_SYSTEM_CERTS=1 if this machine trusts it")
        return f"answers uv, with {answer.read_text(encoding='utf-8').strip()}"


def ask_with_pip(settings: RuntimeSettings) -> str:
    """Look the package up with pip, which downloads the wheels. Returns the answer as text. Raises
    EnvironmentBuildError."""
    with scratch_folder() as work:
        done = run_command(
            [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "0",
             "--timeout", str(_ANSWER_TIME), "--verbose", "index", "versions", NAME],
            "asking the package index with pip", _TIME_LIMIT,
            uv_environment(work) | index_variables(settings, "PIP") | {"PIP_CONFIG_FILE": "/dev/null"},
        )  # fmt: skip
        _check(done, settings, "REQUESTS_CA_BUNDLE or PIP_CERT")
        versions = [line for line in done.stdout.splitlines() if line.startswith(NAME)]
        return f"answers pip, with {versions[0].strip() if versions else NAME}"


def _check(done: subprocess.CompletedProcess[str], settings: RuntimeSettings, variable: str) -> None:
    if done.returncode == 0:
        return
    said = redact(shown(f"{done.stdout}\n{done.stderr}"), settings)
    if _TLS.search(said):
        advice = f"its certificate is not trusted: name the file of the authority that signed it in {variable}"
    elif _NOTHING_THERE.search(said):
        advice = (
            f"something answers, but has no {NAME}: it is no package index (a proxy's page?), holds none, or does not "
            "answer at all; check runtime.index_url"
        )
    else:
        advice = "cannot be asked: check the network, runtime.index_url and its credentials"
    raise EnvironmentBuildError(f"{advice} (existing locks need no index): {' '.join(said.split())[-600:]}")
