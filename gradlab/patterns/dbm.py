"""Difference bounds: the arithmetic of `x - y <= c` over integers, and how many points they hold.

A set of such bounds is a square matrix `d` with `d[x, y]` the largest value of `x - y` (a
difference-bound matrix; Dill 1989, Mine 2001). Row and column 0 stand for the number 0, so that
`d[x, 0]` is the largest and `-d[0, x]` the smallest value of x. All variables are digits in
`0 .. size - 1`, hence every entry is finite and there is no infinity to look after.

Why this is exact: a matrix is *closed* when `d[x, z] <= d[x, y] + d[y, z]`, which shortest paths
bring about. A closed matrix with a zero diagonal has integer points, each of its bounds is
attained, and any integer point of some of its variables extends to the others (the constraint
matrix is totally unimodular). So the projection onto some variables is the submatrix, nothing more.

Counting is in closed form, in Python integers. Equal variables count once, independent ones
multiply, and two variables tied by a band are a difference of triangles. Chains such as i <= j <= k
are summed over few of them whose values make the rest fall apart into ones and twos, up to a limit.

Matrices are never changed in place after they were built; functions return None for the empty set.
"""

from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gradlab.patterns.size import Size, exact, least, proved, rank, some_negative

Bounds: TypeAlias = npt.NDArray[np.int64]
Indices: TypeAlias = npt.NDArray[np.int64]


def free(sizes: tuple[int, ...]) -> Bounds:
    """Return the bounds of digits that are not related: `0 <= x < size`, closed."""
    kind = object if any(isinstance(size, Size) for size in sizes) else np.int64
    d: Bounds = np.empty((len(sizes) + 1, len(sizes) + 1), kind)
    d[0] = 0
    d[1:] = np.array(sizes, kind)[:, None] - 1
    np.fill_diagonal(d, 0)
    return d


def close(d: Bounds) -> Bounds | None:
    """Return the tightest bounds that describe the same set (Floyd and Warshall)."""
    d = d.copy()
    for p in range(len(d)):
        least(d, d[:, p, None] + d[p], out=d)
    return None if some_negative(d.diagonal()) else d


def tighten(d: Bounds, x: int, y: int, c: int) -> Bounds | None:
    """Return closed `d` with `x - y <= c` added: a path uses the new edge at most once."""
    if d[x, y] <= c:
        return d
    if d[y, x] + c < 0:
        return None
    result: Bounds = least(d, d[:, x, None] + (d[y] + c))
    return result


def compose(
    a: Bounds, b: Bounds, outputs: int, middles: int
) -> tuple[Bounds, npt.NDArray[np.intp]]:
    """Conjoin each of the stacked sets `a` with each of `b` and eliminate the middle variables.

    Args:
        a: closed bounds over (0, outputs, middles), shape (p, 1 + o + m, 1 + o + m).
        b: closed bounds over (0, middles, inputs), shape (q, 1 + m + i, 1 + m + i).
        outputs: the number o of output variables.
        middles: the number m of middle variables.

    Returns:
        The closed bounds over (0, outputs, inputs) of the pairs that are not empty, and the flat
        numbers of these pairs in (p, q). Inside a or b every path is an edge already, so only the
        variables that both share (the middle ones and 0) have to be tried as stopovers.
    """
    p, q = len(a), len(b)
    o, m, i = 1 + outputs, middles, b.shape[1] - 1 - middles
    d = np.empty((p, q, o + m + i, o + m + i), np.result_type(a, b))
    d[..., : o + m, : o + m] = a[:, None]
    d[..., o + m :, 0] = b[:, 1 + m :, 0]
    d[..., 0, o + m :] = b[:, 0, 1 + m :]
    d[..., 1:o, o + m :] = a[:, None, 1:o, :1] + b[:, :1, 1 + m :]
    d[..., o + m :, 1:o] = b[:, 1 + m :, :1] + a[:, None, :1, 1:o]
    d[..., o:, o + m :] = b[:, 1:, 1 + m :]
    d[..., o + m :, o:] = b[:, 1 + m :, 1:]
    if m:
        shared = d[..., o : o + m, o : o + m]
        least(shared, b[:, 1 : 1 + m, 1 : 1 + m], out=shared)
        least(d[..., o : o + m, 0], b[:, 1 : 1 + m, 0], out=d[..., o : o + m, 0])
        least(d[..., 0, o : o + m], b[:, 0, 1 : 1 + m], out=d[..., 0, o : o + m])
        for s in (*range(o, o + m), 0):
            least(d, d[..., s, None] + d[..., s, None, :], out=d)
    d = d.reshape(p * q, o + m + i, o + m + i)
    cycles = d.diagonal(axis1=1, axis2=2)
    if d.dtype == object:
        alive = np.array([k for k, each in enumerate(cycles) if not some_negative(each)], int)
    else:
        alive = np.flatnonzero(cycles.min(axis=1) >= 0)
    keep = [*range(o), *range(o + m, o + m + i)]
    return d[alive][:, keep][:, :, keep], alive


def related(d: Bounds) -> npt.NDArray[np.bool_]:
    """Return where two variables are bound to each other, not only each to its range."""
    return d < d[:, :1] + d[:1]


def components(d: Bounds) -> list[list[int]]:
    """Return the variables grouped so that those of different groups are independent."""
    label = list(range(len(d)))
    for x, y in np.argwhere(related(d)).tolist():
        if x and y and label[x] != label[y]:
            old, new = max(label[x], label[y]), min(label[x], label[y])
            label = [new if k == old else k for k in label]
    groups: dict[int, list[int]] = {}
    for x in range(1, len(d)):
        groups.setdefault(label[x], []).append(x)
    return list(groups.values())


def flip(d: Bounds, sizes: tuple[int, ...], variables: list[int]) -> Bounds:
    """Return the bounds with `size - 1 - x` for each x, for whole components of variables."""
    d = d.copy()
    group = [0, *variables]
    tops = np.array([0, *(sizes[x - 1] - 1 for x in variables)], d.dtype)
    d[np.ix_(group, group)] = d[np.ix_(group, group)].T + tops[:, None] - tops
    others = [x for x in range(1, len(d)) if x not in variables]
    if others:
        d[np.ix_(variables, others)] = d[variables, :1] + d[:1, others]
        d[np.ix_(others, variables)] = d[others, :1] + d[:1, variables]
    return d


def minus(a: Bounds, b: Bounds) -> list[Bounds]:
    """Return disjoint sets whose union is `a` without `b`: one for each bound of b that cuts a."""
    if proved(-a - b.T - 1).any():
        return [a]
    pieces: list[Bounds] = []
    rest = a
    while (cuts := np.argwhere(b < rest)).size:
        x, y = cuts[0].tolist()
        c = exact(b[x, y])
        if (outside := tighten(rest, y, x, -c - 1)) is not None:
            pieces.append(outside)
        inside = tighten(rest, x, y, c)
        if inside is None:
            return [a]
        rest = inside
    return pieces


def join(a: Bounds, b: Bounds) -> tuple[Bounds, bool]:
    """Return the smallest bounds around both sets, and whether they hold nothing else.

    What the hull holds beyond a and b violates one bound of a and one of b. Each pair of such
    bounds
    is tried at once: two edges added to a closed matrix contradict each other just when the cycle
    through both is negative.
    """
    hull: Bounds = np.maximum(a, b)
    x, y = np.nonzero(a < hull)
    u, v = np.nonzero(b < hull)
    beyond = (-a[x, y] - 1)[:, None] + (-b[u, v] - 1) + hull[x[:, None], v] + hull[u, y[:, None]]
    return hull, bool(proved(-beyond - 1).all())


def extend(values: Indices, known: list[int], v: int, d: Bounds, limit: int) -> Indices | None:
    """Return points of the variables `known`, one row each, extended by each value v may take.

    None if there were more than `limit`. Where the bounds are closed, no row is ever lost.
    """
    low = np.full(len(values), -d[0, v], np.int64)
    high = np.full(len(values), d[v, 0], np.int64)
    for k, x in enumerate(known):
        if d[v, x] < d[v, 0] + d[0, x]:
            np.minimum(high, values[:, k] + d[v, x], out=high)
        if d[x, v] < d[x, 0] + d[0, v]:
            np.maximum(low, values[:, k] - d[x, v], out=low)
    counts = np.maximum(high - low + 1, 0)
    if counts.sum(dtype=np.float64) > limit:
        return None
    row = np.repeat(np.arange(len(values)), counts)
    step = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.column_stack([values[row], low[row] + step])


LIMIT = 2**20
"""The most values that a sum runs over."""


def count_bounds(d: Bounds) -> tuple[int, bool]:
    """Return the number of integer points of closed bounds, and whether it is exact."""
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
    values: Indices | None = None if d.dtype == object else np.zeros((1, 0), np.int64)
    for k, x in enumerate(fixed):
        values = None if values is None else extend(values, fixed[:k], x, d, LIMIT)
    if values is None:
        width = [exact(min(d[x, y] + d[y, x] for y in range(x))) + 1 for x in range(1, len(d))]
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


def _few(d: Bounds) -> Any:
    """Count points in at most two variables."""
    if len(d) == 1:
        return 1
    low, high = (-d[0, 1:]).tolist(), d[1:, 0].tolist()
    if len(d) == 2:
        return exact(high[0] - low[0] + 1)
    return exact(_pairs(low[0], high[0], low[1], high[1], exact(d[1, 2]), exact(d[2, 1])))


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
            return max(map(len, groups)), rank(d[x, 0] + d[0, x])

        best = min(rest, key=largest)
        fixed.append(best)
        rest.remove(best)
    return fixed
