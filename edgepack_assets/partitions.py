"""Partition keys: `<model_type>:<model_version>`, parsed, validated, printed and turned into paths.

Nothing else in the project splits such a key. Dagster accepts any text as a dynamic partition key
("", "a|b", "../x"), so a key is parsed here before it is added, looked up or becomes a path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgepack_assets.errors import PartitionKeyError

PARTITIONS_NAME = "models"
"""The one dynamic partitions definition of the project: a sparse set of (model type, version) pairs."""

PARTITION_TAG = "dagster/partition"
"""The tag of a run with its partition key, as Dagster names it."""

_VERSION = r"[1-9][0-9]{0,17}"
_IS_VERSION = re.compile(_VERSION).fullmatch
_KEY = re.compile(rf"(?P<model_type>[A-Za-z][A-Za-z0-9_-]{{0,63}}):(?P<version>{_VERSION})")


@dataclass(frozen=True, order=True)
class ModelKey:
    """One model version of one configured model type. There is no invalid one: making it raises."""

    model_type: str
    version: int

    def __post_init__(self) -> None:
        if _KEY.fullmatch(str(self)) is None:
            raise _refusal(str(self))

    @classmethod
    def parse(cls, text: str) -> ModelKey:
        """Read `state_identifier:3`. Raises PartitionKeyError for anything else."""
        match = _KEY.fullmatch(text)
        if match is None:
            raise _refusal(text)
        return cls(match["model_type"], int(match["version"]))

    def __str__(self) -> str:
        return f"{self.model_type}:{self.version}"

    @property
    def path(self) -> str:
        """Relative storage path, one folder per model type; safe on every file system."""
        return f"{self.model_type}/{self.version}"


def is_model_type_name(text: str) -> bool:
    """Whether `text` can stand before the colon of a key."""
    return _KEY.fullmatch(f"{text}:1") is not None


def is_version(text: str) -> bool:
    """Whether `text` is a version as a registry counts them: a whole number from 1 up, plainly written."""
    return _IS_VERSION(text) is not None


def _refusal(text: str) -> PartitionKeyError:
    return PartitionKeyError(
        f"{text!r} is not a partition key. Write <model_type>:<model_version>, e.g. state_identifier:3: "
        "a model type of edgepack.yaml (letters, digits, _ and -) and a version from 1 up."
    )
