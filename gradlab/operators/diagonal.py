"""Entry by entry: the local gradient of every elementwise operation."""

from typing import Any

from gradlab.operators._arrays import Array, namespace, scalar
from gradlab.operators.base import Operator

__all__ = ["Diagonal"]


class Diagonal(Operator):
    """Multiplication by an array, entry by entry: `y = d * x`.

    Args:
        diagonal: The factors, in the shape of input and output.

    Example:
        >>> import numpy as np
        >>> Diagonal(np.array([2.0, 3.0])).to_dense()
        array([[2., 0.],
               [0., 3.]])
    """

    def __init__(self, diagonal: Array) -> None:
        super().__init__(diagonal.shape, diagonal.shape, diagonal.dtype, (diagonal,))
        self.diagonal = diagonal

    def _apply(self, x: Array) -> Array:
        return self.diagonal * x

    @property
    def T(self) -> "Diagonal":
        """Itself."""
        return self

    def _dense(self) -> Array:
        """Return the matrix; an infinite factor leaves the zeros beside it zero."""
        return namespace(self.diagonal).diag(self.diagonal.reshape(-1))

    def _scale(self, factor: Any) -> "Diagonal":
        return Diagonal(scalar(factor, self.diagonal) * self.diagonal)
