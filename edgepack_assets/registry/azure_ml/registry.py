"""The `Registry` interface on Azure ML.

A version that this project registers carries tags of its own (`OWN_TAGS`): the digest and size of its bytes, its
file name, and the attempt that made it. They are how a download is verified, and how an answer that got lost is told
from a version that somebody else took: Azure ML silently replaces the tags of a version that is put again, and a
request may be done though no answer came.

Versions registered by others (training pipelines) have no such tags. Their digest is made from what storage says of
their files (name, size, and MD5 or else ETag), when it is asked for; a download is refused if that differs by then.
A registry keeps copies in several storage accounts, names now one and now another, and lets nobody write to them:
there ETags tell nothing, and where a version lies is no part of what it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import uuid
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path

from edgepack_assets.azure.blob_container import Blob, Container
from edgepack_assets.azure.calls import Backoff, Remote
from edgepack_assets.azure.errors import AbsentError, RefusedError
from edgepack_assets.config.registry_settings import AzureMLRegistrySettings
from edgepack_assets.config.schema import is_asset_name
from edgepack_assets.config.versions import Version, is_version_text, read_version
from edgepack_assets.errors import CorruptError, EdgepackError, NotFoundError, TransientError, VersionTakenError
from edgepack_assets.filesystem.atomic_files import disk_errors
from edgepack_assets.partitions import is_version
from edgepack_assets.registry.azure_ml.asset_api import FAILED_STATES, FailedError, UnfinishedError
from edgepack_assets.registry.azure_ml.client import Asset, Assets, by_number
from edgepack_assets.registry.azure_ml.contents import (
    ATTEMPT,
    CONTENT,
    DIGEST,
    FILE,
    OWN_TAGS,
    SIZE,
    LazyVersion,
    below,
    described,
    file_name,
    is_folder_by_tags,
    leaf_of,
    own_digest,
    signature,
)
from edgepack_assets.registry.azure_ml.datastores import Places, Target, upload
from edgepack_assets.registry.base import (
    MOST_FILES,
    DamagedVersion,
    Kind,
    RegisteredVersion,
    Registry,
    ResolvedVersion,
    check_name,
    check_tags,
    content_digest,
    not_found,
    taken_error,
    utf8_name,
)

_MOST_RACES = 50
_LOOKS = 5
_LONGEST_WAIT = 5.0
"""Seconds between two attempts at putting a version or its tags."""
_log = logging.getLogger(__name__)


class AzureMLRegistry(Registry):
    """The `Registry` interface (see registry/base.py) on an Azure ML workspace or registry."""

    def __init__(self, settings: AzureMLRegistrySettings) -> None:
        self.settings = settings
        self._remote = Remote(settings)
        self._assets = Assets(self._remote)
        self._places = Places(self._assets)

    def names(self, kind: Kind) -> list[str]:
        """Every registered name of a kind, sorted; archived ones are left out."""
        return [name for name in self._assets.names(kind) if is_asset_name(name)]

    def versions(self, kind: Kind, name: str) -> list[RegisteredVersion]:
        """All versions of a name that can be used, the latest last; empty if there are none.

        Versions that are archived, failed or not made yet are left out, and models whose version is no whole number.
        The list may lag behind a registration by half a minute; `get` and the latest data asset do not."""
        if kind is Kind.MODEL:
            return self.versions_and_damaged(kind, name)[0]
        check_name(kind, name)
        assets = {asset.version: asset for asset in self._assets.versions(kind, name) if self._is_shown(asset)}
        # Numbers and text have no common order, so the latest is what the service calls so: the one created last.
        label = self._assets.labelled_latest(kind, name)
        if label is not None and label not in assets and is_version_text(label):
            newest = self._assets.get(kind, name, read_version(label))
            if newest is not None and self._is_shown(newest):
                assets[label] = newest
        ordered = sorted(assets.values(), key=lambda asset: (asset.created, asset.version == label, asset.version))
        return self._sorted_out(ordered)[0]

    def damaged(self, kind: Kind, name: str, above: int = 0) -> list[DamagedVersion]:
        """The versions of a name with a number greater than `above` whose tags of ours were changed, lowest first."""
        return [each for each in self._sorted_out(self._shown(kind, name))[1] if each.number > above]

    def versions_and_damaged(self, kind: Kind, name: str) -> tuple[list[RegisteredVersion], list[DamagedVersion]]:
        """`versions` and `damaged`, those of a model from one list."""
        if kind is not Kind.MODEL:
            return super().versions_and_damaged(kind, name)
        return self._sorted_out(self._shown(kind, name))

    def _shown(self, kind: Kind, name: str) -> list[Asset]:
        check_name(kind, name)
        return [asset for asset in by_number(self._assets.versions(kind, name)) if self._is_shown(asset)]

    def _sorted_out(self, assets: Iterable[Asset]) -> tuple[list[RegisteredVersion], list[DamagedVersion]]:
        """(the versions that can be used, the damaged ones), in their order."""
        sound, damaged = [], []
        for asset in assets:
            try:
                sound.append(self._registered(asset))
            except CorruptError as error:
                if not is_version(asset.version):  # a damaged version is told by its number
                    raise
                tags, number = described(asset)["tags"], int(asset.version)
                damaged.append(DamagedVersion(asset.kind, asset.name, number, str(error), tags, tags_are_known=True))
        return sound, damaged

    @staticmethod
    def _is_shown(asset: Asset) -> bool:
        is_known = is_version if asset.kind is Kind.MODEL else is_version_text
        return asset.is_usable and is_known(asset.version)

    def get(self, kind: Kind, name: str, version: Version) -> RegisteredVersion:
        """One version. Raises NotFoundError, naming what there is."""
        check_name(kind, name)
        is_sound = is_version if kind is Kind.MODEL else is_version_text
        asset = self._assets.get(kind, name, version) if is_sound(str(version)) else None
        if asset is not None and not asset.archived and not asset.is_usable:
            raise NotFoundError(
                f"{kind} {name}:{version} is not there for use: Azure ML says that it is {asset.state} "
                "(provisioningState)" + ("" if asset.state in FAILED_STATES else "; try again later")
            )
        if asset is None or asset.archived:
            known = [each.version for each in self.versions(kind, name)]
            names = [] if known else self.names(kind)
            raise not_found(kind, name, version, known, names, archived=asset is not None)
        return self._registered(asset)

    def newest_version(self, kind: Kind, name: str) -> int | None:
        """The highest version number of a name in one small request, as a hint: archived versions count too."""
        check_name(kind, name)
        return self._assets.newest(kind, name)

    def newest_versions(self, kind: Kind, most_calls: int) -> Mapping[str, int] | None:
        """The version that was made last of every name that is not archived, from the list of names."""
        return self._assets.newest_of_all(kind, most_calls)

    # downloading ------------------------------------------------------------------------------------------

    def download(self, version: RegisteredVersion, destination: Path) -> Path:
        """Copy the version's file or folder into `destination`, verified; nothing is overwritten."""
        asset = self._assets.get(version.kind, version.name, version.version)
        if asset is None:
            raise CorruptError(f"{version}: is not in the registry any more")
        if asset.state in FAILED_STATES:
            raise CorruptError(f"{version}: Azure ML says that it has {asset.state}; register it as a new version")
        digest = version.resolve().digest
        target = destination / file_name(asset)
        if target.exists() or target.is_symlink():
            raise EdgepackError(f"{target} is there already; remove it or download {version} somewhere else")
        container, path = self._places.of(asset)
        is_folder, blobs = self._look(asset, container, path)
        self._check_listing(asset, blobs, digest, is_folder)
        if len(blobs) > MOST_FILES:
            raise CorruptError(f"{version}: holds more than {MOST_FILES:,} files; register a smaller one")
        made_here = not destination.exists()
        aside = destination / f".{uuid.uuid4().hex}.tmp"
        try:
            with disk_errors(target):
                aside.mkdir(parents=True)
            copy = aside / target.name
            container.download([(blob, below(copy, blob)) for blob in blobs], str(version))
            if DIGEST in asset.tags and content_digest(copy)[0] != digest:
                raise CorruptError(
                    f"{asset.uri}: bytes differ from the digest {digest} of {version}; "
                    "register a good copy as a new version"
                )
            with disk_errors(target):
                copy.rename(target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            if made_here:
                with contextlib.suppress(OSError):  # not made yet, or others have put something there
                    destination.rmdir()
            raise
        shutil.rmtree(aside, ignore_errors=True)
        return target

    @staticmethod
    def _look(asset: Asset, container: Container, path: str) -> tuple[bool, list[Blob]]:
        """(whether it is a folder, its files as storage lists them; none if not even the container is there)."""
        try:
            return container.find(path, is_folder_by_tags(asset))
        except AbsentError:
            return False, []

    def _check_listing(self, asset: Asset, blobs: list[Blob], digest: str, is_folder: bool) -> None:
        """Refuse what cannot be the version's bytes before any is downloaded."""
        version = f"{asset.name}:{asset.version}"
        if not blobs:
            raise CorruptError(f"{asset.uri}: the content of {version} is gone; register it as a new version")
        size = sum(blob.size for blob in blobs)
        if DIGEST in asset.tags:
            if str(size) != asset.tags.get(SIZE):
                raise CorruptError(
                    f"{asset.uri}: {size} bytes instead of the {asset.tags.get(SIZE)} bytes of {version}"
                )
        elif self._listing_digest(blobs, is_folder) != digest:
            raise CorruptError(
                f"{asset.uri}: the files of {version} have changed since it was looked up; run this again"
            )

    # registering ------------------------------------------------------------------------------------------

    def register(
        self,
        kind: Kind,
        name: str,
        path: Path,
        tags: Mapping[str, str],
        version: int | None = None,
        *,
        is_final: bool = False,
        checksum: bool = False,
    ) -> ResolvedVersion:
        """Register a file or folder, as the next integer version or as exactly `version`. Its digest is a tag, in place
        of a `checksum` file."""
        check_name(kind, name)
        tags = check_tags(tags)
        if reserved := OWN_TAGS & tags.keys():
            raise EdgepackError(f"tag {sorted(reserved)[0]!r} cannot be kept: the registry uses it itself")
        if version is not None and not is_version(str(version)):
            raise EdgepackError(f"{version!r} cannot be a version: a version is a whole number from 1 up")
        path = path.resolve()
        if not path.name:
            raise EdgepackError(f"{path}: a whole file system cannot be registered")
        before = signature(path)
        digest, size = content_digest(path)
        whole = {
            **tags, DIGEST: digest, SIZE: str(size), FILE: utf8_name(path.name),
            CONTENT: "folder" if path.is_dir() else "file",
        }  # fmt: skip
        place: Target | None = None
        given = 0
        for _ in range(_MOST_RACES):
            number = version if version is not None else max(self._next_number(kind, name), given + 1)
            given = number
            if self._assets.get(kind, name, number) is not None:
                if version is not None:
                    raise taken_error(kind, name, number)
                continue
            try:
                if place is None or self._places.is_registry:
                    place = self._places.target(kind, name, number)
                    upload(path, place, before, f"{name}:{number}")
                registered = self._put(kind, name, number, place.uri(leaf_of(path)), whole)
            except VersionTakenError:
                if version is not None:
                    raise
                continue
            return self._registered(registered).resolve()
        raise VersionTakenError(f"{kind} {name}: {_MOST_RACES} versions in a row were taken by others; try again")

    def _next_number(self, kind: Kind, name: str) -> int:
        """A number above every one that is known to be taken, archived versions included."""
        listed = (int(a.version) for a in self._assets.versions(kind, name, archived=True) if is_version(a.version))
        return max(max(listed, default=0), self._assets.newest(kind, name) or 0) + 1

    def _put(self, kind: Kind, name: str, number: int, uri: str, tags: Mapping[str, str]) -> Asset:
        """Create the version, and make sure that it is ours and whole. Raises VersionTakenError.

        A request may be done though its answer got lost or was a refusal, so only a look tells: it is put again, until
        `time_limit`, where nothing is there after what passes (no answer, throttling, a conflict)."""
        attempt = uuid.uuid4().hex
        marked = {**tags, ATTEMPT: attempt}
        backoff = Backoff(self._remote.limit, _LONGEST_WAIT)
        while True:
            failure: EdgepackError | None = None
            try:
                self._assets.api.put(kind, name, number, uri=uri, is_folder=tags[CONTENT] == "folder", tags=marked)
            except FailedError:
                raise
            except (RefusedError, TransientError) as error:
                failure = error
            asset = self._await(kind, name, number, backoff, patient=failure is None)
            if asset is not None:
                if asset.tags.get(ATTEMPT) != attempt:
                    raise taken_error(kind, name, number)
                if asset.is_usable or asset.archived:
                    return asset
                if asset.state in FAILED_STATES:
                    raise FailedError(
                        f"registering {kind} {name}:{number}: Azure ML accepted it and could not do it "
                        f"({asset.state}); its number is used up: register it as the next version"
                    )
                raise failure or UnfinishedError(
                    f"registering {kind} {name}:{number}: Azure ML has accepted it and not done it yet "
                    f"({asset.state}); see whether it appears before it is tried again"
                )
            if isinstance(failure, UnfinishedError) or not _may_pass(failure):
                raise failure or AssertionError("what does not fail may pass")
            if not backoff.wait(failure.wait if isinstance(failure, TransientError) else None):
                raise failure or TransientError(f"{kind} {name}:{number} was accepted, but does not appear; try again")
            _log.info("%s:%d is not there yet; putting it again", name, number)

    def _await(self, kind: Kind, name: str, number: int, backoff: Backoff, patient: bool) -> Asset | None:
        """The version as it reads now; with `patient`, after a few looks, as it was said to be there. One that is not
        made yet is waited for."""
        for look in range(_LOOKS if patient else 1):
            if look and not backoff.wait(min(0.2 * 2 ** (look - 1), 2)):
                break
            asset = self._assets.get(kind, name, number)
            while asset is not None and not asset.is_usable and not asset.archived and asset.state not in FAILED_STATES:
                if not backoff.wait():
                    break
                asset = self._assets.get(kind, name, number)
            if asset is not None:
                return asset
        return None

    def set_tags(
        self, version: RegisteredVersion, tags: Mapping[str, str], without: Collection[str] = ()
    ) -> RegisteredVersion:
        """Add or replace tags of a version, keeping its other tags but for those in `without`.

        Azure ML replaces all tags at once: of two callers at the same moment, each looks whether its tags stayed,
        and puts them again if not, until `time_limit`."""
        tags = check_tags(tags)
        if reserved := OWN_TAGS & {*tags, *without}:
            raise EdgepackError(f"tag {sorted(reserved)[0]!r} cannot be changed: the registry uses it itself")
        backoff = Backoff(self._remote.limit, _LONGEST_WAIT)
        while True:
            failure: EdgepackError | None = None
            try:
                if not self._assets.api.change_tags(version.kind, version.name, version.version, tags, without):
                    self.get(version.kind, version.name, version.version)  # says what there is
            except (RefusedError, TransientError) as error:
                if not _may_pass(error):
                    raise
                failure = error
            now = self.get(version.kind, version.name, version.version)
            if tags.items() <= now.tags.items() and now.tags.keys().isdisjoint(set(without) - tags.keys()):
                return now
            if not backoff.wait(failure.wait if isinstance(failure, TransientError) else None):
                raise failure or TransientError(f"{version}: others keep replacing its tags; try again")

    def set_archived(self, kind: Kind, name: str, version: Version, archived: bool) -> bool:
        """Azure ML's own archive, which the studio shows too."""
        check_name(kind, name)
        changed = self._assets.set_archived(kind, name, version, archived)
        if changed is None:
            self.get(kind, name, version)  # says what there is
        return bool(changed)

    def archived(self, kind: Kind, name: str) -> list[RegisteredVersion]:
        """The archived versions of a name, oldest first, without the damaged ones."""
        check_name(kind, name)
        return self._sorted_out(self._assets.archived(kind, name))[0]

    # versions ---------------------------------------------------------------------------------------------

    def _registered(self, asset: Asset) -> RegisteredVersion:
        listed = described(asset)
        if DIGEST in asset.tags:
            digest, size = own_digest(asset)
            return ResolvedVersion(**listed, digest=digest, size=size, is_folder=bool(is_folder_by_tags(asset)))
        return LazyVersion(**listed, look=cache(lambda: self._looked_up(asset)))

    def _looked_up(self, asset: Asset) -> tuple[bool, int, str]:
        is_folder, blobs = self._look(asset, *self._places.of(asset))
        if not blobs:
            raise CorruptError(f"{asset.uri}: {asset.name}:{asset.version} names files that are not there")
        return is_folder, sum(blob.size for blob in blobs), self._listing_digest(blobs, is_folder)

    def _listing_digest(self, blobs: list[Blob], is_folder: bool) -> str:
        etags = not self._places.is_registry
        lines = [f"{blob.name}\0{blob.size}\0{blob.md5 or (blob.etag if etags else '')}\n" for blob in blobs]
        return hashlib.sha256(f"azureml listing 1 {is_folder}\n{''.join(lines)}".encode()).hexdigest()


def _may_pass(failure: EdgepackError | None) -> bool:
    """Whether the same request may succeed later: a conflict (409) where nothing is there is one with what is going on
    at the moment."""
    return not isinstance(failure, RefusedError) or failure.status == 409
