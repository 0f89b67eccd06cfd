"""Composition and intersection of zones: to common digits, conjoin, eliminate the middle.

An entry (o, i) of `a after b` has some m with (o, m) in a and (m, i) in b. Both zones are brought
to the same digits and the same orientation on the middle axes; conjoining their bounds and dropping
the middle variables from the closed matrix is then exact. Clusters that touch an explicit relation
are boolean matrix products instead: an OR over the middle, never a sum in small integers.

A digit is split so: write x = q h + l with 0 <= l < q. A bound x - y <= c with c = q e + r, 0 <= r
< q, holds in exactly one of three ways, because the difference of the low digits lies strictly
between -q and q: `h - h' < e`, or `h - h' = e` and `l - l' <= r`, or `h - h' = e + 1` and `l - l'
<= r - q`. All digits that are tied to x are split with it, and the alternatives of all bounds are
combined, dropping those that contradict each other. An equality stays one zone, an order becomes
two (`i <= j` is `h < h'`, or `h = h'` and `l <= l'`), a band a handful.
"""

import itertools
from collections.abc import Sequence
from math import prod

import numpy as np

from gradlab.patterns import dbm
from gradlab.patterns.dbm import Bounds, count_bounds
from gradlab.patterns.layout import Axis, Frame, chain, frame, plain
from gradlab.patterns.size import Undecided, divides, exact, least, rank, small
from gradlab.patterns.zone import LIMIT, Relation, Zone, merge_groups, place, points, relation

_PIECES = 64
"""The most zones that one zone is split into."""

_SAMPLE = 1 << 10
"""Values that are looked at first, to see whether bounds may say all."""

_CLASSES = 16
"""How many classes of remainders are worth it."""


def refine(zone: Zone, axis: int, strides: tuple[int, ...]) -> list[Zone] | None:
    """Return zones that together are `zone`, their axis written with at least these strides.

    None where the axis, or a digit that is tied to it, has no such finer reading.
    """
    size, present = zone.frame.axes[axis]
    missing = [s for s in strides if s not in present and s < size]
    if not missing:
        return [zone]
    if chain((*present, *missing)) is None:
        return None
    coarse = next(v for v in zone.frame.digits(axis) if zone.frame.strides[v - 1] < missing[-1])
    pieces = _split(zone, coarse, missing[-1] // zone.frame.strides[coarse - 1])
    return None if pieces is None else refined(pieces, axis, strides)


def refined(
    zones: Sequence[Zone], axis: int, strides: tuple[int, ...], most: int = _PIECES
) -> list[Zone] | None:
    """Return each zone refined; None where one cannot be, or they are more than `most`."""
    result: list[Zone] = []
    for zone in zones:
        finer = refine(zone, axis, strides)
        if finer is None or len(result) + len(finer) > most:
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
        if old.digits(k)[0] != v and not divides(q, old.sizes[v - 1]):
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
    for x, y in sorted(pairs, key=lambda p: rank(d[p] + d[p[::-1]])):
        try:
            e, r = divmod(exact(d[x, y]) + shift[x] - shift[y], q)
        except Undecided:
            return None
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
    if not all(small(prod(f.sizes[v - 1] for v in side), LIMIT) for side in sides):
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


_LONGEST = 2**25
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
        made = Relation(tuple(rows), tuple(columns), product)
        values = made.points(both.sizes)
        eliminated = with_relation(eliminated[0], rows, columns, values, made)
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
        if not all(small(prod(side), _LONGEST) for side in sizes):
            return None
        found = next((r for r in zone.relations if [*r.rows, *r.columns] == rows + columns), None)
        if found is None or len(found.rows) != len(rows):
            values = points(zone, rows + columns)
            if values is None:
                return None
            found = relation(rows, columns, values, zone.frame.sizes)
        factors.append(found.matrix)
    left, right = factors
    work = int(np.diff(right.indptr)[left.indices].sum(dtype=np.int64))
    if work > 8 * LIMIT:
        return None
    product = left.astype(np.float64) @ right.astype(np.float64)  # no wrap-around at 256 incidences
    result = (product != 0).tocsr()
    return None if result.nnz > LIMIT else result


def with_relation(
    zone: Zone,
    rows: Sequence[int],
    columns: Sequence[int],
    values: dbm.Indices,
    made: Relation | None = None,
) -> list[Zone]:
    """Return the zone with its variables (rows, columns) held to the given values instead.

    If bounds can say the same they do: the hull of the values, when it contains as many points.

    Args:
        zone: in which no other relation has these variables.
        rows: variables.
        columns: more variables.
        values: of these variables, one row each.
        made: the relation that holds at these values, if there is one already.
    """
    if not len(values):
        return []
    variables = [*rows, *columns]
    for k, v in enumerate(variables):
        if v in zone.flipped:
            values[:, k] = zone.frame.sizes[v - 1] - 1 - values[:, k]
            made = None
    hull = hull_of(*np.ascontiguousarray(values.T))
    d = zone.bounds.copy()
    flipped = zone.flipped - set(variables)
    if count_bounds(hull) == (len(values), True):
        place(d, variables, hull)
        return [Zone(zone.frame, d, flipped, zone.relations)]
    ranges = hull[:, :1] + hull[:1]
    np.fill_diagonal(ranges, 0)
    place(d, variables, ranges)
    explicit = made or relation(rows, columns, values, zone.frame.sizes)
    return [Zone(zone.frame, d, flipped, (*zone.relations, explicit))]


def hull_of(*columns: dbm.Indices) -> Bounds:
    """Return the tightest bounds that hold of the values of some variables, a column for each."""
    sides = [np.zeros(1, np.int64), *columns]
    hull: Bounds = np.zeros((len(sides), len(sides)), np.int64)
    for a, b in itertools.combinations(range(len(sides)), 2):
        apart = sides[a] - sides[b]
        hull[a, b], hull[b, a] = apart.max(), -apart.min()
    return hull


def by_residues(
    zone: Zone,
    variables: Sequence[int],
    values: dbm.Indices,
    period: int,
    most: int | None = None,
) -> list[Zone] | None:
    """Return the zone with its variables held to values that bounds can say, class by class.

    Values of a class have the same remainders; bounds speak of their quotients. A checkerboard is
    two classes. None where classes are many, or one is more than its bounds say.

    Args:
        zone: of plain axes.
        variables: sorted, each an axis.
        values: of these variables, one row each.
        period: by what they are divided.
        most: how many points the zones may hold where more values are to come.
    """
    f = zone.frame
    apart = len(values) // _SAMPLE
    if apart > 1 and by_residues(zone, variables, values[::apart], period, len(values)) is None:
        return None
    split = {v for v in variables if f.sizes[v - 1] > period > 1}
    new = f.replaced({f.axis_of[v - 1]: Axis(f.sizes[v - 1], (period, 1)) for v in split})
    moved = {v: new.digits(f.axis_of[v - 1]) for v in range(1, len(f.sizes) + 1)}
    label = np.zeros(len(values), np.int64)
    for column in values.T:
        label = label * period + column % period
    classes = np.flatnonzero(np.bincount(label))
    if len(classes) > _CLASSES:
        return None
    found = []
    rest = [v for v in moved if v not in variables]
    for k in classes:
        mine = np.ascontiguousarray(values[label == k].T)
        columns = [
            part
            for v, column in zip(variables, mine, strict=True)
            for part in ((column // period, column % period) if v in split else (column,))
        ]
        hull = hull_of(*columns)
        count, exact_count = count_bounds(hull)
        if most is None and (count, exact_count) != (mine.shape[1], True):
            return None
        if most is not None and exact_count and (most := most - count) < 0:
            return None
        d = new.free.copy()
        place(d, [w for v in rest for w in moved[v]], zone.block(rest))
        place(d, [w for v in variables for w in moved[v]], hull)
        found.append(Zone(new, d))
    return found


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
        d = dbm.close(least(x.bounds, y.bounds))
        if d is None:
            continue
        both = settled(Zone(x.frame, d, x.flipped, x.relations + y.relations))
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


def settled(zone: Zone) -> list[Zone] | None:
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
