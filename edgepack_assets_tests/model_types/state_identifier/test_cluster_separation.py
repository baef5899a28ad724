"""Silhouette and Dunn index, against scikit-learn's, their definitions and their laws."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.metrics import silhouette_score

from edgepack_assets.model_types.state_identifier import cluster_separation as module
from edgepack_assets.model_types.state_identifier.cluster_separation import separation


def test_the_contracts_dunn_example():
    points = np.array([[1, 1, 0, 0], [1, 2, 0, 0], [0, 0, 6, 7], [0, 0, 3, 3]], dtype=float)
    assert separation(points, np.array([0, 0, 1, 1])).dunn_index == pytest.approx(0.894, abs=5e-4)


def naive(points, labels):
    """(silhouette by scikit-learn, Dunn by its definition) of the full matrix of distances."""
    distances = cdist(points, points)
    same = labels[:, None] == labels[None, :]
    within = distances[same].max()
    return (
        silhouette_score(distances, labels, metric="precomputed"),
        distances[~same].min() / within if within > 0 else math.nan,
    )


@pytest.mark.parametrize("features", [1, 2, 3, 5, 8, 13])
def test_few_windows_have_the_very_distances_of_many(features):
    points = np.random.default_rng(features).normal(scale=1e3, size=(60, features))
    assert (module._distances(points[:20], points[20:]) == cdist(points[:20], points[20:])).all()
    assert module._Windows(points, np.zeros(60, dtype=int))._distances is module._distances
    many = np.zeros((module._FEW + 1, features))
    assert module._Windows(many, np.zeros(len(many), dtype=int))._distances is cdist


coordinates = st.integers(-5, 5) | st.floats(-1e3, 1e3).map(lambda value: round(value, 6))
"""Few integers make duplicates and ties; the rest is anything."""


@pytest.mark.parametrize(("side", "most_sums"), [(512, 1 << 25), (3, 1 << 25), (4, 0), (1, 0)])
@settings(max_examples=60)
@given(data=st.lists(st.tuples(coordinates, coordinates, st.integers(0, 6)), min_size=3, max_size=40))
@example(data=[(0, 0, 0), (0, 0, 1), (0, 0, 1)])  # every distance is 0
@example(data=[(0, 0, 0), (0, 0, 0), (1, 0, 1)])  # a cluster of one point twice, and one alone
def test_both_equal_their_definitions_however_the_work_is_cut(side, most_sums, data):
    points, labels = np.array([row[:2] for row in data], dtype=float), np.array([row[2] for row in data])
    if not 2 <= len(set(labels)) < len(labels):
        return
    silhouette, dunn = naive(points, labels)
    before = module._SIDE, module._MOST_SUMS
    module._SIDE, module._MOST_SUMS = side, most_sums
    try:
        found = separation(points, labels)
        renamed = separation(points[::-1], labels[::-1] * 7 - 3)
    finally:
        module._SIDE, module._MOST_SUMS = before
    assert found.silhouette == pytest.approx(silhouette, rel=1e-9, abs=1e-9)
    assert found.dunn_index == pytest.approx(dunn, rel=1e-12, nan_ok=True)
    assert renamed.silhouette == pytest.approx(silhouette, rel=1e-9, abs=1e-9)
    assert renamed.dunn_index == pytest.approx(dunn, rel=1e-12, nan_ok=True)


def test_points_far_from_the_origin_keep_their_distances():
    """scikit-learn's own Euclidean distance is |a|^2 - 2ab + |b|^2, which loses them."""
    points = np.array([[0.0], [1e-3], [1.0], [1.001]]) + 1e6
    labels = np.array([0, 0, 1, 1])
    assert separation(points, labels).dunn_index == pytest.approx(0.999 / 1e-3, rel=1e-6)


def test_what_is_not_defined_is_nan():
    points = np.array([[0.0], [1.0], [2.0]])
    for labels, defined in ([0, 0, 0], False), ([0, 1, 2], False), ([0, 0, 1], True):
        found = separation(points, np.array(labels))
        assert math.isfinite(found.silhouette) == math.isfinite(found.dunn_index) == defined
    assert math.isnan(separation(points[:0], np.array([], dtype=int)).silhouette)


def test_the_same_bits_whatever_the_number_of_processors(monkeypatch):
    random = np.random.RandomState(0)
    points, labels = random.normal(size=(3000, 6)), random.randint(0, 4, 3000)
    found = set()
    for count in (1, 2, 7):
        monkeypatch.setattr("os.sched_getaffinity", lambda pid, count=count: set(range(count)))
        found.add(separation(points, labels))
    assert len(found) == 1


@pytest.mark.parametrize("clusters", [3, 3000])
@pytest.mark.long
def test_memory_stays_far_below_the_matrix(clusters):
    """12,000 windows: their matrix would take 1.2 GB, sums for 3,000 clusters 290 MB."""
    code = f"""
import numpy as np, resource
from edgepack_assets.model_types.state_identifier.cluster_separation import separation
from scipy.spatial.distance import cdist
random = np.random.RandomState(0)
points, labels = random.normal(size=(12_000, 6)), random.randint(0, {clusters}, 12_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
separation(points, labels)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(told.stdout) < 200
