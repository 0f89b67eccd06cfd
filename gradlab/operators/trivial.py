"""The maps that need no numbers: zero and identity."""

from collections.abc import Iterable
from typing import Any

from gradlab.operators._arrays import Array, DTypeLike, namespace
from gradlab.operators.base import Operator

__all__ = ["Identity", "Zero"]


class Zero(Operator):
    """The map to zero: the output does not depend on the input.

    Args:
        output_shape: The output's shape.
        input_shape: The input's shape.
        dtype: The input's dtype.

    Example:
        >>> import numpy as np
        >>> Zero((2,), (3,), np.float64).apply(np.ones(3))
        array([0., 0.])
    """

    def __init__(
        self, output_shape: Iterable[int], input_shape: Iterable[int], dtype: DTypeLike
    ) -> None:
        super().__init__(output_shape, input_shape, dtype)

    def _apply(self, x: Array) -> Array:
        return namespace(x).zeros(self.output_shape, dtype=x.dtype)

    @property
    def T(self) -> "Zero":
        """The zero map back."""
        return Zero(self.input_shape, self.output_shape, self.dtype)

    def _scale(self, factor: Any) -> "Zero":
        return self


class Identity(Operator):
    """The map that returns its input.

    Args:
        shape: The shape of input and output.
        dtype: The input's dtype.

    Example:
        >>> import numpy as np
        >>> Identity((100, 4096), np.float32)
        Identity(100x4096, 0 B; dense would be 625.0 GiB)
    """

    def __init__(self, shape: Iterable[int], dtype: DTypeLike) -> None:
        shape = tuple(shape)
        super().__init__(shape, shape, dtype)

    def _apply(self, x: Array) -> Array:
        return x

    @property
    def T(self) -> "Identity":
        """Itself."""
        return self

    @property
    def is_identity(self) -> bool:
        """True."""
        return True
