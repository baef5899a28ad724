"""What a job is told: which run to do, with which configuration and files. It lies in the job's mailbox.

A run's configuration may hold what is nobody else's business, so nothing of it goes into the job's command, variables
or tags, which everybody can read who may read the workspace. The job has no access to this machine: what edgepack.yaml
names here (paths of the model's own code, a requirements file) goes with the request, and what is about this machine
(folders, interpreters, the identity) is left out.
"""

from __future__ import annotations

import copy
import io
import json
import platform
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from edgepack_assets import __version__
from edgepack_assets.config.digest import config_digest
from edgepack_assets.config.loader import read_config
from edgepack_assets.config.registry_settings import LocalRegistrySettings
from edgepack_assets.config.schema import Settings
from edgepack_assets.errors import ConfigError, RemoteJobError
from edgepack_assets.filesystem.reproducible_zip import Content, opened_zip, write_zip
from edgepack_assets.filesystem.temp_folders import scratch_folder

REQUEST, FILES = "request.json", "files.zip"
CONFIG_NAME = "edgepack.yaml"
_FILES_FOLDER = "files"
_OF_THIS_MACHINE = ("environments", "pythons", "readable_folders")


@dataclass(frozen=True)
class RunRequest:
    """A run: its id, job and assets of Dagster, partition, run configuration and tags; `history` are the serialized
    events that the job has to know; `config` is the text of the job's edgepack.yaml, and `config_digest` the digest of
    the one that it was made of. `versions` are those of the software here."""

    run_id: str
    dagster_job: str
    assets: tuple[str, ...]
    partition: str
    run_config: Mapping[str, Any]
    tags: Mapping[str, str]
    history: tuple[str, ...]
    config: str
    config_digest: str
    versions: Mapping[str, str] = field(default_factory=lambda: software())  # noqa: PLW0108 - it is defined below

    def to_json(self) -> bytes:
        """As it lies in the mailbox."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes | None) -> RunRequest:
        """Raises RemoteJobError if that is no request of this version of edgepack-assets."""
        try:
            values = json.loads(data or b"")
            return cls(**{**values, "assets": tuple(values["assets"]), "history": tuple(values["history"])})
        except (ValueError, TypeError, KeyError) as error:
            raise RemoteJobError(f"there is no request that this version can read ({type(error).__name__})") from None


def software() -> dict[str, str]:
    """What must be the same on both sides: events of another version could be misread."""
    return {"edgepack-assets": __version__, "dagster": metadata.version("dagster")}


def differing_versions(here: Mapping[str, str], there: object) -> str | None:
    """A sentence if the job has other versions; None if not."""
    found = there if isinstance(there, dict) else {}
    differing = [f"{name} {found.get(name, 'unknown')} in place of {here[name]}" for name in here
                 if found.get(name) != here[name]]  # fmt: skip
    if not differing:
        return None
    return (
        f"the job has {' and '.join(differing)}, and its events could be misread here: give the job's environment the "
        "versions of this machine (compute.conda_path or compute.environment_image)"
    )


def python_version() -> str:
    """For people: it need not be the same."""
    return platform.python_version()


def job_config(settings: Settings, model_type: str) -> tuple[str, dict[str, Path]]:
    """The text of edgepack.yaml for the job, and the files and folders that go with it, by their path beside it.

    Variables are filled in. It holds one model type, whose paths lead to the files that go along, and the identity of
    the node in place of that of this machine."""
    values = copy.deepcopy(read_config(settings.file).values)
    entry = values["model_types"][model_type]
    files: dict[str, Path] = {}

    def goes_along(path: Path) -> str:
        name = f"{_FILES_FOLDER}/{len(files)}/{path.name}"
        files[name] = path
        return name

    own = settings.model_type(model_type)
    if own.code_paths:
        entry["code_paths"] = [goes_along(path) for path in own.code_paths]
    if own.requirements_file:
        _refuse_other_files(own.requirements_file)
        entry["requirements_file"] = goes_along(own.requirements_file)
    for name, value in own.settings if own.settings is not None else ():
        if isinstance(value, Path):
            place = entry if name in entry else entry.setdefault("settings", {})
            place[name] = goes_along(value)
    entry.pop("compute", None)
    kept = {key: value for key, value in values.items() if key not in ("compute", "sensors")}
    kept["model_types"] = {model_type: entry}
    kept["artefacts"] = {"root": settings.artefacts.root}
    if isinstance(settings.registry, LocalRegistrySettings):
        kept["registry"] = {"type": "local", "path": str(settings.registry.path)}
    else:
        credential = settings.compute_of(model_type).job_credential.model_dump(mode="json", exclude_none=True)
        kept["registry"] = {**values["registry"], "credential": credential}
    runtime = {key: value for key, value in (values.get("runtime") or {}).items() if key not in _OF_THIS_MACHINE}
    kept["runtime"] = {**runtime, "isolation": settings.runtime.isolation}
    kept["run"] = {key: value for key, value in (values.get("run") or {}).items() if key != "output_folders"}
    return yaml.safe_dump(kept, sort_keys=False), files


def _refuse_other_files(file: Path) -> None:
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if line.strip().startswith(("-r", "-c", "--requirement", "--constraint")):
            raise ConfigError(
                f"{file}:{number}: a requirements file that names another file cannot go to a job on another machine: "
                "write the other file's lines into this one"
            )


def pack(files: Mapping[str, Path]) -> bytes:
    """Files and folders as one zip."""
    content: dict[str, Content] = {}
    for name, path in files.items():
        if path.is_dir():
            below = (each for each in sorted(path.rglob("*")) if each.is_file() and "__pycache__" not in each.parts)
            content.update({f"{name}/{each.relative_to(path).as_posix()}": each for each in below})
        else:
            content[name] = path
    with scratch_folder() as folder:
        write_zip(folder / FILES, content)
        return (folder / FILES).read_bytes()


def unpack(data: bytes, folder: Path) -> None:
    """Write the files of a zip that `pack` made below `folder`. Raises PackageError if a name leads out of it."""
    with opened_zip(io.BytesIO(data), FILES) as archive:
        _check_names(archive)
        archive.extractall(folder)


def _check_names(archive: zipfile.ZipFile) -> None:
    for name in archive.namelist():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or path.parts[:1] != (_FILES_FOLDER,):
            raise RemoteJobError(f"{FILES} holds {name!r}, which is no file of a request")


def write_request(
    write: Callable[[str, bytes], None], settings: Settings, model_type: str, run: Mapping[str, Any]
) -> RunRequest:
    """Put a run's request, and the files that go with it, into a mailbox. `run` are the fields that Dagster knows."""
    config, files = job_config(settings, model_type)
    request = RunRequest(**run, config=config, config_digest=config_digest(settings))
    if files:
        write(FILES, pack(files))
    write(REQUEST, request.to_json())
    return request
