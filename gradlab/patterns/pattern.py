"""Patterns: which output entries may depend on which input entries, stored by axis.

A pattern is a union of zones. Its cost depends on the number of axes and zones alone: ten million
entries cost what ten cost. Every operation keeps all entries; where one has to add some (radices
that do not fit, more zones than the limit) `widened` says which. A pattern with no input axes is a
region: a set of indices of one array, such as a mask.

Axes in arguments: `k` is output axis k, `~k` is input axis k. A bound is `(a, b)` for a == b,
`(a, b, low, high)` for low <= a - b <= high (None: no bound), or `(a, None, low, high)` for a
range.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gradlab.errors import InputError
from gradlab.formatting import shape_text, size_text
from gradlab.patterns import dbm
from gradlab.patterns.colouring import Colouring, colours
from gradlab.patterns.compose import by_residues, compose_many, intersect, with_relation
from gradlab.patterns.size import has_number, proved, small, valued
from gradlab.patterns.union import (
    ZONES,
    coarse,
    count_zones,
    covered,
    difference,
    gathered,
    hull,
    merged,
    recombined,
)
from gradlab.patterns.words import AxisRelation, axis_relation, describe, holds, names, relations
from gradlab.patterns.zone import Bound, Shape, Zone, axis_place, embedded, full, matrix

_EXPLICIT = 2**22
_FEW = 3
"""Zones that stay apart where one lists entries."""

_MANY = 16
_WORTH = 1 << 12
"""Beyond so many zones, how many entries are listed to save one."""

_LONG = 1 << 10
_PERIODS = 1, 2, 3, 4
_ROUNDS = 64
_PATIENCE = 12
"""Zones beyond which a closure is widened."""


@dataclass(frozen=True, eq=False, repr=False)
class Pattern:
    """A boolean matrix from the entries of an input to the entries of an output, as zones.

    Attributes:
        output_shape: the shape of the output.
        input_shape: the shape of the input; () also for a region, a set of output indices.
        zones: the zones whose union this is.
        widened: what had to be enlarged on the way; empty if the pattern is what was asked for.

    Example:
        >>> causal = Pattern.from_axes((64, 8), (64, 8), [(0, ~0, 0, None)])
        >>> causal.notation, causal.nnz
        ('out[t, :] <- in[<=t, :]', 133120)
    """

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
        explicit = any(zone.relations for zone in kept)
        if len(kept) > (_FEW if explicit else _MANY):
            over = len(kept) > ZONES
            most = _EXPLICIT if explicit or over else _WORTH * len(kept)
            together = gathered(kept, most)
            if together is None and over:
                shape = prod(output_shape), prod(input_shape)
                numbers = all(small(n, 2**31 - 1) for n in shape)
                entries = matrix(kept, shape, most) if numbers else None
                if entries is not None:
                    found = cls.explicit(entries, output_shape, input_shape)
                    return cls(found.output_shape, found.input_shape, found.zones, tuple(notes))
                together = hull(kept)
                notes.append(f"more than {ZONES} zones")
            kept = kept if together is None else [together]
        return cls(
            tuple(output_shape), tuple(input_shape), tuple(kept), tuple(dict.fromkeys(notes))
        )

    @classmethod
    def zero(cls, output_shape: Sequence[int], input_shape: Sequence[int]) -> Self:
        """Return the pattern without entries."""
        return cls(tuple(output_shape), tuple(input_shape), ())

    @classmethod
    def dense(cls, output_shape: Sequence[int], input_shape: Sequence[int]) -> Self:
        """Return the pattern with all entries."""
        return cls.from_axes(output_shape, input_shape, ())

    @classmethod
    def identity(cls, shape: Sequence[int]) -> Self:
        """Return the diagonal: each output entry depends on the input entry of the same index."""
        return cls.from_axes(shape, shape, [(k, ~k) for k in range(len(shape))])

    @classmethod
    def broadcast(cls, input_shape: Sequence[int], output_shape: Sequence[int]) -> Self:
        """Return NumPy's broadcasting of one shape to another; its transpose is the sum back."""
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
        """Return the entries whose axes satisfy all bounds, written as this module says."""
        return cls._of_bounds(tuple(output_shape), tuple(input_shape), tuple(map(tuple, bounds)))

    @classmethod
    @lru_cache(4096)  # most patterns of a program are met again: identities, sums, broadcasts
    def _of_bounds(cls, outputs: Shape, inputs: Shape, bounds: tuple[Bound, ...]) -> Self:
        shape = outputs, inputs
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
        """Return a set of indices of one array: a pattern without input axes."""
        return cls.from_axes(shape, (), bounds)

    @classmethod
    def explicit(
        cls,
        matrix: Any,
        output_shape: Sequence[int],
        input_shape: Sequence[int],
        axes: tuple[Sequence[int], Sequence[int]] | None = None,
        equal: Iterable[tuple[int, int]] = (),
    ) -> Self:
        """Return the pattern of a boolean matrix, dense or sparse, as a zone if it is one.

        Args:
            matrix: dense or sparse; what is nonzero is an entry.
            output_shape: the shape whose flat index numbers the rows.
            input_shape: the shape whose flat index numbers the columns.
            axes: the output and the input axes whose flat indices number rows and columns, the
                first of them leading; all by default.
            equal: pairs (output axis, input axis) of other axes that are equal.

        Raises:
            InputError: the matrix has another shape.
        """
        shapes = tuple(output_shape), tuple(input_shape)
        chosen = axes or (range(len(shapes[0])), range(len(shapes[1])))
        groups = tuple([shape[k] for k in side] for shape, side in zip(shapes, chosen, strict=True))
        if tuple(matrix.shape) != (prod(groups[0]), prod(groups[1])):
            raise InputError(
                f"explicit: a matrix of shape {shape_text(matrix.shape)} is no map from axes of "
                f"sizes {tuple(groups[1])} to axes of sizes {tuple(groups[0])}; "
                f"expected {prod(groups[0])}x{prod(groups[1])}"
            )
        base = cls.from_axes(*shapes, [(k, ~i) for k, i in equal])
        flat = matrix.nonzero()
        if not base.zones or not len(flat[0]):
            return cls(*shapes, ())
        zone = base.zones[0]
        columns: dict[int, npt.NDArray[np.int64]] = {}
        places = (chosen[0], [len(shapes[0]) + k for k in chosen[1]])
        for index, sizes, side in zip(flat, groups, places, strict=True):
            parts = np.unravel_index(np.asarray(index, np.int64), sizes) if sizes else ()
            for part, axis in zip(parts, side, strict=True):
                for v in zone.frame.digits(axis):
                    columns[v] = part
        order = sorted(columns)
        values = np.stack([columns[v] for v in order], axis=1) if order else np.zeros((1, 0), int)
        rows = [v for v in order if v <= zone.frame.outputs]
        for period in _PERIODS if len(values) > _LONG else ():
            if (found := by_residues(zone, order, values, period)) is not None:
                return cls.of_zones(*shapes, found)
        return cls.of_zones(*shapes, with_relation(zone, rows, order[len(rows) :], values))

    @classmethod
    def union(cls, patterns: Iterable[Self]) -> Self:
        """Return the union of at least one pattern, all of the same shapes."""
        first, *rest = patterns
        for other in rest:
            first._same_shapes(other, "union")
        if not any(other.zones for other in rest):
            return first
        zones = [zone for p in (first, *rest) for zone in p.zones]
        notes = [note for p in (first, *rest) for note in p.widened]
        return cls.of_zones(first.output_shape, first.input_shape, zones, notes)

    def _same_shapes(self, other: "Pattern", what: str) -> None:
        if (self.output_shape, self.input_shape) != (other.output_shape, other.input_shape):
            raise InputError(
                f"{what}: one pattern maps {shape_text(self.input_shape)} to "
                f"{shape_text(self.output_shape)}, the other {shape_text(other.input_shape)} to "
                f"{shape_text(other.output_shape)}; they must be equal"
            )

    def __or__(self, other: "Pattern") -> "Pattern":
        return Pattern.union((self, other))

    def __and__(self, other: "Pattern") -> "Pattern":
        self._same_shapes(other, "intersection")
        notes = [*self.widened, *other.widened]
        zones = [z for a in self.zones for b in other.zones for z in intersect(a, b, notes)]
        return Pattern.of_zones(self.output_shape, self.input_shape, zones, notes)

    def __sub__(self, other: "Pattern") -> "Pattern":
        self._same_shapes(other, "difference")
        rest, exact = difference(self.zones, other.zones) if self.zones else ([], True)
        notes = self.widened if exact else (*self.widened, "a difference that zones cannot say")
        return Pattern.of_zones(self.output_shape, self.input_shape, rest, notes)

    def __matmul__(self, other: "Pattern") -> "Pattern":
        if self.input_shape != other.output_shape:
            raise InputError(
                f"composition: the first pattern reads a {shape_text(self.input_shape)} array, "
                f"the second writes a {shape_text(other.output_shape)} one; they must be equal"
            )
        if self._small and other._small:
            product = _composed(self, other)
        elif self == Pattern.identity(self.output_shape):
            product = other
        elif other == Pattern.identity(self.input_shape):
            product = self
        else:
            product = _product(self, other)
        notes = dict.fromkeys((*self.widened, *other.widened, *product.widened))
        if tuple(notes) == product.widened:
            return product
        return Pattern(self.output_shape, other.input_shape, product.zones, tuple(notes))

    @cached_property
    def T(self) -> "Pattern":
        """The pattern with outputs and inputs exchanged."""
        zones = tuple(zone.T for zone in self.zones)
        return Pattern(self.input_shape, self.output_shape, zones, self.widened)

    def where(self, region: "Pattern", axes: Sequence[int] | None = None) -> "Pattern":
        """Return the entries whose axes lie in a region.

        Args:
            region: a pattern without input axes.
            axes: for each axis of the region an axis of this pattern (`k` output, `~k` input);
                by default the output axes.
        """
        chosen = range(len(self.output_shape)) if axes is None else axes
        shape = (self.output_shape, self.input_shape)
        places = [axis_place(a, *shape) for a in chosen]
        sizes = self.output_shape + self.input_shape
        if tuple(sizes[k] for k in places) != region.output_shape or region.input_shape:
            raise InputError(
                f"where: the region has shape {shape_text(region.output_shape)}, the axes "
                f"{tuple(chosen)} have sizes {tuple(sizes[k] for k in places)}; they must be equal"
            )
        zones = tuple(embedded(zone, places, shape) for zone in region.zones)
        return self & Pattern(*shape, zones, region.widened)

    def rows(self) -> "Pattern":
        """Return the region of the output entries that depend on anything."""
        return self @ Pattern.dense(self.input_shape, ())

    def columns(self) -> "Pattern":
        """Return the region of the input entries that anything depends on."""
        return self.T.rows()

    def closure(self) -> "Pattern":
        """Return the reflexive transitive closure: identity, this, this after this, and so on."""
        if self.output_shape != self.input_shape:
            raise InputError(
                f"closure: the pattern maps {self.input_shape} to {self.output_shape}; only one "
                "from a shape to itself can be repeated"
            )
        reached = self | Pattern.identity(self.output_shape)
        for _ in range(_ROUNDS):
            twice = reached | reached @ reached
            if reached.covers(twice):
                return reached
            reached = twice if len(twice.zones) <= _PATIENCE else widened(reached, twice)
        return Pattern.dense(self.output_shape, self.input_shape)

    def covers(self, other: "Pattern") -> bool:
        """Return whether all entries of `other` are proved to be entries here."""
        self._same_shapes(other, "containment")
        answer = covered(other.zones, self.zones)
        if answer is None:
            listed = all(small(n, 2**31 - 1) for n in other.shape)
            inner = matrix(other.zones, other.shape, _EXPLICIT) if listed else None
            outer = None if inner is None else matrix(self.zones, self.shape, _EXPLICIT)
            answer = outer is not None and (inner > outer).nnz == 0
        return answer

    def sized(self, numbers: Mapping[str, Any]) -> "Pattern":
        """Return the pattern where names of sizes have these values, numbers or other names."""
        made = tuple(valued(n, numbers) for n in self.output_shape)
        given = tuple(valued(n, numbers) for n in self.input_shape)
        zones = [here for zone in self.zones if (here := zone.sized(numbers))]
        return Pattern.of_zones(made, given, zones, self.widened)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the matrix: number of output entries, number of input entries."""
        return prod(self.output_shape), prod(self.input_shape)

    @cached_property
    def _count(self) -> tuple[int, bool]:
        return count_zones(self.zones, self.shape)

    @property
    def nnz(self) -> int:
        """The number of entries; an upper bound if not `exact`."""
        return self._count[0]

    @property
    def exact(self) -> bool:
        """Whether `nnz` is the number of entries of what was asked for, not an upper bound."""
        return self._count[1] and not self.widened

    @property
    def is_zero(self) -> bool:
        """Whether there is no entry."""
        return not self.zones

    @cached_property
    def is_dense(self) -> bool:
        """Whether every entry may be nonzero."""
        plain = [zone for zone in self.zones if zone.symbolic]
        if any(proved(zone.bounds - zone.frame.free).all() for zone in plain):
            return True
        if not has_number(prod(self.shape)) or len(plain) == len(self.zones) == 1:
            return False
        return self.nnz == prod(self.shape) and self._count[1]

    @cached_property
    def is_diagonal(self) -> bool:
        """Whether entries lie only where the flat indices of output and input agree."""
        return holds(self, "diagonal")

    @cached_property
    def structures(self) -> tuple[str, ...]:
        """All names that hold of the pattern, the most telling first (see `naming`)."""
        return names(self)

    @property
    def structure(self) -> str:
        """The name that says most: zero, diagonal, permutation, banded, lower-triangular, ..."""
        return self.structures[0]

    def has_structure(self, name: str) -> bool:
        """Return whether the pattern is contained in such a structure: a diagonal is banded.

        Example:
            >>> Pattern.identity((4, 8)).has_structure("block-diagonal")
            True
        """
        return holds(self, name)

    @cached_property
    def relations(self) -> tuple[tuple[AxisRelation, ...], ...]:
        """The bounds of each zone as plain data."""
        return tuple(relations(zone) for zone in self.zones)

    def axis_relation(
        self, output_axis: int, input_axis: int
    ) -> tuple[str, int | None, int | None]:
        """Return (kind, low, high) of `low <= out - in <= high` for two axes, over all zones.

        The kind is equal, band, order (one side only), full, or zero where there is no entry.

        Example:
            >>> Pattern.from_axes((9,), (9,), [(0, ~0, 0, None)]).axis_relation(0, 0)
            ('order', 0, None)
        """
        return axis_relation(self, output_axis, input_axis)

    @property
    def notation(self) -> str:
        """The pattern as people write it."""
        return describe(self)

    def describe(
        self,
        output: str = "out",
        input: str = "in",
        output_axes: Sequence[str] | None = None,
        input_axes: Sequence[str] | None = None,
    ) -> str:
        """Return the notation with your names.

        Example:
            >>> p = Pattern.from_axes((100, 10), (100, 20), [(0, ~0)])
            >>> p.describe("q", "x", ["n", "k"], ["n", "i"])
            'q[n, :] <- x[n, :]'
        """
        return describe(self, output, input, output_axes, input_axes)

    def colours(self, mode: str) -> Colouring:
        """Return a colouring: inputs that share no output get one colour ("jvp"), or the converse.

        Args:
            mode: "jvp" colours input entries, one JVP each colour; "vjp" colours output entries.

        Example:
            >>> Pattern.from_axes((10**5,), (10**5,), [(0, ~0, -1, 1)]).colours("jvp").count
            3
        """
        return colours(self, mode)

    @property
    def passes(self) -> Colouring:
        """The colouring with fewer colours: how many JVPs or VJPs give every entry."""
        forward, reverse = self.colours("jvp"), self.colours("vjp")
        return forward if forward.count <= reverse.count else reverse

    def to_scipy(self, limit_bytes: int = 2**31) -> Any:
        """Return the boolean matrix as a `scipy.sparse.csr_array`.

        Args:
            limit_bytes: the memory that listing the entries may take, at 32 bytes each.

        Raises:
            InputError: it would take more.
        """
        needed = 32 * self.nnz + 8 * self.shape[0]
        result = None
        if small(needed, limit_bytes) and max(self.shape) < 2**62:
            result = matrix(self.zones, self.shape, limit_bytes // 16)
        if result is None:
            raise InputError(
                f"to_scipy: {self.nnz:,} entries take about {size_text(needed)}, more than "
                f"limit_bytes={limit_bytes:,} ({size_text(limit_bytes)}); raise the limit or work "
                "with the zones"
            )
        return result

    def to_dense(self, limit_bytes: int = 2**31) -> npt.NDArray[np.bool_]:
        """Return the boolean matrix as an array of shape `self.shape`."""
        if (needed := prod(self.shape)) > limit_bytes:
            raise InputError(
                f"to_dense: a {shape_text(self.shape)} matrix takes {size_text(needed)}, more than "
                f"limit_bytes={limit_bytes:,}; use to_scipy"
            )
        dense: npt.NDArray[np.bool_] = self.to_scipy(
            max(limit_bytes, 64 * needed + 2**16)
        ).toarray()
        return dense

    def contains(self, output_index: Sequence[Any], input_index: Sequence[Any] = ()) -> Any:
        """Return whether the entry may be nonzero: a bool, or an array for arrays of indices.

        Args:
            output_index: one integer, or integer array, for each output axis; none negative.
            input_index: likewise for the input axes; all arrays broadcast.

        Raises:
            InputError: there is no such entry.

        Example:
            >>> Pattern.identity((4, 8)).contains((1, 2), (1, 3))
            False
        """
        index = (*output_index, *input_index)
        sizes = self.output_shape + self.input_shape
        if len(index) != len(sizes) or not all(
            np.min(i, initial=0) >= 0 and np.max(i, initial=-1) < n for i, n in zip(index, sizes)
        ):
            raise InputError(
                f"contains: {tuple(output_index)} and {tuple(input_index)} are no indices of "
                f"shapes {self.output_shape} and {self.input_shape}; negative ones do not wrap"
            )
        found: Any = np.zeros(np.broadcast_shapes(*map(np.shape, index)), np.bool_)
        for zone in self.zones:
            found = found | zone.contains(index)
        return found if found.ndim else bool(found)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _small(self) -> bool:
        """Whether it is cheap to compare: no index arrays."""
        return all(zone.symbolic for zone in self.zones)

    @cached_property
    def _key(self) -> tuple[Any, ...]:
        keys = frozenset(zone.key for zone in self.zones)
        return self.output_shape, self.input_shape, keys

    def __repr__(self) -> str:
        sign = "" if self.exact else "<= "
        return f"Pattern({self.notation}; {self.structure}, nnz {sign}{self.nnz:,})"


def _product(a: Pattern, b: Pattern) -> Pattern:
    """Return a after b; what was widened before is not repeated."""
    notes: list[str] = []
    zones = compose_many(a.zones, b.zones, notes)
    return Pattern.of_zones(a.output_shape, b.input_shape, zones, notes)


_composed = lru_cache(maxsize=4096)(_product)  # programs repeat themselves, layer by layer


def widened(a: "Pattern", b: "Pattern") -> "Pattern":
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
    return Pattern.of_zones(a.output_shape, a.input_shape, zones, notes)


def _stable(old: Zone, new: Zone) -> Zone:
    """Return the zone of the old bounds that hold of the new one too."""
    kept = np.where(new.bounds <= old.bounds, old.bounds, old.frame.free)
    closed = dbm.close(kept)
    return old.with_bounds(kept if closed is None else closed)
