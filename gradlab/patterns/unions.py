"""Unions of zones: without repetition, subtracted from each other, held inside each other.

Subtracting a zone leaves one piece for each of its bounds that cuts, and the pieces are disjoint.
So containment in a union, the disjoint form that counting needs, and the complement of a mask are
all exact, not only zone by zone.
"""

from collections.abc import Sequence

import numpy as np

from gradlab.patterns import bounds as dbm
from gradlab.patterns.composing import with_relation
from gradlab.patterns.digits import chain
from gradlab.patterns.points import points
from gradlab.patterns.splitting import refine
from gradlab.patterns.zone import Zone, merge_groups

__all__ = ["ZONES", "alike", "covered", "difference", "disjoint", "gathered", "hull", "merged"]

ZONES = 64
"""The most zones of one pattern."""

_PIECES = 2048
_POINTS = 2**20


def merged(zones: Sequence[Zone]) -> list[Zone]:
    """Return zones with the same union: none inside another, and two as one where that is exact."""
    todo = list({zone.key: zone for zone in zones}.values())
    if len(todo) == 1:
        return todo
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
    if b.symbolic and (b.bounds == b.frame.free).all():
        return True
    if a.flipped != b.flipped or (b.relations and _relations(a) != _relations(b)):
        return False
    return bool((a.bounds <= b.bounds).all())


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
                finer = [refine(piece, k, strides) for piece in group]
                pieces[g] = [piece for parts in finer for piece in parts or ()]
                if None in finer or len(pieces[g]) > _PIECES:
                    return None
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
        result += [zone.with_bounds(d) for d in dbm.minus(zone.bounds, other.bounds)]
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
    exact = exact and all(piece.symbolic for piece in rest)  # bounds may cut a relation to nothing
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
            apart = sum(stride[v] * int(zone.bounds[v, 0]) for v in x)
            apart += sum(stride[v] * int(zone.bounds[0, v]) for v in y)
            together = apart
            for v in x:
                if (w := matched.get(stride[v])) and v:
                    loose = int(zone.bounds[v, 0] + zone.bounds[0, w])
                    together += stride[v] * (int(zone.bounds[v, w]) - loose)
            d[a, b] = min(d[a, b], together)
    closed = dbm.close(d)
    return Zone(plain_frame, d if closed is None else closed)


def gathered(zones: Sequence[Zone]) -> tuple[list[Zone], bool]:
    """Return one zone around many, and whether it is their union.

    What all have in common stays as it is; the rest becomes one explicit relation if it is small,
    else the hull.
    """
    readings = alike(zones)
    pieces = [piece for group in readings or () for piece in group]
    if readings is not None and not any(piece.flipped for piece in pieces):
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
        values = [points(piece, varied, _POINTS // len(pieces)) for piece in pieces]
        rows = [v for v in varied if v <= first.frame.outputs]
        if not any(v is None for v in values):
            together = np.unique(np.concatenate([v for v in values if v is not None]), axis=0)
            base = Zone(first.frame, first.bounds)
            return with_relation(base, rows, varied[len(rows) :], together), True
    return [hull(zones)], False
