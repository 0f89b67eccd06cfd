"""Building patterns: the constructors that name axes, and the explicit one.

Axes in arguments: `k` is output axis k, `~k` is input axis k. A bound is `(a, b)` for a == b,
`(a, b, low, high)` for low <= a - b <= high (None: no bound), or `(a, None, low, high)` for a
range.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Self, TypeAlias

import numpy as np

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.patterns import bounds as dbm
from gradlab.patterns.composing import with_relation
from gradlab.patterns.recombining import recombined
from gradlab.patterns.unions import ZONES, gathered, merged
from gradlab.patterns.zone import Zone, full

__all__ = ["Bound", "Built", "Shape", "axis_place"]

Shape: TypeAlias = tuple[int, ...]
Bound: TypeAlias = tuple[int, int] | tuple[int, int | None, int | None, int | None]


@dataclass(frozen=True, eq=False, repr=False)
class Built:
    """What a pattern is made of, and the ways to make one; `Pattern` adds the algebra."""

    output_shape: Shape
    input_shape: Shape
    zones: tuple[Zone, ...]
    widened: tuple[str, ...] = ()

    @classmethod
    def of_zones(
        cls,
        output_shape: Sequence[int],
        input_shape: Sequence[int],
        zones: Iterable[Zone],
        widened: Iterable[str] = (),
    ) -> Self:
        """Return the union of zones, in its shortest form, widened beyond the limit of zones."""
        notes = list(dict.fromkeys(widened))
        kept = merged(list(zones))
        if not all(zone.frame.is_plain for zone in kept):
            kept = merged(recombined(kept))
        if len(kept) > ZONES:
            kept, exact = gathered(kept)
            if not exact:
                notes.append(f"more than {ZONES} zones")
        return cls(
            tuple(output_shape), tuple(input_shape), tuple(kept), tuple(dict.fromkeys(notes))
        )

    @classmethod
    def zero(cls, output_shape: Sequence[int], input_shape: Sequence[int]) -> Self:
        """Return the pattern without entries.

        Example:
            >>> from gradlab.patterns import Pattern
            >>> Pattern.zero((3,), (4,)).nnz
            0
        """
        return cls(tuple(output_shape), tuple(input_shape), ())

    @classmethod
    def dense(cls, output_shape: Sequence[int], input_shape: Sequence[int]) -> Self:
        """Return the pattern with all entries.

        Example:
            >>> from gradlab.patterns import Pattern
            >>> Pattern.dense((100, 4096), (100, 4096)).nnz
            167772160000
        """
        return cls.from_axes(output_shape, input_shape, ())

    @classmethod
    def identity(cls, shape: Sequence[int]) -> Self:
        """Return the diagonal: each output entry depends on the input entry of the same index.

        Example:
            >>> from gradlab.patterns import Pattern
            >>> Pattern.identity((100, 4096)).notation
            'out[i, j] <- in[i, j]'
        """
        return cls.from_axes(shape, shape, [(k, ~k) for k in range(len(shape))])

    @classmethod
    def broadcast(cls, input_shape: Sequence[int], output_shape: Sequence[int]) -> Self:
        """Return NumPy's broadcasting of one shape to another; its transpose is the sum back.

        Example:
            >>> from gradlab.patterns import Pattern
            >>> Pattern.broadcast((3,), (2, 3)).T.notation
            'out[i] <- in[:, i]'
        """
        new = len(output_shape) - len(input_shape)
        fits = new >= 0 and all(n in (1, output_shape[new + k]) for k, n in enumerate(input_shape))
        if not fits:
            raise InputError(
                f"broadcast: an input of shape {shape_text(input_shape)} does not broadcast to "
                f"{shape_text(output_shape)}; trailing sizes must be equal, or 1 in the input"
            )
        bounds = [(new + k, ~k) for k, n in enumerate(input_shape) if n != 1]
        return cls.from_axes(output_shape, input_shape, bounds)

    @classmethod
    def from_axes(
        cls, output_shape: Sequence[int], input_shape: Sequence[int], bounds: Iterable[Bound]
    ) -> Self:
        """Return the entries whose axes satisfy all bounds (see this module for how to write them).

        Example:
            >>> from gradlab.patterns import Pattern
            >>> band = Pattern.from_axes((9,), (9,), [(0, ~0, -1, 1)])
            >>> band.structure, band.nnz
            ('banded', 25)
        """
        shape = (tuple(output_shape), tuple(input_shape))
        if 0 in shape[0] or 0 in shape[1]:
            return cls(*shape, ())
        zone = full(*shape)
        starts = [s if a.strides else 0 for s, a in zip(zone.frame.starts, zone.frame.axes)]
        d = zone.bounds.copy()
        for a, b, low, high in (bound if len(bound) == 4 else (*bound, 0, 0) for bound in bounds):
            x = starts[axis_place(a, *shape)]
            y = 0 if b is None else starts[axis_place(b, *shape)]
            if high is not None:
                d[x, y] = min(d[x, y], high)
            if low is not None:
                d[y, x] = min(d[y, x], -low)
        closed = dbm.close(d)
        return cls(*shape, () if closed is None else (zone.with_bounds(closed),))

    @classmethod
    def region(cls, shape: Sequence[int], bounds: Iterable[Bound] = ()) -> Self:
        """Return a set of indices of one array: a pattern without input axes.

        Example:
            >>> from gradlab.patterns import Pattern
            >>> Pattern.region((64, 64), [(1, 0, None, 0)]).nnz  # j <= i
            2080
        """
        return cls.from_axes(shape, (), bounds)

    @classmethod
    def explicit(cls, matrix: Any, output_shape: Sequence[int], input_shape: Sequence[int]) -> Self:
        """Return the pattern of a boolean matrix, dense or sparse, as a zone if it is one.

        Args:
            matrix: shape (prod(output_shape), prod(input_shape)); what is nonzero is an entry.
            output_shape: the shape whose flat index numbers the rows.
            input_shape: the shape whose flat index numbers the columns.

        Raises:
            InputError: the matrix has another shape.

        Example:
            >>> from gradlab.patterns import Pattern
            >>> import numpy
            >>> Pattern.explicit(numpy.tri(4), (4,), (4,)).notation
            'out[t] <- in[<=t]'
        """
        shape = (tuple(output_shape), tuple(input_shape))
        if tuple(matrix.shape) != (prod(shape[0]), prod(shape[1])):
            raise InputError(
                f"explicit: a matrix of shape {shape_text(matrix.shape)} does not map an input of "
                f"shape {shape_text(shape[1])} to an output of shape {shape_text(shape[0])}; "
                f"expected {prod(shape[0])}x{prod(shape[1])}"
            )
        flat = matrix.nonzero()
        parts = (
            [
                part
                for index, sizes in zip(flat, shape, strict=True)
                if sizes
                for part, n in zip(
                    np.unravel_index(np.asarray(index, np.int64), sizes), sizes, strict=True
                )
                if n > 1
            ]
            if 0 not in shape[0] + shape[1]
            else []
        )
        if not len(flat[0]):
            return cls(*shape, ())
        zone = full(*shape)
        values = np.stack(parts, axis=1) if parts else np.zeros((1, 0), np.int64)
        o = zone.frame.outputs
        variables = range(1, len(zone.frame.sizes) + 1)
        return cls.of_zones(*shape, with_relation(zone, variables[:o], variables[o:], values))

    @classmethod
    def union(cls, patterns: Iterable[Self]) -> Self:
        """Return the union of at least one pattern, all of the same shapes.

        Example:
            >>> from gradlab.patterns import Pattern
            >>> shifts = [Pattern.from_axes((9,), (9,), [(0, ~0, k, k)]) for k in (-1, 0, 1)]
            >>> Pattern.union(shifts).notation
            'out[i] <- in[i-1..i+1]'
        """
        first, *rest = patterns
        for other in rest:
            first._same_shapes(other, "union")
        if not any(other.zones for other in rest):
            return first
        zones = [zone for p in (first, *rest) for zone in p.zones]
        notes = [note for p in (first, *rest) for note in p.widened]
        return cls.of_zones(first.output_shape, first.input_shape, zones, notes)

    def _same_shapes(self, other: "Built", what: str) -> None:
        if (self.output_shape, self.input_shape) != (other.output_shape, other.input_shape):
            raise InputError(
                f"{what}: one pattern maps {shape_text(self.input_shape)} to "
                f"{shape_text(self.output_shape)}, the other {shape_text(other.input_shape)} to "
                f"{shape_text(other.output_shape)}; they must be equal"
            )


def axis_place(axis: int, output_shape: Shape, input_shape: Shape) -> int:
    """Return the position of axis k or ~k among all axes."""
    k = axis if axis >= 0 else len(output_shape) + ~axis
    side = output_shape if axis >= 0 else input_shape
    if (axis if axis >= 0 else ~axis) >= len(side):
        which = f"output axis {axis}" if axis >= 0 else f"input axis {~axis} (written ~{~axis})"
        raise InputError(f"there is no {which}; the shape there is {side}")
    return k
