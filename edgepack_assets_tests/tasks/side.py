"""A task context whose environments hold nothing but Python, for side jobs with real children."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import yaml

from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.config.loader import load_settings
from edgepack_assets.partitions import ModelKey
from edgepack_assets.registry.local import LocalRegistry
from edgepack_assets.sandbox.sandbox import Sandbox
from edgepack_assets.tasks.context import TaskContext
from edgepack_assets_tests.environments.plain import NOWHERE
from edgepack_assets_tests.tasks.plant import PackagingHere

KEY = ModelKey("photos", 1)


def context(folder: Path, environments: Path, **entry: Any) -> TaskContext:
    """`environments`: a folder that several tests may share."""
    (folder / "edgepack.yaml").write_text(
        yaml.safe_dump({
            "registry": {"path": "registry"},
            "artefacts": {"root": "artefacts"},
            "runtime": {"environments": str(environments), "index_url": NOWHERE, "time_limit": 60},
            "model_types": {"photos": {"implementation": "image_classification", "model_name": "m", "package_name": "M",
                                       "raw_data": {"name": "raw"}, **entry}},
        })
    )  # fmt: skip
    settings = load_settings(folder / "edgepack.yaml")
    store = ArtefactStore(settings.artefacts.root, folder / "cache")
    return TaskContext(
        settings, LocalRegistry(folder / "registry"), store, Sandbox(settings.runtime), PackagingHere(),
        logging.getLogger(__name__),
    )  # fmt: skip
