"""Slices and their transposes: parts of an array, and arrays set into zeros.

Concatenation and stacking embed each of their inputs, padding embeds its one; a flip is a slice of
step -1.
"""

from collections.abc import Iterable, Sequence

from gradlab.errors import InputError
from gradlab.operators._arrays import Array, DTypeLike, Shape, as_shape, namespace, put
from gradlab.operators.base import Operator

__all__ = ["Embedding", "Slice"]


def _ranges(slices: Sequence[slice], shape: Shape, caller: str) -> tuple[range, ...]:
    """Return the indices that each axis's slice takes; axes without a slice are taken whole."""
    if len(slices) > len(shape):
        raise InputError(f"{caller}: {len(slices)} slices for an array of shape {shape}")
    missing = [slice(None)] * (len(shape) - len(slices))
    return tuple(range(size)[part] for part, size in zip([*slices, *missing], shape))


def _as_slice(indices: range) -> slice:
    """Return the slice that takes exactly these indices, without Python's negative ends."""
    if not indices:
        return slice(0, 0)
    stop = None if indices.stop < 0 else indices.stop
    return slice(indices.start, stop, indices.step)


class Slice(Operator):
    """A part of an array, by one slice per axis: `y = x[slices]`.

    Args:
        input_shape: The shape that comes in.
        slices: One slice per axis, of any step but zero; axes without one are taken whole.
        dtype: The input's dtype.

    Raises:
        InputError: If there are more slices than axes.

    Example:
        >>> import numpy as np
        >>> Slice((5,), [slice(None, None, -2)], np.float64).apply(np.arange(5.0))
        array([4., 2., 0.])
    """

    def __init__(
        self, input_shape: Iterable[int], slices: Sequence[slice], dtype: DTypeLike
    ) -> None:
        large = as_shape(input_shape)
        self.ranges = _ranges(slices, large, "Slice")
        super().__init__([len(indices) for indices in self.ranges], large, dtype)

    @classmethod
    def of_ranges(
        cls, input_shape: Iterable[int], ranges: Iterable[range], dtype: DTypeLike
    ) -> "Slice":
        """Return the slice that takes these indices of each axis."""
        return cls(input_shape, tuple(map(_as_slice, ranges)), dtype)

    @property
    def slices(self) -> tuple[slice, ...]:
        """One slice per axis."""
        return tuple(map(_as_slice, self.ranges))

    def _apply(self, x: Array) -> Array:
        return x[self.slices]

    @property
    def T(self) -> "Embedding":
        """The embedding back into zeros."""
        return Embedding(self.slices, self.input_shape, self.dtype)

    @property
    def is_identity(self) -> bool:
        """Whether every axis is taken whole and in order."""
        return self.ranges == tuple(map(range, self.input_shape))


class Embedding(Operator):
    """An array set into zeros, by one slice per axis: the transpose of a slice.

    Args:
        slices: One slice per axis of the output, of any step but zero; axes without one are
            filled whole.
        output_shape: The shape of the zeros.
        dtype: The input's dtype.

    Raises:
        InputError: If there are more slices than axes.

    Example:
        >>> import numpy as np
        >>> Embedding([slice(1, 3)], (5,), np.float64).apply(np.array([7.0, 8.0]))
        array([0., 7., 8., 0., 0.])
    """

    def __init__(
        self, slices: Sequence[slice], output_shape: Iterable[int], dtype: DTypeLike
    ) -> None:
        large = as_shape(output_shape)
        self.ranges = _ranges(slices, large, "Embedding")
        super().__init__(large, [len(indices) for indices in self.ranges], dtype)

    @property
    def slices(self) -> tuple[slice, ...]:
        """One slice per axis."""
        return tuple(map(_as_slice, self.ranges))

    def _apply(self, x: Array) -> Array:
        zeros = namespace(x).zeros(self.output_shape, dtype=x.dtype)
        return put(zeros, self.slices, x)

    @property
    def T(self) -> Slice:
        """The slice that takes the array out again."""
        return Slice(self.output_shape, self.slices, self.dtype)

    @property
    def is_identity(self) -> bool:
        """Whether it fills every axis whole and in order."""
        return self.ranges == tuple(map(range, self.output_shape))
