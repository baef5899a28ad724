"""Files that a run writes on this machine, though its work is done elsewhere: the hand-over and the copy of a payload.

Whether they may be written is found out before the job is started. The job puts the hand-over into the mailbox; the
records of the payload are in the artefact store. Both are written here when the job has done its work.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.schema import Settings
from edgepack_assets.errors import RemoteJobError
from edgepack_assets.tasks.hand_over import is_hand_over_or_empty, output_file
from edgepack_assets.tasks.output_files import OutputFile, allowed_file
from edgepack_assets.tasks.payload_data import copies_in

_PAYLOAD, _PACKAGE = "payload_data", "deployment_package"
_PATH, _FILE = "payload_path", "output_file"
_FOLDER = "outputs"


class OutputFiles:
    """What a run is to write here: of its configuration, and of $EDGEPACK_OUTPUT_FILE.

    Raises ConfigError if a file may not be written."""

    def __init__(
        self, run_config: Mapping[str, Any], steps: Collection[str], settings: Settings, store: ArtefactStore
    ) -> None:
        self._store = store
        self._payload: OutputFile | None = None
        self._package: OutputFile | None = None
        if _PAYLOAD in steps and (named := _config(run_config, _PAYLOAD).get(_PATH)):
            self._payload = allowed_file(_PATH, str(named).strip(), settings)
            self._payload.prepare(copies_in(store))
        if _PACKAGE in steps:
            self._package = output_file(_config(run_config, _PACKAGE).get(_FILE), settings)

    @property
    def _name(self) -> str:
        is_lines = self._package is not None and self._package.name.endswith(".env")
        return "package.env" if is_lines else "package.json"

    def config_of_job(self, run_config: Mapping[str, Any]) -> dict[str, Any]:
        """The run configuration for the job, which writes a file of its own."""
        config: dict[str, Any] = copy.deepcopy(dict(run_config))
        changes = {_PAYLOAD: (_PATH, None, self._payload), _PACKAGE: (_FILE, self._name, self._package)}
        for asset, (setting, value, file) in changes.items():
            if file is not None:
                of_op = config.setdefault("ops", {}).setdefault(asset, {})
                of_op["config"] = {**(of_op.get("config") or {}), setting: value}
        return config

    def write(self, read: Callable[[str], bytes | None], partition: str, done: Collection[str]) -> None:
        """Write the files of the assets that are `done`."""
        if self._payload is not None and _PAYLOAD in done:
            records = self._store.fetch(self._store.load(_PAYLOAD, partition).parts["records"])
            with records.open("rb") as source:
                self._payload.write(copies_in(self._store), partial(shutil.copyfileobj, source))
        if self._package is not None and _PACKAGE in done:
            data = read(f"{_FOLDER}/{self._name}")
            if data is None:
                raise RemoteJobError(f"{_FILE}: the job gave no {self._name} for {self._package.path}")
            self._package.write(is_hand_over_or_empty, lambda stream: stream.write(data))


def send_outputs(folder: Path, write: Callable[[str, bytes], None]) -> None:
    """Put the files of the job's output folder into the mailbox."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_file() and not path.name.startswith("."):
            write(f"{_FOLDER}/{path.name}", path.read_bytes())


def _config(run_config: Mapping[str, Any], asset: str) -> Mapping[str, Any]:
    return ((run_config.get("ops") or {}).get(asset) or {}).get("config") or {}
