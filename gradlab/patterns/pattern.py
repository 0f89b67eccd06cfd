"""Patterns: which output entries may depend on which input entries, stored by axis.

A pattern is a union of zones. Its cost depends on the number of axes and zones alone: ten million
entries cost what ten cost. Every operation keeps all entries; where one has to add some (radices
that do not fit, more zones than the limit) `widened` says which. A pattern with no input axes is a
region: a set of indices of one array, such as a mask. How axes and bounds are written: see
`building`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from gradlab.errors import InputError
from gradlab.formatting import shape_text, size_text
from gradlab.patterns.building import Built, axis_place
from gradlab.patterns.colouring import Colouring, colours
from gradlab.patterns.composing import compose_many, intersect
from gradlab.patterns.describing import AxisRelation, axis_relation, describe, relations
from gradlab.patterns.drawing import draw
from gradlab.patterns.fixpoints import closure, widen
from gradlab.patterns.measuring import count_zones
from gradlab.patterns.naming import holds, names
from gradlab.patterns.points import matrix
from gradlab.patterns.regions import embedded
from gradlab.patterns.unions import covered, difference

__all__ = ["Pattern"]

_EXPLICIT = 2**22


@dataclass(frozen=True, eq=False, repr=False)
class Pattern(Built):
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
        product = _composed(self, other) if self._small and other._small else _product(self, other)
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

        Example:
            >>> causal = Pattern.region((64, 64), [(1, 0, None, 0)])
            >>> product = Pattern.from_axes((64, 8), (64, 8), [(1, ~1)])
            >>> product.where(causal, (0, ~0)).notation
            'out[t, i] <- in[<=t, i]'
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
        """Return the region of the output entries that depend on anything.

        Example:
            >>> Pattern.from_axes((9,), (9,), [(0, ~0, 2, 2)]).rows().notation
            'out[2..8] <- in'
        """
        return self @ Pattern.dense(self.input_shape, ())

    def columns(self) -> "Pattern":
        """Return the region of the input entries that anything depends on.

        Example:
            >>> Pattern.from_axes((9,), (9,), [(0, ~0, 2, 2)]).columns().notation
            'out[0..6] <- in'
        """
        return self.T.rows()

    def widen(self, other: "Pattern") -> "Pattern":
        """Return a pattern around both in which bounds that would grow are dropped.

        Repeated with ever larger patterns this comes to rest after few steps, which a union need
        not.

        Example:
            >>> shift = Pattern.from_axes((10**5,), (10**5,), [(0, ~0, 1, 1)])
            >>> once = Pattern.identity((10**5,))
            >>> once.widen(once | shift).notation
            'out[t] <- in[<=t]'
        """
        self._same_shapes(other, "widening")
        return widen(self, other)

    def closure(self) -> "Pattern":
        """Return the reflexive transitive closure: identity, this, this after this, and so on.

        Example:
            >>> Pattern.from_axes((10**5,), (10**5,), [(0, ~0, 1, 1)]).closure().notation
            'out[t] <- in[<=t]'
        """
        return closure(self)

    def covers(self, other: "Pattern") -> bool:
        """Return whether all entries of `other` are proved to be entries here.

        Example:
            >>> Pattern.from_axes((9,), (9,), [(0, ~0, 0, None)]).covers(Pattern.identity((9,)))
            True
        """
        self._same_shapes(other, "containment")
        answer = covered(other.zones, self.zones)
        if answer is None:
            inner = (
                matrix(other.zones, other.shape, _EXPLICIT) if max(other.shape) < 2**31 else None
            )
            outer = None if inner is None else matrix(self.zones, self.shape, _EXPLICIT)
            answer = outer is not None and (inner > outer).nnz == 0
        return answer

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
    def density(self) -> float:
        """The share of the matrix that may be nonzero."""
        return self.nnz / (self.shape[0] * self.shape[1]) if prod(self.shape) else 0.0

    @property
    def is_zero(self) -> bool:
        """Whether there is no entry."""
        return not self.zones

    @cached_property
    def is_dense(self) -> bool:
        """Whether every entry may be nonzero."""
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

    def draw(self, rows: int = 20, columns: int = 40) -> str:
        """Return a picture of the matrix in braille, at most so many lines and characters.

        Example:
            >>> print(Pattern.identity((1000,)).draw(2, 4))
            ⠑⢄⠀⠀
            ⠀⠀⠑⢄
        """
        return draw(self, rows, columns)

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
        if needed <= limit_bytes and max(self.shape) < 2**62:
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
