"""Full locks: every package of a component's environment, exact version, wheel and sha256.

A lock is resolved once per (requirements, Python, platform), published put-if-absent in the artefact store,
and its wheels are kept there as blobs. Nothing is ever resolved again while the requirements don't change.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from email import message_from_bytes
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgepack_assets.artefact_store import ArtefactStore
from edgepack_assets.artefacts import Blob, canonical_json
from edgepack_assets.errors import CorruptError, EnvironmentBuildError
from edgepack_assets.files import disk_errors
from edgepack_assets.runtime.commands import run_command, shown
from edgepack_assets.runtime.uv import uv_command, uv_environment
from edgepack_assets.settings import RuntimeSettings

GLIBC_MINOR = 31
"""The server's platform: x86_64, glibc 2.31 (simaticai.packaging.constants.PLATFORMS)."""
PLATFORM = f"x86_64-manylinux_2_{GLIBC_MINOR}"
LOCKS = "locks"
"""Kind of the store's documents that hold locks."""
WHEEL = "application/x-wheel+zip"
_MOST_ROUNDS = 20
_FORMAT = 1
_UV_NO_SOLUTION = 1
"""uv's exit code when the index answered and nothing fits; any other means that it could not ask."""
_CREDENTIALS = re.compile(r"//[^/@\s]+@")


class LockedPackage(BaseModel):
    """One wheel of a lock: canonical name, version, file name, sha256 (hex), size in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    version: str
    file: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)

    @model_validator(mode="after")
    def _is_named_by_its_file(self) -> LockedPackage:
        # The file name becomes a path and the rest a line of pip's, so no lock may hold anything else there.
        try:
            name, version, *_ = parse_wheel_filename(self.file)
        except InvalidWheelFilename as error:
            raise ValueError(str(error)) from None
        if (name, str(version)) != (self.name, self.version):
            raise ValueError(f"{self.file} is not a wheel of {self.name} {self.version}")
        return self

    @property
    def blob(self) -> Blob:
        """The wheel in the artefact store."""
        return Blob(digest=self.digest, size=self.size, media_type=WHEEL)


class Lock(BaseModel):
    """Everything that is installed in a component's environment. `key` identifies what was asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    key: str
    python: str
    platform: str
    requirements: tuple[str, ...]
    packages: tuple[LockedPackage, ...]

    @property
    def digest(self) -> str:
        """sha256 over Python, platform and the exact wheels: equal for equal environments."""
        wheels = [[package.file, package.digest] for package in self.packages]
        return hashlib.sha256(canonical_json([self.python, self.platform, wheels])).hexdigest()

    @property
    def names(self) -> frozenset[str]:
        """Canonical names of all packages."""
        return frozenset(package.name for package in self.packages)

    def as_requirements(self, hashes: bool = False) -> str:
        """A requirements.txt that pins everything, optionally with pip's `--hash`."""
        lines = (
            f"{package.name}=={package.version}" + (f" --hash=sha256:{package.digest}" if hashes else "")
            for package in self.packages
        )
        return "\n".join(lines) + "\n"


def lock_key(requirements: Sequence[str], python: str, settings: RuntimeSettings) -> str:
    """What a lock is published under: digest of the requirements, the Python, the platform and the index.

    Raises EnvironmentBuildError on a line that is not a requirement."""
    indexes = [_without_credentials(url) for url in (settings.index_url or "", *settings.extra_index_urls)]
    asked = [_FORMAT, _normalised(requirements), python, PLATFORM, indexes]
    return hashlib.sha256(canonical_json(asked)).hexdigest()


def lock_for(
    requirements: Sequence[str], python: str, store: ArtefactStore, settings: RuntimeSettings
) -> tuple[Lock, bool]:
    """(lock, whether it was there already) for these requirements, its wheels in the store.

    Raises EnvironmentBuildError if the requirements cannot be resolved for the edge, or the index not be asked.
    """
    key = lock_key(requirements, python, settings)
    known = store.get_named(LOCKS, key)
    if known is not None:
        lock = _read_lock(known, key, python)
        _download([package for package in lock.packages if not store.has(package.digest)], store, python, settings)
        return lock, True
    asked = _normalised(requirements)
    packages = _resolve_for_pip(asked, python, store, settings)
    # An index need not tell a wheel's size, nor tell it right; what is in the store has one.
    sizes = {package.digest: store.fetch(package.blob).stat().st_size for package in packages}
    lock = Lock(
        key=key, python=python, platform=PLATFORM, requirements=tuple(asked),
        packages=tuple(package.model_copy(update={"size": sizes[package.digest]}) for package in packages),
    )  # fmt: skip
    return _read_lock(store.put_named(LOCKS, key, lock.model_dump(mode="json")), key, python), False


def fetch_wheels(lock: Lock, store: ArtefactStore, folder: Path) -> None:
    """Put every wheel of the lock into `folder` under its file name, verified. Raises CorruptError."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in lock.packages:
        (folder / package.file).symlink_to(store.fetch(package.blob))


def _normalised(requirements: Sequence[str]) -> list[str]:
    """One spelling per requirement: canonical name, sorted specifiers, no line twice."""
    lines = set()
    for line in requirements:
        try:
            requirement = Requirement(line)
        except InvalidRequirement as error:
            raise EnvironmentBuildError(
                f"{line!r} is not a requirement such as scikit-learn==1.5.2 ({error})"
            ) from None
        if requirement.url is not None:
            raise EnvironmentBuildError(
                f"the requirement {_without_credentials(line)!r} names a URL, but a component is made of wheels that "
                "an index holds: ask for a version, and name the index under runtime.extra_index_urls in edgepack.yaml"
            )
        requirement.name = canonicalize_name(requirement.name)
        lines.add(str(requirement))
    return sorted(lines)


def _read_lock(document: Any, key: str, python: str) -> Lock:
    try:
        lock = Lock.model_validate(document)
    except ValidationError as error:
        raise CorruptError(f"the lock {key} is not one, delete it: it will be made again ({error})") from None
    if (lock.key, lock.python, lock.platform) != (key, python, PLATFORM):
        raise CorruptError(
            f"the lock {key} is for Python {lock.python} on {lock.platform} (key {lock.key}), "
            f"not for Python {python} on {PLATFORM}; delete it: it will be made again"
        )
    return lock


def _resolve_for_pip(
    requirements: Sequence[str], python: str, store: ArtefactStore, settings: RuntimeSettings
) -> list[LockedPackage]:
    """Packages that the server's pip will take, their wheels in the store.

    uv passes over the upper bounds of Requires-Python, pip does not: a version that does not admit the component's
    Python (backports.strenum 1.3.1 on 3.11, say, which ai-edge-litert would get) is ruled out, and uv asked again.
    """
    ruled_out: list[str] = []
    for _ in range(_MOST_ROUNDS):
        packages = _resolve(requirements, ruled_out, python, settings)
        _download([package for package in packages if not store.has(package.digest)], store, python, settings)
        refused = [package for package in packages if not _admits(store.fetch(package.blob), python)]
        if not refused:
            return packages
        ruled_out += [f"{package.name}!={package.version}" for package in refused]
    raise EnvironmentBuildError(
        f"the component's requirements ({', '.join(requirements)}) lead to ever more packages that do not run on "
        f"Python {python}: {', '.join(ruled_out)}"
    )


def _admits(wheel: Path, python: str) -> bool:
    """Whether the wheel's Requires-Python admits the latest patch of `python`."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        if len(names) != 1:
            raise CorruptError(f"{wheel}: a wheel with {len(names)} METADATA files")
        required = message_from_bytes(archive.read(names[0])).get("Requires-Python")
    return SpecifierSet(required or "").contains(f"{python}.99", prereleases=True)


def _resolve(
    requirements: Sequence[str], ruled_out: Sequence[str], python: str, settings: RuntimeSettings
) -> list[LockedPackage]:
    what = f"({', '.join(requirements) or 'none'})"
    with tempfile.TemporaryDirectory(prefix="edgepack-lock-") as work:
        asked, answer = Path(work) / "requirements.in", Path(work) / "pylock.toml"
        constraints = Path(work) / "constraints.txt"
        with disk_errors(asked):
            asked.write_text("\n".join(requirements) + "\n", encoding="utf-8")
            constraints.write_text("\n".join(ruled_out) + "\n", encoding="utf-8")
        done = run_command(
            # --python: any interpreter will do, and looking for one takes seconds
            uv_command("pip", "compile", "--quiet", "--format", "pylock.toml", "--python", sys.executable,
                       "--python-version", python, "--python-platform", PLATFORM, "--only-binary", ":all:",
                       "--no-header", "--index-strategy", "unsafe-best-match", "--constraints", str(constraints),
                       "--output-file", str(answer), str(asked)),
            f"resolving the component's requirements {what}", settings.time_limit,
            uv_environment() | _index_variables(settings, "UV"),
        )  # fmt: skip
        if done.returncode != 0:
            reason = _redact(shown(done.stderr).replace(str(asked), "the requirements"), settings)
            if done.returncode != _UV_NO_SOLUTION:
                raise EnvironmentBuildError(
                    f"the package index cannot be asked for the component's requirements {what}: check the network, "
                    "and index_url, extra_index_urls and their credentials under runtime in edgepack.yaml (what was "
                    f"locked before needs no index):\n{reason}"
                )
            raise EnvironmentBuildError(
                f"the component's requirements {what} cannot be resolved for Python {python} on {PLATFORM}: change "
                f"what the model, or `requirements` in edgepack.yaml, asks for:\n{reason}"
            )
        document = tomllib.loads(answer.read_text(encoding="utf-8"))
    tags = _edge_tags(python)
    return [_choose(package, tags, python) for package in document.get("packages", [])]


def _choose(package: Mapping[str, Any], tags: Mapping[Tag, int], python: str) -> LockedPackage:
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
    return LockedPackage(name=name, version=str(parse_wheel_filename(file)[1]), file=file, digest=digest, size=0)


def _edge_tags(python: str) -> dict[Tag, int]:
    """Every tag that the server's pip takes, with its rank, the best first."""
    major, minor = (int(part) for part in python.split("."))
    interpreter = f"cp{major}{minor}"
    platforms = []
    for glibc in range(GLIBC_MINOR, 4, -1):
        platforms.append(f"manylinux_2_{glibc}_x86_64")
        platforms += {17: ["manylinux2014_x86_64"], 12: ["manylinux2010_x86_64"], 5: ["manylinux1_x86_64"]}.get(
            glibc, []
        )
    platforms.append("linux_x86_64")
    # The ABI is named, else it would be that of the interpreter that runs this.
    tags = [
        *cpython_tags((major, minor), [interpreter], platforms),
        *compatible_tags((major, minor), interpreter, platforms),
    ]
    return {tag: rank for rank, tag in enumerate(tags)}


def _download(packages: Sequence[LockedPackage], store: ArtefactStore, python: str, settings: RuntimeSettings) -> None:
    """Fetch the very wheels of the lock into the store. pip checks each sha256, and so do we."""
    if not packages:
        return
    files = ", ".join(sorted(package.file for package in packages))
    with tempfile.TemporaryDirectory(prefix="edgepack-wheels-") as work:
        pins = Path(work) / "pins.txt"
        with disk_errors(pins):
            pins.write_text("".join(f"{p.name}=={p.version} --hash=sha256:{p.digest}\n" for p in packages))
        platforms = sorted({tag.platform for tag in _edge_tags(python)} - {"any"})
        options = [option for platform in platforms for option in ("--platform", platform)]
        done = run_command(
            [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet",
             "--no-deps", "--require-hashes", "--ignore-requires-python", "--only-binary", ":all:",
             "--python-version", python, *options,
             "--dest", work, "--requirement", str(pins)],
            f"downloading the locked wheels ({files})", settings.time_limit,
            uv_environment() | _index_variables(settings, "PIP") | {"PIP_CONFIG_FILE": "/dev/null"},
        )  # fmt: skip
        if done.returncode != 0:
            raise EnvironmentBuildError(
                f"the locked wheels cannot be downloaded ({files}): check the network, and what the package index "
                f"holds under these names:\n{_redact(shown(done.stderr), settings)}"
            )
        for package in packages:
            path = Path(work) / package.file
            if not path.is_file():
                raise EnvironmentBuildError(f"the index gave no {package.file}, which the lock names")
            if store.put_file(path, WHEEL).digest != package.digest:
                raise CorruptError(f"{package.file}: its bytes differ from the sha256 in the lock")


def _index_variables(settings: RuntimeSettings, prefix: str) -> dict[str, str]:
    """Where uv (UV) or pip (PIP) look for packages: in their environment, since every user of the machine can read
    a command line. pip takes the best version of all indexes; uv is told to (--index-strategy)."""
    variables = {}
    if settings.index_url is not None:
        variables[f"{prefix}_INDEX_URL"] = settings.index_url
    if settings.extra_index_urls:
        variables[f"{prefix}_EXTRA_INDEX_URL"] = " ".join(settings.extra_index_urls)
    return variables


def _without_credentials(text: str) -> str:
    """`text`, a URL or something that holds one, without the user and password in it."""
    return _CREDENTIALS.sub("//", text)


def _redact(text: str, settings: RuntimeSettings) -> str:
    for url in (settings.index_url or "", *settings.extra_index_urls):
        user, _, password = urlsplit(url).netloc.rpartition("@")[0].partition(":")
        # without a password the name is the secret: a token
        for secret in filter(None, (password or user, unquote(password or user))):
            text = text.replace(secret, "****")
    return _without_credentials(text)
