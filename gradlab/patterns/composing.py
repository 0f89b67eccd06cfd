"""Composition and intersection of zones: conjoin, then eliminate the axes in the middle.

An entry (o, i) of `a after b` has some m with (o, m) in a and (m, i) in b. Both zones are brought
to the same digits and the same orientation on the middle axes; conjoining their bounds and dropping
the middle variables from the closed matrix is then exact. Clusters that touch an explicit relation
are boolean
matrix products instead: an OR over the middle, never a sum in small integers.
"""

from collections.abc import Sequence
from math import prod

import numpy as np

from gradlab.patterns import bounds as dbm
from gradlab.patterns.bounds import Bounds
from gradlab.patterns.counting import count_bounds
from gradlab.patterns.digits import frame
from gradlab.patterns.points import LIMIT, points
from gradlab.patterns.splitting import aligned, explicate, plainly
from gradlab.patterns.zone import Relation, Zone, merge_groups, place, relation

__all__ = ["compose_many", "intersect", "with_relation"]

_LONGEST = 2**24
"""The most rows or columns of one explicit relation."""


def compose_many(left: Sequence[Zone], right: Sequence[Zone], widened: list[str]) -> list[Zone]:
    """Return the zones of (union of left) after (union of right); their union is exact."""
    result: list[Zone] = []
    for a_group in _alike(left):
        for b_group in _alike(right):
            a, b = a_group[0], b_group[0]
            if a.simple and b.simple and a.frame.input == b.frame.output:
                result += _compose_simple(a_group, b_group)
            else:
                for a in a_group:
                    for b in b_group:
                        result += _compose(a, b, widened)
    return result


def _alike(zones: Sequence[Zone]) -> list[list[Zone]]:
    groups: dict[tuple[object, bool], list[Zone]] = {}
    for zone in zones:
        groups.setdefault((zone.frame, zone.simple), []).append(zone)
    return list(groups.values())


def _compose_simple(left: list[Zone], right: list[Zone]) -> list[Zone]:
    """Compose zones of bounds alone, all of one frame on each side, in one sweep."""
    a, b = left[0].frame, right[0].frame
    result, _ = dbm.compose(
        np.stack([z.bounds for z in left]), np.stack([z.bounds for z in right]), a.outputs, a.inputs
    )
    both = frame(a.output, b.input)
    return [Zone(both, d) for d in result]


def _compose(a: Zone, b: Zone, widened: list[str]) -> list[Zone]:
    """Compose two zones that may need aligning, orienting, or explicit products."""
    n = len(a.frame.output)
    axes = [(n + k, k) for k in range(len(a.frame.input))]
    result: list[Zone] = []
    for x, y in aligned(a, b, axes, widened) or ():
        o = x.frame.outputs
        turned = _oriented(x, y, [(o + v, v) for v in range(1, y.frame.outputs + 1)])
        if turned is None:  # an axis reversed against itself is no set of bounds, but a relation
            for k in range(len(y.frame.output)):
                x, y = plainly(x, n + k, widened), plainly(y, k, widened)
            result += _compose(x, y, widened)
        elif turned[0].symbolic and turned[1].symbolic:
            result += _eliminated(*turned)
        else:
            result += _with_products(*turned, widened)
    return [zone.oriented() for zone in result]


def _eliminated(a: Zone, b: Zone) -> list[Zone]:
    """Compose the bounds of two aligned zones, whatever their relations."""
    o, m = a.frame.outputs, a.frame.inputs
    d, _ = dbm.compose(a.bounds[None], b.bounds[None], o, m)
    flipped = {v for v in a.flipped if v <= o} | {v - m + o for v in b.flipped if v > m}
    both = frame(a.frame.output, b.frame.input)
    return [Zone(both, bounds, frozenset(flipped)) for bounds in d]


def _with_products(a: Zone, b: Zone, widened: list[str]) -> list[Zone]:
    """Compose two aligned zones of which one has explicit relations.

    Variables of a keep their numbers, those of b follow shifted by a's outputs, so that both agree
    on the middle ones. Clusters with a relation become matrices; the others are bounds as usual.
    """
    o, m = a.frame.outputs, a.frame.inputs
    explicit = a.explicit | {o + v for v in b.explicit}
    shifted = [[o + v for v in c] for c in b.clusters()]
    products = [c for c in merge_groups(a.clusters(), shifted) if explicit & set(c)]
    eliminated = _eliminated(a, b)
    for cluster in products:
        if not eliminated:
            return []
        outputs = [v for v in cluster if v <= o]
        middles = [v for v in cluster if o < v <= o + m]
        inputs = [v for v in cluster if v > o + m]
        product = _product(a, b, outputs, middles, inputs)
        if product is None:
            widened.append(f"an index array with more than {LIMIT:,} entries")
            gone_a = {a.frame.axis_of[v - 1] for v in outputs + middles}
            gone_b = {b.frame.axis_of[v - o - 1] for v in middles + inputs}
            return _compose(a.forget(gone_a), b.forget(gone_b), widened)
        rows, columns = outputs, [v - m for v in inputs]
        both = eliminated[0].frame
        values = Relation(tuple(rows), tuple(columns), product).points(both.sizes)
        eliminated = with_relation(eliminated[0], rows, columns, values)
    return eliminated


def _product(
    a: Zone, b: Zone, outputs: list[int], middles: list[int], inputs: list[int]
) -> object | None:
    """Return the boolean product over one cluster, or None if it is too large to hold."""
    o = a.frame.outputs
    sides = (
        (a, outputs, middles),
        (b, [v - o for v in middles], [v - o for v in inputs]),
    )
    factors = []
    for zone, rows, columns in sides:
        sizes = [zone.frame.sizes[v - 1] for v in rows], [zone.frame.sizes[v - 1] for v in columns]
        if max(prod(sizes[0]), prod(sizes[1])) > _LONGEST:
            return None
        values = points(zone, rows + columns)
        if values is None:
            return None
        factors.append(relation(rows, columns, values, zone.frame.sizes).matrix)
    left, right = factors
    work = int(np.diff(right.indptr)[left.indices].sum(dtype=np.int64))
    if work > 8 * LIMIT:
        return None
    product = left.astype(np.float64) @ right.astype(np.float64)  # no wrap-around at 256 incidences
    result = (product != 0).tocsr()
    return None if result.nnz > LIMIT else result


def with_relation(
    zone: Zone, rows: Sequence[int], columns: Sequence[int], values: dbm.Indices
) -> list[Zone]:
    """Return the zone with its variables (rows, columns) held to the given values instead.

    If bounds can say the same they do: the hull of the values, when it contains as many points.
    """
    if not len(values):
        return []
    variables = [*rows, *columns]
    for k, v in enumerate(variables):
        if v in zone.flipped:
            values[:, k] = zone.frame.sizes[v - 1] - 1 - values[:, k]
    padded = np.column_stack([np.zeros(len(values), np.int64), values])
    hull: Bounds = np.array(
        [(padded[:, k, None] - padded).max(axis=0) for k in range(padded.shape[1])]
    )
    d = zone.bounds.copy()
    flipped = zone.flipped - set(variables)
    if count_bounds(hull) == (len(values), True):
        place(d, variables, hull)
        return [Zone(zone.frame, d, flipped, zone.relations)]
    ranges = hull[:, :1] + hull[:1]
    np.fill_diagonal(ranges, 0)
    place(d, variables, ranges)
    explicit = relation(rows, columns, values, zone.frame.sizes)
    return [Zone(zone.frame, d, flipped, (*zone.relations, explicit))]


def _oriented(a: Zone, b: Zone, pairs: list[tuple[int, int]]) -> tuple[Zone, Zone] | None:
    """Return both zones with the paired variables flipped alike, or None if that cannot be."""
    if not a.flipped and not b.flipped:
        return a, b
    groups = [("a", set(g)) for g in dbm.components(a.bounds)]
    groups += [("b", set(g)) for g in dbm.components(b.bounds)]
    edges: dict[int, list[tuple[int, bool]]] = {k: [] for k in range(len(groups))}
    for x, y in pairs:
        left = next(k for k, (side, g) in enumerate(groups) if side == "a" and x in g)
        right = next(k for k, (side, g) in enumerate(groups) if side == "b" and y in g)
        differ = (x in a.flipped) != (y in b.flipped)
        edges[left].append((right, differ))
        edges[right].append((left, differ))
    turned: dict[int, bool] = {}
    for start in edges:
        stack = [(start, False)] if start not in turned else []
        while stack:
            k, turn = stack.pop()
            if k in turned:
                if turned[k] != turn:
                    return None
                continue
            turned[k] = turn
            stack += [(other, turn != differ) for other, differ in edges[k]]
    sides = []
    for side, zone in (("a", a), ("b", b)):
        chosen = [v for k, (s, g) in enumerate(groups) if s == side and turned[k] for v in g]
        sides.append(zone.flip(chosen) if chosen else zone)
    return sides[0], sides[1]


def intersect(a: Zone, b: Zone, widened: list[str]) -> list[Zone]:
    """Return the zones of the pairs that are in both; a itself where that cannot be said."""
    axes = [(k, k) for k in range(len(a.frame.axes))]
    result: list[Zone] = []
    for x, y in aligned(a, b, axes, widened) or ():
        turned = _oriented(x, y, [(v, v) for v in range(1, len(x.bounds))])
        if turned is None:  # an axis reversed against itself is no set of bounds, but a relation
            explicit = _explicit(x), _explicit(y)
            if explicit[0] is None or explicit[1] is None:
                widened.append("a reversed axis meets itself unreversed")
                result.append(x)
            else:
                result += intersect(explicit[0], explicit[1], widened)
            continue
        x, y = turned
        if x.frame is not y.frame:  # other digits of the same axes were split along the way
            result += intersect(x, y, widened)
            continue
        d = dbm.close(np.minimum(x.bounds, y.bounds))
        if d is None:
            continue
        both = _settled(Zone(x.frame, d, x.flipped, x.relations + y.relations))
        if both is None:
            widened.append(f"an index array with more than {LIMIT:,} entries")
        result += [x] if both is None else both
    return [zone.oriented() for zone in result]


def _explicit(zone: Zone) -> Zone | None:
    """Return the zone with all its axes explicit, or None if that is large."""
    result: Zone | None = zone
    for axis in range(len(zone.frame.axes)):
        if result is not None and result.frame.digits(axis):
            result = explicate(result, axis)
    return result


def _settled(zone: Zone) -> list[Zone] | None:
    """Restore the invariant that explicit variables have no other bounds; None if too large."""
    result = [Zone(zone.frame, zone.bounds, zone.flipped)]
    for cluster in zone.clusters():
        if result and set(cluster) & zone.explicit:
            values = points(zone, cluster)
            if values is None:
                return None
            rows = [v for v in cluster if v <= zone.frame.outputs]
            result = with_relation(result[0], rows, cluster[len(rows) :], values)
    return result
