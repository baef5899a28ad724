"""Conda's lines as requirements: versions, builds and channels; other names; what is no Python package."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from edgepack_assets.model_types.model_folder.conda_lines import CondaKind, read_conda_line


@pytest.mark.parametrize(
    ("line", "requirement"),
    [
        ("numpy", "numpy"),
        ("numpy=1.25.2", "numpy==1.25.2"),
        ("numpy=1.25", "numpy==1.25.*"),
        ("numpy=1", "numpy==1.*"),
        ("numpy=1.25.*", "numpy==1.25.*"),
        ("numpy=1.25*", "numpy==1.25.*"),
        ("numpy==1.25", "numpy==1.25"),
        ("numpy==1.25.*", "numpy==1.25.*"),
        ("numpy=1.25=py311h64a7726_0", "numpy==1.25"),
        ("numpy=1.25.2=py311h64a7726_0", "numpy==1.25.2"),
        ("numpy==1.25.2=py311*", "numpy==1.25.2"),
        ("numpy 1.25.2", "numpy==1.25.2"),
        ("numpy 1.25.2 py311h64a7726_0", "numpy==1.25.2"),
        ("numpy 1.25.*", "numpy==1.25.*"),
        ("numpy =1.25", "numpy==1.25.*"),
        ("numpy>=1.25,<2", "numpy<2,>=1.25"),
        ("numpy >= 1.25 , < 2.0a0", "numpy<2.0a0,>=1.25"),
        ("numpy>=1.25.*", "numpy>=1.25"),
        ("numpy!=1.25.0", "numpy!=1.25.0"),
        ("numpy~=1.25.0", "numpy~=1.25.0"),
        ("numpy=*", "numpy"),
        ("numpy=*=*mkl*", "numpy"),
        ("numpy=1.25rc1", "numpy==1.25rc1"),
        ("conda-forge::numpy=1.25.2", "numpy==1.25.2"),
        ("conda-forge/linux-64::numpy=1.25.2=0", "numpy==1.25.2"),
        ("https://conda.anaconda.org/conda-forge::numpy=1.25.2", "numpy==1.25.2"),
        ("numpy[version='>=1.25,<2',build=py311*]", "numpy<2,>=1.25"),
        ('numpy[version="1.25.2"]', "numpy==1.25.2"),
        ("numpy[channel=conda-forge]", "numpy"),
        ("Scikit-Learn=1.3.0", "scikit-learn==1.3.0"),
        ("pytorch=2.1.0=cpu_generic_py311h8ca351a_0", "torch==2.1.0"),
        ("pytorch::pytorch=2.1.0", "torch==2.1.0"),
        ("matplotlib-base=3.8", "matplotlib==3.8.*"),
        ("ruamel_yaml=0.17.21", "ruamel.yaml==0.17.21"),
        ("librosa=0.10.1", "librosa==0.10.1"),
        ("pytz=2024.1", "pytz==2024.1.*"),
    ],
)
def test_a_conda_package_becomes_a_requirement(line: str, requirement: str) -> None:
    found = read_conda_line(line)
    assert (found.kind, str(found.requirement), found.problem) == (CondaKind.PACKAGE, requirement, "")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("python=3.11.7=hab00c5b_0_cpython", CondaKind.PYTHON),
        ("conda-forge::python>=3.11,<3.13", CondaKind.PYTHON),
        ("pip", CondaKind.TOOL),
        ("pip<=24.0", CondaKind.TOOL),
        ("setuptools=68.2.2", CondaKind.TOOL),
        ("_libgcc_mutex=0.1=conda_forge", CondaKind.NATIVE),
        ("_openmp_mutex", CondaKind.NATIVE),
        ("libopenblas=0.3.25=pthreads_h413a1c8_0", CondaKind.NATIVE),
        ("libstdcxx-ng", CondaKind.NATIVE),
        ("ld_impl_linux-64=2.40", CondaKind.NATIVE),
        ("cudatoolkit=11.8", CondaKind.NATIVE),
        ("cuda-version=12.1", CondaKind.NATIVE),
        ("ca-certificates=2024.2.2", CondaKind.NATIVE),
        ("tzdata=2024a=h0c530f3_0", CondaKind.NATIVE),
        ("python_abi=3.11=4_cp311", CondaKind.NATIVE),
        ("llvm-openmp=18.1", CondaKind.NATIVE),
        ("vs2015_runtime=14.38", CondaKind.NATIVE),
        ("r-base=4.3", CondaKind.PROGRAM),
        ("nodejs", CondaKind.PROGRAM),
        ("cuda-python=12.3.0", CondaKind.PACKAGE),
        ("python-dateutil", CondaKind.PACKAGE),
    ],
)
def test_what_is_no_python_package_is_known(line: str, kind: CondaKind) -> None:
    found = read_conda_line(line)
    assert found.kind is kind
    assert bool(found.problem) is (kind is CondaKind.PROGRAM)


@pytest.mark.parametrize(
    "line",
    ["numpy=1.25|1.26", "numpy>=1|<0.5", "openssl_like=1.1.1w", "numpy=^1.2$", "https://a.b/numpy-1.25-0.tar.bz2",
     "./numpy.conda", "numpy=1.25; sys_platform", "", "=1.2", "numpy[version='a|b']", "a" * 400],
)  # fmt: skip
def test_what_pip_has_no_words_for_is_no_requirement(line: str) -> None:
    found = read_conda_line(line)
    assert found.requirement is None
    assert found.problem


@hypothesis_settings(max_examples=300)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=4), st.sampled_from(["", "=py311_0", "=0"]), st.data())
def test_the_version_that_was_installed_is_always_taken_and_the_next_minor_never(
    release: list[int], build: str, data: st.DataObject
) -> None:
    written = ".".join(map(str, release))
    requirement = read_conda_line(f"some-package={written}{build}").requirement
    assert requirement is not None
    assert requirement.specifier.contains(written)
    other = [*release[:-1], release[-1] + data.draw(st.integers(1, 5))]
    assert not requirement.specifier.contains(".".join(map(str, other)))


@hypothesis_settings(max_examples=500)
@given(st.text("numpy=1.25<>!~,|*[]:; '\"#/^$()-_", max_size=40))
def test_no_line_raises(line: str) -> None:
    found = read_conda_line(line)
    assert found.requirement is not None or found.problem or found.kind in (CondaKind.TOOL, CondaKind.NATIVE)
