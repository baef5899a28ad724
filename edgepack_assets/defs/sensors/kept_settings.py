"""The configuration as sensors read it in each tick: parsed again only when its file has changed."""

from pathlib import Path

from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.schema import Settings

_kept: dict[Path, tuple[tuple[int, int, int], Settings]] = {}


def settings_of(file: Path) -> Settings:
    """The configuration of a file. A thousand model types take half a second to read. Raises ConfigError."""
    try:
        found = file.stat()
    except OSError:
        return load_settings(file)  # says what is wrong
    stamp = found.st_mtime_ns, found.st_size, found.st_ino
    kept = _kept.get(file)
    if kept is None or kept[0] != stamp:
        kept = _kept[file] = stamp, load_settings(file)
    return kept[1]
