"""Fixpoints: patterns of loops, which come to rest because growing bounds are dropped.

Widening is that of Cousot and Cousot (1977) on difference bounds (Mine 2001): a bound that the next
round would loosen is dropped at once. There are finitely many bounds to drop, so every chain ends.
"""

from typing import TYPE_CHECKING

import numpy as np

from gradlab.errors import InputError
from gradlab.patterns import bounds as dbm
from gradlab.patterns.unions import coarse, covered, hull
from gradlab.patterns.zone import Zone

if TYPE_CHECKING:
    from gradlab.patterns.pattern import Pattern

__all__ = ["closure", "widen"]

_ROUNDS = 64
_PATIENCE = 12
"""Zones beyond which a closure is widened."""


def widen(a: "Pattern", b: "Pattern") -> "Pattern":
    """Return a pattern around both in which the bounds that b would loosen are dropped."""
    fresh = [zone for zone in b.zones if not covered([zone], a.zones)]
    if not fresh or not a.zones:
        return a if not fresh else b
    zones = list(a.zones)
    for zone in map(coarse, fresh):
        alike = [z for z in zones if z.frame is zone.frame and z.simple]
        if not alike:
            whole = hull(zones)
            zones, alike = [whole], [whole]
        nearest = max(alike, key=lambda z: int((zone.bounds <= z.bounds).sum()))
        zones = [z for z in zones if z is not nearest] + [_stable(nearest, zone)]
    notes = (*a.widened, *b.widened, "a loop's growing bounds")
    return type(a).of_zones(a.output_shape, a.input_shape, zones, notes)


def _stable(old: Zone, new: Zone) -> Zone:
    """Return the zone of the old bounds that hold of the new one too."""
    kept = np.where(new.bounds <= old.bounds, old.bounds, old.frame.free)
    closed = dbm.close(kept)
    return old.with_bounds(kept if closed is None else closed)


def closure(pattern: "Pattern") -> "Pattern":
    """Return the reflexive transitive closure, by squaring."""
    if pattern.output_shape != pattern.input_shape:
        raise InputError(
            f"closure: the pattern maps {pattern.input_shape} to {pattern.output_shape}; only one "
            "from a shape to itself can be repeated"
        )
    reached = pattern | type(pattern).identity(pattern.output_shape)
    for _ in range(_ROUNDS):
        twice = reached | reached @ reached
        if reached.covers(twice):
            return reached
        reached = twice if len(twice.zones) <= _PATIENCE else reached.widen(twice)
    return type(pattern).dense(pattern.output_shape, pattern.input_shape)
