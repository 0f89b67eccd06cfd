"""The number of entries of zones and of their unions, in Python integers.

A zone is a product of clusters. A union is counted over disjoint zones; where zones cannot be
subtracted from each other, what they have in common is a factor and the rest is listed, up to a
limit; beyond it the sum over the zones is an upper bound.
"""

from collections.abc import Sequence
from math import prod

from gradlab.patterns.counting import count_bounds
from gradlab.patterns.points import matrix, points
from gradlab.patterns.unions import disjoint
from gradlab.patterns.zone import Zone

__all__ = ["count_zone", "count_zones"]

_LISTED = 2**22


def count_zone(zone: Zone) -> tuple[int, bool]:
    """Return the number of entries of a zone, and whether it is exact."""
    if zone.symbolic:
        return count_bounds(zone.bounds)
    counts = []
    for cluster in zone.clusters():
        if set(cluster) & zone.explicit:
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
    if total <= _LISTED and max(shape) <= _LISTED:
        listed = matrix(zones, shape, _LISTED)
        if listed is not None:
            return int(listed.nnz), True
    return min(total, prod(shape)), False
