"""Parts of matrices: diagonals and triangles, over the last two axes."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import (
    Array,
    Shape,
    as_inputs,
    as_upstream,
    namespace,
    scatter_add,
)
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, generic
from gradlab.nodes._lazy import jnp
from gradlab.operators import Diagonal as DiagonalOperator
from gradlab.operators import Selection, scatter

__all__ = ["DiagonalMatrix", "MatrixDiagonal", "Tril", "Triu"]


@dataclass(frozen=True)
class _Triangle(Node):
    """x with zeros on one side of a diagonal, over its last two axes.

    Args:
        offset: the diagonal at which the triangle ends: 0 the main one, above it positive.
    """

    offset: int = 0

    @abstractmethod
    def keeps(self, rows: Array, columns: Array) -> Array:
        """Return where the entries stay."""

    def _mask(self, x: Array) -> Array:
        xp = namespace(x)
        rows, columns = x.shape[-2:]
        kept = self.keeps(xp.arange(rows)[:, None], xp.arange(columns)[None, :])
        return xp.broadcast_to(kept, x.shape)

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        """Return the triangle."""
        (x,) = as_inputs(self, inputs)
        if len(x.shape) < 2:
            raise InputError(f"{self!r}: shape {shape_text(x.shape)} is no matrix, nor several")
        mask = self._mask(x)
        y = namespace(x).where(mask, x, namespace(x).zeros_like(x))
        return y, (y, mask)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        """Return the diagonal of ones and zeros."""
        y, mask = residuals
        return (DiagonalOperator(mask.astype(y.dtype)),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        """Return the same triangle of the upstream."""
        y, mask = residuals
        upstream = as_upstream(self, upstream, y).astype(y.dtype)
        return (namespace(y).where(mask, upstream, namespace(y).zeros_like(y)),)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        """Return square, wide and batched matrices, then the corners."""
        return (
            generic(cls(), (3, 3)),
            generic(cls(1), (2, 4)),
            generic(cls(-1), (2, 4, 3)),
            Case(cls(), ((1, 1),), "size-1 axes"),
            Case(cls(), ((0, 3),), "zero size"),
        )


class Tril(_Triangle):
    """The lower triangle of x, over its last two axes.

    Local gradient: a diagonal of ones and zeros, 1 where column <= row + offset.
    Backward: dx = the lower triangle of the upstream.
    """

    def keeps(self, rows: Array, columns: Array) -> Array:
        return columns <= rows + self.offset

    def reference(self, x: Array) -> Array:
        return jnp.tril(x, self.offset)


class Triu(_Triangle):
    """The upper triangle of x, over its last two axes.

    Local gradient: a diagonal of ones and zeros, 1 where column >= row + offset.
    Backward: dx = the upper triangle of the upstream.
    """

    def keeps(self, rows: Array, columns: Array) -> Array:
        return columns >= rows + self.offset

    def reference(self, x: Array) -> Array:
        return jnp.triu(x, self.offset)


def _flat_diagonal(shape: Shape, offset: int) -> Any:
    """Return the flat indices of a diagonal of each matrix in an array of this shape."""
    *batch, rows, columns = shape
    places = np.arange(min(rows + min(offset, 0), columns - max(offset, 0)))
    first = (places + max(-offset, 0)) * columns + places + max(offset, 0)
    matrices = np.arange(int(np.prod(batch))).reshape(batch)
    return matrices[..., None] * (rows * columns) + first


@dataclass(frozen=True)
class MatrixDiagonal(Node):
    """The diagonal of x, over its last two axes.

    Args:
        offset: which diagonal: 0 the main one, above it positive.

    Local gradient: a selection. Backward: dx = zeros, with the upstream on the diagonal.
    """

    offset: int = 0

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        if len(x.shape) < 2:
            raise InputError(f"{self!r}: shape {shape_text(x.shape)} is no matrix, nor several")
        y = x.reshape(-1)[_flat_diagonal(x.shape, self.offset)]
        return y, (x, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, _ = residuals
        return (Selection(_flat_diagonal(x.shape, self.offset), x.shape, x.dtype),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, y = residuals
        upstream = as_upstream(self, upstream, y).astype(x.dtype)
        return (
            scatter_add((x.size,), _flat_diagonal(x.shape, self.offset), upstream).reshape(x.shape),
        )

    def reference(self, x: Array) -> Array:
        return jnp.diagonal(x, self.offset, -2, -1)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 3)),
            generic(cls(1), (3, 5)),
            generic(cls(-2), (2, 4, 3)),
            Case(cls(), ((1, 1),), "size-1 axes"),
            Case(cls(), ((0, 2, 2),), "zero size"),
        )


class DiagonalMatrix(Node):
    """Matrices with x, along its last axis, on their diagonals and zeros elsewhere.

    Local gradient: a scatter. Backward: dx = the diagonal of the upstream.
    """

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        shape = (*x.shape, x.shape[-1])
        y = scatter_add((x.size * x.shape[-1],), _flat_diagonal(shape, 0), x).reshape(shape)
        return y, (x, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, y = residuals
        return (scatter(_flat_diagonal(y.shape, 0), y.shape, x.dtype),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, y = residuals
        flat = as_upstream(self, upstream, y).reshape(-1)
        return (flat[_flat_diagonal(y.shape, 0)].astype(x.dtype),)

    def reference(self, x: Array) -> Array:
        return x[..., None] * jnp.eye(x.shape[-1], dtype=x.dtype)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3,)),
            generic(cls(), (2, 4)),
            generic(cls(), (2, 1, 3)),
            Case(cls(), ((1,),), "size-1 axes"),
            Case(cls(), ((0, 2),), "zero size"),
        )
