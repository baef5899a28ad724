"""Which implementations of model types are installed: the entry points of the group `edgepack.model_types`.

Finds them and imports the ones that the configuration uses. What an implementation must be able to do is in
model_types/interface.py, and model_types/ checks it. Installed ones that no entry of edgepack.yaml names are never
imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Any

from edgepack_assets.config.section import Section
from edgepack_assets.errors import PluginError

GROUP = "edgepack.model_types"
INTERFACE_VERSION = 1
"""The version of model_types/interface.py. A plug-in states the one that it was written for."""
_OURS = "edgepack-assets"


def installed() -> Mapping[str, Sequence[EntryPoint]]:
    """Name of an implementation -> its entry points: more than one if several distributions have that name."""
    # Looking through some 200 distributions takes 10 ms, and loading edgepack.yaml asks this twenty times. Installing
    # or removing a distribution changes the time of the folder that it lies in.
    return _installed_in(tuple((folder, _changed(folder)) for folder in sys.path))


def _changed(folder: str) -> int | None:
    try:
        return os.stat(folder).st_mtime_ns  # noqa: PTH116 - a Path for each of them, for each model type, takes longer
    except OSError:  # sys.path may hold what is no folder, or is gone
        return None


@lru_cache(maxsize=8)
def _installed_in(_path: tuple[tuple[str, int | None], ...]) -> Mapping[str, Sequence[EntryPoint]]:
    by_name: dict[str, list[EntryPoint]] = {}
    for entry_point in sorted(entry_points(group=GROUP), key=lambda each: (each.name, distribution(each))):
        by_name.setdefault(entry_point.name, []).append(entry_point)
    return by_name


def distribution(entry_point: EntryPoint) -> str:
    """Name and version of the distribution that an entry point comes from."""
    if entry_point.dist is None:
        return "an unknown distribution"
    return _name_and_version(entry_point.dist)


@lru_cache(maxsize=256)
def _name_and_version(found: Distribution) -> str:
    metadata = found.metadata  # read anew each time that it is asked for: 1 ms, for each model type
    return f"{metadata['Name']} {metadata['Version']}"


def plug_ins(name: str) -> list[EntryPoint]:
    """The entry points of an implementation that come from another distribution than this project."""
    return [each for each in installed().get(name, ()) if each.dist is not None and each.dist.name != _OURS]


def installed_text() -> str:
    """What is installed, for an error: each name with its distribution."""
    names = [f"{name} ({distribution(each)})" for name, all_of_it in installed().items() for each in all_of_it]
    if not any(name == "state_identifier" for name in installed()):
        names.append("edgepack-assets itself registers none here: install it again, for example with make")
    return ", ".join(names)


def load(name: str) -> tuple[Any, str]:
    """The implementation called `name`, not yet checked for more than its interface version; and its distribution.

    Raises PluginError if there is none or more than one, or if it cannot be imported."""
    entry_points = installed().get(name, [])
    if not entry_points:
        raise PluginError(f"no such implementation {name!r}; installed: {installed_text()}")
    if len(entry_points) > 1:
        both = " and ".join(map(distribution, entry_points))
        raise PluginError(f"{both} both have a model type called {name!r}: uninstall all but one of them")
    [entry_point] = entry_points
    origin = distribution(entry_point)
    try:
        plugin = entry_point.load()
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"the model type {name} ({origin}) cannot be imported ({entry_point.value}): "
            f"{type(error).__name__}: {error!s:.500}. Install what it lacks, or another version of it"
        ) from error
    version = getattr(plugin, "interface_version", None)
    if version != INTERFACE_VERSION or isinstance(version, bool):
        states = "states no interface_version" if version is None else f"is written for interface version {version!r}"
        raise PluginError(
            f"the model type {name} ({origin}) {states}; this edgepack-assets has interface version "
            f"{INTERFACE_VERSION}. Install a version of {origin.split()[0]} for it"
        )
    return plugin, origin


def settings_class(name: str) -> type[Section]:
    """The class of an implementation's own settings. Raises PluginError."""
    plugin, origin = load(name)
    own = getattr(plugin, "settings", None)
    if not (isinstance(own, type) and issubclass(own, Section)):
        raise PluginError(f"the model type {name} ({origin}): settings must be a subclass of Section, not {own!r:.200}")
    return own


def keys_beside_settings(name: str) -> frozenset[str]:
    """Those of an implementation's settings that may stand directly under its entry in edgepack.yaml."""
    try:
        return frozenset(getattr(load(name)[0], "keys_beside_settings", ()))
    except PluginError:
        return frozenset()  # said where the implementation is used
