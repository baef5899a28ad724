"""Copying files and folders into a registry and out of it: by bytes or by second names, down to the disk if need be."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgepack_assets.errors import CorruptError, EdgepackError
from edgepack_assets.filesystem.atomic_files import READ_ONLY, disk_errors, link_or_copy, sync_folder
from edgepack_assets.filesystem.hashed_ahead import digest_of
from edgepack_assets.filesystem.verified_files import VerifiedFiles
from edgepack_assets.registry.base import RegisteredVersion, content_digest, files_of, utf8_name

_COPIERS = 8


def seal(path: Path) -> None:
    """Bring a file down to the disk, and make it read-only."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        os.fchmod(stream.fileno(), READ_ONLY)


def copy_into(
    source: Path, folder: Path, sync: bool, copied: Callable[[], None] = lambda: None, link: bool = False
) -> Path:
    """Copy a file or folder into `folder`; with `sync`, down to the disk; with `link`, by second names. Calls `copied`
    after each file. Returns the copy."""
    if not source.name:
        raise EdgepackError(f"{source}: a whole file system cannot be registered")
    copy = folder / utf8_name(source.name)
    base = copy if source.is_dir() else folder
    pairs = [(file, base / name) for name, file in files_of(source)]
    folders = {parent for _, to in pairs for parent in to.parents if parent.is_relative_to(folder)} - {folder}
    for subfolder in sorted(folders):
        subfolder.mkdir()

    def one(pair: tuple[Path, Path]) -> None:
        (link_or_copy if link else shutil.copyfile)(*pair)
        if sync:
            seal(pair[1])
        copied()

    # Waiting for the disk is most of the time for folders of many small files.
    with ThreadPoolExecutor(_COPIERS) as pool:
        list(pool.map(one, pairs))
    if sync:
        for subfolder in folders:
            sync_folder(subfolder)
    return copy


def measured(content: Path) -> tuple[str, int]:
    """(sha256, bytes) of a file or folder. A file that was hashed ahead, of which this is a second name, is not read
    once more."""
    known = digest_of(content) if content.is_file() else None
    return content_digest(content) if known is None else (known, content.stat().st_size)


def copy_verified(source: Path, target: Path, version: RegisteredVersion, link: bool, verified: VerifiedFiles) -> None:
    """Copy the content of `version` to `target`, or link it. Raises CorruptError if it has not the version's digest.

    A second name of a `verified` file is not read again."""
    aside = target.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        with disk_errors(target):
            aside.mkdir(parents=True)
            is_known = link and verified.is_known(str(source))
            copy = copy_into(source, aside, sync=False, link=link)
            digest = version.resolve().digest
            if not (is_known and copy.samefile(source)) and content_digest(copy)[0] != digest:
                raise CorruptError(
                    f"{source}: bytes differ from the digest {digest} of {version}; "
                    "register a good copy as a new version"
                )
            copy.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
