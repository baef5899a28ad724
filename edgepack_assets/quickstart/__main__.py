"""`python -m edgepack_assets.quickstart`: makes two registered packages from nothing. Run again, it does only what is
missing."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from edgepack_assets.config.loader import load_settings
from edgepack_assets.config.registry_settings import LocalRegistrySettings
from edgepack_assets.config.schema import Settings
from edgepack_assets.defs import instance
from edgepack_assets.errors import ConfigError, EdgepackError
from edgepack_assets.quickstart.add_samples import SampleModel, add_samples
from edgepack_assets.quickstart.materialize import is_materialized, materialize
from edgepack_assets.quickstart.summary import Packaged, find_package, next_steps, summary
from edgepack_assets.registry import open_registry
from edgepack_assets.registry.base import Registry

PACKAGE_ASSET = "deployment_package"


def main() -> int:
    """Run the quickstart; return the exit code."""
    began = time.monotonic()
    try:
        settings = load_settings()
        print(f"edgepack quickstart, configured by {settings.file}")
        if not isinstance(settings.registry, LocalRegistrySettings):
            raise ConfigError(
                f"{settings.file}: the quickstart adds sample data and models, which do not belong in a shared "
                "registry; run it with `registry: {type: local}` (EDGEPACK_CONFIG names another file)"
            )
        registry = open_registry(settings)
        packaged, work_done = run(settings, registry)
    except EdgepackError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. Run it again to continue: finished steps are kept.", file=sys.stderr)
        return 130
    print(f"\n{summary(packaged)}\n")
    took = f"Done in {time.monotonic() - began:.0f} s."
    print(took if work_done else "Everything exists already: nothing to do.")
    print(f"\n{next_steps(packaged[0].sample, registry)}")
    return 0


def run(settings: Settings, registry: Registry) -> tuple[list[Packaged], bool]:
    """Add what is missing and package what is not packaged. Returns the packages, and whether there was work to do."""
    print("\nSample data and models")
    samples = add_samples(settings, registry, _print_line)
    home = instance.ensure()
    instance.add_partitions(sample.key for sample in samples)

    missing = [sample for sample in samples if not _is_packaged(sample, registry, home)]
    print("\nPackaging" + (" (the first time, this builds an environment for each model)" if missing else ""))
    for sample in samples:
        if sample not in missing:
            _print_line(f"{sample.key!s:28} is packaged already")
    if missing:
        materialize([sample.key for sample in missing], home, settings.file, _print_line)
    packaged = []
    for sample in samples:
        package = find_package(sample, registry)
        if package is None:
            raise EdgepackError(f"{sample.key} was materialized, but no package of it is registered")
        packaged.append(Packaged(sample, package))
    return packaged, bool(missing)


def _is_packaged(sample: SampleModel, registry: Registry, home: Path) -> bool:
    # A package alone is not enough: with a new DAGSTER_HOME the UI would have nothing to show.
    return find_package(sample, registry) is not None and is_materialized(PACKAGE_ASSET, sample.key, home)


def _print_line(line: str) -> None:
    print(f"  {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
