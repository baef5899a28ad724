"""The code that a job runs: what is running here, as wheels, and the script that starts it there.

A wheel is made of the files of the installed distribution, also of an editable one, so what runs there is what runs
here. A model type of another distribution goes along in the same way.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import shutil
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from edgepack_assets.config.implementations import plug_ins
from edgepack_assets.config.schema import Settings
from edgepack_assets.errors import ConfigError
from edgepack_assets.filesystem.reproducible_zip import Content, write_zip

_OURS, _PACKAGE = "edgepack-assets", "edgepack_assets"
BOOTSTRAP = "bootstrap.py"
_COMPILED = (".so", ".pyd", ".dll", ".dylib")


def write_code_folder(folder: Path, settings: Settings, model_type: str) -> None:
    """Fill an empty folder with the wheels of a model type and the script. Raises ConfigError if a distribution cannot
    go along and the job's environment is not the user's own, which may have it."""
    compute = settings.compute_of(model_type)
    is_own = compute.conda_path is not None or compute.environment_image is not None
    write_wheel(folder, metadata.distribution(_OURS), {_PACKAGE})
    for entry_point in plug_ins(settings.model_type(model_type).implementation):
        assert entry_point.dist is not None
        try:
            write_wheel(folder, entry_point.dist, _modules(entry_point))
        except ConfigError:
            if not is_own:
                raise
    shutil.copyfile(Path(__file__).with_name(BOOTSTRAP), folder / BOOTSTRAP)


def _modules(entry_point: metadata.EntryPoint) -> set[str]:
    """The top-level modules of an entry point's distribution."""
    assert entry_point.dist is not None
    name = entry_point.dist.name
    beside = {module for module, found in metadata.packages_distributions().items() if name in found}
    # An editable distribution has a module of its installer's, which finds the others on this machine.
    return {entry_point.module.partition(".")[0], *(each for each in beside if not each.startswith("__editable__"))}


def write_wheel(folder: Path, distribution: metadata.Distribution, modules: Iterable[str]) -> Path:
    """A wheel of the top-level modules of an installed distribution. Equal files give equal bytes."""
    content: dict[str, Content] = {}
    for module in sorted(modules):
        content.update(_files_of(module, distribution))
    stem = f"{distribution.name.replace('-', '_')}-{distribution.version}"
    info = f"{stem}.dist-info"
    # In a checkout, the metadata that is found first may be those of an older form (egg-info).
    for name, older in (("METADATA", "PKG-INFO"), ("entry_points.txt", "entry_points.txt")):
        if (text := distribution.read_text(name) or distribution.read_text(older)) is not None:
            content[f"{info}/{name}"] = text.encode()
    content[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: edgepack\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    content[f"{info}/RECORD"] = _record(content, f"{info}/RECORD")
    path = folder / f"{stem}-py3-none-any.whl"
    write_zip(path, content)
    return path


def _files_of(module: str, distribution: metadata.Distribution) -> dict[str, Content]:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"{module} of {distribution.name} cannot go to a job on another machine: it is no package with an "
            "__init__.py. Install it in the job's environment (compute.conda_path)"
        )
    origin = Path(spec.origin)
    if origin.name != "__init__.py":
        return {origin.name: origin}
    top = origin.parent
    files = [path for path in sorted(top.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    if compiled := next((path for path in files if path.suffix in _COMPILED), None):
        raise ConfigError(
            f"{distribution.name} cannot go to a job on another machine: {compiled.name} is compiled for this one. "
            "Install it in an environment of your own (compute.conda_path or environment_image)"
        )
    return {f"{module}/{path.relative_to(top).as_posix()}": path for path in files}


def _record(content: dict[str, Content], own: str) -> bytes:
    lines = []
    for name in sorted(content):
        source = content[name]
        data = source.read_bytes() if isinstance(source, Path) else source
        assert isinstance(data, bytes)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}\n")
    return "".join([*lines, f"{own},,\n"]).encode()
