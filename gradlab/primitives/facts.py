"""How facts about values pass through an equation: masks, zeros, -inf, positions, static indices.

Facts hold for every input at which the values are not NaN. `-inf` less anything is `-inf`, its
exponential is 0, and 0 times anything is 0: that is what makes causal attention provable. A mask of
-1e30 does the same while the values that it is laid over are much smaller, and while each row keeps
one of them: `ranges` follows how small, and the rules here ask whether that is granted.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from gradlab.common.arrays import DTypeLike
from gradlab.patterns import Pattern
from gradlab.primitives import ranges
from gradlab.primitives.equation import Shape
from gradlab.primitives.known import Known, told
from gradlab.primitives.ranges import Mark, Marks
from gradlab.primitives.record import Site, complement

FINITE_MASK = "a finite number; use -jnp.inf, and the hidden entries are proved zero"
"""How the note of a mask that is nearly -inf ends; `why` repeats such notes as hints."""

_NEARLY = -1e3


def facts(
    site: Site, value: Callable[[], tuple[Known | None, ...] | None] = lambda: None
) -> tuple[Known | None, ...]:
    """Return what is known of each output of an equation."""
    record = site.primitive
    known = record.affine(site) if record.affine else None
    if known is not None:
        return (known,)
    found = value()
    if found is not None and found[0] and found[0].between:
        return (replace(_ruled(site)[0] or Known(), between=found[0].between),)
    return _ruled(site) if found is None else found


def _ruled(site: Site) -> tuple[Known | None, ...]:
    """Return what the rule of a primitive says of each output."""
    record = site.primitive
    results: tuple[Known | None, ...] = (None,) * len(site.out_shapes)
    if any(site.known):
        known = record.known(site) if record.known else None
        outputs = range(len(site.out_shapes))
        results = (known,) if known else tuple(_carried(site, output) for output in outputs)
    if record.bounded is not None:
        return (_bounded(results[0], site),)
    if record.triangular is not None:
        upper = _upper(site.out_shapes[record.triangular])
        return tuple(upper if k == record.triangular else None for k in range(len(results)))
    if _is_float(site) and not record.settles and any(k and k.masked for k in site.known):
        return tuple(known if known and known.upper else _murky(known) for known in results)
    return results


def _upper(shape: Shape) -> Known | None:
    """Return what is known of matrices that are zero below the diagonal."""
    rank = len(shape)
    return told(Pattern.region(shape, ((rank - 2, rank - 1, None, 0),)))


def _bounded(known: Known | None, site: Site) -> Known:
    upper, lower = _between(site.primitive.bounded or (0.0, 0.0), site.shape, site.out_dtypes[0])
    return replace(known or Known(), upper=upper, lower=lower)


@functools.lru_cache(maxsize=256)
def _between(bounds: tuple[float, float], shape: Shape, dtype: DTypeLike) -> tuple[Marks, Marks]:
    nowhere = Pattern.zero(shape, ())
    low, high = (ranges.rounded([Mark(nowhere, b)], dtype) for b in (-bounds[0], bounds[1]))
    return high, low


def _murky(known: Known | None) -> Known:
    return replace(known or Known(), murky=True)


def _carried(site: Site, output: int) -> Known | None:
    """Carry regions of the operands to an output along the primitive's own rule."""
    zero = _zeros(site, output)
    if site.primitive.moves is None:
        return told(support=zero)
    if site.primitive.zero is None or not _maps_zero(site, output, range(len(site.known))):
        return None  # entries of its own, such as those that fill up a gather
    moved = range(len(site.known))[site.primitive.moves]

    known = [site.known[k] for k in moved]
    untrue = _union(site, output, moved, [None if k is None else k.untrue for k in known])
    upper, lower = _put_together(site, output, moved)
    return told(zero, untrue, upper, lower)


def _put_together(site: Site, output: int, operands: Sequence[int]) -> tuple[Marks, Marks]:
    """Return the bounds of an output whose entries are those of some operands."""
    sides = []
    if _is_float(site):
        local = [(k, site.reads(k)[output]) for k in operands if site.known[k]]
    if not _is_float(site) or len(local) < len(operands):
        return (), ()
    several = [(k, step) for k, step in local if step is not None]
    for read, other in ((_high, _low), (_low, _high)):
        marks = [(read(site.known[k]), step) for k, step in several]
        hidden = [ranges.is_deep(other(site.known[k])) for k, _ in several]
        found = ranges.at_once(marks, hidden) if any(own for own, _ in marks) else ()
        sides.append(found)
    return sides[0], sides[1]


def _is_float(site: Site) -> bool:
    return bool(site.out_dtypes) and ranges.limits_of(site.out_dtypes[0]) is not None


def _high(known: Known | None) -> Marks:
    return () if known is None else known.high


def _low(known: Known | None) -> Marks:
    return () if known is None else known.low


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


def _spread(site: Site, k: int, lower: bool = False) -> Marks:
    """Return the bounds of an operand, or of its negative, in the output's shape."""
    marks, given = (_low if lower else _high)(site.known[k]), site.in_shapes[k]
    if given == site.shape or not marks:
        return marks
    return ranges.shifted(marks, Pattern.broadcast(given, site.shape))


def _laid_over(site: Site, operands: Sequence[int]) -> Site:
    """Grant bounds of what a mask is laid over, where nothing else bounds it.

    A value that is made of masked ones is not ordinary, whatever it is: it has to be followed.
    """
    if site.grants is None or not _is_float(site):
        return site
    masked = any(
        mark.is_deep and (site.name == "select_n" or not mark.region.is_zero)
        for k in operands
        for mark in (*_high(site.known[k]), *_low(site.known[k]))
    )
    if not masked:
        return site
    known = list(site.known)
    for k in operands:
        here = known[k]
        if not site.depends[k] and not (here and (here.high or here.low or here.murky)):
            need = frozenset([site.grants.need("magnitude", k, 0.0, None)])
            nowhere = Pattern.zero(site.in_shapes[k], ())
            own = ranges.rounded([Mark(nowhere, 0.0, 1.0, needs=need)], site.in_dtypes[k])
            known[k] = replace(here or Known(), upper=own, lower=own)
    return replace(site, known=tuple(known))


def of_product(site: Site) -> Known | None:
    """0 where a factor is 0; a number scales bounds."""
    a, b = _sides(site, lambda k: k.nonzero)
    upper, lower = next((found for k in (0, 1) if any(found := _times(site, k))), ((), ()))
    if not (upper or lower) and _is_float(site):
        lower = ranges.multiplied(_spread(site, 0, True), _spread(site, 1, True))
    return told(_both(a, b), _either(*_sides(site, lambda k: k.untrue)), upper, lower)


def of_quotient(site: Site) -> Known | None:
    """0 where the dividend is."""
    upper, lower = _times(site, 0, divided=True)
    return told(_sides(site, lambda k: k.nonzero)[0], None, upper, lower)


def _times(site: Site, k: int, divided: bool = False) -> tuple[Marks, Marks]:
    """Return the bounds of operand `k` times, or divided by, the other, if that is a number."""
    other = site.known[1 - k]
    number = None if other is None else other.fill
    if not _is_float(site) or not isinstance(number, int | float) or not number:
        return (), ()
    factor, dtype = abs(1 / number if divided else number), site.out_dtypes[0]
    if not 0 < factor < math.inf:
        return (), ()
    sides = [ranges.scaled(_spread(site, k, lower), factor, dtype) for lower in (False, True)]
    return (sides[0], sides[1]) if number > 0 else (sides[1], sides[0])


def of_cast(site: Site) -> Known | None:
    """A float stays what it is, rounded. True becomes 1, and so does `1 - False` in integers."""
    known = site.known[0]
    if known is None:
        return None
    upper: Marks = ()
    lower: Marks = ()
    if _is_float(site) and (site.in_dtypes[0].kind == "b" or _is_flag(known)):
        nowhere = Pattern.zero(site.shape, ())
        ones, zeros = Mark(nowhere, 1.0), Mark(nowhere, 0.0)
        upper = (ones, *(Mark(r, 0.0) for r in (known.nonzero,) if r is not None))
        lower = (zeros, *(Mark(r, -1.0) for r in (known.untrue,) if r is not None))
    elif _is_float(site):
        upper, lower = (
            ranges.rounded(marks, site.out_dtypes[0]) for marks in (known.high, known.low)
        )
    return told(known.nonzero, known.untrue, upper, lower)


def _is_flag(known: Known) -> bool:
    """Whether it is 0 wherever it is not 1."""
    a, b = known.nonzero, known.untrue
    return a is not None and b is not None and (a & b).is_zero


def _is_boolean(site: Site) -> bool:
    return site.out_dtypes[0].kind == "b"


def of_sum(site: Site) -> Known | None:
    """0 where both terms are; bounds add."""
    _say_finite(site, [k for k in site.known if k and k.few is not None and k.few.size > 1])
    return _sum(site, False)


def _sum(site: Site, minus: bool) -> Known | None:
    a, b = _sides(site, lambda k: k.nonzero)
    p, q = _sides(site, lambda k: k.untrue)  # outside these, terms are 1
    one = _either(p, b)  # 1 - 0, 1 + 0
    zero, one = (_either(p, q), one) if minus else (None, _both(one, _either(a, q)))
    site = _laid_over(site, (0, 1))
    upper, lower = (
        ranges.summed(_spread(site, 0, side), _spread(site, 1, side != minus), site.out_dtypes[0])
        if _is_float(site)
        else ()
        for side in (False, True)
    )
    return told(_both(zero, _either(a, b)), one, upper, lower)


of_difference = functools.partial(_sum, minus=True)


def of_minus(site: Site) -> Known | None:
    """The bounds of a negated value."""
    known = site.known[0]
    if known is None or not _is_float(site):
        return None
    return told(known.nonzero, None, known.low, known.high)


def _one_of(site: Site, larger: bool) -> Known | None:
    """0 where both are; as large as the larger, or as small as the smaller."""
    a, b = _sides(site, lambda k: k.nonzero)
    site = _laid_over(site, (0, 1))
    upper, lower = (
        ranges.extreme(_spread(site, 0, side), _spread(site, 1, side), larger != side)
        for side in (False, True)
    )
    return told(_either(a, b), None, upper, lower)


of_larger = functools.partial(_one_of, larger=True)
of_smaller = functools.partial(_one_of, larger=False)


def _extreme(site: Site, sign: int) -> Known | None:
    """The largest, or smallest, of what an entry reads, of which some is certainly there."""
    known = site.known[0]
    local = site.reads(0)[0]
    if known is None or local is None or not _is_float(site) or 0 in site.in_shapes[0]:
        return told(_zeros(site, 0))
    over, under = (known.high, known.low) if sign > 0 else (known.low, known.high)
    highest = ranges.shifted(over, local)
    lowest = []
    for mark in under:
        reached = ranges.reached(mark.region, local)
        missed = None if reached is None else complement(reached)
        if missed is not None:
            lowest.append(replace(mark, region=missed))
        deep = [m for m in highest if m.is_deep]
        masks = [m.region for m in over if m.is_deep]
        # an entry is a mask's or it is bounded, which of regions has to be seen
        kept = not mark.is_deep if mark.region.is_dense else _is_apart(mark.region, masks)
        if (
            site.grants is not None
            and deep
            and kept
            and not (missed is not None and missed.is_zero)
        ):
            empty = Pattern.union(complement(mark.region) for mark in deep)
            level = max(m.offset for m in deep) / 2
            need = site.grants.need("nonempty", 0, level, empty)
            lowest.append(replace(mark, region=empty, needs=mark.needs | {need}))
    sides = ranges.rounded(highest, site.out_dtypes[0]), ranges.rounded(lowest, site.out_dtypes[0])
    upper, lower = sides if sign > 0 else sides[::-1]
    return told(_zeros(site, 0), None, upper, lower)


def _is_apart(region: Pattern, others: Sequence[Pattern]) -> bool:
    return region.is_zero or any((region & other).is_zero for other in others)


of_largest, of_smallest = functools.partial(_extreme, sign=1), functools.partial(_extreme, sign=-1)


def of_exponential(site: Site) -> Known | None:
    """0 where the argument is so small that its exponential is."""
    known = site.known[0]
    limits = ranges.limits_of(site.out_dtypes[0])
    if known is None or limits is None:
        return None
    smallest = math.log(limits.smallest) - 1  # 1: rounding, of exp and of this
    if site.name == "exp2":
        smallest /= math.log(2)
    return told(_unless(site, known.high, smallest))


def _unless(site: Site, marks: Sequence[Mark], level: float) -> Pattern | None:
    """Return the region outside which a value is certainly at most `level`."""
    found: Pattern | None = None
    for mark in sorted(marks, key=lambda mark: len(mark.needs)):
        if mark.region.is_dense or (found is not None and mark.region.covers(found)):
            continue
        most = (level - mark.offset) / mark.slope if mark.slope else math.inf
        if mark.offset > level:
            if mark.needs and mark.slope and mark.offset <= ranges.DEEP:
                fill = f"{mark.offset:.3g}"
                site.notes.append(f"a mask of {fill} does not hide; it weighs by exp({fill})")
            continue
        free = not mark.needs
        if free or (site.grants and site.grants.granted(mark.needs, min(most, mark.limit))):
            found = _both(found, mark.region)
    return found


def of_logarithm(site: Site) -> Known | None:
    """-inf where the argument is 0."""
    [region] = _sides(site, lambda k: k.nonzero)
    return None if region is None else told(upper=(Mark(region, -math.inf),))


def of_negation(site: Site) -> Known | None:
    """`not`, of booleans."""
    known = site.known[0] if _is_boolean(site) else None
    return None if known is None else told(support=known.untrue, false=known.nonzero)


def of_gather(site: Site) -> Known | None:
    """0 also where a window lies beyond the array, if 0 stands for what is there."""
    known = _carried(site, 0)
    fills = "FILL" in str(site.params["mode"]) and site.params.get("fill_value") == 0
    if not fills or site.value(1) is None:
        return known
    [local] = site.reads(0)
    assert local is not None
    inside = local.rows()
    if inside.is_dense:
        return known
    known = known or Known()
    return replace(known, support=inside if known.support is None else inside & known.support)


def _joined(site: Site, conjunction: bool) -> Known | None:
    """`and`, or `or`, of booleans."""
    if not _is_boolean(site):
        return None
    true, false = (_sides(site, read) for read in (lambda k: k.nonzero, lambda k: k.untrue))
    join, meet = (_both, _either) if conjunction else (_either, _both)
    return told(support=join(*true), false=meet(*false))


of_conjunction = functools.partial(_joined, conjunction=True)
of_disjunction = functools.partial(_joined, conjunction=False)


def of_choice(site: Site) -> Known | None:
    """select_n: each case holds only where it may be chosen."""
    which = site.known[0]
    cases = range(len(site.known))[1:]
    for k, region in enumerate((which.nonzero, which.untrue) if which else (), 1):
        if region is not None and region.is_zero and site.in_shapes[k] == site.shape:
            return _laid_over(site, cases).known[k]  # the other case is never chosen
    everywhere = Pattern.region(site.shape)
    if which is not None and (which.nonzero is not None or which.untrue is not None):
        _say_finite(site, site.known[1:])

    def over(read: Callable[[Known], Pattern | None]) -> Pattern | None:
        parts = []
        narrowed = False
        for k in cases:
            [local] = site.reads(k)
            assert local is not None
            known = site.known[k]
            region = None if known is None else read(known)
            narrowed |= region is not None
            parts.append(local @ (everywhere if region is None else region))
        return Pattern.union(parts) if narrowed else None

    regions = over(lambda k: k.nonzero), over(lambda k: k.untrue)
    unclear = which is None or (which.nonzero is None and which.untrue is None)
    if unclear and site.grants and any(ranges.is_deep(_high(known)) for known in site.known[1:]):
        site.grants.unclear()
    site = _laid_over(site, cases)
    upper, lower = _put_together(site, 0, cases)
    return told(*regions, upper, lower)


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
    """`x != 0` where x is zero outside a region, and values whose bounds are disjoint."""
    first, other = site.known
    support: Pattern | None = None
    false: Pattern | None = None
    if first is not None and other is not None and not np.any(other.array is None or other.array):
        if site.name in ("ne", "gt", "lt"):
            support, false = first.nonzero, first.untrue if site.name == "ne" else None
        else:
            support, false = first.untrue if site.name == "eq" else None, first.nonzero
    less, more = _apart(site, False), _apart(site, True)
    if site.name == "eq":
        support = _both(support, _both(less, more))
    elif site.name == "ne":
        false = _both(false, _both(less, more))
    else:
        smaller = site.name in ("lt", "le")
        support = _both(support, more if smaller else less)
        false = _both(false, less if smaller else more)
    return told(support, false)


def _apart(site: Site, more: bool) -> Pattern | None:
    """Return the region outside which the first operand is certainly less, or more."""
    dtype = site.in_dtypes[0]
    if ranges.limits_of(dtype) is None:
        return None
    a, b = _spread(site, 0, more), _spread(site, 1, not more)
    if all(mark.region.is_zero for mark in (*a, *b)):
        return None
    return _unless(site, ranges.summed(a, b, dtype), -0.5)
