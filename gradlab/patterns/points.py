"""The entries of zones, listed: from bounds to index arrays, vectorised over the entries.

In closed bounds every choice for some variables extends to the others, so that listing one variable
after the other never runs into a dead end, and costs what it returns. Independent clusters are
listed apart and combined last. Nothing is counted here in small integers; entries are joined by OR.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlab.patterns.bounds import Bounds, Indices, extend
from gradlab.patterns.zone import Relation, Zone

__all__ = ["LIMIT", "flat_entries", "matrix", "points"]

LIMIT = 2**22
"""The most entries of one explicit relation."""


def points(zone: Zone, variables: Sequence[int], limit: int = LIMIT) -> Indices | None:
    """Return all values of a union of clusters, one row each, or None beyond the limit."""
    chosen = set(variables)
    relations = [r for r in zone.relations if chosen & set(r.variables)]
    known: list[int] = []
    values = np.zeros((1, 0), np.int64)
    for r in relations:
        if len(values) * r.matrix.nnz > 64 * limit:
            return None
        values = _joined(values, known, r, zone.frame.sizes)
        known += [v for v in r.variables if v not in known]
        values = values[_inside(values, known, zone.bounds)]
        if len(values) > limit:
            return None
    for v in variables:
        if v not in known:
            extended = extend(values, known, v, zone.bounds, limit)
            if extended is None:
                return None
            values = extended
            known.append(v)
    return values[:, [known.index(v) for v in variables]]


def _joined(values: Indices, known: list[int], r: Relation, sizes: Sequence[int]) -> Indices:
    """Return the rows of values combined with the points of r that agree with them."""
    more = r.points(sizes)
    left = np.repeat(np.arange(len(values)), len(more))
    right = np.tile(np.arange(len(more)), len(values))
    agree = np.ones(len(left), np.bool_)
    fresh = []
    for k, v in enumerate(r.variables):
        if v in known:
            agree &= values[left, known.index(v)] == more[right, k]
        else:
            fresh.append(k)
    return np.hstack([values[left[agree]], more[right[agree]][:, fresh]])


def _inside(values: Indices, known: list[int], d: Bounds) -> Any:
    """Return which rows satisfy the bounds between the known variables."""
    good = np.ones(len(values), np.bool_)
    for a, x in enumerate(known):
        good &= (values[:, a] <= d[x, 0]) & (-values[:, a] <= d[0, x])
        for b, y in enumerate(known):
            if d[x, y] < d[x, 0] + d[0, y]:
                good &= values[:, a] - values[:, b] <= d[x, y]
    return good


def flat_entries(zone: Zone, limit: int) -> tuple[Indices, Indices] | None:
    """Return the flat output and the flat input index of every entry, or None beyond the limit."""
    f = zone.frame
    steps = f.flat_strides()
    rows, columns = np.zeros(1, np.int64), np.zeros(1, np.int64)
    for cluster in zone.clusters():
        values = points(zone, cluster, limit)
        if values is None or len(rows) * len(values) > limit:
            return None
        row, column = np.zeros(len(values), np.int64), np.zeros(len(values), np.int64)
        for k, v in enumerate(cluster):
            digit = f.sizes[v - 1] - 1 - values[:, k] if v in zone.flipped else values[:, k]
            (row if v <= f.outputs else column)[:] += steps[v - 1] * digit
        rows = (rows[:, None] + row).ravel()
        columns = (columns[:, None] + column).ravel()
    return rows, columns


def matrix(zones: Sequence[Zone], shape: tuple[int, int], limit: int) -> Any | None:
    """Return the boolean CSR matrix of a union of zones, or None beyond `limit` listed entries."""
    rows, columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for zone in zones:
        entries = flat_entries(zone, limit)
        if entries is None:
            return None
        limit -= len(entries[0])
        rows.append(entries[0])
        columns.append(entries[1])
    index = np.concatenate(rows), np.concatenate(columns)
    import scipy.sparse as sp  # a fifth of a second, for explicit entries alone

    result = sp.coo_array((np.ones(len(index[0]), np.bool_), index), shape=shape).tocsr()
    result.data[:] = True  # entries of several zones stay True: OR, never a sum
    return result
