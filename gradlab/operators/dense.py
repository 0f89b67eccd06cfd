"""The map without structure: a matrix, every entry of it."""

import math
from collections.abc import Iterable
from typing import Any

from gradlab.errors import InputError
from gradlab.operators._arrays import Array, as_shape, matmul, scalar
from gradlab.operators.base import Operator

__all__ = ["Dense"]


class Dense(Operator):
    """A matrix over the flat entries of output and input.

    Args:
        matrix: `(output entries, input entries)`, both in C order.
        output_shape: The output's shape.
        input_shape: The input's shape.

    Raises:
        InputError: If the matrix has not the size of the shapes.

    Example:
        >>> import numpy as np
        >>> Dense(np.ones((10, 64), np.float32), (10,), (64,))
        Dense(10 <- 64, 2.6 kB)
    """

    def __init__(
        self, matrix: Array, output_shape: Iterable[int], input_shape: Iterable[int]
    ) -> None:
        output_shape, input_shape = as_shape(output_shape), as_shape(input_shape)
        needed = math.prod(output_shape), math.prod(input_shape)
        if tuple(matrix.shape) != needed:
            raise InputError(
                f"Dense: a map from {input_shape} to {output_shape} has a matrix of shape "
                f"{needed}; got {tuple(matrix.shape)}"
            )
        super().__init__(output_shape, input_shape, matrix.dtype, (matrix,))
        self.matrix = matrix

    def _apply(self, x: Array) -> Array:
        flat = matmul(self.matrix, x.reshape(-1))
        return flat.reshape(self.output_shape)

    @property
    def T(self) -> "Dense":
        """The matrix transposed."""
        return Dense(self.matrix.T, self.input_shape, self.output_shape)

    def to_dense(self, max_bytes: int = 2**30) -> Array:
        """Return the matrix, which is there already, however large."""
        return self.matrix

    def _scale(self, factor: Any) -> "Dense":
        matrix = scalar(factor, self.matrix) * self.matrix
        return Dense(matrix, self.output_shape, self.input_shape)
