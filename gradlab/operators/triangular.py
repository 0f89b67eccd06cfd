"""Causal maps: along one axis, each output sees the inputs up to its own place.

The cumulative sum is the one whose entries are all ones. Transposed, a causal map is an upper
triangle: each output sees the inputs from its own place on.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from gradlab.errors import InputError
from gradlab.operators._arrays import (
    Array,
    DTypeLike,
    as_shape,
    matmul,
    namespace,
    normal_axes,
    scalar,
)
from gradlab.operators.base import Operator

__all__ = ["CumulativeSum", "LowerTriangular", "UpperTriangular"]


class CumulativeSum(Operator):
    """The cumulative sum along an axis.

    Args:
        shape: The shape of input and output.
        dtype: The input's dtype.
        axis: The axis; negative ones count from the end.
        reverse: Whether the sum runs from the end.

    Raises:
        InputError: If there is no such axis.

    Example:
        >>> import numpy as np
        >>> running = CumulativeSum((3,), np.float64)
        >>> running.apply(np.array([1.0, 2.0, 3.0])), np.array([1.0, 2.0, 3.0]) @ running
        (array([1., 3., 6.]), array([6., 5., 3.]))
    """

    def __init__(
        self, shape: Sequence[int], dtype: DTypeLike, axis: int = -1, reverse: bool = False
    ) -> None:
        super().__init__(shape, shape, dtype)
        (self.axis,) = normal_axes(axis, len(self.input_shape), "CumulativeSum")
        self.reverse = reverse

    def _apply(self, x: Array) -> Array:
        xp, axis = namespace(x), self.axis
        if self.reverse:
            return xp.flip(xp.cumulative_sum(xp.flip(x, axis=axis), axis=axis), axis=axis)
        return xp.cumulative_sum(x, axis=axis)

    @property
    def T(self) -> "CumulativeSum":
        """The sum that runs the other way."""
        return CumulativeSum(self.input_shape, self.dtype, self.axis, not self.reverse)


class _Triangular(Operator):
    """One triangular matrix along an axis, shared or one for each place of the other axes."""

    def __init__(self, entries: Array, shape: Sequence[int], axis: int = -1) -> None:
        shape = as_shape(shape)
        (self.axis,) = normal_axes(axis, len(shape), self.name)
        size = shape[self.axis]
        batch = (*shape[: self.axis], *shape[self.axis + 1 :])
        if tuple(entries.shape) not in ((size, size), (*batch, size, size)):
            raise InputError(
                f"{self.name}: along axis {self.axis} of shape {shape}, expected entries of shape "
                f"{(size, size)} or {(*batch, size, size)}; got {tuple(entries.shape)}"
            )
        self.entries = self._part(entries)
        super().__init__(shape, shape, entries.dtype, (self.entries,))

    @staticmethod
    @abstractmethod
    def _part(entries: Array) -> Array:
        """Return the entries of the triangle, and zeros."""

    def _apply(self, x: Array) -> Array:
        xp = namespace(self.entries, x)
        rows = xp.moveaxis(x, self.axis, -1)
        return xp.moveaxis(matmul(self.entries, rows[..., None])[..., 0], -1, self.axis)

    def _scale(self, factor: Any) -> Operator:
        entries = scalar(factor, self.entries) * self.entries
        return type(self)(entries, self.input_shape, self.axis)


class LowerTriangular(_Triangular):
    """A causal map along an axis: `y[i] = sum over j <= i of entries[i, j] x[j]`.

    Args:
        entries: `(n, n)`, or `(*other axes, n, n)` with a matrix for each place of the other
            axes; what lies above the diagonal is not read.
        shape: The shape of input and output.
        axis: The axis of size n; negative ones count from the end.

    Raises:
        InputError: If the entries do not fit the shape.

    Example:
        >>> import numpy as np
        >>> LowerTriangular(np.array([[1.0, 9.0], [2.0, 3.0]]), (2,)).to_dense()
        array([[1., 0.],
               [2., 3.]])
    """

    @staticmethod
    def _part(entries: Array) -> Array:
        return namespace(entries).tril(entries)

    @property
    def T(self) -> "UpperTriangular":
        """The upper triangle that the entries are when transposed."""
        entries = namespace(self.entries).matrix_transpose(self.entries)
        return UpperTriangular(entries, self.input_shape, self.axis)


class UpperTriangular(_Triangular):
    """The transpose of a causal map: `y[i] = sum over j >= i of entries[i, j] x[j]`.

    Args:
        entries: `(n, n)`, or `(*other axes, n, n)` with a matrix for each place of the other
            axes; what lies below the diagonal is not read.
        shape: The shape of input and output.
        axis: The axis of size n; negative ones count from the end.

    Raises:
        InputError: If the entries do not fit the shape.

    Example:
        >>> import numpy as np
        >>> UpperTriangular(np.array([[1.0, 2.0], [9.0, 3.0]]), (2,)).apply(np.ones(2))
        array([3., 3.])
    """

    @staticmethod
    def _part(entries: Array) -> Array:
        return namespace(entries).triu(entries)

    @property
    def T(self) -> LowerTriangular:
        """The causal map that the entries are when transposed."""
        entries = namespace(self.entries).matrix_transpose(self.entries)
        return LowerTriangular(entries, self.input_shape, self.axis)
