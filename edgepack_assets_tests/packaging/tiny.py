"""A tiny component and its packages. Run as a module it builds both in a process of its own:
`python -m edgepack_assets_tests.packaging.tiny LOCK STORE OUT`."""

from __future__ import annotations

import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

from edgepack_assets.artefacts.store import ArtefactStore
from edgepack_assets.environments.lock import Lock
from edgepack_assets.model_types.interface import ComponentSpec, Parameter, Variable
from edgepack_assets.packaging.stamp import Origin, Stamp

NAME = "Tiny Echo"
REGISTERED = "Tiny-Echo-edge"
DESCRIPTION = "Echoes"
ORIGIN = Origin.of("model echo:3, sha256 0123456789ab", datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC))
PACKAGE_ID = uuid.UUID("11111111-2222-3333-4444-555555555555")

ENTRYPOINT = """\
import json
from pathlib import Path

import echo_helper
from inside import TIMES

_factor = 1
_seen = 0


def update_parameters(parameters):
    global _factor
    _factor = parameters["factor"]


def process_input(data):
    global _seen
    _seen += 1
    if data["x"] is None or _seen % 3 == 0:
        return None
    value = echo_helper.twice(data["x"]) * _factor * TIMES
    text = (Path(__file__).parent / "data" / "text.txt").read_text(encoding="utf-8")
    return {"y": value, "text": text, "seen": _seen, "input_last": json.dumps({"value": data["x"]})}
"""

FILES = {
    "entrypoint.py": ENTRYPOINT,
    "inside/__init__.py": "TIMES = 1\n",
    "inside/z.py": "",
    "inside/a.py": "",
    "data/text.txt": "échange",
    "model.json": "{}\n",
}

SPEC = ComponentSpec(
    description="Echoes what it gets",
    inputs=(Variable("x", "Double", "What to echo"),),
    outputs=(Variable("y", "Double", "x, twice"), Variable("text", "String"), Variable("seen", "Integer")),
    metrics=(Variable("input_last", "String", "The last input"),),
    parameters=(Parameter("factor", "Integer", 5, "Multiplies y"),),
    periodicity=250,
)
RECORDS = [{"x": 1.0}, {"x": None}, {"x": 2.5}, {"x": -3.0}, {"x": 4.0}, {"x": 5.0}, {"x": 1e300}]


def write_component(folder: Path, files: dict[str, str] | None = None) -> Path:
    """The component's files in a new folder."""
    for name, text in (files or FILES).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def build_config(work: Path, lock: Lock, *, name: str = NAME, description: str = DESCRIPTION) -> Path:
    """The config package, in `work`."""
    from edgepack_assets.packaging.config_package import build_config_package

    work.mkdir(parents=True, exist_ok=True)
    return build_config_package(write_component(work / "component"), SPEC, lock, name, description, work)


def build_deployment(config: Path, lock: Lock, store: ArtefactStore, version: int, work: Path) -> Path:
    """The deployment package, in `work`."""
    from edgepack_assets.packaging.deployment_package import build_deployment_package

    return build_deployment_package(config, lock, store, REGISTERED, Stamp(version, PACKAGE_ID, ORIGIN), work)


def main(lock: str, store: str, out: str) -> None:
    """Build both packages in `out`."""
    read = Lock.model_validate_json(Path(lock).read_bytes())
    config = build_config(Path(out), read)
    build_deployment(config, read, ArtefactStore(store, Path(out) / "cache"), 7, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
