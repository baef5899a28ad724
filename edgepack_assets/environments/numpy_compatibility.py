"""Libraries that were compiled before NumPy 2 and do not run with it, though their metadata lets them.

Such a wheel fails on import ("numpy.dtype size changed", "_ARRAY_API not found"). Only an index's newest NumPy brings
the two together: who pinned scikit-learn 1.2 had NumPy 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from edgepack_assets.environments.wheels import LockedPackage

BOUND = "numpy<2"
_NUMPY_2 = Version("2.0.0")
_LAST_NUMPY_1 = Version("1.26.4")
_FIRST_FOR_NUMPY_2 = {
    "scikit-learn": Version("1.4.2"),
    "scipy": Version("1.13.0"),
    "pandas": Version("2.2.2"),
    "statsmodels": Version("0.14.2"),
    "pyarrow": Version("16.0.0"),
    "matplotlib": Version("3.8.4"),
}
"""The first releases whose wheels were built for NumPy 2: by their release notes and numpy/numpy issue 26191, and by
the bound on numpy that the METADATA of the wheel before has and that of this one has not (scikit-learn, scipy, pandas,
statsmodels). Older ones still have none (scikit-learn 1.2.2, pandas 2.0.3), which is why this table is needed."""


def too_old_for_numpy(packages: Sequence[LockedPackage], asked: Sequence[str]) -> list[str]:
    """Packages that need an older NumPy than the one beside them, as `name version`; none if `asked` (requirements and
    constraints) admits no NumPy 1."""
    versions = {package.name: Version(package.version) for package in packages}
    if versions.get("numpy", _LAST_NUMPY_1) < _NUMPY_2 or not all(map(_admits_numpy_1, asked)):
        return []
    return [
        f"{name} {versions[name]}" for name, first in _FIRST_FOR_NUMPY_2.items() if versions.get(name, first) < first
    ]


def _admits_numpy_1(line: str) -> bool:
    requirement = Requirement(line)
    return canonicalize_name(requirement.name) != "numpy" or requirement.specifier.contains(_LAST_NUMPY_1)
