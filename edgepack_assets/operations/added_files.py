"""Whether what is about to be registered can be used: looked at as the model types that use it will, without running
any of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgepack_assets.checks import all_pass, in_words
from edgepack_assets.config.schema import ModelTypeSettings, Settings
from edgepack_assets.errors import EdgepackError
from edgepack_assets.filesystem.temp_folders import scratch_folder
from edgepack_assets.model_types import model_type_of
from edgepack_assets.model_types.interface import PayloadWriter
from edgepack_assets.model_types.model_folder.damage import why_damaged
from edgepack_assets.registry.base import Kind

_ENOUGH = 10_000
"""Records of raw data that are looked at: a recording of millions is read whole when it is packaged."""


def used_names(kind: Kind, settings: Settings) -> list[str]:
    """The names of models, or of raw data, that model types use."""
    entries = settings.model_types.values()
    return sorted({entry.model_name if kind is Kind.MODEL else entry.raw_data.name for entry in entries})


def using_types(kind: Kind, name: str, settings: Settings) -> list[str]:
    """The model types that use a name of the registry."""
    return [
        key
        for key, entry in settings.model_types.items()
        if name == (entry.model_name if kind is Kind.MODEL else entry.raw_data.name)
    ]


def why_useless(kind: Kind, name: str, path: Path, tags: Mapping[str, str], settings: Settings) -> str | None:
    """Why none of the model types that use the name can use these files, a line for each, or which of a model's files
    is damaged; None if one can, or if there is no such type."""
    if kind is Kind.MODEL and using_types(kind, name, settings) and (damage := why_damaged(path)) is not None:
        return damage
    reasons = []
    for key in using_types(kind, name, settings):
        entry = settings.model_type(key)
        try:
            if kind is Kind.MODEL:
                implementation = model_type_of(entry)
                implementation.read_model(path, entry, f"reading {path}")
                implementation.tag_settings(tags, entry, {}, f"tags of {path}")
                return None
            reason = _of_raw_data(path, tags, entry)
        except EdgepackError as error:
            reason = str(error)
        if reason is None:
            return None
        reasons.append(f"model type {key}: {reason}")
    return "\n".join(reasons) or None


def _of_raw_data(path: Path, tags: Mapping[str, str], entry: ModelTypeSettings) -> str | None:
    implementation = model_type_of(entry)
    with scratch_folder() as work:
        writer = _FirstRecords(work / "records", work / "sources")
        try:
            with writer.open():
                facts = implementation.write_payload(path, tags, writer, entry)
        except _EnoughRecords:
            return None
        rows = implementation.payload_rows({**facts, "records": writer.count, "sourced": writer.sourced})
    return None if all_pass(rows) else in_words(row for row in rows if not row.warns)


class _EnoughRecords(BaseException):
    """Ends a model type's work early. No Exception, which would be reported as the model type's fault."""


class _FirstRecords(PayloadWriter):
    def add(self, *arguments: Any, **named: Any) -> None:
        """As the writer's, until there are enough."""
        super().add(*arguments, **named)
        self._end()

    def add_lines(self, *arguments: Any, **named: Any) -> None:
        """As the writer's, until there are enough."""
        super().add_lines(*arguments, **named)
        self._end()

    def _end(self) -> None:
        if self.count >= _ENOUGH:
            raise _EnoughRecords
