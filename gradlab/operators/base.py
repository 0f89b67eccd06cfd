"""The base of all structured linear maps: what a local gradient can do, whatever its structure.

A local gradient is the Jacobian of one output with respect to one input. Both are arrays, so it is
thought of as a matrix over their entries in C order, but it is stored by its structure: backward is
`upstream @ gradient` and needs no matrix.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from gradlab.errors import InputError, InputTypeError
from gradlab.formatting import shape_text, size_text
from gradlab.operators._arrays import (
    Array,
    DTypeLike,
    Shape,
    as_shape,
    map_columns,
    namespace,
)

if TYPE_CHECKING:
    from gradlab.patterns import Pattern

__all__ = ["Operator"]


class Operator(ABC):
    """A linear map from arrays of `input_shape` to arrays of `output_shape`.

    Attributes:
        output_shape: The shape of what it returns.
        input_shape: The shape of what it takes.
        dtype: The dtype of the matrix that it stands for.
        arrays: The arrays that it stores; NumPy's, JAX's, or tracers of JAX.

    Example:
        >>> import numpy as np
        >>> from gradlab.operators import Diagonal
        >>> tanh_gradient = Diagonal(1 - np.tanh(np.zeros((100, 4096), np.float32)) ** 2)
        >>> tanh_gradient
        Diagonal(100x4096, 1.6 MB; dense would be 625.0 GiB)
        >>> upstream = np.ones((100, 4096), np.float32)
        >>> (upstream @ tanh_gradient).shape
        (100, 4096)
    """

    # NumPy then leaves `array @ operator` and `number * operator` to the operator.
    __array_ufunc__ = None

    def __init__(
        self,
        output_shape: Iterable[int],
        input_shape: Iterable[int],
        dtype: DTypeLike,
        arrays: tuple[Array, ...] = (),
    ) -> None:
        self.output_shape: Shape = as_shape(output_shape)
        self.input_shape: Shape = as_shape(input_shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.arrays = arrays

    @abstractmethod
    def _apply(self, x: Array) -> Array:
        """Return the image of an array that has the right shape."""

    @property
    @abstractmethod
    def T(self) -> "Operator":
        """The transpose: it maps an upstream back to the input."""

    @property
    def pattern(self) -> "Pattern":
        """Which output entries may depend on which input entries."""
        from gradlab.operators.dependence import pattern_of

        return pattern_of(self)

    def _scale(self, factor: Any) -> "Operator":
        from gradlab.operators.compose import Scaled

        return Scaled(factor, self)

    @property
    def name(self) -> str:
        """The name of its structure, as a person reads it."""
        return type(self).__name__

    @property
    def is_identity(self) -> bool:
        """Whether it is known to return every array as it came."""
        return False

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of its matrix: output entries by input entries."""
        return math.prod(self.output_shape), math.prod(self.input_shape)

    @property
    def stored_bytes(self) -> int:
        """The bytes of the arrays that it holds."""
        return sum(math.prod(array.shape) * array.dtype.itemsize for array in self.arrays)

    @property
    def dense_bytes(self) -> int:
        """The bytes that its matrix would take."""
        return math.prod(self.shape) * self.dtype.itemsize

    def apply(self, x: Array) -> Array:
        """Return the image of an array; of a tangent, this is the pushforward.

        Args:
            x: An array of `input_shape`, of NumPy or JAX.

        Raises:
            InputError: If its shape is not `input_shape`.
            InputTypeError: If it is not an array.

        Example:
            >>> import numpy as np
            >>> from gradlab.operators import Sum
            >>> Sum.over((2, 3), 1, np.float64).apply(np.ones((2, 3)))
            array([3., 3.])
        """
        if not hasattr(x, "shape"):
            raise InputTypeError(
                f"{self.name}.apply: expected an array of shape {self.input_shape}; "
                f"got {type(x).__name__}; wrap it in numpy.asarray"
            )
        if tuple(x.shape) != self.input_shape:
            raise InputError(
                f"{self.name}.apply: expected an array of shape {self.input_shape}; "
                f"got one of shape {tuple(x.shape)}"
            )
        return self._apply(x)

    def to_dense(self, max_bytes: int = 2**30) -> Array:
        """Return the matrix, of shape `.shape`, in the namespace of the operator's arrays.

        Args:
            max_bytes: The most that the matrix may take.

        Raises:
            InputError: If it takes more; nothing has been allocated then.

        Example:
            >>> import numpy as np
            >>> from gradlab.operators import Permutation
            >>> Permutation((1, 0), (2, 2), np.float64).to_dense().astype(int)
            array([[1, 0, 0, 0],
                   [0, 0, 1, 0],
                   [0, 1, 0, 0],
                   [0, 0, 0, 1]])
        """
        rows, columns = self.shape
        if self.dense_bytes > max_bytes:
            raise InputError(
                f"to_dense: the dense {rows:,} x {columns:,} matrix takes "
                f"{size_text(self.dense_bytes)}, more than max_bytes={size_text(max_bytes)}; the "
                f"operator holds {size_text(self.stored_bytes)}: use apply, @ and .T, or raise "
                "max_bytes"
            )
        return self._dense()

    def _dense(self) -> Array:
        xp = namespace(*self.arrays)
        rows, columns = self.shape
        if rows * columns == 0:
            return xp.zeros((rows, columns), dtype=self.dtype)
        basis = xp.eye(columns, dtype=self.dtype)
        return map_columns(self._apply, basis, self.input_shape)

    @overload
    def __matmul__(self, other: "Operator") -> "Operator": ...
    @overload
    def __matmul__(self, other: Array) -> Array: ...
    def __matmul__(self, other: Any) -> Any:
        from gradlab.operators.algebra import product

        return product(self, other) if isinstance(other, Operator) else self.apply(other)

    def __rmatmul__(self, upstream: Array) -> Array:
        return self.T.apply(upstream)

    def __add__(self, other: Any) -> "Operator":
        from gradlab.operators.algebra import add

        return add(self, other) if isinstance(other, Operator) else NotImplemented

    def __sub__(self, other: Any) -> "Operator":
        return self + (-other) if isinstance(other, Operator) else NotImplemented

    def __mul__(self, factor: Any) -> "Operator":
        if isinstance(factor, Operator):
            raise InputTypeError(
                f"{self.name} * {factor.name}: only a number multiplies an operator; "
                "write a @ b for the composition"
            )
        if getattr(factor, "shape", ()) != ():
            raise InputError(
                f"number * {self.name}: expected a number; got an array of shape {factor.shape}; "
                "write Diagonal(array) @ operator to multiply entry by entry"
            )
        if isinstance(factor, int | float) and factor == 1:
            return self
        return self._scale(float(factor) if isinstance(factor, np.float64) else factor)

    __rmul__ = __mul__

    def __neg__(self) -> "Operator":
        return self._scale(-1)

    def __repr__(self) -> str:
        shapes = shape_text(self.output_shape)
        if self.output_shape != self.input_shape:
            shapes += f" <- {shape_text(self.input_shape)}"
        size = size_text(self.stored_bytes)
        if self.stored_bytes != self.dense_bytes:
            size += f"; dense would be {size_text(self.dense_bytes)}"
        return f"{self.name}({shapes}, {size})"
