"""Broadcasting and its transpose, the sum: why a gradient is summed back to its input's shape."""

import math
from collections.abc import Iterable, Sequence

from gradlab.errors import InputError
from gradlab.operators._arrays import Array, DTypeLike, Shape, as_shape, namespace, normal_axes
from gradlab.operators.base import Operator

__all__ = ["Broadcast", "Sum", "broadcast_axes"]


def broadcast_axes(small: Shape, large: Shape, caller: str) -> tuple[int, ...]:
    """Return the axes of `large` along which an array of `small` is repeated, by NumPy's rules.

    Raises:
        InputError: If the shape `small` does not broadcast to `large`.

    Example:
        >>> broadcast_axes((1, 3), (4, 2, 3), "Broadcast")
        (0, 1)
    """
    missing = len(large) - len(small)
    pairs = list(zip(small, large[missing:])) if missing >= 0 else []
    if missing < 0 or any(few not in (1, many) for few, many in pairs):
        raise InputError(f"{caller}: shape {small} does not broadcast to {large}")
    stretched = (missing + i for i, (few, many) in enumerate(pairs) if few != many)
    return (*range(missing), *stretched)


def _repeated(
    axes: Sequence[int] | None, small: Shape, large: Shape, caller: str
) -> tuple[int, ...]:
    """Return the axes of `large` along which `small` is repeated: by NumPy's rules, or as told."""
    if axes is None:
        return broadcast_axes(small, large, caller)
    return normal_axes(axes, len(large), caller)


def _kept(small: Shape, large: Shape, axes: tuple[int, ...], caller: str) -> Shape:
    """Return `large` with ones at the repeated axes: `small`, up to axes of size one."""
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(large))
    if [size for size in kept if size != 1] != [size for size in small if size != 1]:
        raise InputError(f"{caller}: shape {large} summed over axes {axes} is not {small}")
    return kept


class Broadcast(Operator):
    """Repetition of an array along new axes or axes of size one.

    Args:
        input_shape: The shape that comes in.
        output_shape: The shape that goes out.
        dtype: The input's dtype.
        axes: The axes of `output_shape` along which the input is repeated; by default those
            that NumPy's rules give. The input lacks each of them, or has it with size one.

    Raises:
        InputError: If the input does not broadcast to the output.

    Example:
        >>> import numpy as np
        >>> Broadcast((2,), (2, 3), np.float64, axes=(1,)).apply(np.array([1.0, 2.0]))
        array([[1., 1., 1.],
               [2., 2., 2.]])
    """

    def __init__(
        self,
        input_shape: Iterable[int],
        output_shape: Iterable[int],
        dtype: DTypeLike,
        axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(output_shape, input_shape, dtype)
        small, large = self.input_shape, self.output_shape
        self.axes = _repeated(axes, small, large, "Broadcast")
        self.kept_shape = _kept(small, large, self.axes, "Broadcast")

    def _apply(self, x: Array) -> Array:
        return namespace(x).broadcast_to(x.reshape(self.kept_shape), self.output_shape)

    @property
    def T(self) -> "Sum":
        """The sum over what was repeated."""
        return Sum(self.output_shape, self.input_shape, self.dtype, self.axes)

    @property
    def is_identity(self) -> bool:
        """Whether nothing is repeated and no axis is added."""
        return self.input_shape == self.output_shape


class Sum(Operator):
    """The sum over axes: the transpose of broadcasting.

    Args:
        input_shape: The shape that comes in.
        output_shape: The shape that it is summed to.
        dtype: The input's dtype.
        axes: The axes of `input_shape` that are summed; by default those along which
            `output_shape` would be repeated by NumPy's rules.

    Raises:
        InputError: If the output does not broadcast to the input.

    Example:
        >>> import numpy as np
        >>> Sum((2, 3), (3,), np.float64).apply(np.ones((2, 3)))
        array([2., 2., 2.])
    """

    def __init__(
        self,
        input_shape: Iterable[int],
        output_shape: Iterable[int],
        dtype: DTypeLike,
        axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(output_shape, input_shape, dtype)
        small, large = self.output_shape, self.input_shape
        self.axes = _repeated(axes, small, large, "Sum")
        _kept(small, large, self.axes, "Sum")

    @classmethod
    def over(
        cls,
        input_shape: Iterable[int],
        axis: int | Sequence[int] | None,
        dtype: DTypeLike,
        keepdims: bool = False,
    ) -> "Sum":
        """Return the sum over the axes that NumPy's `sum(axis=, keepdims=)` would take.

        Args:
            input_shape: The shape that comes in.
            axis: An axis, several, or None for all; negative ones count from the end.
            dtype: The input's dtype.
            keepdims: Whether the summed axes stay, with size one.

        Raises:
            InputError: If there is no such axis.

        Example:
            >>> import numpy as np
            >>> Sum.over((2, 3), -1, np.float64, keepdims=True).output_shape
            (2, 1)
        """
        large = as_shape(input_shape)
        axes = normal_axes(axis, len(large), "Sum")
        small = [
            1 if i in axes else size for i, size in enumerate(large) if keepdims or i not in axes
        ]
        return cls(large, small, dtype, axes)

    def _apply(self, x: Array) -> Array:
        return namespace(x).sum(x, axis=self.axes).reshape(self.output_shape)

    @property
    def T(self) -> Broadcast:
        """The broadcast back."""
        return Broadcast(self.output_shape, self.input_shape, self.dtype, self.axes)

    @property
    def is_identity(self) -> bool:
        """Whether nothing is summed."""
        return self.input_shape == self.output_shape

    @property
    def terms(self) -> int:
        """How many entries each sum has."""
        return math.prod(self.input_shape[axis] for axis in self.axes)
