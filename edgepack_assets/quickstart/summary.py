"""What the quickstart prints at its end: packages, metrics, where they are, what to type next."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepack_assets.model_types import model_type
from edgepack_assets.quickstart.add_samples import SampleModel
from edgepack_assets.registry.base import Kind, RegisteredVersion, Registry
from edgepack_assets.tasks.package_tags import MODEL_NAME, MODEL_VERSION
from edgepack_assets.text_format import format_table


@dataclass(frozen=True)
class Packaged:
    """A sample model and its registered deployment package."""

    sample: SampleModel
    package: RegisteredVersion

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics that the package is tagged with."""
        names = sorted(model_type(self.sample.entry.implementation).metric_names)
        return {name: float(self.package.tags[name]) for name in names if name in self.package.tags}


def find_package(sample: SampleModel, registry: Registry) -> RegisteredVersion | None:
    """The latest registered deployment package of the sample's model version, if there is one."""
    wanted = {MODEL_NAME: sample.model.name, MODEL_VERSION: str(sample.model.version)}
    for package in reversed(registry.versions(Kind.MODEL, sample.entry.registered_package_name)):
        if wanted.items() <= package.tags.items():
            return package
    return None


def summary(packaged: Sequence[Packaged]) -> str:
    """The table of packages with a line per metric, then where each package is."""
    rows = [("Model", "Package", "Metric", "")]
    for one in packaged:
        first = (str(one.sample.key), str(one.package))
        for name, value in one.metrics.items() or [("", None)]:
            rows.append((*first, name, "" if value is None else f"{value:.4g}"))
            first = ("", "")
    places = [f"  {one.package}: {one.package.location}" for one in packaged]
    return "\n".join([format_table(rows, underlined=True), "", "The packages are in", *places])


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
        f"dagster asset materialize --select '*' --partition {sample.key.model_type}:{following}",
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
