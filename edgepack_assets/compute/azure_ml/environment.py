"""The environment of the jobs: a container image and a conda file, registered under a version that is their digest, so
that nothing is built twice and nothing that differs has the same name."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edgepack_assets.azure.errors import AbsentError, RefusedError, where
from edgepack_assets.compute.base import Log
from edgepack_assets.config.compute_settings import ComputeSettings
from edgepack_assets.errors import ConfigError, EdgepackError
from edgepack_assets.filesystem.atomic_files import disk_errors
from edgepack_assets.registry.azure_ml.client import Assets

_DISTRIBUTION = "edgepack-assets"
_DIGITS = 32
"""Of the digest's hexadecimal digits in a version."""
_CHANNELS = ["conda-forge"]
_NODE = {"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux"}
"""What requirements may depend on, as it is on a node, whatever this machine is."""


@dataclass(frozen=True)
class JobEnvironment:
    """What an environment is made of. Without a conda file the image is used as it is. `lock` are the versions that
    the conda file installs, where it is ours."""

    name: str
    image: str
    conda: Any
    lock: tuple[str, ...]
    description: str

    @property
    def version(self) -> str:
        """The digest of image, conda file and lock. The name and the description are no part of it."""
        text = json.dumps([self.image, self.conda, self.lock], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]

    @property
    def reference(self) -> str:
        """How a job names it."""
        return f"azureml:{self.name}:{self.version}"

    @property
    def source(self) -> str:
        """The keys of edgepack.yaml that decide what it is, for messages."""
        if self.lock:
            return "compute.conda_path (not set: the versions that are installed here)"
        return "compute.environment_image" if self.conda is None else "compute.conda_path"


def job_environment(compute: ComputeSettings, plug_ins: Sequence[str] = ()) -> JobEnvironment:
    """The environment that the configuration describes: a conda file of the user's, else an image of the user's alone,
    else what this project and the distributions `plug_ins` need, in the versions that are installed here.

    Raises ConfigError for a conda file that is none."""
    conda: Any = None
    lock: tuple[str, ...] = ()
    if compute.conda_path is not None:
        conda = read_conda(compute.conda_path)
    elif compute.environment_image is None:
        lock = installed_versions(*plug_ins)
        conda = {
            "name": "edgepack",
            "channels": _CHANNELS,
            "dependencies": [f"python={sys.version_info.major}.{sys.version_info.minor}", "pip", {"pip": list(lock)}],
        }
    return JobEnvironment(compute.environment_name, compute.image, conda, lock, compute.env_description)


def installed_versions(*plug_ins: str) -> tuple[str, ...]:
    """`name==version` of everything that this project and these distributions need, directly or not, as it is installed
    here; sorted. They themselves are no part of it: a job gets them as wheels of what runs here."""
    found: dict[str, str] = {}
    roots = {canonicalize_name(name) for name in (_DISTRIBUTION, *plug_ins)}
    # With its extras, a distribution may need more.
    waiting: list[tuple[str, str]] = [(name, "") for name in roots]
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if name in roots:
                raise
            continue  # `edgepack doctor` says so; here it runs without
        found[canonicalize_name(name)] = f"{name}=={installed.version.partition('+')[0]}"
        for text in installed.requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({**_NODE, "extra": extra}):
                wanted = canonicalize_name(requirement.name)
                waiting += [(wanted, each) for each in ("", *requirement.extras)]
    return tuple(sorted(pin for name, pin in found.items() if name not in roots))


def read_conda(path: Path) -> Any:
    """A conda file of the user's (compute.conda_path). Raises ConfigError for a file that is none."""
    with disk_errors(path, "read"):
        text = path.read_bytes()
    try:
        conda = yaml.safe_load(text.decode("utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} (compute.conda_path): is not YAML: {' '.join(str(error).split())}") from None
    dependencies = conda.get("dependencies") if isinstance(conda, dict) else None
    if not isinstance(dependencies, list) or not dependencies:
        raise ConfigError(f"{path} (compute.conda_path): is no conda file: it has no list `dependencies`")
    for item in dependencies:
        if not isinstance(item, (str, dict)) or (isinstance(item, dict) and not isinstance(item.get("pip"), list)):
            raise ConfigError(f"{path} (compute.conda_path): {item!r} is no dependency: text, or `pip` with a list")
        for line in item["pip"] if isinstance(item, dict) else ():
            if re.search(r"//[^/\s]*:[^/\s]*@", str(line)):
                raise ConfigError(
                    f"{path} (compute.conda_path): an address there holds a password, which everybody who may read "
                    "the environment would see; use an image of your own, in which the packages are (environment_image)"
                )
    return conda


class Environments:
    """The environments that are registered in the workspace."""

    def __init__(self, assets: Assets) -> None:
        self._assets = assets

    def is_registered(self, environment: JobEnvironment) -> bool:
        """Whether the environment is there already. Raises EdgepackError if another one has its name and version."""
        operations = self._assets.client.environments
        doing = f"reading the environment {environment.name}:{environment.version}"
        try:
            found = self._assets.remote.call(doing, lambda: operations.get(environment.name, environment.version))
        except AbsentError:
            return False
        if found.image and found.image != environment.image:
            raise EdgepackError(
                f"{where(self._assets.settings)}: the environment {environment.name}:{environment.version} has the "
                f"image {found.image}, not {environment.image}: somebody else registered it; set another "
                "compute.environment_name"
            )
        return True

    def obtain(self, environment: JobEnvironment, log: Log) -> None:
        """Registers the environment unless it is there. Azure ML builds it with the first job that uses it."""
        if self.is_registered(environment):
            return
        from azure.ai.ml.entities import Environment

        name = f"{environment.name}:{environment.version}"
        log(f"registering the environment {name}; Azure ML builds it with the first job, which takes some minutes")
        entity = Environment(
            name=environment.name,
            version=environment.version,
            image=environment.image,
            conda_file=environment.conda,
            description=environment.description or "What packages models in jobs of edgepack-assets",
            tags={"registered_by": _DISTRIBUTION},
        )
        operations = self._assets.client.environments
        doing = f"registering the environment {name}"
        try:
            self._assets.remote.call(doing, lambda: operations.create_or_update(entity))
        except RefusedError:
            # Two runs may register it at once, or an answer was lost. Nothing but the same can have this version.
            if not self.is_registered(environment):
                raise
