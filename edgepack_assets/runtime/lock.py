"""Full locks: every package of a component's environment, exact version, wheel and sha256.

A lock is resolved once per (requirements, Python, platform), published put-if-absent in the artefact store,
and its wheels are kept there as blobs. Nothing is ever resolved again while the requirements don't change.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename
from pydantic import BaseModel, ConfigDict

from edgepack_assets.artefacts import ArtefactStore, Blob, canonical_json
from edgepack_assets.config import RuntimeSettings
from edgepack_assets.errors import CorruptError, EnvironmentBuildError
from edgepack_assets.runtime.uv import uv_command, uv_environment

GLIBC_MINOR = 31
"""The server's platform: x86_64, glibc 2.31 (simaticai.packaging.constants.PLATFORMS)."""
PLATFORM = f"x86_64-manylinux_2_{GLIBC_MINOR}"
LOCKS = "locks"
"""Kind of the store's documents that hold locks."""
WHEEL = "application/x-wheel+zip"
_FORMAT = 1


class LockedPackage(BaseModel):
    """One wheel of a lock: canonical name, version, file name, sha256 (hex), size in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    version: str
    file: str
    digest: str
    size: int

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
    """What a lock is published under: digest of the requirements, the Python, the platform and the index."""
    indexes = [_without_credentials(url) for url in (settings.index_url or "", *settings.extra_index_urls)]
    asked = [_FORMAT, sorted(requirements), python, PLATFORM, indexes]
    return hashlib.sha256(canonical_json(asked)).hexdigest()


def lock_for(
    requirements: Sequence[str], python: str, store: ArtefactStore, settings: RuntimeSettings
) -> tuple[Lock, bool]:
    """(lock, whether it was there already) for these requirements, its wheels in the store.

    Raises EnvironmentBuildError if the requirements cannot be resolved for the edge.
    """
    key = lock_key(requirements, python, settings)
    known = store.get_named(LOCKS, key)
    if known is not None:
        lock = Lock.model_validate(known)
        missing = [package for package in lock.packages if not store.has(package.digest)]
        if missing:
            _download(missing, store, python, settings)
        return lock, True
    packages = _resolve(requirements, python, settings)
    # An index need not tell a wheel's size; what is downloaded has one.
    wanted = [package for package in packages if not package.size or not store.has(package.digest)]
    sizes = _download(wanted, store, python, settings)
    packages = [package.model_copy(update={"size": sizes.get(package.digest, package.size)}) for package in packages]
    lock = Lock(key=key, python=python, platform=PLATFORM, requirements=tuple(sorted(requirements)),
                packages=tuple(packages))
    return Lock.model_validate(store.put_named(LOCKS, key, lock.model_dump(mode="json"))), False


def fetch_wheels(lock: Lock, store: ArtefactStore, folder: Path) -> None:
    """Put every wheel of the lock into `folder` under its file name, verified. Raises CorruptError."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in lock.packages:
        (folder / package.file).symlink_to(store.fetch(package.blob))


def _resolve(requirements: Sequence[str], python: str, settings: RuntimeSettings) -> list[LockedPackage]:
    with tempfile.TemporaryDirectory(prefix="edgepack-lock-") as work:
        asked, answer = Path(work) / "requirements.in", Path(work) / "pylock.toml"
        asked.write_text("\n".join(sorted(requirements)) + "\n", encoding="utf-8")
        done = subprocess.run(
            uv_command("pip", "compile", "--quiet", "--format", "pylock.toml", "--python-version", python,
                       "--python-platform", PLATFORM, "--only-binary", ":all:", "--no-header",
                       *_index_options(settings, uv=True), "--output-file", str(answer), str(asked)),
            capture_output=True, text=True, env=uv_environment(), timeout=settings.time_limit, check=False,
        )
        if done.returncode != 0:
            reason = done.stderr.strip().replace(str(asked), "the requirements")
            raise EnvironmentBuildError(
                f"the component's requirements cannot be resolved for Python {python} on {PLATFORM} "
                f"({', '.join(sorted(requirements)) or 'none'}):\n{_redact(reason, settings)}"
            )
        document = tomllib.loads(answer.read_text(encoding="utf-8"))
    tags = _edge_tags(python)
    return [_choose(package, tags, python) for package in document.get("packages", [])]


def _choose(package: dict[str, object], tags: dict[Tag, int], python: str) -> LockedPackage:
    """The wheel the server would install: the most specific one that its platform takes."""
    name = canonicalize_name(str(package["name"]))
    ranked = []
    wheels = package.get("wheels", [])
    assert isinstance(wheels, list)
    for wheel in wheels:
        file = wheel.get("name") or unquote(Path(urlsplit(wheel.get("url") or wheel.get("path")).path).name)
        supported = [tags[tag] for tag in parse_wheel_filename(file)[3] if tag in tags]
        if supported:
            ranked.append((min(supported), file, wheel))
    if not ranked:
        raise EnvironmentBuildError(
            f"{name} {package.get('version', '')} has no wheel for Python {python} on {PLATFORM}: "
            "the edge installs wheels only; pin a version that has one"
        )
    _, file, wheel = min(ranked, key=lambda entry: entry[:2])
    return LockedPackage(name=name, version=str(parse_wheel_filename(file)[1]), file=file,
                         digest=wheel["hashes"]["sha256"], size=int(wheel.get("size") or 0))


def _edge_tags(python: str) -> dict[Tag, int]:
    major, minor = (int(part) for part in python.split("."))
    platforms = []
    for glibc in range(GLIBC_MINOR, 4, -1):
        platforms.append(f"manylinux_2_{glibc}_x86_64")
        platforms += {17: ["manylinux2014_x86_64"], 12: ["manylinux2010_x86_64"], 5: ["manylinux1_x86_64"]}.get(
            glibc, [])
    platforms.append("linux_x86_64")
    tags = [*cpython_tags((major, minor), platforms=platforms),
            *compatible_tags((major, minor), f"cp{major}{minor}", platforms)]
    return {tag: rank for rank, tag in enumerate(tags)}


def _download(
    packages: Sequence[LockedPackage], store: ArtefactStore, python: str, settings: RuntimeSettings
) -> dict[str, int]:
    """Fetch the very wheels of the lock into the store; their sizes by digest. pip checks each sha256."""
    if not packages:
        return {}
    sizes = {}
    wanted = {package.file: package for package in packages}
    with tempfile.TemporaryDirectory(prefix="edgepack-wheels-") as work:
        pins = Path(work) / "pins.txt"
        pins.write_text("".join(f"{p.name}=={p.version} --hash=sha256:{p.digest}\n" for p in packages))
        platforms = sorted({tag.platform for tag in _edge_tags(python)} - {"any"})
        options = [option for platform in platforms for option in ("--platform", platform)]
        done = subprocess.run(
            [sys.executable, "-I", "-m", "pip", "--isolated", "--disable-pip-version-check", "download", "--quiet",
             "--no-deps", "--require-hashes", "--only-binary", ":all:", "--python-version", python, *options,
             *_index_options(settings, uv=False), "--dest", work, "--requirement", str(pins)],
            capture_output=True, text=True, timeout=settings.time_limit, check=False,
            env={**uv_environment(), "PIP_CONFIG_FILE": "/dev/null"},
        )
        if done.returncode != 0:
            raise EnvironmentBuildError(
                f"the locked wheels cannot be downloaded ({', '.join(sorted(wanted))}):\n"
                f"{_redact(done.stderr.strip(), settings)}"
            )
        for file, package in wanted.items():
            path = Path(work) / file
            if not path.is_file():
                raise EnvironmentBuildError(f"the index gave no {file}, which the lock names")
            kept = store.put_file(path, WHEEL)
            if kept.digest != package.digest:
                raise CorruptError(f"{file}: its bytes differ from the sha256 in the lock")
            sizes[kept.digest] = kept.size
    return sizes


def _index_options(settings: RuntimeSettings, uv: bool) -> list[str]:
    options = [] if settings.index_url is None else ["--index-url", settings.index_url]
    for url in settings.extra_index_urls:
        options += ["--extra-index-url", url]
    # pip looks at all indexes and takes the best version; make uv look the same way, or they would disagree
    return [*options, "--index-strategy", "unsafe-best-match"] if uv and settings.extra_index_urls else options


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _redact(text: str, settings: RuntimeSettings) -> str:
    for url in (settings.index_url or "", *settings.extra_index_urls):
        credentials = urlsplit(url).netloc.rpartition("@")[0]
        for secret in filter(None, (credentials, *credentials.split(":"))):
            text = text.replace(secret, "****")
    return text
