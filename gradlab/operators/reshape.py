"""The maps that move entries and change none: reshape, and the transposition of axes."""

from collections.abc import Iterable, Sequence

from gradlab.errors import InputError
from gradlab.operators._arrays import Array, DTypeLike, namespace, normal_axes
from gradlab.operators.base import Operator

__all__ = ["Permutation", "Reshape"]


class Reshape(Operator):
    """The same entries in the same order, in another shape; its matrix is the identity.

    Args:
        input_shape: The shape that comes in.
        output_shape: The shape that goes out, of the same size.
        dtype: The input's dtype.

    Example:
        >>> import numpy as np
        >>> Reshape((2, 3), (6,), np.float64).apply(np.arange(6.0).reshape(2, 3))
        array([0., 1., 2., 3., 4., 5.])
    """

    def __init__(
        self, input_shape: Iterable[int], output_shape: Iterable[int], dtype: DTypeLike
    ) -> None:
        super().__init__(output_shape, input_shape, dtype)
        if self.shape[0] != self.shape[1]:
            raise InputError(
                f"Reshape: shapes {self.input_shape} and {self.output_shape} differ in size, "
                f"{self.shape[1]} and {self.shape[0]}"
            )

    def _apply(self, x: Array) -> Array:
        return x.reshape(self.output_shape)

    @property
    def T(self) -> "Reshape":
        """The reshape back."""
        return Reshape(self.output_shape, self.input_shape, self.dtype)

    @property
    def is_identity(self) -> bool:
        """Whether both shapes are the same."""
        return self.input_shape == self.output_shape


class Permutation(Operator):
    """The transposition of axes: `y = transpose(x, axes)`.

    Args:
        axes: For each output axis, the input axis that it is; negative ones count from the end.
        input_shape: The shape that comes in.
        dtype: The input's dtype.

    Example:
        >>> import numpy as np
        >>> Permutation((1, 0), (2, 3), np.float64)
        Permutation(3x2 <- 2x3, 0 B; dense would be 288 B)
    """

    def __init__(self, axes: Sequence[int], input_shape: Sequence[int], dtype: DTypeLike) -> None:
        ndim = len(input_shape)
        if len(axes) != ndim or len(normal_axes(axes, ndim, "Permutation")) != ndim:
            raise InputError(
                f"Permutation: axes {tuple(axes)} must name each axis of {tuple(input_shape)} once"
            )
        self.axes = tuple(axis % ndim for axis in axes)
        super().__init__([input_shape[axis] for axis in self.axes], input_shape, dtype)

    def _apply(self, x: Array) -> Array:
        return namespace(x).permute_dims(x, self.axes)

    @property
    def T(self) -> "Permutation":
        """The transposition back."""
        inverse = tuple(self.axes.index(axis) for axis in range(len(self.axes)))
        return Permutation(inverse, self.output_shape, self.dtype)

    @property
    def is_identity(self) -> bool:
        """Whether every axis stays where it is."""
        return self.axes == tuple(range(len(self.axes)))
