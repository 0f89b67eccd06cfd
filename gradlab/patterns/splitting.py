"""Splitting digits: the same zone over finer digits, so that differently read axes can be compared.

Write x = q h + l with 0 <= l < q. A bound x - y <= c with c = q e + r, 0 <= r < q, holds in exactly
one of three ways, because the difference of the low digits lies strictly between -q and q: `h - h'
< e`, or `h - h' = e` and `l - l' <= r`, or `h - h' = e + 1` and `l - l' <= r - q`. All digits that
are tied to x are split with it, and the alternatives of all bounds are combined, dropping those
that contradict each other. An equality stays one zone, an order becomes two (`i <= j` is `h < h'`,
or `h = h'` and `l <= l'`), a band a handful.
"""

from math import prod

import numpy as np

from gradlab.patterns import bounds as dbm
from gradlab.patterns.bounds import Bounds
from gradlab.patterns.digits import Axis, Frame, chain, plain
from gradlab.patterns.points import LIMIT, points
from gradlab.patterns.zone import Relation, Zone, place, relation

__all__ = ["aligned", "explicate", "plainly", "refine"]

_PIECES = 64
"""The most zones that one zone is split into."""


def refine(zone: Zone, axis: int, strides: tuple[int, ...]) -> list[Zone] | None:
    """Return zones that together are `zone`, their axis written with at least these strides.

    None where a digit that is tied to the axis has no such finer reading.
    """
    size, present = zone.frame.axes[axis]
    missing = [s for s in strides if s not in present and s < size]
    if not missing:
        return [zone]
    coarse = next(v for v in zone.frame.digits(axis) if zone.frame.strides[v - 1] < missing[-1])
    pieces = _split(zone, coarse, missing[-1] // zone.frame.strides[coarse - 1])
    if pieces is None:
        return None
    result: list[Zone] = []
    for piece in pieces:
        finer = refine(piece, axis, strides)
        if finer is None or len(result) + len(finer) > _PIECES:
            return None
        result += finer
    return result


def _split(zone: Zone, variable: int, q: int) -> list[Zone] | None:
    """Split a digit, and all digits tied to it, at q."""
    old = zone.frame
    tied = [variable]
    if variable not in zone.explicit:
        tied = next(c for c in dbm.components(zone.bounds) if variable in c)
    axes: dict[int, Axis] = {}
    split = {v for v in tied if old.sizes[v - 1] > q}  # smaller ones are low digits as they are
    for v in split:
        k = old.axis_of[v - 1]
        if old.digits(k)[0] != v and old.sizes[v - 1] % q:
            return None
        axis = axes.get(k, old.axes[k])
        strides = chain((*axis.strides, old.strides[v - 1] * q))
        if strides is None:
            return None
        axes[k] = Axis(axis.size, strides)
    new = old.replaced(axes)
    high, low, moved = _renumbered(old, new, split, q)
    flipped = frozenset(
        w for v in zone.flipped for w in ((high[v], low[v]) if v in split else (moved[v],))
    )
    relations = []
    for r in zone.relations:
        if variable in r.variables:
            relations.append(_split_relation(r, variable, q, old, new, high, low, moved))
        else:
            relations.append(r.moved(moved))
    d = new.free.copy()
    apart = [v for v in moved if v not in tied]
    place(d, [moved[v] for v in apart], zone.block(apart))
    for v in set(tied) - split:
        high[v], low[v] = 0, moved[v]
    states = [d] if variable in zone.explicit else _alternatives(zone, d, tied, q, high, low)
    return None if states is None else [Zone(new, s, flipped, tuple(relations)) for s in states]


def _renumbered(
    old: Frame, new: Frame, split: set[int], q: int
) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
    """Return where the high digits, the low digits and the unsplit digits are in the new frame."""
    place_of = {(k, s): v for v, (k, s) in enumerate(zip(new.axis_of, new.strides, strict=True), 1)}
    high, low, moved = {}, {}, {}
    for v, (k, s) in enumerate(zip(old.axis_of, old.strides, strict=True), 1):
        if v in split:
            high[v], low[v] = place_of[k, s * q], place_of[k, s]
        else:
            moved[v] = place_of[k, s]
    return high, low, moved


def _split_relation(
    r: Relation,
    variable: int,
    q: int,
    old: Frame,
    new: Frame,
    high: dict[int, int],
    low: dict[int, int],
    moved: dict[int, int],
) -> Relation:
    """Return an explicit relation with one of its digits split."""

    def renamed(group: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(
            w for v in group for w in ((high[v], low[v]) if v == variable else (moved[v],))
        )

    rows, columns = renamed(r.rows), renamed(r.columns)
    if old.sizes[variable - 1] % q == 0:
        return Relation(rows, columns, r.matrix)
    values = r.points(old.sizes)
    k = r.variables.index(variable)
    split = [values[:, :k], values[:, k : k + 1] // q, values[:, k : k + 1] % q, values[:, k + 1 :]]
    return relation(rows, columns, np.hstack(split), new.sizes)


def _alternatives(
    zone: Zone, start: Bounds, tied: list[int], q: int, high: dict[int, int], low: dict[int, int]
) -> list[Bounds] | None:
    """Return the sets over the new digits, starting from no bounds on the tied ones."""
    sizes = zone.frame.sizes
    shift = {0: 0}
    for v in tied:  # a flipped digit counts from the top, which moves when the size is rounded up
        shift[v] = -sizes[v - 1] % q if v in zone.flipped and high[v] else 0
    high, low = {0: 0, **high}, {0: 0, **low}
    d = zone.bounds
    pairs = [(x, y) for x in (0, *tied) for y in (0, *tied) if x != y]
    states = [start]
    for x, y in sorted(pairs, key=lambda p: int(d[p] + d[p[::-1]])):
        e, r = divmod(int(d[x, y]) + shift[x] - shift[y], q)
        hx, hy, lx, ly = high[x], high[y], low[x], low[y]
        following: list[Bounds] = []
        for s in states:
            if q * s[hx, hy] + s[lx, ly] <= q * e + r:
                following.append(s)
                continue
            all_low = r >= s[lx, ly]
            below = _bounded(s, (hx, hy, e if all_low else e - 1))
            level = None if all_low else _bounded(s, (hx, hy, e), (hy, hx, -e), (lx, ly, r))
            above = _bounded(s, (hx, hy, e + 1), (hy, hx, -e - 1), (lx, ly, r - q))
            following += [piece for piece in (below, level, above) if piece is not None]
        states = following
        if len(states) > _PIECES:
            return None
    return states


def _bounded(d: Bounds, *constraints: tuple[int, int, int]) -> Bounds | None:
    """Return d with bounds x - y <= c added."""
    result: Bounds | None = d
    for x, y, c in constraints:
        if result is None:
            return None
        result = dbm.tighten(result, x, y, c)
    return result


def explicate(zone: Zone, axis: int) -> Zone | None:
    """Return the zone with this axis as one digit of an explicit relation; None if large."""
    f = zone.frame
    digits = f.digits(axis)
    cluster = sorted(v for c in zone.clusters() if set(c) & set(digits) for v in c)
    variables = sorted({*cluster, *digits})
    sides = ([v for v in variables if v <= f.outputs], [v for v in variables if v > f.outputs])
    if any(prod(f.sizes[v - 1] for v in side) > LIMIT for side in sides):
        return None
    values = points(zone, variables)
    if values is None:
        return None
    for k, v in enumerate(variables):
        if v in zone.flipped:
            values[:, k] = f.sizes[v - 1] - 1 - values[:, k]
    new = f.replaced({axis: plain(f.axes[axis].size)})
    kept = [v for v in range(1, len(f.sizes) + 1) if v not in digits]
    lead = new.digits(axis)[0]
    moved = dict(zip(kept, (v for v in range(1, len(new.sizes) + 1) if v != lead), strict=True))
    index = sum(f.strides[v - 1] * values[:, variables.index(v)] for v in digits)
    others = [v for v in variables if v not in digits]
    columns = {lead: index, **{moved[v]: values[:, variables.index(v)] for v in others}}
    order = sorted(columns)
    outputs = [v for v in order if v <= new.outputs]
    inputs = [v for v in order if v > new.outputs]
    joined = relation(outputs, inputs, np.stack([columns[v] for v in order], axis=1), new.sizes)
    d = new.free.copy()
    rest = [v for v in kept if v not in variables]
    place(d, [moved[v] for v in rest], zone.block(rest))
    relations = [r.moved(moved) for r in zone.relations if not set(r.variables) & set(variables)]
    flipped = frozenset(moved[v] for v in zone.flipped if v in moved and v not in variables)
    return Zone(new, d, flipped, (*relations, joined))


def aligned(
    a: Zone, b: Zone, axes: list[tuple[int, int]], widened: list[str] | None
) -> list[tuple[Zone, Zone]] | None:
    """Return pairs of zones that together are (a, b) and write the paired axes alike.

    Where the readings have no common refinement, the axis becomes explicit, and where it is too
    large for that, its bounds are dropped and `widened` says so. With `widened=None`: None instead.
    """
    for ka, kb in axes:
        left, right = a.frame.axes[ka], b.frame.axes[kb]
        if left != right:
            break
    else:
        return [(a, b)]
    strides = chain((*left.strides, *right.strides))
    finer_a = None if strides is None else refine(a, ka, strides)
    finer_b = None if strides is None else refine(b, kb, strides)
    if finer_a is None or finer_b is None:
        if widened is None:
            return None
        finer_a, finer_b = [plainly(a, ka, widened)], [plainly(b, kb, widened)]
    result: list[tuple[Zone, Zone]] = []
    for x in finer_a:
        for y in finer_b:
            pairs = aligned(x, y, axes, widened)
            if pairs is None:
                return None
            result += pairs
    return result


def plainly(zone: Zone, axis: int, widened: list[str]) -> Zone:
    """Return the zone, or one around it, with this axis as one digit that only relations bind."""
    digits = zone.frame.digits(axis)
    if len(digits) <= 1 and set(digits) <= zone.explicit:
        return zone
    explicit = explicate(zone, axis)
    if explicit is None:
        size = zone.frame.axes[axis].size
        widened.append(f"an axis of {size:,} read in two ways that no common digits fit")
        return zone.forget([axis])
    return explicit
