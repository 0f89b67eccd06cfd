"""How facts about values pass through an equation: masks, zeros, -inf, positions, static indices.

Facts hold for every input at which the values are not NaN. `-inf` less anything is `-inf`, its
exponential is 0, and 0 times anything is 0: that is what makes causal attention provable.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from gradlab.patterns import Pattern
from gradlab.primitives.known import Known, told
from gradlab.primitives.record import Site

__all__ = [
    "FINITE_MASK",
    "facts",
    "of_cast",
    "of_choice",
    "of_comparison",
    "of_conjunction",
    "of_difference",
    "of_disjunction",
    "of_exponential",
    "of_larger",
    "of_logarithm",
    "of_negation",
    "of_product",
    "of_quotient",
    "of_smaller",
    "of_sum",
]

FINITE_MASK = "a finite number; use -jnp.inf to have what it hides proved zero"
"""How the note of a mask that is nearly -inf ends; `why` repeats such notes as hints."""

_NEARLY = -1e3


def facts(
    site: Site, value: Callable[[], tuple[Known, ...] | None] = lambda: None
) -> tuple[Known | None, ...]:
    """Return what is known of each output of an equation.

    Args:
        site: the equation.
        value: evaluates it, where all operands are known.
    """
    record = site.primitive
    known = record.affine(site) if record.affine else None
    if known is None and (found := value()) is not None:
        return found
    if known is None and record.known and any(site.known):
        known = record.known(site)
    if known is not None:
        return (known,)
    if not any(site.known):
        return (None,) * len(site.out_shapes)
    return tuple(_carried(site, output) for output in range(len(site.out_shapes)))


def _carried(site: Site, output: int) -> Known | None:
    """Carry regions of the operands to an output along the primitive's own rule."""
    zero = _zeros(site, output)
    if site.primitive.moves is None:
        return told(support=zero)
    if site.primitive.zero is None or not _maps_zero(site, output, range(len(site.known))):
        return None  # entries of its own, such as those that fill up a gather
    moved = range(len(site.known))[site.primitive.moves]

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


def of_product(site: Site) -> Known | None:
    """0 where a factor is 0; -inf where it is scaled by a positive number."""
    a, b = _sides(site, lambda k: k.nonzero)
    low_a, low_b = _sides(site, lambda k: k.above)
    scaled = _both(low_a if _positive(site, 1) else None, low_b if _positive(site, 0) else None)
    return told(support=_both(a, b), finite=scaled)


def of_quotient(site: Site) -> Known | None:
    """0 where the dividend is."""
    low = _sides(site, lambda k: k.above)[0] if _positive(site, 1) else None
    return told(support=_sides(site, lambda k: k.nonzero)[0], finite=low)


def of_cast(site: Site) -> Known | None:
    """A cast to integers leaves nothing of -inf, one to booleans makes it True."""
    known = site.known[0]
    if known is None:
        return None
    floats = not {dtype.kind for dtype in (*site.in_dtypes, *site.out_dtypes)} & set("biuc")
    return told(known.nonzero, known.above if floats else None, known.untrue)


def _is_boolean(site: Site) -> bool:
    return site.out_dtypes[0].kind == "b"


def _positive(site: Site, k: int) -> bool:
    """Return whether an operand is one positive number, which leaves -inf what it is."""
    known = site.known[k]
    fill = None if known is None else known.fill
    return isinstance(fill, int | float) and fill > 0


def of_sum(site: Site) -> Known | None:
    """0 where both terms are; -inf where one is."""
    _say_finite(site, [k for k in site.known if k and k.few is not None and k.few.size > 1])
    a, b = _sides(site, lambda k: k.nonzero)
    low_a, low_b = _sides(site, lambda k: k.above)
    return told(support=_either(a, b), finite=_both(low_a, low_b))


def of_difference(site: Site) -> Known | None:
    """0 where both are; -inf where the first is."""
    a, b = _sides(site, lambda k: k.nonzero)
    return told(support=_either(a, b), finite=_sides(site, lambda k: k.above)[0])


def of_larger(site: Site) -> Known | None:
    """0, or -inf, where both are."""
    a, b = _sides(site, lambda k: k.nonzero)
    low_a, low_b = _sides(site, lambda k: k.above)
    return told(support=_either(a, b), finite=_either(low_a, low_b))


def of_smaller(site: Site) -> Known | None:
    """0 where both are; -inf where one is."""
    a, b = _sides(site, lambda k: k.nonzero)
    low_a, low_b = _sides(site, lambda k: k.above)
    return told(support=_either(a, b), finite=_both(low_a, low_b))


def of_exponential(site: Site) -> Known | None:
    """0 where the argument is -inf."""
    return told(support=_sides(site, lambda k: k.above)[0])


def of_logarithm(site: Site) -> Known | None:
    """-inf where the argument is 0."""
    return told(finite=_sides(site, lambda k: k.nonzero)[0])


def of_negation(site: Site) -> Known | None:
    """`not`, of booleans."""
    known = site.known[0] if _is_boolean(site) else None
    return None if known is None else told(support=known.untrue, false=known.nonzero)


def of_conjunction(site: Site) -> Known | None:
    """`and`, of booleans."""
    if not _is_boolean(site):
        return None
    a, b = _sides(site, lambda k: k.nonzero)
    not_a, not_b = _sides(site, lambda k: k.untrue)
    return told(support=_both(a, b), false=_either(not_a, not_b))


def of_disjunction(site: Site) -> Known | None:
    """`or`, of booleans."""
    if not _is_boolean(site):
        return None
    a, b = _sides(site, lambda k: k.nonzero)
    not_a, not_b = _sides(site, lambda k: k.untrue)
    return told(support=_either(a, b), false=_both(not_a, not_b))


def of_choice(site: Site) -> Known | None:
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


def of_comparison(site: Site) -> Known | None:
    """`x != 0` where x is zero outside a region, and the like."""
    support = site.nonzero(0)
    other = site.known[1]
    zero = other is not None and other.array is not None and not np.any(other.array)
    if support is None or not zero:
        return None
    if site.name in ("ne", "gt", "lt"):
        return told(support=support)
    return told(false=support)
