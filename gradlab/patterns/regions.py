"""Regions inside patterns: the zone that holds some axes of a pattern to a set of indices."""

from collections.abc import Sequence

from gradlab.patterns.digits import frame, plain
from gradlab.patterns.zone import Zone, place

__all__ = ["embedded"]


def embedded(
    zone: Zone, places: Sequence[int], shape: tuple[tuple[int, ...], tuple[int, ...]]
) -> Zone:
    """Return a region's zone within a pattern's shape: axis k at `places[k]`, others free."""
    axes = [plain(size) for side in shape for size in side]
    for k, axis in zip(places, zone.frame.output, strict=True):
        axes[k] = axis
    n = len(shape[0])
    whole = frame(tuple(axes[:n]), tuple(axes[n:]))
    moved = {
        v: w
        for k, position in enumerate(places)
        for v, w in zip(zone.frame.digits(k), whole.digits(position), strict=True)
    }
    d = whole.free.copy()
    place(d, list(moved.values()), zone.block(list(moved)))
    relations = (r.moved(moved).between(whole.outputs, whole.sizes) for r in zone.relations)
    return Zone(whole, d, frozenset(moved[v] for v in zone.flipped), tuple(relations))
