"""The run of a config package that was made to compare its numbers with those of the package before.

Nearly always validation_results has to run the same package over the same payload a moment later. Where both are steps
of one run, it takes this one: the same bytes, in the same environment, isolated in the same way, with the same checks
of what was left. It is kept in this process and its temporary folder alone, so nobody else can put one in its place. A
step in another process, or of a later run, finds none and makes its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgepack_assets.artefacts.artefact import Artefact
from edgepack_assets.errors import EdgepackError
from edgepack_assets.filesystem.atomic_files import disk_errors
from edgepack_assets.filesystem.temp_folders import Scratch
from edgepack_assets.model_types.interface import Answered
from edgepack_assets.packaging.component_runs import PackageRun


@dataclass(frozen=True)
class ComparedRun:
    """A run over the records of a payload (their sha256). Its files lie in the work folder of the step that made it.
    `before` is what the package before answered to them, if the artefact store has that."""

    records: str
    run: PackageRun
    before: Answered | None = None


class KeptRun:
    """At most one run, and its files. `close` removes them."""

    def __init__(self) -> None:
        self._scratch: Scratch | None = None
        self._of: tuple[str, str, str] | None = None
        self._compared: ComparedRun | None = None

    def keep(self, config_package: Artefact, compared: ComparedRun, log: Any) -> None:
        """Keep the run of this config package, whose files are moved. If the disk does not let it, `log` is told, and
        there is none: whoever needs one makes it."""
        try:
            self.close()
            scratch = self._scratch = Scratch()
            with disk_errors(scratch.path):
                results, times = (_moved(file, scratch.path) for file in (compared.run.results, compared.run.times))
        except EdgepackError as error:
            log.warning(f"a run of the package is not kept, it is made once more: {error}")
            return
        self._of = _package(config_package), _lock(config_package), compared.records
        self._compared = replace(compared, run=replace(compared.run, results=results, times=times))

    def look(self, config_package: Artefact, payload_data: Artefact) -> ComparedRun | None:
        """The run of this package over this payload, None if there is none. It may still be taken."""
        wanted = _package(config_package), _lock(config_package), payload_data.parts["records"].digest
        return self._compared if self._of == wanted else None

    def take(self, config_package: Artefact, payload_data: Artefact) -> PackageRun | None:
        """The run of this package over this payload, None if there is none. Whoever asks again makes one anew."""
        compared = self.look(config_package, payload_data)
        self._compared = self._of = None
        return None if compared is None else compared.run

    def close(self) -> None:
        """Forget the run, and remove its files."""
        self._compared = self._of = None
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            with disk_errors(scratch.path, "removed"):
                scratch.remove()


def _moved(file: Path, folder: Path) -> Path:
    return file.rename(folder / file.name)


def _package(config_package: Artefact) -> str:
    return config_package.parts["package"].digest


def _lock(config_package: Artefact) -> str:
    return config_package.parts["lock"].digest
