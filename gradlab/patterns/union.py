"""Unions of zones: in shortest form, subtracted from each other, held inside each other, counted.

Subtracting a zone leaves one piece for each of its bounds that cuts, and the pieces are disjoint.
So containment in a union, the disjoint form that counting needs, and the complement of a mask are
all exact, not only zone by zone.

Digits are put together again wherever that is exact: after a reshape there and back, an axis is
still written in several. Two adjacent digits become one in all zones at once, together with the
digits they are tied to, if the zones around the joined digits, split again, hold nothing that was
not there. So `h < h'` with (`h = h'` and `l <= l'`) is one order again.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from gradlab.patterns import dbm
from gradlab.patterns.compose import hull_of, refined, settled, with_relation
from gradlab.patterns.dbm import Bounds, count_bounds
from gradlab.patterns.layout import Axis, Frame, chain, plain
from gradlab.patterns.size import divides, exact, proved, same, small
from gradlab.patterns.zone import Relation, Zone, matrix, merge_groups, place, points, relation

ZONES = 64
"""The most zones of one pattern."""

_PIECES = 2048
_POINTS = 2**20


def merged(zones: Sequence[Zone]) -> list[Zone]:
    """Return zones with the same union: none inside another, and two as one where that is exact."""
    if len(zones) == 1:
        return list(zones)
    todo = list({zone.key: zone for zone in zones}.values())
    done: list[Zone] = []
    while todo:
        zone = todo.pop(0)
        if any(_inside(zone, other) for other in done):
            continue
        done = [other for other in done if not _inside(other, zone)]
        for k, other in enumerate(done):
            if comparable(zone, other) and not zone.relations:
                around, exact = dbm.join(zone.bounds, other.bounds)
                if exact:
                    del done[k]
                    todo.insert(0, zone.with_bounds(around))
                    break
        else:
            done.append(zone)
    return done


def comparable(a: Zone, b: Zone) -> bool:
    """Whether the bounds of both speak of the same variables."""
    return a.frame is b.frame and a.flipped == b.flipped and _relations(a) == _relations(b)


def _relations(zone: Zone) -> object:
    return zone.key[3] if zone.relations else ()


def _inside(a: Zone, b: Zone) -> bool:
    """Whether a lies in b, as far as one comparison tells."""
    if a.frame is not b.frame:
        return False
    if b.symbolic and proved(b.bounds - b.frame.free).all():
        return True
    if a.flipped != b.flipped or (b.relations and _relations(a) != _relations(b)):
        return False
    return bool(proved(b.bounds - a.bounds).all())


def alike(zones: Sequence[Zone]) -> list[list[Zone]] | None:
    """Return each zone as zones over digits that all share, or None if there are none such."""
    pieces = [[zone] for zone in zones]
    while len({piece.frame for group in pieces for piece in group}) > 1:
        axes = zip(*(piece.frame.axes for group in pieces for piece in group), strict=True)
        for k, axis in enumerate(list(axes)):
            strides = chain(s for reading in axis for s in reading.strides)
            if strides is None:
                return None
            for g, group in enumerate(pieces):
                finer = refined(group, k, strides, _PIECES)
                if finer is None:
                    return None
                pieces[g] = finer
    return pieces


def subtract(zones: Sequence[Zone], other: Zone) -> list[Zone] | None:
    """Return zones of one frame without another of that frame, disjoint if they were.

    None where what remains is no union of zones.
    """
    result: list[Zone] = []
    for zone in zones:
        if other.relations and _relations(zone) != _relations(other):
            return None
        if zone.flipped != other.flipped or len(result) > _PIECES:
            return None
        pieces = [zone.with_bounds(d) for d in dbm.minus(zone.bounds, other.bounds)]
        listed = sorted(zone.explicit)
        for piece in pieces:
            cut = listed and (piece.block(listed) != zone.block(listed)).any()
            rest = settled(piece) if cut else [piece]
            if rest is None:
                return None
            result += rest
    return result


def difference(zones: Sequence[Zone], others: Sequence[Zone]) -> tuple[list[Zone], bool]:
    """Return zones that hold `zones` without `others`, and whether they hold nothing else."""
    readings = alike([*zones, *others])
    if readings is None:
        return list(zones), False
    rest = [piece for group in readings[: len(zones)] for piece in group]
    exact = True
    for other in (piece for group in readings[len(zones) :] for piece in group):
        less = subtract(rest, other)
        exact = exact and less is not None
        rest = rest if less is None else less
    return rest, exact


def covered(zones: Sequence[Zone], cover: Sequence[Zone]) -> bool | None:
    """Whether the union of zones lies in the union of `cover`; None where zones cannot tell."""
    open_ones = [zone for zone in zones if not any(_inside(zone, other) for other in cover)]
    if not open_ones:
        return True
    rest, exact = difference(open_ones, cover)
    return True if not rest else False if exact else None


def disjoint(zones: Sequence[Zone]) -> list[Zone] | None:
    """Return disjoint zones with the same union, or None where that is not a union of zones."""
    readings = alike(zones)
    result: list[Zone] = []
    for zone in (piece for group in readings or () for piece in group):
        rest: list[Zone] | None = [zone]
        for other in result:
            rest = None if rest is None else subtract(rest, other)
        if rest is None or len(result) > _PIECES:
            return None
        result += rest
    return None if readings is None else result


def hull(zones: Sequence[Zone]) -> Zone:
    """Return one zone around all, which speaks of whole axes only."""
    wide = [coarse(zone) for zone in zones]
    bounds = np.max([zone.bounds for zone in wide], axis=0)
    return Zone(wide[0].frame, bounds)


def coarse(zone: Zone) -> Zone:
    """Return a zone around this one with each axis as a single unflipped digit."""
    if zone.simple and zone.frame.is_plain:
        return zone
    if "coarse" not in zone.memory:
        zone.memory["coarse"] = _coarse(zone)
    coarser: Zone = zone.memory["coarse"]
    return coarser


def _coarse(zone: Zone) -> Zone:
    for r in zone.relations if sum(r.matrix.nnz for r in zone.relations) <= _POINTS else ():
        d = zone.bounds.copy()
        place(d, r.variables, hull_of(*r.points(zone.frame.sizes).T))
        zone = Zone(zone.frame, d, zone.flipped, tuple(s for s in zone.relations if s is not r))
    zone = zone.forget({zone.frame.axis_of[v - 1] for v in zone.explicit | zone.flipped})
    f = zone.frame
    if f.is_plain:
        return zone
    split = {k for k, axis in enumerate(f.axes) if len(axis.strides) > 1}
    whole = zone.forget(split)
    plain_frame = whole.frame
    d = whole.bounds.copy()
    digits = [[0], *(f.digits(k) for k in range(len(f.axes)) if f.axes[k].size > 1)]
    stride = (0, *f.strides)
    for a, x in enumerate(digits):
        for b, y in enumerate(digits):
            if a == b:
                continue
            matched = {stride[v]: v for v in y}
            apart = sum(stride[v] * exact(zone.bounds[v, 0]) for v in x)
            apart += sum(stride[v] * exact(zone.bounds[0, v]) for v in y)
            together = apart
            for v in x:
                if (w := matched.get(stride[v])) and v:
                    loose = exact(zone.bounds[v, 0] + zone.bounds[0, w])
                    together += stride[v] * (exact(zone.bounds[v, w]) - loose)
            d[a, b] = min(d[a, b], together)
    closed = dbm.close(d)
    return Zone(plain_frame, d if closed is None else closed)


def gathered(zones: Sequence[Zone], most: int) -> Zone | None:
    """Return one zone that is the union of many; None if it needs a relation of more entries.

    What all have in common stays as it is; the rest becomes one explicit relation.
    """
    readings = alike(zones)
    pieces = [piece for group in readings or () for piece in group]
    if readings is None or any(piece.flipped for piece in pieces):
        return None
    first, *others = pieces
    groups = merge_groups(first.clusters(), (c for other in others for c in other.clusters()))
    explicit = {v for piece in pieces for v in piece.explicit}
    varied = sorted(
        v
        for group in groups
        if set(group) & explicit
        or any((other.block(group) != first.block(group)).any() for other in others)
        for v in group
    )
    lists = []
    for piece in pieces:
        listed = points(piece, varied, most)
        if listed is None:
            return None
        most -= len(listed)
        lists.append(listed)
    old, values = first.frame, np.concatenate(lists)
    whole = {k: old.digits(k) for k in range(len(old.axes)) if set(old.digits(k)) <= set(varied)}
    new = old.replaced({k: plain(old.axes[k].size) for k in whole})
    moved: dict[int, int] = {}
    columns: dict[int, Any] = {}
    for k in range(len(old.axes)):
        if k in whole:
            parts = [old.strides[v - 1] * values[:, varied.index(v)] for v in whole[k]]
            columns.update(dict.fromkeys(new.digits(k), sum(parts)))
        else:
            moved.update(zip(old.digits(k), new.digits(k), strict=True))
    columns.update({moved[v]: values[:, varied.index(v)] for v in varied if v in moved})
    order = sorted(columns)
    count = sum(v <= new.outputs for v in order)
    listing = np.stack([columns[v] for v in order], axis=1)
    r = relation(order[:count], order[count:], listing, new.sizes)
    d = new.free.copy()
    place(d, list(moved.values()), first.block(list(moved)))
    [zone] = with_relation(Zone(new, d), r.rows, r.columns, r.points(new.sizes), r)
    return zone


def recombined(zones: Sequence[Zone]) -> list[Zone]:
    """Return zones with the same union, over as few digits as is exact."""
    result: list[Zone] = []
    groups: list[list[Zone]] = []
    for zone in zones:
        if zone.frame.is_plain:
            result.append(zone)
            continue
        for group in groups:
            if comparable(zone, group[0]):
                group.append(zone)
                break
        else:
            groups.append([zone])
    for group in groups:
        result += _fewest_digits(group)
    return result


def _fewest_digits(group: list[Zone]) -> list[Zone]:
    f = group[0].frame
    for high in range(1, len(f.sizes)):
        if f.axis_of[high - 1] == f.axis_of[high]:
            pairs = _tied_pairs(group, high)
            if pairs and (coarser := _joined(group, pairs)) is not None:
                return recombined(coarser)
    return group


def _tied_pairs(group: list[Zone], high: int) -> dict[int, int] | None:
    """Return all pairs (high, low) of adjacent digits that must join with this one, or None."""
    f = group[0].frame
    ratio = f.strides[high - 1] // f.strides[high]
    ties = [dbm.related(zone.bounds) for zone in group]
    explicit = group[0].relations
    pairs = {high: high + 1}
    todo = [high]
    while todo:
        h = todo.pop()
        partners = {
            int(y)
            for tie in ties
            for x in (h, h + 1)
            for y in (*np.flatnonzero(tie[x]), *np.flatnonzero(tie[:, x]))
            if y
        }
        for y in partners:
            if y in pairs or y in pairs.values():
                continue
            found = next(
                (
                    k
                    for k in (y, y - 1)
                    if 1 <= k < len(f.sizes)
                    and f.axis_of[k - 1] == f.axis_of[k]
                    and same(f.strides[k - 1], ratio * f.strides[k])
                    and k not in pairs
                    and k not in pairs.values()
                    and k + 1 not in pairs
                ),
                None,
            )
            if found is None:
                return None
            pairs[found] = found + 1
            todo.append(found)
    for h, low in pairs.items():
        rounded = not divides(f.strides[h - 1], f.axes[f.axis_of[h - 1]].size)
        if {h, low} & group[0].flipped and rounded:
            return None
        for r in explicit:
            for side in (r.rows, r.columns):
                adjacent = h in side and low in side and side.index(low) == side.index(h) + 1
                if (not adjacent and {h, low} & set(side)) or (adjacent and rounded):
                    return None
    return pairs


def _joined(group: list[Zone], pairs: dict[int, int]) -> list[Zone] | None:
    """Return the zones with these digits joined, or None if they would hold more than before."""
    old = group[0].frame
    axes: dict[int, Axis] = {}
    for h in pairs:
        k = old.axis_of[h - 1]
        axis = axes.get(k, old.axes[k])
        axes[k] = Axis(axis.size, tuple(s for s in axis.strides if s != old.strides[h - 1]))
    new = old.replaced(axes)
    kept = [v for v in range(1, len(old.sizes) + 1) if v not in pairs]
    moved = {v: n for n, v in enumerate(kept, 1)}
    high = {low: h for h, low in pairs.items()}
    touched = set(pairs) | set(high)
    outside = [v for v in kept if v not in touched]
    around: dict[bytes, Zone] = {}
    alone: list[Zone] = []
    for zone in group:
        d = _around(zone, new, kept, high, pairs)
        flipped = frozenset(moved[v] for v in zone.flipped if v in moved)
        relations = tuple(_without_high(r, pairs, moved) for r in zone.relations)
        coarse = Zone(new, d, flipped, relations)
        if _holds_no_more(coarse, group):
            alone.append(coarse)
            continue
        key = zone.block(outside).tobytes()
        if key in around:
            coarse = coarse.with_bounds(np.maximum(around[key].bounds, d))
        around[key] = coarse
    if not all(_holds_no_more(zone, group) for zone in around.values()):
        return None
    return merged([*alone, *around.values()])


def _around(
    zone: Zone, new: Frame, kept: list[int], high: dict[int, int], pairs: dict[int, int]
) -> Bounds:
    """Return the bounds of the joined digits that follow from those of their parts."""
    old, d = zone.frame, zone.bounds
    result = np.empty_like(new.free)
    ratio = {low: old.strides[h - 1] // old.strides[low - 1] for low, h in high.items()}
    order = [0, *kept]
    upper = [exact(d[v, 0]) + ratio.get(v, 0) * exact(d[high.get(v, 0), 0]) for v in order]
    lower = [exact(d[0, v]) + ratio.get(v, 0) * exact(d[0, high.get(v, 0)]) for v in order]
    for a, x in enumerate(order):
        for b, y in enumerate(order):
            bound = upper[a] + lower[b]
            if x in high and y in high:
                bound = min(bound, ratio[x] * exact(d[high[x], high[y]]) + exact(d[x, y]))
            elif x not in high and y not in high:
                bound = exact(d[x, y])
            result[a, b] = bound
    np.fill_diagonal(result, 0)
    closed = dbm.close(result)
    return result if closed is None else closed


def _without_high(r: Relation, pairs: dict[int, int], moved: dict[int, int]) -> Relation:
    """Return an explicit relation with pairs of adjacent digits read as one."""
    rows = tuple(moved[v] for v in r.rows if v not in pairs)
    return Relation(rows, tuple(moved[v] for v in r.columns if v not in pairs), r.matrix)


def _holds_no_more(coarse: Zone, group: list[Zone]) -> bool:
    """Whether the zone over joined digits lies in the union of the finer zones."""
    if _sticks_out(coarse, group):
        return False
    pieces = [coarse]
    for k, axis in enumerate(group[0].frame.axes):
        if (finer := refined(pieces, k, axis.strides, _PIECES)) is None:
            return False
        pieces = finer
    if any(piece.frame is not group[0].frame for piece in pieces):
        return False
    return covered(pieces, group) is True


def _sticks_out(coarse: Zone, group: list[Zone]) -> bool:
    """Whether one of a few points of the zone is in no finer zone: the ends, and next to them."""
    d, fine = coarse.bounds, group[0].frame
    if coarse.relations or d.dtype == object:
        return False
    steps = np.minimum(d[0] + d[:, 0], 1)  # what another value of a variable leaves to the others
    highest = np.minimum(d[:, 0], d.T + (d[:, 0] - steps)[:, None])
    lowest = np.maximum(-d[0], -d + (steps - d[0])[:, None])
    points = np.concatenate([highest, lowest])
    columns = [points[:, 0]]
    for k, axis in enumerate(fine.axes):
        index = 0 * points[:, 0]
        for v in coarse.frame.digits(k):
            value, size = points[:, v], coarse.frame.sizes[v - 1]
            index += coarse.frame.strides[v - 1] * (
                size - 1 - value if v in coarse.flipped else value
            )
        for v, stride, size in zip(fine.digits(k), axis.strides, axis.sizes, strict=True):
            digit = index // stride % size
            columns.append(size - 1 - digit if v in group[0].flipped else digit)
    values = np.stack(columns, axis=1)
    apart = values[:, None, :, None] - values[:, None, None, :]
    inside = (apart <= np.stack([zone.bounds for zone in group])).all(axis=(2, 3))
    return not bool(inside.any(axis=1).all())


_LISTED = 2**22


def count_zone(zone: Zone) -> tuple[int, bool]:
    """Return the number of entries of a zone, and whether it is exact."""
    if zone.symbolic:
        return count_bounds(zone.bounds)
    counts = []
    alone = {frozenset(r.variables): r for r in zone.relations}
    for cluster in zone.clusters():
        if frozenset(cluster) in alone:
            counts.append((alone[frozenset(cluster)].matrix.nnz, True))
        elif set(cluster) & zone.explicit:
            values = points(zone, cluster)
            ranges = zone.block(cluster)
            most = prod((ranges[1:, 0] + ranges[0, 1:] + 1).tolist())
            counts.append((most, False) if values is None else (len(values), True))
        else:
            counts.append(count_bounds(zone.block(cluster)))
    return prod(n for n, _ in counts), all(exact for _, exact in counts)


def count_zones(zones: Sequence[Zone], shape: tuple[int, int]) -> tuple[int, bool]:
    """Return the number of entries of a union of zones, and whether it is exact."""
    if len(zones) <= 1:
        return count_zone(zones[0]) if zones else (0, True)
    apart = disjoint(zones)
    counts = [count_zone(zone) for zone in (zones if apart is None else apart)]
    total = sum(n for n, _ in counts)
    if apart is not None and all(exact for _, exact in counts):
        return total, True
    if all(small(n, _LISTED) for n in (total, *shape)):
        listed = matrix(zones, shape, _LISTED)
        if listed is not None:
            return int(listed.nnz), True
    return min(total, prod(shape)), False
