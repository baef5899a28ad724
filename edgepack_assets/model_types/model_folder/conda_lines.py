"""Conda's way to name a package (`channel::name=version=build`) as a requirement that pip understands.

What conda calls a package is sometimes no Python package, and sometimes one of another name on the index. The tables
below are of conda-forge's and the defaults channel's names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version


class CondaKind(Enum):
    """What a package of conda's is to a component, which is made of wheels."""

    PYTHON = auto()
    """The interpreter itself."""
    TOOL = auto()
    """Installs packages, and takes no part in running the model."""
    NATIVE = auto()
    """A library of the system, which wheels bring along where they need it."""
    PROGRAM = auto()
    """A program or a package of another language, which no wheel brings."""
    PACKAGE = auto()
    """A Python package."""


@dataclass(frozen=True)
class CondaLine:
    """A line of conda.yaml: the package's name for conda, what it is, and the requirement it stands for.

    `problem` says why it stands for none."""

    name: str
    kind: CondaKind
    requirement: Requirement | None
    problem: str = ""


_TOOLS = {"pip", "setuptools", "wheel", "conda", "mamba"}
_PYPI_NAMES = {
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "pytorch-gpu": "torch",
    "tensorflow-base": "tensorflow",
    "tensorflow-gpu": "tensorflow",
    "tensorflow-mkl": "tensorflow",
    "tensorflow-eigen": "tensorflow",
    "numpy-base": "numpy",
    "matplotlib-base": "matplotlib",
    "dask-core": "dask",
    "distributed-core": "distributed",
    "pyarrow-core": "pyarrow",
    "polars-lts-cpu": "polars",
    "py-opencv": "opencv-python-headless",
    "opencv": "opencv-python-headless",
    "pytables": "tables",
    "py-xgboost": "xgboost",
    "py-xgboost-cpu": "xgboost",
    "py-xgboost-gpu": "xgboost",
    "msgpack-python": "msgpack",
    "brotli-python": "brotli",
    "python-flatbuffers": "flatbuffers",
    "python-graphviz": "graphviz",
    "python-tzdata": "tzdata",
    "python-xxhash": "xxhash",
    "ruamel-yaml": "ruamel.yaml",
    "pyqt": "PyQt5",
}
_NATIVE_LIST = """
abseil-cpp arrow-cpp attr binutils blas blosc boost-cpp brotli-bin bzip2 c-ares c-blosc2 c-compiler
ca-certificates cairo cpuonly cudatoolkit cudnn curl cxx-compiler dbus double-conversion eigen expat fontconfig
fonts-conda-forge freetype fribidi gcc gettext gflags giflib glib glog gmp gxx harfbuzz hdf5 icc-rt icu
intel-openmp jpeg jxrlib keyutils krb5 lame lcms2 lerc llvm-openmp lz4-c mkl mkl-fft mkl-include mkl-random
mkl-service mpc mpfr mpi nccl ncurses nomkl nspr nss openblas openh264 openjpeg openmpi openssl orc pcre pcre2
pixman popt pthread-stubs pytorch-cuda pytorch-mutex qhull qt qt-main re2 readline s2n snappy sqlite tbb tk
tzdata ucrt unixodbc utf8proc vc vc14-runtime vs2015-runtime x264 x265 xz yaml yaml-cpp zeromq zfp zlib zlib-ng
zstd
"""
_NATIVE = frozenset(_NATIVE_LIST.split())
_NATIVE_NAMES = re.compile(
    r"_.*|lib.*|ld_impl_.*|cuda-(?!python).*|aws-(c|checksums|crt|sdk)-?.*|xorg-.*|fonts?-.*|.*-cpp|.*-compiler|"
    r"(gcc|gxx|gfortran|binutils|sysroot|kernel-headers)_.*|python_abi"
)
_PACKAGES = {"libarchive-c", "libcst", "libpysal", "librosa", "libsass", "libtmux", "libusb1", "libvirt-python"}
"""Python packages that are named like libraries of the system."""
_PROGRAMS = re.compile(
    r"r-.*|perl|perl-.*|nodejs|openjdk|graphviz|ffmpeg|tesseract|git|rust|go|julia|ghostscript|poppler|gdal|proj|geos"
)
_LONGEST = 300
_SPEC = re.compile(
    r"(?:[^\s\[\]]*::)?(?P<name>[A-Za-z0-9_][A-Za-z0-9._-]*)\s*(?P<version>[^\[\]]*?)\s*(?:\[(?P<keys>[^\[\]]*)\])?"
)
_VERSION_KEY = re.compile(r"""(?:^|,)\s*version\s*=\s*(?:'([^']*)'|"([^"]*)"|([^,'"]*))""")
_CLAUSE = re.compile(r"(?P<operator>===?|[~!<>]=|[<>=])?(?P<version>[^\s=<>~!,|]+)")


def read_conda_line(line: str) -> CondaLine:
    """One entry of conda.yaml's dependencies. `1.5` after one `=` is any 1.5.x, three numbers are that version."""
    text = line.strip()
    match = _SPEC.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None or "/" in match["version"]:
        return CondaLine(
            text[:_LONGEST], CondaKind.PACKAGE, None, "is not a package with a version such as numpy=1.26.4"
        )
    name = match["name"].lower()
    kind = _kind(name)
    if kind is CondaKind.PROGRAM:
        return CondaLine(name, kind, None, "is no Python package, so the component cannot hold it")
    if kind in (CondaKind.NATIVE, CondaKind.TOOL):
        return CondaLine(name, kind, None)
    version = match["version"]
    if match["keys"] is not None and (stated := _VERSION_KEY.search(match["keys"])):
        version = next((group for group in stated.groups() if group is not None), "")
    try:
        clauses = ",".join(_clauses(version))
        return CondaLine(name, kind, Requirement(f"{_PYPI_NAMES.get(canonicalize_name(name), name)}{clauses}"))
    except (InvalidRequirement, InvalidVersion, ValueError):
        return CondaLine(name, kind, None, f"asks for a version {version!r} that pip has no words for")


def _kind(name: str) -> CondaKind:
    if name == "python":
        return CondaKind.PYTHON
    if name in _TOOLS:
        return CondaKind.TOOL
    if _PROGRAMS.fullmatch(name):
        return CondaKind.PROGRAM
    if name not in _PACKAGES and (name.replace("_", "-") in _NATIVE or _NATIVE_NAMES.fullmatch(name)):
        return CondaKind.NATIVE
    return CondaKind.PACKAGE


def _clauses(spec: str) -> list[str]:
    """pip's version clauses of what conda puts behind a name: a version, and perhaps a build, which pip has not."""
    text = re.sub(r"\s*([,|])\s*", r"\1", re.sub(r"([<>=!~])\s+", r"\1", spec.strip()))
    version, _, build = text.partition(" ")
    if not build and (with_build := re.fullmatch(r"(={0,2}[^=<>!~,|]+)=([^=<>!~,|]+)", version)):
        version, build = with_build.groups()
    if not version or version == "*":
        return []
    specifiers = []
    for clause in version.split(","):
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            raise ValueError(clause)
        specifiers += _clause(match["operator"] or "", match["version"], exact=bool(build))
    return specifiers


def _clause(operator: str, version: str, exact: bool) -> list[str]:
    if version == "*":
        return []
    starred = version.endswith("*")
    stem = version.rstrip("*").rstrip(".")
    parsed = Version(stem)
    if operator in ("", "=", "==", "!="):
        any_below = starred or (
            operator == "=" and not exact and len(parsed.release) < 3 and str(parsed) == parsed.base_version
        )
        return [f"{'!=' if operator == '!=' else '=='}{stem}{'.*' if any_below else ''}"]
    return [f"{operator}{stem}"]
