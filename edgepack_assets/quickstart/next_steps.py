"""What the quickstart prints at its end: what to type next."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from edgepack_assets.quickstart.add_samples import SampleModel
from edgepack_assets.registry.base import Kind, Registry


def next_steps(sample: SampleModel, registry: Registry) -> str:
    """What to type next in the shell from which the quickstart was started."""
    commands = ['eval "$(edgepack env)"']
    binaries = Path(sys.executable).parent
    on_path = shutil.which("edgepack")
    if on_path is None or Path(on_path).parent != binaries:
        commands.insert(0, f". {shlex.quote(str(_from_here(binaries / 'activate')))}")
    user_interface = ["make ui"] if Path("Makefile").is_file() else [*commands, "edgepack ui"]
    following = registry.versions(Kind.MODEL, sample.model.name)[-1].number + 1
    own_model = [
        *commands,
        f"edgepack model add {sample.model.name} PATH",
        f"edgepack package {sample.key.model_type}:{following}",
    ]
    return "\n".join(
        [
            "Next, look at everything in the Dagster UI:\n",
            *(f"    {command}" for command in user_interface),
            f"\nThen package a {sample.entry.implementation.replace('_', ' ')} of your own:\n",
            *(f"    {command}" for command in own_model),
        ]
    )


def _from_here(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
