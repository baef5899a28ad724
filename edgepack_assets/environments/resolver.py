"""Resolves requirements to the exact wheels that the edge would get (uv), and downloads these from the index (pip).

An index may be down, slow, flaky, or lie. Index responses are verified: a wheel is kept only if it matches the sha256
that the index gave and its own metadata. Credentials stay in the environment of uv and pip.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from pydantic import ValidationError

from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.schema import RuntimeSettings
from edgepack_assets.environments.numpy_compatibility import BOUND, too_old_for_numpy
from edgepack_assets.environments.subprocesses import ran_out, run_command, shown
from edgepack_assets.environments.uv import uv_command, uv_environment
from edgepack_assets.environments.wheels import PLATFORM, WHEEL, LockedPackage, admits, check_wheel, edge_tags, unmet
from edgepack_assets.errors import (
    CorruptError,
    EdgepackError,
    EnvironmentBuildError,
    IndexUnreachableError,
    TransientError,
)
from edgepack_assets.filesystem.atomic_files import disk_errors, file_digest
from edgepack_assets.filesystem.temp_folders import scratch_folder
from edgepack_assets.masking import without_secrets

RETRIES = 3
"""Retries of uv and of pip after an answer of 5xx or a broken connection, with growing pauses."""
_ANSWER_TIME = 30
"""Seconds within which an index must send something."""
_MOST_ROUNDS = 20
_UV_NO_SOLUTION = 1
"""uv's exit code when the index answered and nothing fits; any other means that it could not ask. It has the same one
for a file that is missing or no package, so its words are looked at too."""
_NO_SOLUTION = "No solution found"
_NO_PACKAGE = "invalid package format"
_NO_ANSWER = re.compile(
    r"(?i)connection (refused|reset|aborted|closed|broken|error)|connect error|\(connect\)|could not connect|dns error|"
    r"name resolution|failed to (lookup address|resolve) |unreachable|timed out|(?<![-\w])(read)?timeout(?![-\w])|"
    r"incomplete ?read|end of file|unexpected eof|(error|error \(|too many )\s?(408|425|429|5\d\d)\b|"
    r"\b(429|5\d\d) (server|client) error|network connectivity|\(from versions: none\)"
)
"""Messages of uv and pip about an index that does not answer, or answers that it cannot at the moment. A wrong answer
(no package, 401, 404) is none of these: it would be the same a minute later. If an index is down, pip only says that
it has no version of a package, although there was one when that was locked."""
_ADDRESS = re.compile(r"https?://[^@/?#]+/[\w./~%+!=,:-]+")
"""Addresses that may stand in a line of pip's: an index cannot add options to it, nor the value of a variable, and
nothing in it is a password."""
_CHECK_INDEX = "check the network, and index_url, extra_index_urls and their credentials under runtime in edgepack.yaml"


class _IndexError(EnvironmentBuildError):
    """The index sent something that is not a valid answer."""


def _kind(done: subprocess.CompletedProcess[str], otherwise: type[EdgepackError]) -> type[EdgepackError]:
    """The error class for a failure of uv or pip, which have tried several times."""
    if ran_out(done):
        return TransientError
    return IndexUnreachableError if _NO_ANSWER.search(done.stderr) else otherwise


def resolve_wheels(
    requirements: Sequence[str],
    python: str,
    store: ArtefactStore,
    settings: RuntimeSettings,
    *,
    constraints: Sequence[str] = (),
    anew: bool = False,
) -> list[LockedPackage]:
    """Packages that the server's pip will take, their wheels in the store. `constraints` bound the versions of what
    the requirements need. `anew`: whatever uv remembers of the index is asked for again. Raises EnvironmentBuildError,
    CorruptError.

    uv passes over the upper bounds of Requires-Python, pip does not: a version that does not admit the component's
    Python (backports.strenum 1.3.1 on 3.11, say, which ai-edge-litert would get) is ruled out, and uv asked again.
    So is NumPy 2 where a library was compiled before it.
    """
    ruled_out: list[str] = []
    why = ""
    for _ in range(_MOST_ROUNDS):
        try:
            packages = _resolve(requirements, [*constraints, *ruled_out], python, settings, anew)
            if too_old := too_old_for_numpy(list(packages), [*requirements, *constraints, *ruled_out]):
                ruled_out.append(BOUND)
                why = f"{BOUND} was added, since {', '.join(too_old)} was compiled before NumPy 2; with that: "
                packages = _resolve(requirements, [*constraints, *ruled_out], python, settings, anew)
            wheels = _verified(packages, requirements, python, store, settings)
        except (EnvironmentBuildError, CorruptError) as error:
            if anew or isinstance(error, (_IndexError, IndexUnreachableError)):
                error.args = (f"{why}{error}",)
                raise
            anew = True  # uv's cache may be older than a repair of the index: ask the index itself
            continue
        refused = [package for package, path in wheels.items() if not admits(path, package, python)]
        if not refused:
            # An index need not tell a wheel's size, nor tell it right.
            return [package.model_copy(update={"size": path.stat().st_size}) for package, path in wheels.items()]
        ruled_out += [f"{package.name}!={package.version}" for package in refused]
    raise EnvironmentBuildError(
        f"the component's requirements ({', '.join(requirements)}) lead to ever more packages that do not run on "
        f"Python {python}: {', '.join(ruled_out)}"
    )


def _verified(
    packages: Mapping[LockedPackage, str], requirements: Sequence[str], python: str, store: ArtefactStore,
    settings: RuntimeSettings,
) -> dict[LockedPackage, Path]:  # fmt: skip
    """The wheels' files in the store. Each is the wheel that its name says, and together they need no other package."""
    fetch_missing(list(packages), store, python, settings, packages)
    wheels = {package: store.fetch(package.blob) for package in packages}
    for package, path in wheels.items():
        check_wheel(path, package, python)  # a wheel that was in the store already may come from elsewhere
    missing = unmet(requirements, wheels, python)
    if missing:
        raise EnvironmentBuildError(
            f"the wheels that the package index gave need packages that it did not name: {', '.join(missing)}. "
            f"Its metadata and its wheels differ; {_CHECK_INDEX}"
        )
    return wheels


def fetch_missing(
    packages: Sequence[LockedPackage], store: ArtefactStore, python: str, settings: RuntimeSettings,
    addresses: Mapping[LockedPackage, str] = MappingProxyType({}),
) -> None:  # fmt: skip
    """Download the locked wheels that the store does not hold, from their addresses where these are known, else from
    where the index says. Raises EnvironmentBuildError, CorruptError."""
    missing = [package for package in packages if not store.has(package.digest)]
    if not missing:
        return
    with scratch_folder() as work:
        _download(missing, work, python, settings, addresses)
        for package in missing:
            path = work / package.file
            if not path.is_file():
                raise EnvironmentBuildError(f"the index gave no {package.file}, which the lock names")
            if file_digest(path) != package.digest:
                raise CorruptError(f"{package.file}: its bytes differ from the sha256 in the lock")
            check_wheel(path, package, python)
        for package in missing:  # after all were checked: no refused wheel gets into the store
            store.put_file(work / package.file, WHEEL, move=True)


def _resolve(
    requirements: Sequence[str], bounds: Sequence[str], python: str, settings: RuntimeSettings, anew: bool
) -> dict[LockedPackage, str]:
    """The packages, each with the address of its wheel, "" where that is none for a line of pip's."""
    subject = f"({', '.join(requirements) or 'none'})"
    with scratch_folder() as work:
        asked, answer = work / "requirements.in", work / "pylock.toml"
        constraints = work / "constraints.txt"
        with disk_errors(asked):
            asked.write_text("\n".join(requirements) + "\n", encoding="utf-8")
            constraints.write_text("\n".join(bounds) + "\n", encoding="utf-8")
        done = run_command(
            # --python: any interpreter will do, and looking for one takes seconds
            uv_command("pip", "compile", "--quiet", "--format", "pylock.toml", "--python", sys.executable,
                       "--python-version", python, "--python-platform", PLATFORM, "--only-binary", ":all:",
                       "--no-header", "--index-strategy", "unsafe-best-match", "--constraints", str(constraints),
                       *(["--refresh"] if anew else []), "--output-file", str(answer), str(asked)),
            f"resolving the component's requirements {subject}", settings.time_limit,
            uv_environment(work) | index_variables(settings, "UV")
            | {"UV_HTTP_RETRIES": str(RETRIES), "UV_HTTP_TIMEOUT": str(_ANSWER_TIME)},
        )  # fmt: skip
        if done.returncode != 0:
            reason = redact(shown(done.stderr).replace(str(asked), "the requirements"), settings)
            if done.returncode != _UV_NO_SOLUTION or _NO_SOLUTION not in reason or _NO_PACKAGE in reason:
                raise _kind(done, _IndexError)(
                    f"the package index cannot be asked (or gives what is no package) for the component's requirements "
                    f"{subject}: {_CHECK_INDEX} (existing locks need no index):\n{reason}"
                )
            raise EnvironmentBuildError(
                f"the component's requirements {subject} cannot be resolved for Python {python} on {PLATFORM}: change "
                "what the model asks for, by `requirements` or `replace_requirements` in edgepack.yaml; if the index "
                f"should have it, look at what it answers (runtime.index_url):\n{reason}"
            )
        document = tomllib.loads(answer.read_text(encoding="utf-8"))
    tags = edge_tags(python)
    return dict(_choose(package, tags, python) for package in document.get("packages", []))


def _choose(package: Mapping[str, Any], tags: Mapping[Tag, int], python: str) -> tuple[LockedPackage, str]:
    """The wheel the server would install: the most specific one that its platform takes, then the latest build."""
    name = canonicalize_name(str(package["name"]))
    ranked = []
    for wheel in package.get("wheels", []):
        file = wheel.get("name") or unquote(Path(urlsplit(wheel.get("url") or wheel["path"]).path).name)
        try:
            _, _, build, supports = parse_wheel_filename(file)
        except InvalidWheelFilename:
            continue  # nor would the server's pip take it
        ranks = [tags[tag] for tag in supports if tag in tags]
        if ranks:
            ranked.append(((-min(ranks), build, file), wheel))
    if not ranked:
        raise EnvironmentBuildError(
            f"{name} {package.get('version', '')} has no wheel for Python {python} on {PLATFORM}: "
            "the edge installs wheels only; pin a version that has one"
        )
    (_, _, file), wheel = max(ranked, key=lambda entry: entry[0])
    digest = wheel.get("hashes", {}).get("sha256")
    if digest is None:
        raise EnvironmentBuildError(
            f"the package index does not tell the sha256 of {file}, so it cannot be locked: use an index that does, "
            "see runtime.index_url in edgepack.yaml"
        )
    address = str(wheel.get("url", ""))
    if not _ADDRESS.fullmatch(address) or unquote(Path(urlsplit(address).path).name) != file:
        address = ""
    try:
        version = str(parse_wheel_filename(file)[1])
        return LockedPackage(name=name, version=version, file=file, digest=str(digest).lower(), size=0), address
    except ValidationError:
        raise EnvironmentBuildError(
            f"the package index tells {digest!r} for the sha256 of {file} of {name}: {_CHECK_INDEX}"
        ) from None


def _download(
    packages: Sequence[LockedPackage], work: Path, python: str, settings: RuntimeSettings,
    addresses: Mapping[LockedPackage, str],
) -> None:  # fmt: skip
    """Let pip fetch the very wheels of the lock into `work`; it checks each sha256. Without an address it reads the
    list of all files of the project, which takes longer than the download."""
    files = ", ".join(sorted(package.file for package in packages))
    pins = work / "pins.txt"
    with disk_errors(pins):
        pins.write_text("".join(_pin(package, addresses.get(package, "")) for package in packages))
    platforms = sorted({tag.platform for tag in edge_tags(python)} - {"any"})
    options = [option for platform in platforms for option in ("--platform", platform)]
    done = run_command(
        [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input",
         "--retries", str(RETRIES), "--timeout", str(_ANSWER_TIME), "download", "--quiet",
         "--no-deps", "--require-hashes", "--ignore-requires-python", "--only-binary", ":all:",
         "--python-version", python, *options, "--dest", str(work), "--requirement", str(pins)],
        f"downloading the locked wheels ({files})", settings.time_limit,
        uv_environment(work) | index_variables(settings, "PIP") | {"PIP_CONFIG_FILE": "/dev/null"},
    )  # fmt: skip
    if done.returncode != 0:
        raise _kind(done, EnvironmentBuildError)(
            f"the locked wheels cannot be downloaded ({files}): check the network, and what the package index "
            f"holds under these names:\n{redact(shown(done.stderr), settings)}"
        )


def _pin(package: LockedPackage, address: str) -> str:
    wanted = f"{package.name} @ {address}" if address else f"{package.name}=={package.version}"
    return f"{wanted} --hash=sha256:{package.digest}\n"


def index_variables(settings: RuntimeSettings, prefix: str) -> dict[str, str]:
    """Where uv (UV) or pip (PIP) look for packages: in their environment, since every user of the machine can read
    a command line. pip takes the best version of all indexes; uv is told to (--index-strategy)."""
    variables = {}
    if settings.index_url is not None:
        variables[f"{prefix}_INDEX_URL"] = settings.index_url
    if settings.extra_index_urls:
        variables[f"{prefix}_EXTRA_INDEX_URL"] = " ".join(settings.extra_index_urls)
    return variables


def redact(text: str, settings: RuntimeSettings) -> str:
    """`text` of a tool without the configured credentials, in any spelling, and without other secrets."""
    for url in (settings.index_url or "", *settings.extra_index_urls):
        user, _, password = urlsplit(url).netloc.rpartition("@")[0].partition(":")
        # without a password the name is the secret: a token
        for secret in filter(None, (password or user, unquote(password or user))):
            text = text.replace(secret, "****")
    return without_secrets(text)
