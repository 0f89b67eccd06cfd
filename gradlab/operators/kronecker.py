"""Kronecker products: one matrix per axis, each acting along its own."""

from functools import reduce
from typing import Any

from gradlab.errors import InputError
from gradlab.operators._arrays import Array, namespace, result_type, scalar
from gradlab.operators.base import Operator

__all__ = ["Kronecker"]


class Kronecker(Operator):
    """The Kronecker product of matrices: the i-th maps along axis i, and leaves the others.

    Of two factors: `y = A x B'` for a matrix x; over entries in C order its matrix is `kron(A, B)`.

    Args:
        factors: Matrices `(m_i, n_i)`, at least one; input `(n_1, n_2, ...)`, output
            `(m_1, m_2, ...)`.

    Raises:
        InputError: If a factor is no matrix.

    Example:
        >>> import numpy as np
        >>> Kronecker(np.ones((64, 64)), np.ones((48, 48)))
        Kronecker(64x48, 51.2 kB; dense would be 75.5 MB)
    """

    def __init__(self, *factors: Array) -> None:
        shapes = [tuple(factor.shape) for factor in factors]
        if not shapes or any(len(shape) != 2 for shape in shapes):
            raise InputError(f"Kronecker: expected matrices (m, n); got arrays of shapes {shapes}")
        super().__init__(
            [rows for rows, _ in shapes],
            [columns for _, columns in shapes],
            result_type(*(factor.dtype for factor in factors)),
            factors,
        )
        self.factors = factors

    def _apply(self, x: Array) -> Array:
        xp = namespace(*self.factors, x)
        for axis, factor in enumerate(self.factors):
            x = xp.moveaxis(xp.tensordot(factor, x, axes=((1,), (axis,))), 0, axis)
        return x

    @property
    def T(self) -> "Kronecker":
        """The factors transposed."""
        return Kronecker(*(factor.T for factor in self.factors))

    def _dense(self) -> Array:
        return reduce(namespace(*self.factors).kron, self.factors)

    def _scale(self, factor: Any) -> "Kronecker":
        first, *rest = self.factors
        return Kronecker(scalar(factor, first) * first, *rest)
