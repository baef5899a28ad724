"""The SDK's own runner, which makes an environment for each component."""

from __future__ import annotations

import shutil
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgepack_assets.packaging.sdk import quiet_import


@contextmanager
def stock_runner(package: Path, folder: Path) -> Iterator[Any]:
    """A `LocalPipelineRunner` of the package, that works in `folder`.

    Its environments begin as copies of one that has pip, which the SDK would make anew for each, and what pip puts into
    them is compiled where it is imported: that is half of what a run costs. What they hold is the same."""
    with quiet_import():
        from simaticai.testing import pipeline_runner

    kept = folder / "an environment"

    class Copied(venv.EnvBuilder):
        def create(self, env_dir: Any) -> None:
            if not kept.exists():
                super().create(kept)
            shutil.copytree(kept, env_dir, symlinks=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_COMPILE", "1")
        patch.setattr(pipeline_runner, "venv", SimpleNamespace(EnvBuilder=Copied))
        with pipeline_runner.LocalPipelineRunner(package, path=folder) as runner:
            yield runner
