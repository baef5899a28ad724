"""How well clusters are separated: silhouette and Dunn index, exact, in one pass over the distances.

A step-1 recording has tens of thousands of windows, whose distance matrix would take gigabytes. The windows are put
in order of their clusters and each pair is measured once, in blocks that stay in the processor's cache: in such order
a block's sums per cluster are sums over slices, and need no mask.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SIDE = 512
"""Windows on a side of a block: 2 MiB of distances."""
_MOST_SUMS = 1 << 25
"""Sums per window and cluster that are kept (256 MiB), so that each pair is measured once. With more clusters each is
measured twice, and only the sums of one block's windows are kept."""


_FEW = 2048
"""Windows up to which importing scipy would take longer than all distances without it."""


def _distances(some: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances, some x others, as scipy's cdist gives them."""
    import numpy as np

    squares = np.zeros((len(some), len(others)))
    for one, other in zip(some.T, others.T, strict=True):
        squares += (one[:, None] - other[None, :]) ** 2
    return np.sqrt(squares)


@dataclass(frozen=True)
class Separation:
    """Mean silhouette coefficient (Rousseeuw 1987) and Dunn index (1974), Euclidean; NaN where not defined.

    `silhouettes` are those of the windows, in their order; none where the mean is not defined."""

    silhouette: float
    dunn_index: float
    silhouettes: NDArray[np.float64] | None = field(default=None, compare=False)


def separation(features: NDArray[np.float64], labels: NDArray[np.int64]) -> Separation:
    """Silhouette and Dunn index of `features` (windows x features, finite) in the clusters that `labels` tell.

    The silhouette is NaN unless there are at least 2 clusters and fewer clusters than windows; a window that is alone
    in its cluster counts 0. The Dunn index, smallest distance between points of different clusters / largest between
    points of one, is NaN unless there are at least 2 clusters and one of them has two distinct points. Neither depends
    on the number of processors.
    """
    import numpy as np

    distinct, clusters = np.unique(labels, return_inverse=True)
    if len(distinct) < 2:
        return Separation(math.nan, math.nan)
    order = np.argsort(clusters, kind="stable")
    windows = _Windows(np.ascontiguousarray(features[order], dtype=np.float64), clusters[order])
    total, between, within = 0.0, math.inf, 0.0
    each = np.zeros(len(order))
    sums = np.zeros((len(order), len(distinct)) if windows.symmetric else (_SIDE, len(distinct)))
    for block in windows.measured():
        first = 0 if windows.symmetric else block.rows.start
        mine = sums[block.rows.start - first : block.rows.stop - first]
        mine[:, block.column_clusters] += block.row_sums
        if windows.symmetric and block.columns != block.rows:
            sums[block.columns, block.row_clusters] += block.column_sums.T
        between, within = min(between, block.between), max(within, block.within)
        if block.columns.stop == len(order):  # the last one of these rows
            found = windows.silhouettes(mine, block.rows)
            total += float(found.sum())
            each[order[block.rows]] = found
            mine[:] = 0
    dunn_index = between / within if within > 0 else math.nan
    if len(distinct) == len(order):
        return Separation(math.nan, dunn_index)
    return Separation(total / len(order), dunn_index, each)


@dataclass(frozen=True)
class _Block:
    """Distances of some windows to others, in sums per cluster: windows x clusters and clusters x windows; the smallest
    between windows of different clusters, and the largest between windows of one."""

    rows: slice
    columns: slice
    row_clusters: slice
    column_clusters: slice
    row_sums: NDArray[np.float64]
    column_sums: NDArray[np.float64]
    between: float
    within: float


class _Windows:
    """Points in order of their clusters, which are numbered from 0 without a gap."""

    def __init__(self, points: NDArray[np.float64], clusters: NDArray[np.int64]) -> None:
        import numpy as np

        self.points, self.clusters = points, clusters
        self.sizes = np.bincount(clusters)
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        self.symmetric = len(points) * len(self.sizes) <= _MOST_SUMS
        self._distances = _distances
        if len(points) > _FEW:
            from scipy.spatial.distance import cdist  # type: ignore[import-untyped]  # scipy has no types

            self._distances = cdist

    def measured(self) -> Iterator[_Block]:
        """Every block, rows after rows, always in the same order: sums of floats depend on it."""
        count = len(self.points)
        sides = [slice(start, min(start + _SIDE, count)) for start in range(0, count, _SIDE)]
        pairs = ((rows, columns) for i, rows in enumerate(sides) for columns in sides[i if self.symmetric else 0 :])
        workers = len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(workers, thread_name_prefix="distances") as pool:  # measuring needs no GIL
            waiting: deque[Future[_Block]] = deque()
            for rows, columns in pairs:
                waiting.append(pool.submit(self._measure, rows, columns))
                if len(waiting) > 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def silhouettes(self, sums: NDArray[np.float64], rows: slice) -> NDArray[np.float64]:
        """The silhouette coefficient of these windows, from their distances to each cluster's windows together."""
        import numpy as np

        clusters, here = self.clusters[rows], np.arange(rows.stop - rows.start)
        own = sums[here, clusters]
        others = sums / self.sizes
        others[here, clusters] = np.inf
        nearest = others.min(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            own = own / (self.sizes[clusters] - 1)
            each = (nearest - own) / np.maximum(own, nearest)
        # NaN where a window is alone in its cluster, or all of its distances are 0
        result: NDArray[np.float64] = np.nan_to_num(each)
        return result

    def _measure(self, rows: slice, columns: slice) -> _Block:
        import numpy as np

        distances = self._distances(self.points[rows], self.points[columns])
        row_clusters, row_cuts = self._clusters_in(rows)
        column_clusters, column_cuts = self._clusters_in(columns)
        if len(row_cuts) == len(column_cuts) == 1:
            same = row_clusters == column_clusters
            between = math.inf if same else float(distances.min())
            within = float(distances.max()) if same else 0.0
            row_sums, column_sums = distances.sum(axis=1, keepdims=True), distances.sum(axis=0, keepdims=True)
        else:
            row_sums = np.add.reduceat(distances, column_cuts, axis=1)
            column_sums = np.add.reduceat(distances, row_cuts, axis=0)
            smallest = np.minimum.reduceat(np.minimum.reduceat(distances, row_cuts, axis=0), column_cuts, axis=1)
            largest = np.maximum.reduceat(np.maximum.reduceat(distances, row_cuts, axis=0), column_cuts, axis=1)
            same = (
                np.arange(row_clusters.start, row_clusters.stop)[:, None]
                == np.arange(column_clusters.start, column_clusters.stop)[None, :]
            )
            between = float(smallest.min(where=~same, initial=math.inf))
            within = float(largest.max(where=same, initial=0.0))
        return _Block(rows, columns, row_clusters, column_clusters, row_sums, column_sums, between, within)

    def _clusters_in(self, windows: slice) -> tuple[slice, NDArray[np.int64]]:
        """The clusters that these windows are of, and where each begins among them."""
        import numpy as np

        clusters = slice(int(self.clusters[windows.start]), int(self.clusters[windows.stop - 1]) + 1)
        return clusters, np.maximum(self.starts[clusters] - windows.start, 0)
