"""Gathering by index and its transpose, scattering: what is read twice is added twice."""

import math
from collections.abc import Sequence

import numpy as np

from gradlab.errors import InputError, InputTypeError
from gradlab.operators._arrays import (
    Array,
    DTypeLike,
    Shape,
    add_at,
    as_shape,
    namespace,
    normal_axes,
)
from gradlab.operators.base import Operator

__all__ = ["Scatter", "Selection"]


class _Gather:
    """Which entries of a large array are read, along one axis or from its flat entries."""

    def __init__(self, indices: Array, large: Shape, axis: int | None, caller: str) -> None:
        if not hasattr(indices, "dtype"):
            indices = np.asarray(indices, dtype=None if np.size(indices) else np.intp)
        if indices.dtype.kind not in "iu":
            raise InputTypeError(
                f"{caller}: indices must be integers; got dtype {indices.dtype}; "
                "turn a mask into indices with numpy.nonzero"
            )
        self.indices, self.axis, self.large = indices, axis, large
        picked = tuple(indices.shape)
        if axis is None:
            self.small, self.view = picked, (1, math.prod(large), 1)
        else:
            (axis,) = normal_axes(axis, len(large), caller)
            before, after = large[:axis], large[axis + 1 :]
            self.axis, self.small = axis, (*before, *picked, *after)
            self.view = (math.prod(before), large[axis], math.prod(after))
        size = self.view[1]
        if self.is_static and indices.size and not -size <= indices.min() <= indices.max() < size:
            raise InputError(
                f"{caller}: indices run from {indices.min()} to {indices.max()}; "
                f"the axis of shape {large} that they index has {size} entries"
            )

    @property
    def is_static(self) -> bool:
        """Whether the indices are known numbers, not JAX's."""
        return isinstance(self.indices, np.ndarray | np.generic)

    def read(self, x: Array) -> Array:
        """Return the entries at the indices; JAX's indices out of bounds read zeros."""
        xp, flat = namespace(self.indices, x), self.indices.reshape(-1)
        x = x.reshape(self.view)
        if xp is np:
            return x[:, flat].reshape(self.small)
        return xp.asarray(x).at[:, flat].get(mode="fill", fill_value=0).reshape(self.small)

    def write(self, y: Array) -> Array:
        """Return zeros with the entries of `y` added at the indices."""
        xp, flat = namespace(self.indices, y), self.indices.reshape(-1)
        before, _, after = self.view
        zeros = xp.zeros(self.view, dtype=y.dtype)
        index = (slice(None), flat)
        return add_at(zeros, index, y.reshape(before, flat.shape[0], after)).reshape(self.large)


class Selection(Operator):
    """Entries picked by index, as NumPy's `take`: along an axis, or from the flat array.

    Args:
        indices: Integers of any shape, known or traced; negative ones count from the end.
        input_shape: The shape that comes in.
        dtype: The input's dtype.
        axis: The axis that is indexed; None: the array is flattened first, and the output has
            the shape of the indices.

    Raises:
        InputError: If known indices are out of bounds, or there is no such axis.
        InputTypeError: If the indices are no integers.

    Example:
        >>> import numpy as np
        >>> rows = Selection([2, 0, 2], (3, 2), np.float64, axis=0)
        >>> rows.apply(np.arange(6.0).reshape(3, 2))
        array([[4., 5.],
               [0., 1.],
               [4., 5.]])
        >>> np.ones((3, 2)) @ rows
        array([[1., 1.],
               [0., 0.],
               [2., 2.]])
    """

    def __init__(
        self,
        indices: Array,
        input_shape: Sequence[int],
        dtype: DTypeLike,
        axis: int | None = None,
    ) -> None:
        self._gather = _Gather(indices, as_shape(input_shape), axis, "Selection")
        indices = self._gather.indices
        super().__init__(self._gather.small, input_shape, dtype, (indices,))
        self.indices, self.axis = indices, self._gather.axis

    @property
    def is_static(self) -> bool:
        """Whether the indices are known numbers, not JAX's."""
        return self._gather.is_static

    def _apply(self, x: Array) -> Array:
        return self._gather.read(x)

    @property
    def T(self) -> "Scatter":
        """The scatter that adds each entry where it was read."""
        return Scatter(self.indices, self.input_shape, self.dtype, self.axis)


class Scatter(Operator):
    """Entries added at their indices into zeros: the transpose of a selection.

    Args:
        indices: Integers of any shape, known or traced; repeated ones add.
        output_shape: The shape of what is added into.
        dtype: The input's dtype.
        axis: The axis that is indexed; None: the flat array.

    Raises:
        InputError: If known indices are out of bounds, or there is no such axis.
        InputTypeError: If the indices are no integers.

    Example:
        >>> import numpy as np
        >>> Scatter([1, 1], (3,), np.float64).apply(np.array([2.0, 3.0]))
        array([0., 5., 0.])
    """

    def __init__(
        self,
        indices: Array,
        output_shape: Sequence[int],
        dtype: DTypeLike,
        axis: int | None = None,
    ) -> None:
        self._gather = _Gather(indices, as_shape(output_shape), axis, "Scatter")
        indices = self._gather.indices
        super().__init__(output_shape, self._gather.small, dtype, (indices,))
        self.indices, self.axis = indices, self._gather.axis

    @property
    def is_static(self) -> bool:
        """Whether the indices are known numbers, not JAX's."""
        return self._gather.is_static

    def _apply(self, x: Array) -> Array:
        return self._gather.write(x)

    @property
    def T(self) -> Selection:
        """The selection that reads each entry where it was added."""
        return Selection(self.indices, self.output_shape, self.dtype, self.axis)
