"""Versions that a model says it was saved with are compared with its lock's; a pickle's and a skops file's own too."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import pickle
import zipfile
import zlib
from importlib import metadata
from pathlib import Path
from typing import Any

import joblib
import pytest
import sklearn
from sklearn.cluster import KMeans
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from edgepack_assets.checks import all_pass
from edgepack_assets.environments.lock import Lock
from edgepack_assets.environments.wheels import PLATFORM, LockedPackage
from edgepack_assets.model_types.model_folder import saved_versions
from edgepack_assets.model_types.model_folder.saved_versions import is_lz4, saved_version_rows, versions_in_file
from edgepack_assets_tests.model_types.model_folder.test_saved_environment import entry

SKOPS = metadata.version("skops")


def write_skops(model: Any, path: Path, **options: Any) -> None:
    """Importing skops.io takes a second: only the tests that write such a file pay for it."""
    import skops.io

    skops.io.dump(model, path, **options)


def lock(python: str = "3.11", **versions: str) -> Lock:
    packages = tuple(
        LockedPackage(
            name=name.replace("_", "-"),
            version=version,
            file=f"{name}-{version}-py3-none-any.whl",
            digest="0" * 64,
            size=1,
        )
        for name, version in versions.items()
    )
    return Lock(key="k", python=python, platform=PLATFORM, requirements=(), packages=packages)


def test_a_difference_warns_and_blocks_where_the_configuration_says_so() -> None:
    saved = {"scikit-learn": "1.4.2", "cloudpickle": "3.0.0", "onnx": "1.16", "python": "3.12.3", "torch": "2.1.0+cpu"}
    locked = lock(scikit_learn="1.5.0", cloudpickle="3.0.0", torch="2.1")
    rows = saved_version_rows(saved, locked, entry())
    assert [(row.name, row.passed, row.found, row.wanted) for row in rows] == [
        ("cloudpickle as saved", True, "3.0.0", "3.0.0, as the model says"),
        ("python as saved", False, "3.11", "3.12.3, as the model says"),
        ("scikit-learn as saved", False, "1.5.0", "1.4.2, as the model says"),
        ("torch as saved", True, "2.1", "2.1.0+cpu, as the model says"),
    ]
    assert all_pass(rows)
    assert not all_pass(saved_version_rows(saved, locked, entry(saved_versions="block")))
    same = {"scikit-learn": "1.5", "python": "3.11.9"}
    assert all_pass(saved_version_rows(same, locked, entry(saved_versions="block")))


def test_a_version_that_is_none_differs() -> None:
    for version in ("x" * 10_000, "1" * 10_000, "1." * 10_000, "two"):
        (row,) = saved_version_rows({"numpy": version}, lock(numpy="2.0"), entry())
        assert not row.passed
        assert len(row.wanted) < 200


@pytest.fixture(scope="module")
def fitted() -> Any:
    rows = [[float(n % 7), float(n % 3)] for n in range(40)]
    return Pipeline([("scale", StandardScaler()), ("cluster", KMeans(2, n_init=1, random_state=0))]).fit(rows)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_says_its_scikit_learn_without_being_loaded(tmp_path: Path, fitted: Any, protocol: int) -> None:
    for file in (tmp_path / "m.pkl", tmp_path / "m.joblib"):
        if file.suffix == ".pkl":
            file.write_bytes(pickle.dumps(fitted, protocol=protocol))
        else:
            joblib.dump(fitted, file, protocol=protocol)
        assert versions_in_file(file) == {"scikit-learn": sklearn.__version__}


@pytest.mark.parametrize("method", ["zlib", "gzip", "bz2", "lzma", "xz"])
@pytest.mark.parametrize("level", [1, 9])
def test_a_compressed_pickle_says_its_scikit_learn(
    tmp_path: Path, fitted: Any, method: str, level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_versions, "_CHUNK", 2**14)
    file = tmp_path / "m.joblib"
    before = os.urandom(100_000)  # what is looked for lies behind the first piece
    joblib.dump([before, fitted], file, compress=(method, level))
    assert versions_in_file(file) == {"scikit-learn": sklearn.__version__}
    whole = file.read_bytes()
    for damaged in (whole[:20], whole[: len(whole) // 2], whole[:10] + bytes(2000), whole[:200] + whole[900:]):
        file.write_bytes(damaged)
        assert versions_in_file(file) in ({}, {"scikit-learn": sklearn.__version__})


def test_lz4_is_known_by_its_first_bytes(tmp_path: Path, fitted: Any) -> None:
    """joblib needs the distribution lz4 to read it, which no requirements of the model name."""
    for method, expected in (("zlib", False), ("lz4", True)):
        file = tmp_path / f"m_{method}.joblib"
        if expected:
            file.write_bytes(b"\x04\x22\x4d\x18" + bytes(100))  # a frame's magic number, little-endian
        else:
            joblib.dump(fitted, file, compress=method)
        assert is_lz4(file) is expected
        assert (versions_in_file(file) == {}) is expected


def test_a_compressed_file_is_read_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_versions, "_MOST_BYTES", 2**20)
    monkeypatch.setattr(saved_versions, "_CHUNK", 2**14)
    file = tmp_path / "m.pkl"
    late = bytes(2**21) + pickle.dumps({"_sklearn_version": "1.5.2"})
    for packed in (zlib.compress(late), gzip.compress(late), bz2.compress(late), lzma.compress(late, preset=0)):
        file.write_bytes(packed)
        assert versions_in_file(file) == {}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_skops_file_says_its_skops(tmp_path: Path, fitted: Any, compression: int) -> None:
    write_skops(fitted, tmp_path / "m.skops", compression=compression)
    assert versions_in_file(tmp_path / "m.skops") == {"skops": SKOPS}


def test_a_damaged_file_says_nothing(tmp_path: Path, fitted: Any) -> None:
    path = tmp_path / "m.skops"
    write_skops(fitted, path)
    whole = path.read_bytes()
    for content in (b"", b"PK\5\6", whole[:100], whole[len(whole) // 2 :], whole[:-40], b"x" * 100_000):
        path.write_bytes(content)
        assert versions_in_file(path) in ({}, {"skops": SKOPS})
    (tmp_path / "m.pkl").write_bytes(b"_sklearn_version\x94\x8c\xff")
    assert versions_in_file(tmp_path / "m.pkl") == {}
