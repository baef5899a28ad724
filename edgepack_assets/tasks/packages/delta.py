"""The delta of a registered package from the version before it, registered as a version of its own name.

The package itself stands whatever becomes of its delta: a delta that cannot be made is a warning with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgepack_assets.checks import CheckRow
from edgepack_assets.config.names import delta_name
from edgepack_assets.errors import EdgepackError, PackageError, TransientError, VersionTakenError
from edgepack_assets.filesystem.atomic_files import file_digest
from edgepack_assets.packaging.stamp import deployment_package_name
from edgepack_assets.registry.base import Kind, RegisteredVersion, ResolvedVersion
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets.tasks.packages import tags as package_tags
from edgepack_assets.text_format import format_size


@dataclass(frozen=True)
class DeltaReport:
    """What a person sees of a delta: the registered one, if there is one, and what it was made from, or why not."""

    registered: RegisteredVersion | None
    words: str
    row: CheckRow


def register_delta(package: ResolvedVersion, file: Path | None, work: Path, context: TaskContext) -> DeltaReport:
    """Make, prove and register the delta of `package`, whose bytes are `file` if they are at hand; or report the one
    that stands, or why there is none. Raises TransientError."""
    name = delta_name(package.name)
    earlier = [each for each in context.registry.versions(Kind.MODEL, package.name) if each.number < package.number]
    if not earlier:
        return _none("it is the first version of the package: there is none to make a delta from")
    origin = earlier[-1]
    standing = [each for each in context.registry.versions(Kind.MODEL, name) if each.number == package.number]
    if standing:
        return _standing(standing[0], package)
    try:
        return _register(name, origin.resolve(), package, file, work, context)
    except VersionTakenError:  # another run was faster
        return _standing(context.registry.get(Kind.MODEL, name, package.number), package)
    except TransientError:
        raise
    except (PackageError, EdgepackError) as error:
        context.log.warning(f"no delta of {package} from {origin}: {error}")
        return _none(str(error), is_fault=True)


def _register(  # noqa: PLR0917 - what a delta is made from
    name: str, origin: ResolvedVersion, package: ResolvedVersion, file: Path | None, work: Path, context: TaskContext
) -> DeltaReport:
    folder = work / "delta"
    folder.mkdir()
    before = context.registry.download(origin, folder / "earlier")
    after = file if file is not None and file.is_file() else context.registry.download(package, folder / "later")
    delta = context.packaging.build_delta_package(_named(before, origin), _named(after, package), folder)
    if delta.path is None:
        context.log.info(f"no delta of {package} from {origin}, use the full package: {delta.reason}")
        return _none(f"use the full package: {delta.reason}")
    tags = {
        package_tags.PACKAGE_ID: package.tags.get(package_tags.PACKAGE_ID, ""),
        package_tags.DELTA_OF: str(package),
        package_tags.DELTA_FROM: str(origin),
        package_tags.DELTA_OF_DIGEST: package.digest,
        package_tags.DELTA_FROM_DIGEST: origin.digest,
        package_tags.FULL_SIZE: str(delta.full_size),
        package_tags.DELTA_SIZE: str(delta.size),
    }
    digest = file_digest(delta.path)
    registered = context.registry.register(Kind.MODEL, name, delta.path, tags, version=package.number).resolve()
    words = f"{format_size(delta.size)} in place of {format_size(delta.full_size)}, from {origin}"
    return DeltaReport(
        registered,
        words,
        CheckRow("delta", registered.digest == digest, registered.digest, f"{digest}, as made and proven"),
    )


def _standing(registered: RegisteredVersion, package: ResolvedVersion) -> DeltaReport:
    delta_of, wanted = registered.tags.get(package_tags.DELTA_OF_DIGEST, "none"), package.digest
    sizes = [registered.tags.get(tag, "") for tag in (package_tags.DELTA_SIZE, package_tags.FULL_SIZE)]
    small, full = (format_size(int(size)) if size.isdigit() else "an unknown size" for size in sizes)
    words = f"{small} in place of {full}, from {registered.tags.get(package_tags.DELTA_FROM, 'an unknown version')}"
    return DeltaReport(registered, words, CheckRow("delta", delta_of == wanted, f"of {delta_of}", f"of {wanted}"))


def _none(words: str, is_fault: bool = False) -> DeltaReport:
    return DeltaReport(None, f"none: {words}", CheckRow("delta", not is_fault, f"none: {words}", "a delta", warns=True))


def _named(file: Path, package: ResolvedVersion) -> Path:
    """The file under the name that the SDK expects, wherever the registry has put it."""
    wanted = file.with_name(deployment_package_name(package.name, package.number))
    return file if file.name == wanted.name else file.rename(wanted)
