"""How large a value can be, region by region: why a mask of -1e30 hides what it covers.

A mark says that outside a region, values are at most `offset + slope * M`. Here M bounds the size
of the values that masks are laid over, and a caller may grant it: scores of at most 1e6, say. The
exponential of a value far enough below the maximum of its row is exactly 0, so a mark becomes the
condition under which a mask hides. Lower bounds are marks of the negated value.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from gradlab.patterns import Pattern
from gradlab.patterns.size import small

Kind = Literal["magnitude", "nonempty", "finite"]

_MARKS = 6
_NEARLY = 1.001
_LISTED = 1 << 22
DEEP = -10.0
"""From here on, a bound may be that of a mask."""


class Need(NamedTuple):
    """What a mark rests on: a condition, but for the number."""

    kind: Kind
    what: str
    source: str


@dataclass(frozen=True, eq=False)
class Mark:
    """Outside `region`, values are at most `offset + slope * M`."""

    region: Pattern  # indices of the array
    offset: float  # the bound at M = 0
    slope: float = 0.0  # how often M is added; never negative
    limit: float = math.inf  # the largest M at which this holds
    needs: frozenset[Need] = frozenset()  # what is granted besides

    @property
    def is_deep(self) -> bool:
        """Whether the bound may be that of a mask."""
        return self.offset <= DEEP

    def is_kept_by(self, other: "Mark") -> bool:
        """Whether another mark says at least as much, to the last bit: steps add up."""
        exact = other.slope <= self.slope and other.limit >= self.limit
        return exact and self.follows_from(other)

    def follows_from(self, other: "Mark") -> bool:
        """Whether another mark says at least as much, but for what steps of a loop round."""
        return (
            other.offset <= self.offset
            and other.slope <= self.slope * _NEARLY
            and other.limit * _NEARLY >= self.limit
            and other.needs <= self.needs
            and (other.region.is_zero or self.region.covers(other.region))
        )


Marks = tuple[Mark, ...]


def is_deep(marks: Iterable[Mark]) -> bool:
    """Whether a value may be masked."""
    return any(mark.is_deep for mark in marks)


def _few(marks: Iterable[Mark]) -> Marks:
    """Return the marks that say most.

    One of the whole array says something where an entry of each row is there: then it bounds that.
    """
    kept: list[Mark] = []
    for mark in sorted(marks, key=_rank) if len(marks := list(marks)) > 1 else marks:
        useful = mark.is_deep or mark.needs or not mark.region.is_dense
        if useful and mark.offset < math.inf and not any(map(mark.follows_from, kept)):
            kept.append(mark)
    return tuple(kept[:_MARKS])


def _rank(mark: Mark) -> tuple[bool, bool, float, int]:
    return mark.region.is_dense, not mark.region.is_zero, mark.offset, len(mark.needs)


def summed(a: Sequence[Mark], b: Sequence[Mark], dtype: Any) -> Marks:
    """Return the marks of a sum; -inf plus anything is -inf, where it is not NaN."""
    endless = [mark for mark in (*a, *b) if mark.offset == -math.inf]
    pairs = [
        Mark(
            x.region | y.region,
            x.offset + y.offset,
            x.slope + y.slope,
            min(x.limit, y.limit),
            x.needs | y.needs,
        )
        for x, y in itertools.product(a, b)
        if -math.inf not in (x.offset, y.offset)
    ]
    return rounded([*endless, *pairs], dtype)


def scaled(marks: Iterable[Mark], factor: float, dtype: Any) -> Marks:
    """Return the marks of a value times a positive number."""
    return rounded(
        (replace(m, offset=m.offset * factor, slope=m.slope * factor) for m in marks), dtype
    )


def multiplied(a: Sequence[Mark], b: Sequence[Mark]) -> Marks:
    """Return lower bounds of a product, as marks, where both factors have positive ones."""
    pairs = [(x, y) for x, y in itertools.product(a, b) if x.slope == y.slope == 0]
    return _few(
        replace(_weakest((x, y), x.region | y.region), offset=-0.99 * x.offset * y.offset)
        for x, y in pairs
        if -1e9 < x.offset < -1e-9 and -1e9 < y.offset < -1e-9
    )


class Limits(NamedTuple):
    """What a floating dtype can hold."""

    unit: float
    largest: float
    smallest: float


@functools.lru_cache(maxsize=64)
def limits_of(dtype: Any) -> Limits | None:
    """Return what a dtype can hold; None if it is not a real floating one."""
    if not jnp.issubdtype(dtype, jnp.floating):
        return None
    found: Any = jnp.finfo(dtype)  # type: ignore[no-untyped-call]  # it has no types
    return Limits(float(found.eps), float(found.max), float(found.smallest_subnormal))


def rounded(marks: Iterable[Mark], dtype: Any) -> Marks:
    """Return the marks of a value that a dtype rounds, outwards; what overflows is infinite."""
    limits = limits_of(dtype)
    if limits is None:
        return ()
    unit, largest, _ = limits
    found = []
    for mark in marks:
        offset, slope, limit = mark.offset, mark.slope * (1 + unit), mark.limit
        if offset != -math.inf:
            offset += unit * abs(offset)
            if slope == 0 and offset < -largest * (1 + unit):
                offset = -math.inf
            elif offset + slope > largest and (offset > largest or not slope):
                continue
            elif slope:
                limit = min(limit, (largest - offset) / slope)
        found.append(replace(mark, offset=offset, slope=slope, limit=limit))
    return _few(found)


def shifted(marks: Iterable[Mark], local: Pattern) -> Marks:
    """Return the marks of entries that are moved; all of `local`'s outputs are among them."""
    return tuple(replace(mark, region=_moved(local, mark.region)) for mark in marks)


def _moved(local: Pattern, region: Pattern) -> Pattern:
    return Pattern.zero(local.output_shape, ()) if region.is_zero else local @ region


def at_once(parts: Sequence[tuple[Sequence[Mark], Pattern]], hidden: Sequence[bool]) -> Marks:
    """Return the marks of an array put together from several: a choice, a concatenation.

    A mark of the whole array leaves out some parts: these have to be masks, which `hidden` says.
    """
    options: list[list[Mark]] = []
    masks: list[bool] = []
    for (marks, local), is_mask in zip(parts, hidden, strict=True):
        whole = local @ Pattern.region(local.input_shape)
        if not whole.is_zero:
            unbounded = Mark(whole, -math.inf)  # its entries lie in the region: no bound is needed
            options.append([*shifted(marks, local), unbounded])
            masks.append(is_mask)
    found = []
    for several in itertools.islice(itertools.product(*options), 1 << _MARKS):
        bounds = [mark for mark, own in zip(several, options) if mark is not own[-1]]
        if bounds:
            made = _weakest(bounds, Pattern.union(mark.region for mark in several))
            left = (m for m, mark, own in zip(masks, several, options) if mark is own[-1])
            if made.is_deep or not made.region.is_dense or all(left):
                found.append(made)
    return _few(found)


def _weakest(marks: Sequence[Mark], region: Pattern) -> Mark:
    return Mark(
        region,
        max(mark.offset for mark in marks),
        max(mark.slope for mark in marks),
        min(mark.limit for mark in marks),
        frozenset().union(*(mark.needs for mark in marks)),
    )


def extreme(a: Sequence[Mark], b: Sequence[Mark], larger: bool) -> Marks:
    """Return the marks of the larger, or smaller, of two values, entry by entry."""
    pairs = list(itertools.product(a, b))
    if larger:
        return _few(_weakest(pair, pair[0].region | pair[1].region) for pair in pairs)
    common = [_weakest(pair, pair[0].region & pair[1].region) for pair in pairs]
    return _few([*a, *b, *common])


def reached(region: Pattern, local: Pattern) -> Pattern | None:
    """Return which outputs certainly read an index outside a region; None where nothing tells."""
    shape = local.output_shape
    found = local @ (Pattern.region(region.output_shape) - region)
    if found.widened and not local.widened and all(small(n, _LISTED) for n in local.shape):
        kept = local.to_scipy().astype(np.int64) @ (~region.to_dense()).astype(np.int64)
        found = Pattern.explicit(kept, shape, ())
    return None if found.widened else found
