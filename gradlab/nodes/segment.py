"""Rows folded by the segment that they belong to: the sums, means and maxima of a graph's nodes."""

from abc import abstractmethod
from dataclasses import dataclass
from math import inf
from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, max_at, namespace, scatter_add
from gradlab.nodes._base import Node
from gradlab.nodes._domain import REALS, Case, Domain, special
from gradlab.nodes._functions import safe_divide
from gradlab.nodes._lazy import jax, jnp
from gradlab.operators import Diagonal, scatter

__all__ = ["SegmentMax", "SegmentMean", "SegmentSum"]


@dataclass(frozen=True)
class _Segments(Node):
    """Rows of x, (n, ...), folded by their segment's number, (n,), into (segments, ...).

    Args:
        segments: the number of segments.
    """

    segments: int = 3
    domains = (REALS, Domain(low=0, high=3, integer=True))

    @abstractmethod
    def fold(self, x: Array, ids: Array) -> tuple[Array, Any]:
        """Return the folded rows, and each entry's weight in them (a number if all are equal)."""

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        """Return one row for each segment."""
        x, ids = as_inputs(self, inputs)
        if not x.shape or ids.shape != x.shape[:1]:
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)} and the segments' numbers "
                f"{shape_text(ids.shape)}; expected (n, ...) and (n,)"
            )
        y, weights = self.fold(x, ids)
        return y, (x, ids, weights, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        """Return a scatter after the diagonal of the weights."""
        x, ids, weights, y = residuals
        return scatter(ids, y.shape, x.dtype, axis=0) @ Diagonal(weights), None

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        """Return the upstream of each row's segment, times the weights."""
        x, ids, weights, y = residuals
        return (as_upstream(self, upstream, y)[ids] * weights).astype(x.dtype), None

    def _shape(self, x: Array) -> tuple[int, ...]:
        return (self.segments, *x.shape[1:])

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        """Return segments in and out of order, an empty one and no rows."""
        return (
            special(cls(), "generic", (5, 2), [0, 0, 1, 2, 2]),
            special(cls(2), "generic", (4,), [1, 0, 1, 1]),
            special(cls(), "generic", (3, 2, 2), [2, 0, 1]),
            special(cls(4), "empty segments", (3, 2), [2, 0, 2]),
            Case(cls(), ((0, 2), (0,)), "zero size"),
        )


class SegmentSum(_Segments):
    """The sum of the rows of each segment; 0 for a segment without rows.

    Local gradient: a scatter; None for the numbers of the segments.
    Backward: dx = the upstream of each row's segment.
    """

    def fold(self, x: Array, ids: Array) -> tuple[Array, Any]:
        return scatter_add(self._shape(x), ids, x), namespace(x).ones_like(x)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, ids, _, y = residuals
        return scatter(ids, y.shape, x.dtype, axis=0), None

    def reference(self, x: Array, ids: Array) -> Array:
        return jax.ops.segment_sum(x, ids, self.segments)


class SegmentMean(_Segments):
    """The mean of the rows of each segment; 0 for a segment without rows.

    Local gradient: a scatter after the diagonal of 1 / (rows of the segment).
    Backward: dx = the upstream of each row's segment / (rows of the segment).
    """

    def fold(self, x: Array, ids: Array) -> tuple[Array, Any]:
        ones = namespace(x).ones_like(x, dtype=ids.dtype)
        rows = scatter_add(self._shape(x), ids, ones).astype(x.dtype)  # counted in integers
        return safe_divide(scatter_add(rows.shape, ids, x), rows), 1.0 / rows[ids]

    def reference(self, x: Array, ids: Array) -> Array:
        rows = jax.ops.segment_sum(jnp.ones_like(x), ids, self.segments)
        return jax.ops.segment_sum(x, ids, self.segments) / jnp.maximum(rows, jnp.ones_like(rows))


class SegmentMax(_Segments):
    """The greatest entry, column by column, of the rows of each segment; -inf without rows.

    Local gradient: a scatter after a diagonal that is 1 at the greatest entries.
    Backward: dx = the upstream of the segment at its greatest entries; those that tie share it
    equally, as in JAX.
    """

    def fold(self, x: Array, ids: Array) -> tuple[Array, Any]:
        y = max_at(namespace(x).full(self._shape(x), -inf, dtype=x.dtype), ids, x)
        won = (x == y[ids]).astype(x.dtype)
        return y, won / scatter_add(y.shape, ids, won)[ids]

    def reference(self, x: Array, ids: Array) -> Array:
        return jax.ops.segment_max(x, ids, self.segments)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        """Return the cases of every fold, and ties."""
        return (*super().cases(), special(cls(2), "ties", [1.0, 3.0, 3.0, 2.0], [0, 1, 1, 1]))
