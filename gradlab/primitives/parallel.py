"""Collectives, as one device's part of the arrays sees them.

An array reads the arrays of the other devices at the places that are said here; which devices those
are, the mesh says.
"""

from dataclasses import replace

from gradlab.patterns import Pattern, maps
from gradlab.primitives.record import Primitive, Site, each, zero_if
from gradlab.primitives.rounding import EXACT, UNKNOWN


def _same_place(site: Site, k: int) -> tuple[Pattern | None, ...]:
    """The entries at the same place."""
    return tuple(
        Pattern.identity(shape) if j == k and shape == site.in_shapes[k] else None
        for j, shape in enumerate(site.out_shapes)
    )


def _other_places(site: Site, k: int) -> tuple[Pattern, ...]:
    """Parts of arrays change places: axes of unchanged size stay equal, if no axis is new."""
    given, made = site.in_shapes[k], site.shape
    named = {site.params.get(key) for key in ("split_axis", "concat_axis")}
    if len(given) != len(made) or site.name == "ragged_all_to_all":
        return site.dense(k)
    pairs = [(a, a) for a, (m, n) in enumerate(zip(made, given)) if m == n and a not in named]
    return (maps.contraction(made, given, tuple(pairs)),)


_ALONE = Primitive(
    name="", reads=_same_place, zero=zero_if(), rounds=EXACT, underflows="never", placed=True
)
_TOGETHER = replace(_ALONE, talks=True)
_MOVED = replace(_TOGETHER, reads=_other_places)

RECORDS = (
    *each(
        _ALONE, "reduced_vary_cast reduced_vary_cast_p vary_unreduced_cast vary_unreduced_cast_p"
    ),
    *each(replace(_TOGETHER, rounds=UNKNOWN), "psum psum_invariant unreduced_psum"),
    *each(_TOGETHER, "pmax pmin ppermute pbroadcast pbroadcast_dynamic preduced"),
    *each(
        _MOVED, "all_gather all_gather_invariant all_gather_reduced all_to_all ragged_all_to_all"
    ),
    *each(replace(_MOVED, rounds=UNKNOWN), "reduce_scatter unreduced_reduce_scatter"),
)
