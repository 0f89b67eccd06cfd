"""Putting digits together again: the inverse of splitting, wherever it is exact.

After a reshape there and back, an axis is still written in several digits. Two adjacent digits
become one in all zones at once, together with the digits they are tied to, if the zones around the
joined digits, split again, hold nothing that was not there. So `h < h'` with (`h = h'` and `l <=
l'`) is one order again.
"""

from collections.abc import Sequence

import numpy as np

from gradlab.patterns import bounds as dbm
from gradlab.patterns.bounds import Bounds
from gradlab.patterns.digits import Axis, Frame
from gradlab.patterns.splitting import refine
from gradlab.patterns.unions import comparable, covered, merged
from gradlab.patterns.zone import Relation, Zone

__all__ = ["recombined"]


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
                    and f.strides[k - 1] == ratio * f.strides[k]
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
        rounded = f.axes[f.axis_of[h - 1]].size % f.strides[h - 1]
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
    upper = [int(d[v, 0]) + ratio.get(v, 0) * int(d[high.get(v, 0), 0]) for v in order]
    lower = [int(d[0, v]) + ratio.get(v, 0) * int(d[0, high.get(v, 0)]) for v in order]
    for a, x in enumerate(order):
        for b, y in enumerate(order):
            bound = upper[a] + lower[b]
            if x in high and y in high:
                bound = min(bound, ratio[x] * int(d[high[x], high[y]]) + int(d[x, y]))
            elif x not in high and y not in high:
                bound = int(d[x, y])
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
    pieces = [coarse]
    for k, axis in enumerate(group[0].frame.axes):
        finer = [refine(piece, k, axis.strides) for piece in pieces]
        if None in finer:
            return False
        pieces = [piece for parts in finer for piece in parts or ()]
    if any(piece.frame is not group[0].frame for piece in pieces):
        return False
    return covered(pieces, group) is True
