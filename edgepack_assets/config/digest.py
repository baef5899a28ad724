"""The digest of the configuration that a run used, for the metadata of materializations and the tags of packages.

Equal digests mean equal settings, on any machine. The digest covers every setting as it was resolved, with variables
filled in and defaults included. Left out or replaced:
- secrets: the webhook counts as set or not set; user and password in addresses are removed. Credentials of Azure are
  names of environment variables, never their values;
- build_reference, experiment_name and display_name: they change from run to run and have tags of their own;
- compute: where a run's work is done changes nothing in its result;
- the location of the file: paths below its folder are relative to it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from edgepack_assets.config.schema import Settings
from edgepack_assets.errors import without_credentials

_OF_THE_RUN = {"build_reference", "experiment_name", "display_name"}
_GIVEN: dict[Path, str] = {}


def use_digest(file: Path, digest: str) -> None:
    """Let `digest` be that of a configuration file of this process: of one that was made of another file, for a job on
    another machine, which is to name the configuration that the user wrote."""
    _GIVEN[file] = digest


def config_digest(settings: Settings) -> str:
    """sha256 (hex) of the settings, without what this module's docstring lists."""
    if settings.file in _GIVEN:
        return _GIVEN[settings.file]
    left_out: Any = {"file": True, "run": _OF_THE_RUN, "compute": True, "model_types": {"__all__": {"compute"}}}
    fields = settings.model_dump(mode="json", exclude=left_out)
    plain = _plain(fields, settings.file.parent)
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _plain(value: Any, base: Path) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item, base) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, base) for item in value]
    if not isinstance(value, str):
        return value
    path = Path(value)
    if path.is_absolute() and path.is_relative_to(base):
        return path.relative_to(base).as_posix()
    return without_credentials(value)
