"""A diagonal plus a matrix of low rank: softmax, and normalisation over an axis.

The gradient of p = softmax(x) is diag(p) - p p'; that of a layer norm is diag(1/s) minus rank two.
"""

from typing import Any

from gradlab.errors import InputError
from gradlab.operators._arrays import Array, matmul, namespace, result_type, scalar
from gradlab.operators.base import Operator

__all__ = ["DiagonalPlusLowRank"]


class DiagonalPlusLowRank(Operator):
    """For each batch row, `diag(d) + u v'` along the last axis.

    Args:
        diagonal: d, `(*batch, n)`: the shape of input and output.
        left: u, `(*batch, n, rank)`.
        right: v, `(*batch, n, rank)`.

    Raises:
        InputError: If the three shapes do not belong together.

    Example:
        >>> import numpy as np
        >>> p = np.full((128, 1000), 1e-3)
        >>> DiagonalPlusLowRank(p, -p[..., None], p[..., None])
        DiagonalPlusLowRank(128x1000, 3.1 MB; dense would be 122.1 GiB)
    """

    def __init__(self, diagonal: Array, left: Array, right: Array) -> None:
        shape = tuple(diagonal.shape)
        if not shape or left.shape[:-1] != shape or left.shape != right.shape:
            raise InputError(
                "DiagonalPlusLowRank: expected diagonal (*batch, n), left and right "
                f"(*batch, n, rank); got {shape}, {tuple(left.shape)}, {tuple(right.shape)}"
            )
        dtype = result_type(diagonal.dtype, left.dtype, right.dtype)
        super().__init__(shape, shape, dtype, (diagonal, left, right))
        self.diagonal, self.left, self.right = diagonal, left, right

    def _apply(self, x: Array) -> Array:
        xp = namespace(*self.arrays, x)
        inner = matmul(xp.matrix_transpose(self.right), x[..., None])
        return self.diagonal * x + matmul(self.left, inner)[..., 0]

    @property
    def T(self) -> "DiagonalPlusLowRank":
        """Both factors change places."""
        return DiagonalPlusLowRank(self.diagonal, self.right, self.left)

    def _scale(self, factor: Any) -> "DiagonalPlusLowRank":
        number = scalar(factor, self.diagonal)
        return DiagonalPlusLowRank(number * self.diagonal, number * self.left, self.right)
