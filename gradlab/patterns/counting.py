"""How many entries: closed forms, in Python integers.

Equal variables count once, independent ones multiply, and two variables tied by a band are a
difference of triangles. Three and more that are tied to each other (chains such as i <= j <= k) are
summed over
few of them whose values make the rest fall apart into ones and twos: vectorised, up to a limit.
Zones of a union are made disjoint first, by subtraction, so that nothing is counted twice.
"""

from math import prod
from typing import Any

import numpy as np

from gradlab.patterns.bounds import Bounds, Indices, components, extend

__all__ = ["LIMIT", "count_bounds"]

LIMIT = 2**20
"""The most values that a sum runs over."""


def count_bounds(d: Bounds) -> tuple[int, bool]:
    """Return the number of integer points of closed bounds, and whether it is exact.

    Example:
        >>> from gradlab.patterns.bounds import free, tighten
        >>> count_bounds(tighten(free((64, 64)), 2, 1, 0))  # in <= out
        (2080, True)
    """
    counts = [_component(d[np.ix_([0, *c], [0, *c])]) for c in components(d)]
    return prod(n for n, _ in counts), all(exact for _, exact in counts)


def _component(d: Bounds) -> tuple[int, bool]:
    """Count one component: first without variables that others determine."""
    keep: list[int] = []
    for x in range(1, len(d)):
        if all(d[x, y] + d[y, x] for y in (0, *keep)):
            keep.append(x)
    d = d[np.ix_([0, *keep], [0, *keep])]
    if len(keep) <= 2:
        return _few(d), True
    fixed = _separator(d)
    values: Indices | None = np.zeros((1, 0), np.int64)
    for k, x in enumerate(fixed):
        values = None if values is None else extend(values, fixed[:k], x, d, LIMIT)
    if values is None:
        width = [int(min(d[x, y] + d[y, x] for y in range(x))) + 1 for x in range(1, len(d))]
        return prod(width), False
    rest = [x for x in range(1, len(d)) if x not in fixed]
    low, high = {}, {}
    for x in rest:
        low[x] = np.max([-d[0, x] + 0 * values[:, 0], *(values - d[fixed, x]).T], axis=0)
        high[x] = np.min([d[x, 0] + 0 * values[:, 0], *(values + d[x, fixed]).T], axis=0)
    most = prod((d[1:, 0] + d[0, 1:] + 1).tolist())
    kind: Any = np.int64 if most < 2**60 and int(d.max()) < 2**28 else object
    total = np.ones(len(values), kind)
    for group in _apart(d, fixed, rest):
        x, y = group[0], group[-1]
        box = [side.astype(kind) for side in (low[x], high[x], low[y], high[y])]
        if x == y:
            total = total * (box[1] - box[0] + 1)
        else:
            total = total * _pairs(box[0], box[1], box[2], box[3], int(d[x, y]), int(d[y, x]))
    return int(total.sum()), True


def _few(d: Bounds) -> int:
    """Count points in at most two variables."""
    if len(d) == 1:
        return 1
    low, high = (-d[0, 1:]).tolist(), d[1:, 0].tolist()
    if len(d) == 2:
        return int(high[0] - low[0] + 1)
    return int(_pairs(low[0], high[0], low[1], high[1], int(d[1, 2]), int(d[2, 1])))


def _pairs(lx: Any, hx: Any, ly: Any, hy: Any, most: int, least: int) -> Any:
    """Count the (x, y) of a box with -least <= x - y <= most; the box may be an array of boxes."""
    p, q = hx - lx + 1, hy - ly + 1

    def up_to(c: int) -> Any:
        y = c - lx + hy
        return _triangle(y) - _triangle(y - p) - _triangle(y - q) + _triangle(y - p - q)

    return up_to(most) - up_to(-least - 1)


def _triangle(n: Any) -> Any:
    """Return the number of pairs of natural numbers with sum at most n."""
    return (n >= 0) * ((n + 1) * (n + 2) // 2)


def _apart(d: Bounds, fixed: list[int], rest: list[int]) -> list[list[int]]:
    """Return the groups that remain tied when the values of `fixed` are known."""
    groups: list[list[int]] = []
    for x in rest:
        tied = [g for g in groups if any(_tied(d, x, y, fixed) for y in g)]
        groups = [g for g in groups if g not in tied]
        groups.append(sorted([x, *(y for g in tied for y in g)]))
    return groups


def _tied(d: Bounds, x: int, y: int, fixed: list[int]) -> bool:
    stops = [0, *fixed]
    return bool(
        d[x, y] < (d[x, stops] + d[stops, y]).min() or d[y, x] < (d[y, stops] + d[stops, x]).min()
    )


def _separator(d: Bounds) -> list[int]:
    """Return few variables whose values separate the others into ones and twos."""
    fixed: list[int] = []
    rest = list(range(1, len(d)))
    while max((len(g) for g in _apart(d, fixed, rest)), default=0) > 2:

        def largest(x: int) -> tuple[int, int]:
            groups = _apart(d, [*fixed, x], [y for y in rest if y != x])
            return max(map(len, groups)), int(d[x, 0] + d[0, x])

        best = min(rest, key=largest)
        fixed.append(best)
        rest.remove(best)
    return fixed
