"""How facts about values pass through an equation: masks, zeros, -inf, positions, static indices.

Facts hold for every input at which the values are not NaN. `-inf` less anything is `-inf`, its
exponential is 0, and 0 times anything is 0: that is what makes causal attention provable.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from gradlab.patterns import Pattern
from gradlab.primitives import Site
from gradlab.primitives.known import Known, told
from gradlab.structure.folding import fold
from gradlab.structure.positions import COMPARISONS, by_position, counted

__all__ = ["FINITE_MASK", "facts"]

FINITE_MASK = "a finite number; use -jnp.inf to have what it hides proved zero"
"""How the note of a mask that is nearly -inf ends; `why` repeats such notes as hints."""

_FOLDED = 1 << 18
_NEARLY = -1e3


def facts(site: Site) -> tuple[Known | None, ...]:
    """Return what is known of each output of an equation."""
    if site.name == "iota":
        return (counted(site),)
    if not any(site.known) or not site.out_shapes:
        return (None,) * len(site.out_shapes)
    if len(site.out_shapes) == 1:
        known = by_position(site) or _folded(site) or _by_rule(site)
        if known is not None:
            return (known,)
    return tuple(_carried(site, output) for output in range(len(site.out_shapes)))


def _by_rule(site: Site) -> Known | None:
    if site.name in ("not", "and", "or") and site.out_dtypes[0].kind != "b":
        return None
    found = _RULES.get(site.name)
    return found(site) if found else None


def _folded(site: Site) -> Known | None:
    """Evaluate an equation whose operands are all known, where that is exact and cheap."""
    if math.prod(site.shape) > _FOLDED and not _repeats(site):
        return None
    values = []
    for known in site.known:
        value = None if known is None else known.value()
        if value is None:
            return None
        values.append(value)
    result = fold(site.name, site.params, values, site.shape, site.out_dtypes[0])
    return None if result is None else Known(array=result)


def _repeats(site: Site) -> bool:
    """Return whether an equation only repeats one number, which takes no memory."""
    return site.name == "broadcast_in_dim" and math.prod(site.in_shapes[0]) == 1


def _carried(site: Site, output: int) -> Known | None:
    """Carry regions of the operands to an output along the primitive's own rule."""
    zero = _zeros(site, output)
    if site.primitive.moves is None and site.name != "convert_element_type":
        return told(support=zero)
    if site.primitive.zero is None or not _maps_zero(site, output, range(len(site.known))):
        return None  # entries of its own, such as those that fill up a gather
    moved = range(len(site.known))[site.primitive.moves or slice(0, 1)]

    def over(read: Callable[[Known], Pattern | None]) -> Pattern | None:
        known = [site.known[k] for k in moved]
        return _union(site, output, moved, [None if k is None else read(k) for k in known])

    return told(zero, over(lambda k: k.above), over(lambda k: k.untrue))


def _zeros(site: Site, output: int) -> Pattern | None:
    """Return the region outside which an output is zero, since what it reads there is zero."""
    regions = [site.nonzero(k) for k in range(len(site.known))]
    told_of = [k for k, region in enumerate(regions) if region is not None]
    if not told_of or site.primitive.zero is None:
        return None
    everything = range(len(site.known))
    found: Pattern | None = None
    for k in told_of:  # zero as soon as this operand is
        if _maps_zero(site, output, [k]):
            found = _both(found, _union(site, output, [k], [regions[k]]))
    if found is not None or not _maps_zero(site, output, everything):
        return found
    needed = [
        k for k in everything if not _maps_zero(site, output, [n for n in everything if n != k])
    ]
    return _union(site, output, needed, [regions[k] for k in needed])


def _maps_zero(site: Site, output: int, operands: Sequence[int]) -> bool:
    """Return whether an output is zero where these operands are."""
    vanishes = tuple(k in operands for k in range(len(site.known)))
    return replace(site, vanishes=vanishes).is_zero(output)


def _union(
    site: Site, output: int, operands: Sequence[int], regions: Sequence[Pattern | None]
) -> Pattern | None:
    """Return where an output reads the regions of some operands; None: everywhere."""
    if all(region is None for region in regions):
        return None
    parts = []
    for k, region in zip(operands, regions):
        local = site.reads(k)[output]
        if local is not None:
            parts.append(local @ (Pattern.region(site.in_shapes[k]) if region is None else region))
    return Pattern.union(parts) if parts else Pattern.zero(site.out_shapes[output], ())


def _both(a: Pattern | None, b: Pattern | None) -> Pattern | None:
    return b if a is None else a if b is None else a & b


def _either(a: Pattern | None, b: Pattern | None) -> Pattern | None:
    return None if a is None or b is None else a | b


def _sides(site: Site, read: Callable[[Known], Pattern | None]) -> list[Pattern | None]:
    """Return a region of each operand, in the output's shape."""
    found: list[Pattern | None] = []
    for known, shape in zip(site.known, site.in_shapes):
        region = None if known is None else read(known)
        if region is not None and shape != site.shape:
            region = Pattern.broadcast(shape, site.shape) @ region
        found.append(region)
    return found


def _product(site: Site) -> Known | None:
    a, b = _sides(site, lambda k: k.nonzero)
    low_a, low_b = _sides(site, lambda k: k.above)
    scaled = _both(low_a if _positive(site, 1) else None, low_b if _positive(site, 0) else None)
    return told(support=_both(a, b), finite=scaled)


def _quotient(site: Site) -> Known | None:
    low = _sides(site, lambda k: k.above)[0] if _positive(site, 1) else None
    return told(support=_sides(site, lambda k: k.nonzero)[0], finite=low)


def _positive(site: Site, k: int) -> bool:
    """Return whether an operand is one positive number, which leaves -inf what it is."""
    known = site.known[k]
    fill = None if known is None else known.fill
    return isinstance(fill, int | float) and fill > 0


def _sum(site: Site) -> Known | None:
    _say_finite(site, [k for k in site.known if k and k.few is not None and k.few.size > 1])
    a, b = _sides(site, lambda k: k.nonzero)
    low_a, low_b = _sides(site, lambda k: k.above)
    return told(support=_either(a, b), finite=_both(low_a, low_b))


def _difference(site: Site) -> Known | None:
    a, b = _sides(site, lambda k: k.nonzero)
    return told(support=_either(a, b), finite=_sides(site, lambda k: k.above)[0])


def _larger(site: Site) -> Known | None:
    a, b = _sides(site, lambda k: k.nonzero)
    low_a, low_b = _sides(site, lambda k: k.above)
    return told(support=_either(a, b), finite=_either(low_a, low_b))


def _smaller(site: Site) -> Known | None:
    a, b = _sides(site, lambda k: k.nonzero)
    low_a, low_b = _sides(site, lambda k: k.above)
    return told(support=_either(a, b), finite=_both(low_a, low_b))


def _exponential(site: Site) -> Known | None:
    return told(support=_sides(site, lambda k: k.above)[0])


def _logarithm(site: Site) -> Known | None:
    return told(finite=_sides(site, lambda k: k.nonzero)[0])


def _negated(site: Site) -> Known | None:
    known = site.known[0]
    return None if known is None else told(support=known.untrue, false=known.nonzero)


def _conjunction(site: Site) -> Known | None:
    a, b = _sides(site, lambda k: k.nonzero)
    not_a, not_b = _sides(site, lambda k: k.untrue)
    return told(support=_both(a, b), false=_either(not_a, not_b))


def _disjunction(site: Site) -> Known | None:
    a, b = _sides(site, lambda k: k.nonzero)
    not_a, not_b = _sides(site, lambda k: k.untrue)
    return told(support=_either(a, b), false=_both(not_a, not_b))


def _chosen(site: Site) -> Known | None:
    """select_n: each case holds only where it may be chosen."""
    which = site.known[0]
    for k, region in enumerate((which.nonzero, which.untrue) if which else (), 1):
        if region is not None and region.is_zero and site.in_shapes[k] == site.shape:
            return site.known[k]  # the other case is never chosen
    everywhere = Pattern.region(site.shape)
    if which is not None and (which.nonzero is not None or which.untrue is not None):
        _say_finite(site, site.known[1:])

    def over(read: Callable[[Known], Pattern | None]) -> Pattern | None:
        parts = []
        narrowed = False
        for k in range(1, len(site.known)):
            [local] = site.reads(k)
            assert local is not None
            known = site.known[k]
            region = None if known is None else read(known)
            narrowed |= region is not None
            parts.append(local @ (everywhere if region is None else region))
        return Pattern.union(parts) if narrowed else None

    return told(over(lambda k: k.nonzero), over(lambda k: k.above), over(lambda k: k.untrue))


def _say_finite(site: Site, masks: Sequence[Known | None]) -> None:
    """Note a mask of zeros and numbers that are nearly -inf: what it hides may not be 0."""
    for known in masks:
        mask = None if known is None else known.few
        if mask is None or mask.dtype.kind in "biucO" or not mask.size:
            continue
        fill = float(mask.min())
        if math.isfinite(fill) and fill <= _NEARLY and ((mask == 0) | (mask <= _NEARLY)).all():
            site.notes.append(f"the mask uses {fill:.3g}, {FINITE_MASK}")


def _compared_with_zero(site: Site) -> Known | None:
    """`x != 0` where x is zero outside a region, and the like."""
    support = site.nonzero(0)
    other = site.known[1]
    zero = other is not None and other.array is not None and not np.any(other.array)
    if support is None or not zero:
        return None
    if site.name in ("ne", "gt", "lt"):
        return told(support=support)
    return told(false=support)


_RULES: dict[str, Callable[[Site], Known | None]] = {
    "mul": _product,
    "and": _conjunction,
    "or": _disjunction,
    "not": _negated,
    "div": _quotient,
    "add": _sum,
    "add_any": _sum,
    "sub": _difference,
    "max": _larger,
    "min": _smaller,
    "exp": _exponential,
    "exp2": _exponential,
    "logistic": _exponential,
    "log": _logarithm,
    "select_n": _chosen,
    **dict.fromkeys(COMPARISONS, _compared_with_zero),
}
