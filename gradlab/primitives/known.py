"""What is known of a value before the program runs, whatever its inputs are.

A mask made of comparisons of positions is a region of indices; a score outside a mask is -inf and
its exponential 0; an array of indices may be written into the program. Each is a fact that can
only make a pattern smaller. Regions are patterns with no input axes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from gradlab.common.arrays import NumPyArray as Array
from gradlab.patterns import Pattern
from gradlab.patterns.size import has_number, small
from gradlab.primitives.ranges import Mark

Shape = tuple[int, ...]

MATERIALISED = 1 << 20
"""Entries up to which an affine array or a region of an array is written out."""

_LONG = 1 << 10
"""Entries from which on a region is also looked for in what is not in it."""

_WIDE = 1e3
"""An array with larger values may be a mask."""


@dataclass(frozen=True)
class Affine:
    """An integer array: the entry at index i is `offset + sum_k steps[k] * i[k]`."""

    shape: Shape
    steps: tuple[int, ...]
    offset: int

    @property
    def written(self) -> bool:
        """Whether it is small enough to be written out."""
        return small(prod(self.shape), MATERIALISED) and has_number(self.offset)

    def write(self) -> Array:
        """Return the array."""
        result = np.full(self.shape, self.offset, dtype=np.int64)
        for axis, step in enumerate(self.steps):
            ruler = np.arange(self.shape[axis], dtype=np.int64) * step
            result += ruler.reshape((-1,) + (1,) * (len(self.shape) - axis - 1))
        return result


@dataclass(frozen=True, eq=False)
class Known:
    """Facts about one array."""

    array: Array | None = None  # its value
    affine: Affine | None = None  # its value as a function of the index
    support: Pattern | None = None  # the region outside which it is 0 (False)
    false: Pattern | None = None  # the region outside which it is 1 (True)
    upper: tuple[Mark, ...] = ()  # bounds from above, where a rule has found any
    lower: tuple[Mark, ...] = ()  # bounds of the negated value from above
    murky: bool = False  # whether it is made of masked values in a way that no rule follows
    between: tuple[Array, Array] | None = None  # bounds of its value
    # what is known of each entry of the last axis, where that is not one thing
    columns: "tuple[Known | None, ...]" = ()

    def value(self) -> Array | None:
        """The whole value, if it is known and not too large to be written out."""
        if self.array is not None:
            return self.array
        if self.affine is not None and self.affine.written:
            return self.affine.write()
        return None

    def entry(self, index: int) -> Any:
        """The integer at an index of a vector, or of an array of one entry, if it is known."""
        if self.affine is not None:
            return self.affine.offset + sum(step * index for step in self.affine.steps)
        if self.array is None or self.array.dtype.kind not in "iu":
            return None
        return int(self.array.reshape(-1)[index])

    @cached_property
    def fill(self) -> Any:
        """The value of every entry, if they are written as one; else None."""
        return self.few.item() if self.few is not None and self.few.size == 1 else None

    @cached_property
    def few(self) -> Array | None:
        """Its value; one entry where all are written as one."""
        return None if self.array is None else _few(self.array)

    @cached_property
    def is_zero(self) -> bool:
        """Whether it is 0 everywhere."""
        if self.few is not None and self.support is None and self.few.dtype.kind != "O":
            return not self.few.any()
        return self.nonzero is not None and self.nonzero.is_zero

    @cached_property
    def nonzero(self) -> Pattern | None:
        """The region outside which it is 0, found in its value where no rule has said it."""
        if self.between is not None:
            sizes = abs(self.between[0]) + abs(self.between[1])
            found = _region(sizes, lambda size: size != 0)
            if found is not None:
                return found if self.support is None else found & self.support
        if self.support is not None or self.array is None or self.array.dtype.kind == "O":
            return self.support
        if self.array.dtype.kind in "iu" and self.array.size > MATERIALISED and not self.is_zero:
            return None  # places, not a mask
        return _region(self.array, lambda array: array != 0)

    @cached_property
    def high(self) -> tuple[Mark, ...]:
        """Bounds from above, found in its value where no rule has said any."""
        return self.upper or self._marks(1)

    @cached_property
    def low(self) -> tuple[Mark, ...]:
        """Bounds of the negated value from above."""
        return self.lower or self._marks(-1)

    @cached_property
    def masked(self) -> bool:
        """Whether some entries may be those of a mask, or made of them."""
        return self.murky or any(m.is_deep and not m.region.is_zero for m in self.high)

    def _marks(self, sign: int) -> tuple[Mark, ...]:
        if self.few is not None and self.array is not None:
            return _marks_of(self.few, self.array.shape, sign)
        if self.affine is None or 0 in self.affine.shape:
            return ()
        ends = [step * (n - 1) for step, n in zip(self.affine.steps, self.affine.shape)]
        highest = sign * self.affine.offset + sum(max(sign * end, 0) for end in ends)
        if not has_number(highest):
            return ()
        return (Mark(Pattern.zero(self.affine.shape, ()), float(highest)),)

    @cached_property
    def untrue(self) -> Pattern | None:
        """The region outside which it is 1, or True."""
        if self.false is not None or self.array is None:
            return self.false
        if self.array.dtype == bool:
            return _region(self.array, np.logical_not)
        ones = self.array.dtype.kind in "iuf" and self.fill == 1
        return Pattern.zero(self.array.shape, ()) if ones else None


def of_array(value: Any) -> Known | None:
    """Return what is known of a constant: all of it."""
    try:
        array = np.asarray(value)
    except TypeError:  # a PRNG key
        return None
    if array.dtype.kind in "iu" and array.ndim == 0:
        return Known(array=array, affine=Affine((), (), int(array)))
    return Known(array=array)


def told(
    support: Pattern | None = None,
    false: Pattern | None = None,
    upper: tuple[Mark, ...] = (),
    lower: tuple[Mark, ...] = (),
) -> Known | None:
    """Return facts about regions; None if none of them says anything."""
    regions = [None if r and r.is_dense and not r.is_zero else r for r in (support, false)]
    if regions == [None, None] and not upper and not lower:
        return None
    return Known(support=regions[0], false=regions[1], upper=upper, lower=lower)


def _few(array: Array) -> Array:
    """Return an array that repeats one entry without memory as that entry alone."""
    repeated = array.ndim > 0 and array.size > 1 and not any(array.strides)
    return array[(slice(1),) * array.ndim] if repeated else array


def _region(array: Array, holds: Callable[[Array], Array]) -> Pattern | None:
    """Return where a condition holds, as a region; None if everywhere, or too large to look."""
    few = _few(array)
    if few.size > 16 * MATERIALISED or ((where := holds(few)).all() and array.size):
        return None
    if not where.any():
        return Pattern.zero(array.shape, ())
    found = Pattern.explicit(where.reshape(-1, 1), array.shape, ())
    if where.size > _LONG and any(zone.relations for zone in found.zones):
        rest = Pattern.explicit(~where.reshape(-1, 1), array.shape, ())
        if not any(zone.relations for zone in rest.zones):
            return Pattern.region(array.shape) - rest
    return found


def _marks_of(few: Array, shape: Shape, sign: int) -> tuple[Mark, ...]:
    """Return bounds of the entries of an array: of all, and of those below its widest gap."""
    if few.dtype.kind in "biucO" or not 0 < few.size <= MATERIALISED:
        return ()
    if few.size == 1:
        value = sign * float(few.item())
        return () if value != value else (Mark(Pattern.zero(shape, ()), value),)
    values = sign * few.astype(np.float64)
    highest, lowest = float(values.max()), float(values.min())
    if not lowest <= highest:
        return ()  # a NaN
    marks = [Mark(Pattern.zero(shape, ()), highest)]
    two_values = bool(((values == lowest) | (values == highest)).all())
    if lowest < highest and (two_values or max(-lowest, highest) >= _WIDE):
        distinct = np.unique(values)
        edge = float(distinct[np.argmax(np.diff(distinct))])
        marks.append(Mark(Pattern.explicit((values > edge).reshape(-1, 1), shape, ()), edge))
    return tuple(marks)
