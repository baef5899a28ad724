"""Which Dagster instance is in use: one home for every command, so that no partition key or run gets lost.

It is $DAGSTER_HOME where that is set, which is then the user's own and never changed, else .edgepack/dagster
beside edgepack.yaml, with the dagster.yaml that lies beside edgepack.yaml (else a default) copied into it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack_assets.config.loader import CONFIG_VARIABLE, find_config, other_config_beside
from edgepack_assets.errors import ConfigError, EdgepackError, InfrastructureError, without_credentials
from edgepack_assets.filesystem.atomic_files import writing
from edgepack_assets.partitions import PARTITIONS_NAME, ModelKey

if TYPE_CHECKING:
    from dagster import DagsterInstance

HOME_VARIABLE = "DAGSTER_HOME"
MODULE = "edgepack_assets.definitions"
"""What Dagster loads."""
MODULE_VARIABLE = "DAGSTER_MODULE_NAME"
_EXPORTED_VARIABLE = "EDGEPACK_EXPORTED_CONFIG"
"""What `edgepack env` set CONFIG_VARIABLE to, which a person who names a file by hand does not change."""
_HOME = Path(".edgepack", "dagster")
_FILE = "dagster.yaml"
_MOST_FAILURES = 3
_LONGEST = 1000
"""Characters of an error that are shown."""


def default_home() -> Path:
    """The home of this project, which is ours to keep up to date."""
    return find_config().parent / _HOME


def home() -> Path:
    """The home in use, there or not. Raises ConfigError if $DAGSTER_HOME is not absolute."""
    named = os.environ.get(HOME_VARIABLE)
    if not named:
        return default_home()
    folder = Path(named).expanduser()
    if not folder.is_absolute():
        raise ConfigError(
            f"{HOME_VARIABLE} is {named!r}, which is not an absolute path: it would be another one in "
            f"every working directory. Set it to {folder.absolute()}, or unset it to use {default_home()}"
        )
    return folder


def other_home(config_file: Path) -> str | None:
    """A line that says which home is in use, where it is not the one of the configuration's project."""
    named, ours = os.environ.get(HOME_VARIABLE), config_file.parent / _HOME
    if named and Path(named).expanduser().resolve() == ours.resolve():
        return None
    if named:
        return f"Dagster keeps its runs in {named}, which {HOME_VARIABLE} names, not in this project's {ours}"
    return f'{HOME_VARIABLE} is not set: Dagster keeps no run. Prepare the shell with: eval "$(edgepack env)"'


def ensure() -> Path:
    """The home in use, ready for Dagster. Raises ConfigError if a $DAGSTER_HOME of the user is not there."""
    folder = home()
    if folder.resolve() != default_home().resolve():
        if not folder.is_dir():
            raise ConfigError(
                f"{HOME_VARIABLE} names {folder}, which is not a folder: create it, "
                f"or unset {HOME_VARIABLE} to use {default_home()}"
            )
        return _writable(folder)
    beside = find_config().with_name(_FILE)
    if beside.is_file():
        wanted = beside.read_bytes()
    else:
        wanted = resources.files("edgepack_assets").joinpath("default_dagster.yaml").read_bytes()
    target = folder / _FILE
    if not target.is_file() or target.read_bytes() != wanted:
        with writing(target) as stream:
            stream.write(wanted)
    return _writable(folder)


def leave_other_project() -> str | None:
    """In a shell that `edgepack env` has prepared for another folder, use the edgepack.yaml that is here.

    What a person has named by hand stays. Returns a line that says which configuration is used, wherever another one
    lies here."""
    beside = other_config_beside()
    if beside is None:
        return None
    named = os.environ[CONFIG_VARIABLE]
    if os.environ.get(_EXPORTED_VARIABLE) != named:
        return f"using {named}, which {CONFIG_VARIABLE} names, not {beside}"
    if os.environ.get(HOME_VARIABLE) == str(Path(named).parent / _HOME):
        del os.environ[HOME_VARIABLE]
    os.environ[CONFIG_VARIABLE] = str(beside)
    return f"using {beside}, not {named}, for which `edgepack env` has prepared this shell"


def environment() -> dict[str, str]:
    """The environment variables that Dagster's own commands need to work on this project; makes the home ready."""
    return {
        HOME_VARIABLE: str(ensure()),
        MODULE_VARIABLE: MODULE,
        # `dagster dev` hands its children a workspace file, which Dagster refuses beside DAGSTER_MODULE_NAME: the
        # children die without a word and the UI never comes up. In this mode it hands them the module itself.
        "DAGSTER_CLI_DEV_USE_LEGACY_CODE_SERVER_BEHAVIOR": "1",
        CONFIG_VARIABLE: str(find_config()),
        _EXPORTED_VARIABLE: str(find_config()),
        # The SDK refuses to work without an answer to this; the user's own answer stands.
        "SIMATICAI_TELEMETRY": os.environ.get("SIMATICAI_TELEMETRY") or "deny",
        "DAGSTER_DISABLE_TELEMETRY": "yes",
    }


def prepare_process(*, module: bool = True) -> Path:
    """Set those variables in this process, except where they are set, and return the home in use.

    Without `module` for a command whose options say what Dagster loads: it refuses them beside the variable."""
    for name, value in environment().items():
        os.environ.setdefault(name, value)
    if not module:
        del os.environ[MODULE_VARIABLE]
    return ensure()


def _writable(folder: Path) -> Path:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InfrastructureError(
            f"{folder}, where Dagster keeps its runs, cannot be written to: make it writable, or set {HOME_VARIABLE} "
            "to a folder that is"
        )
    return folder


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[DagsterInstance]:
    """The Dagster instance of a home. Whatever Dagster or its storage raises in the block is an
    InfrastructureError."""
    from dagster import DagsterInstance

    from edgepack_assets.defs.sqlite_engines import kept_open, share_engines

    share_engines()
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(kept_open())
            with locked(folder):
                instance = stack.enter_context(DagsterInstance.from_config(str(folder)))
                instance.get_dynamic_partitions(PARTITIONS_NAME)  # makes the tables that are still missing
            yield instance
    except EdgepackError:
        raise
    except Exception as error:
        # Errors of a database go on with the statement and a link.
        reason = " ".join(f"{type(error).__name__}: {error}".partition("[SQL:")[0].split())
        raise InfrastructureError(
            f"the Dagster instance in {folder} cannot be used: {without_credentials(reason[:_LONGEST])}"
        ) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process of ours at a time has the instance in this folder: those that create the tables of a new home at
    once leave it unusable, and two daemons would start the same run."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # a network share that locks no folder
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def add_partitions(keys: Iterable[ModelKey]) -> list[ModelKey]:
    """Add partition keys to the instance in use, and return those that were new to it, sorted."""
    wanted = sorted(set(keys))
    if not wanted:
        return []
    with opened(ensure()) as instance:
        return add_keys(instance, wanted)


def add_keys(instance: DagsterInstance, keys: Iterable[ModelKey]) -> list[ModelKey]:
    """Add partition keys that are not there yet, and return those, sorted.

    Dagster looks which keys there are and then inserts the others, all or none: it fails if another process adds one of
    them in between. What counts is that they are there, so it is tried again as long as others add some, and a few
    times more. Raises what the storage raises."""
    wanted = sorted(set(keys))

    def missing() -> list[ModelKey]:
        known = set(instance.get_dynamic_partitions(PARTITIONS_NAME))
        return [key for key in wanted if str(key) not in known]

    new = left = missing()
    failures = 0
    while left:
        try:
            instance.add_dynamic_partitions(PARTITIONS_NAME, [str(key) for key in left])
            break
        except Exception:  # each storage raises errors of its own
            before, left = left, missing()
            failures += len(left) == len(before)
            if failures == _MOST_FAILURES:
                raise
    return new
