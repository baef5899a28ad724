"""Files that a run writes where its configuration says: only in folders that edgepack.yaml allows.

Whoever may launch a run names the file, and Dagster's user may write much more than that person should. So the file
lies in one of `run.output_folders`, no link below that folder is followed, a file that edgepack did not write is never
replaced, and nothing is half written. A file that an environment variable of Dagster's process names was chosen by the
operator: it may lie anywhere, the rest holds for it too.
"""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgepack_assets.config.registry_settings import LocalRegistrySettings
from edgepack_assets.config.schema import Settings
from edgepack_assets.errors import ConfigError
from edgepack_assets.filesystem.atomic_files import disk_errors

_LONGEST_PATH = 4096
"""Bytes, the last of which the kernel needs itself."""

IsOurs = Callable[[IO[bytes]], bool]
"""Whether an existing file is one that edgepack wrote, and may replace."""


@dataclass(frozen=True)
class OutputFile:
    """A file `name` in a folder below `root`, the part of the path that is trusted. `setting` named it."""

    setting: str
    root: Path
    folders: tuple[str, ...]
    name: str

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.root.joinpath(*self.folders, self.name)

    def prepare(self, is_ours: IsOurs, remove: bool = False) -> None:
        """Find out before any work is done whether the file can be written. `remove` an older one, so that a run that
        fails leaves none.

        Raises ConfigError if it cannot be written, or if there is a file that is not one of ours."""
        with self._refused(), self._folder() as folder:
            self._check_existing(folder, is_ours)
            aside = self._aside()
            os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder))
            os.unlink(aside, dir_fd=folder)
            if remove:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.name, dir_fd=folder)

    def write(self, is_ours: IsOurs, fill: Callable[[IO[bytes]], object]) -> None:
        """Write what `fill` writes, whole or not at all. Raises EdgepackError."""
        aside = self._aside()
        with disk_errors(self.path), self._folder() as folder:
            try:
                descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
                with os.fdopen(descriptor, "wb") as stream:
                    fill(stream)
                    stream.flush()
                    os.fsync(stream.fileno())
                self._check_existing(folder, is_ours)
                os.rename(aside, self.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(aside, dir_fd=folder)
                raise

    def _aside(self) -> str:
        return f".{self.name}.{uuid.uuid4().hex}.tmp"

    @contextlib.contextmanager
    def _folder(self) -> Iterator[int]:
        """A descriptor of the folder, made if need be. A link on the way is an error, whoever put it there when."""
        self.root.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in self.folders:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=folder)
                deeper = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                os.close(folder)
                folder = deeper
            yield folder
        finally:
            os.close(folder)

    def _check_existing(self, folder: int, is_ours: IsOurs) -> None:
        try:
            status = os.stat(self.name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode):
            raise ConfigError(f"{self.setting}: {self.path} is a folder: name a file in it")
        if stat.S_ISREG(status.st_mode):
            descriptor = os.open(self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            with os.fdopen(descriptor, "rb") as stream:
                if is_ours(stream):
                    return
        raise ConfigError(
            f"{self.setting}: {self.path} exists and is not known to be written by edgepack, so it is not replaced: "
            "name another file, or remove it"
        )

    @contextlib.contextmanager
    def _refused(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            why = (isinstance(error, OSError) and error.strerror) or error
            raise ConfigError(
                f"{self.setting}: {self.path} cannot be written: {why}; nothing was registered. Name a file in a "
                "folder that this process may write to, with no link below the allowed folder"
            ) from None


def allowed_file(setting: str, named: str, settings: Settings) -> OutputFile:
    """The file that a run's configuration names; a relative name is one in the first allowed folder.

    Raises ConfigError if no folder of `run.output_folders` holds it."""
    folders = settings.run.output_folders
    if not folders:
        raise ConfigError(f"{setting}: run.output_folders of {settings.file} allows no folder, so no file is written")
    if not named.isprintable():
        # Neither Dagster's storage nor a log takes every name that a disk takes.
        raise ConfigError(f"{setting}: {named!a:.200} is not a name that can be shown: name a file in plain text")
    path = _a_file(setting, named, folders[0])
    for root in (*folders, *(folder.resolve() for folder in folders)):
        if path == root:
            raise ConfigError(f"{setting}: {path} is a folder: name a file in it, such as {path / 'package.json'}")
        if path.is_relative_to(root):
            *below, name = path.relative_to(root).parts
            _refuse_places_in_use(setting, root.resolve().joinpath(*below, name), settings)
            return OutputFile(setting, root, tuple(below), name)
    raise ConfigError(
        f"{setting}: {path} is in none of the folders that run.output_folders of {settings.file} allows "
        f"({', '.join(map(str, folders))}): name a file there, or let the operator add the folder"
    )


def operators_file(setting: str, named: str) -> OutputFile:
    """The file that an environment variable of this process names."""
    path = _a_file(setting, named, Path.cwd())
    return OutputFile(setting, path.parent, (), path.name)


def _a_file(setting: str, named: str, base: Path) -> Path:
    if named.endswith(os.sep) or "\0" in named:
        raise ConfigError(f"{setting}: {named!r} is not the name of a file")
    # Without resolving: a link must not be followed, not even to see that it leads out.
    path = Path(os.path.normpath(base / Path(named).expanduser()))
    if len(os.fsencode(path)) >= _LONGEST_PATH:  # it could be written, folder by folder, but not read again
        raise ConfigError(f"{setting}: {named[:100]!r}... is longer than a path may be")
    return path


def _refuse_places_in_use(setting: str, file: Path, settings: Settings) -> None:
    """An allowed folder may hold the project's own folders, such as a build agent's workspace with .edgepack in it. One
    that is not there yet must not find a file in its place either."""
    for used in _folders_in_use(settings):
        if file.is_relative_to(used) or used.is_relative_to(file):
            raise ConfigError(f"{setting}: {file} belongs to edgepack or Dagster ({used}): name a file elsewhere")


def _folders_in_use(settings: Settings) -> Iterator[Path]:
    registry, artefacts = settings.registry, settings.artefacts
    if isinstance(registry, LocalRegistrySettings):
        yield registry.path.resolve()
    if "://" not in artefacts.root:
        yield Path(artefacts.root).resolve()
    yield artefacts.cache.resolve()
    yield settings.runtime.environments.resolve()
    yield (settings.file.parent / ".edgepack" / "dagster").resolve()
    if home := os.environ.get("DAGSTER_HOME"):
        yield Path(home).expanduser().resolve()
    yield Path(__file__).resolve().parents[1]
    for entry in settings.model_types.values():
        yield from (path.resolve() for path in entry.code_paths)
