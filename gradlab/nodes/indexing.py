"""Entries and rows read and written by index: backward adds where indices repeat.

Indices run from 0. They are not checked under `jit`, where JAX reads zero or the last entry beyond
the end, and writes nothing there.
"""

import math
from abc import abstractmethod
from typing import TypeAlias

from gradlab.common.arrays import (
    Array,
    DTypeLike,
    Shape,
    max_at,
    namespace,
    normal_axes,
    scatter_add,
    set_at,
)
from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._base import Applied, Gradients, Like, Linear, Namespace, Node
from gradlab.nodes._domain import REALS, Domain
from gradlab.nodes._lazy import jax, jnp
from gradlab.nodes._stable import flat_index, safe_divide
from gradlab.operators import Diagonal, Identity, Operator, Selection, scatter, sum_over

Written: TypeAlias = tuple[Array, Array | None, Array | None]  # the output, two weights
_INDICES = Domain(low=0, high=3, integer=True)


class Take(Linear):
    """The entries of x at `indices` along an axis: y = x[..., indices, ...].

    Args:
        axis: the axis that is indexed.

    Local gradient: a selection (one 1 in each row); None for the indices.
    Backward: dx[k] = the sum of the upstream over all places whose index is k: a scatter-add.
    An assignment in its place would keep only the last of repeated indices.
    """

    axis: int = 0
    jax = "jax.numpy.take"
    domains = (REALS, _INDICES)
    drawn = (
        "4x3 [2,0,1]; 2x5x3 [[4,1],[0,3]] axis=1; 3x4 [1] axis=-1; "
        "repeated indices: 4x2 [1,3,1,1]; zero size: 4x2 0"
    )
    points = {"scalar index": ((4, 2), 2)}

    def operator(self, x: Like, indices: Array) -> Operator:
        (axis,) = normal_axes(self.axis, x.shape, self)
        return Selection(indices, x.shape, x.dtype, axis=axis)


class TakeAlongAxis(Linear):
    """For each row its own entries: y[i, j] = x[i, indices[i, j]], for rows along an axis.

    Args:
        axis: the axis that is indexed; all other axes of x and of the indices are equal.

    Local gradient: a selection; None for the indices.
    Backward: dx = the upstream added at the indices of each row; repeated ones add up.
    """

    axis: int = -1
    jax = "jax.numpy.take_along_axis"
    domains = (REALS, _INDICES)
    drawn = (
        "2x3 [[2,0],[1,1]]; 4x2 [[3,0]] axis=0; 2x4x1 [[[3],[1],[0]],[[2],[2],[0]]] axis=1; "
        "repeated and negative: 1x3 [[-1,2,2,0]]; zero size: 2x3 2x0"
    )

    def operator(self, x: Like, indices: Array) -> Operator:
        (axis,) = normal_axes(self.axis, x.shape, self)
        others = [(len(a.shape), a.shape[:axis], a.shape[axis + 1 :]) for a in (x, indices)]
        self.require(
            others[0] == others[1],
            f"they may differ along axis {self.axis} only",
            x=x.shape,
            indices=indices.shape,
        )
        from_front = namespace(indices).where(indices < 0, indices + x.shape[axis], indices)
        return Selection(flat_index(from_front, axis, x.shape), x.shape, x.dtype)


class Embedding(Node):
    """The rows of a table at indices of any shape: the word embedding.

    Args:
        padding: the index of a row that is read but never trained; None for none.

    Local gradient: a selection, with a diagonal of zeros at padding; None for the indices.
    Backward: dtable = the upstream added at the indices; the padding's row gets nothing, as in
    torch. The reference says so with `stop_gradient`.
    """

    padding: int | None = None
    domains = (REALS, _INDICES)
    shapes = "table (words, features), indices (*any) -> (*any, features)"
    drawn = (
        "4x3 [2,0]; 3x2 [[2,1],[0,1]]; 4x2 [[0,3,1],[2,0,3]] padding=0; "
        "repeated words: 4x2 [1,3,1,1]; all padding: 3x2 [1,1] padding=1; zero size: 4x2 0"
    )

    def apply(self, xp: Namespace, table: Array, indices: Array) -> Applied:
        return table[indices], (Like.of(table), indices)

    def gradients(self, xp: Namespace, table: Like, indices: Array) -> Gradients:
        rows = Selection(indices, table.shape, table.dtype, axis=0)
        if self.padding is None:
            return rows, None
        trained = (indices != self.padding)[..., None].astype(table.dtype)
        return Diagonal(xp.broadcast_to(trained, rows.output_shape)) @ rows, None

    def reference(self, table: Array, indices: Array) -> Array:
        y = jnp.take(table, indices, axis=0)
        if self.padding is None:
            return y
        padding = jnp.broadcast_to((jnp.asarray(indices) == self.padding)[..., None], y.shape)
        return jnp.where(padding, jax.lax.stop_gradient(y), y)


class EmbeddingBag(Linear):
    """The mean or sum of the rows of a table at each bag of indices.

    Args:
        mean: whether the rows are averaged, not summed.

    Local gradient: a sum after a selection; None for the indices.
    Backward: dtable = the upstream of each bag, divided by its size for a mean, added at each of
    its indices: fused, the rows of a bag are never stored.
    """

    mean: bool = True
    domains = (REALS, _INDICES)
    shapes = "table (words, features), indices (bags, size) -> (bags, features)"
    drawn = (
        "4x3 [[2,0],[1,3]]; 3x2 [[2,1,0]] mean=False; 5x2 [[4],[0],[3]]; "
        "repeated words: 4x2 [[1,1,3],[1,0,0]]; zero size: 4x2 0x2"
    )

    def operator(self, x: Like, indices: Array) -> Operator:
        rows = Selection(indices, x.shape, x.dtype, axis=0)
        total = sum_over(rows.output_shape, 1, x.dtype) @ rows
        return total * (1.0 / max(indices.shape[1], 1)) if self.mean else total

    def reference(self, table: Array, indices: Array) -> Array:
        rows = jnp.take(table, indices, axis=0)
        return jnp.mean(rows, axis=1) if self.mean else jnp.sum(rows, axis=1)


class OneHotProduct(Linear):
    """onehot(indices) @ table: a product that reads rows.

    An index outside the table has no 1 in its row of the one-hot matrix, so it gives zeros.

    Local gradient: the one-hot matrix for each feature, which is a selection with a diagonal of
    zeros at indices outside; None for the indices.
    Backward: dtable = onehot(indices)^T @ upstream: the upstream added at the indices.
    """

    domains = (REALS, _INDICES)
    shapes = "table (words, features), indices (*any) -> (*any, features)"
    drawn = (
        "4x3 [2,0]; 3x2 [[2,1],[0,1]]; 5x2 [4]; repeated and outside: 3x2 [1,-1,1,3]; "
        "zero size: 4x2 0"
    )

    def operator(self, x: Like, indices: Array) -> Operator:
        xp, inside = namespace(indices), (indices >= 0) & (indices < x.shape[0])
        read = Selection(xp.where(inside, indices, 0 * indices), x.shape, x.dtype, axis=0)
        known = inside[..., None].astype(x.dtype)
        return Diagonal(xp.broadcast_to(known, read.output_shape)) @ read

    def reference(self, table: Array, indices: Array) -> Array:
        return jnp.matmul(jax.nn.one_hot(indices, table.shape[0], dtype=table.dtype), table)


class _Scattering(Node):
    """Rows written into x, (n, ...), at indices; the updates have the indices' shape, then a row's.

    Write `write`: what of x and of the updates stays, as weights of their gradients.
    """

    _kind = (
        "Local gradients: a diagonal in x, a scatter in the updates. Backward: dx = upstream and "
        "dupdates = the upstream at the indices, each times its weight."
    )
    domains = (REALS, _INDICES, REALS)
    drawn = (
        "4x3 [2,0] 2x3; 5 [[4,1],[0,3]] 2x2; repeated indices: 4x2 [1,3,1] 3x2; "
        "zero size: 3x2 0 0x2"
    )
    points = {"generic": ((3, 2, 2), 1, (2, 2))}

    @abstractmethod
    def write(
        self, xp: Namespace, x: Array, indices: Array, updates: Array
    ) -> tuple[Array, Array | None, Array | None]:
        """Return the output, and the weights of dx and of dupdates; None for ones."""

    def apply(self, xp: Namespace, x: Array, indices: Array, updates: Array) -> Applied:
        if not x.shape or updates.shape != (*indices.shape, *x.shape[1:]):
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)}, the indices "
                f"{shape_text(indices.shape)} and the updates {shape_text(updates.shape)}; "
                "expected (n, ...), any shape, and the indices' shape followed by a row's"
            )
        y, of_x, of_updates = self.write(xp, x, indices, updates.astype(x.dtype))
        return y, (Like.of(x), indices, of_x, of_updates)

    def gradients(
        self, xp: Namespace, x: Like, indices: Array, of_x: Array, of_updates: Array
    ) -> Gradients:
        """Return the diagonals of the weights, None for the indices, and a scatter."""
        write = scatter(indices, x.shape, x.dtype, axis=0)
        if of_x is None:
            return Identity(x.shape, x.dtype), None, write
        return Diagonal(of_x), None, write @ Diagonal(of_updates)


class ScatterAdd(_Scattering):
    """x with the updates added at the indices; repeated indices add up."""

    def write(
        self, xp: Namespace, x: Array, indices: Array, updates: Array
    ) -> tuple[Array, Array | None, Array | None]:
        return x + scatter_add(x.shape, indices, updates), None, None

    def reference(self, x: Array, indices: Array, updates: Array) -> Array:
        return jnp.asarray(x).at[indices].add(updates)


class Scatter(_Scattering):
    """x with the updates written at the indices; of repeated ones the last stays.

    Local gradients: a diagonal that is 0 where x was overwritten, None for the indices, and a
    scatter of the updates that stayed.
    Backward: dx = the upstream, 0 where x was overwritten; dupdates = the upstream at the indices,
    0 for updates that were overwritten themselves.
    """

    def write(
        self, xp: Namespace, x: Array, indices: Array, updates: Array
    ) -> tuple[Array, Array | None, Array | None]:
        # Writing each update's number in the same way tells which of them stayed.
        shape = (indices.size, *x.shape[1:])
        numbers = xp.arange(indices.size).reshape((indices.size, *(1,) * (x.ndim - 1)))
        numbers = xp.broadcast_to(numbers, shape)
        owners = set_at(xp.full(x.shape, -1), indices.reshape(-1), numbers)
        stayed = owners[indices] == numbers.reshape(updates.shape)
        return set_at(x, indices, updates), (owners < 0).astype(x.dtype), stayed.astype(x.dtype)

    def reference(self, x: Array, indices: Array, updates: Array) -> Array:
        return jnp.asarray(x).at[indices].set(updates)


class ScatterMax(_Scattering):
    """x with the greatest of itself and the updates at the indices.

    Local gradients: a diagonal that is 1 where x is the greatest, None for the indices, and a
    scatter of the updates that are the greatest.
    Backward: the upstream goes to the greatest; those that tie share it equally, as in JAX.
    """

    points = {**_Scattering.points, "ties": ([1.0, 2.0, 3.0], [0, 0, 2], [5.0, 5.0, 3.0])}

    def write(
        self, xp: Namespace, x: Array, indices: Array, updates: Array
    ) -> tuple[Array, Array | None, Array | None]:
        y = max_at(x, indices, updates)
        kept, won = (x == y).astype(x.dtype), (updates == y[indices]).astype(x.dtype)
        winners = kept + scatter_add(x.shape, indices, won)
        return y, kept / winners, won / winners[indices]

    def reference(self, x: Array, indices: Array, updates: Array) -> Array:
        return jnp.asarray(x).at[indices].max(updates)


class _Segments(Node):
    """Rows of x, folded by the number of their segment.

    Args:
        segments: the number of segments.
    """

    _kind = (
        "Local gradient: a scatter after the diagonal of the rows' weights in their folds. "
        "Backward: dx = the upstream of each row's segment times its weight."
    )
    segments: int = 3
    domains = (REALS, _INDICES)
    shapes = "x (n, *row), ids (n) -> (segments, *row)"
    drawn = (
        "5x2 [0,0,1,2,2]; 4 [1,0,1,1] segments=2; 3x2x2 [2,0,1]; "
        "empty segments: 3x2 [2,0,2] segments=4; zero size: 0x2 0"
    )

    @abstractmethod
    def fold(self, x: Array, ids: Array) -> tuple[Array, Array | None]:
        """Return the folded rows, and each entry's weight in them; None if all are 1."""

    def apply(self, xp: Namespace, x: Array, ids: Array) -> Applied:
        y, weights = self.fold(x, ids)
        return y, (ids, weights, y.shape, x.dtype)

    def gradients(
        self, xp: Namespace, ids: Array, weights: Array | None, shape: Shape, dtype: DTypeLike
    ) -> Gradients:
        """Return a scatter after the diagonal of the weights."""
        write = scatter(ids, shape, dtype, axis=0)
        return write if weights is None else write @ Diagonal(weights), None

    def _shape(self, x: Array) -> Shape:
        return (self.segments, *x.shape[1:])


class SegmentSum(_Segments):
    """The sum of the rows of each segment; 0 for a segment without rows."""

    jax = "jax.ops.segment_sum"

    def fold(self, x: Array, ids: Array) -> tuple[Array, Array | None]:
        return scatter_add(self._shape(x), ids, x), None


class SegmentMean(_Segments):
    """The mean of the rows of each segment; 0 for a segment without rows."""

    def fold(self, x: Array, ids: Array) -> tuple[Array, Array | None]:
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

    jax = "jax.ops.segment_max"

    points = {"ties": ({"segments": 2}, [1.0, 3.0, 3.0, 2.0], [0, 1, 1, 1])}

    def fold(self, x: Array, ids: Array) -> tuple[Array, Array | None]:
        y = max_at(namespace(x).full(self._shape(x), -math.inf, dtype=x.dtype), ids, x)
        won = (x == y[ids]).astype(x.dtype)
        return y, won / scatter_add(y.shape, ids, won)[ids]
