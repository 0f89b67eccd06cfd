"""Maps that move, repeat or pick entries and compute none; their transposes add.

A sum is the transpose of a broadcast, a scatter that of a selection, and zeros around an array
those of a slice. Each transpose is a view of the map, made by a function here or by `.T`.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from gradlab.common.arrays import (
    Array,
    DTypeLike,
    Shape,
    as_shape,
    namespace,
    normal_axes,
    repeated_axes,
    scatter_add,
    set_at,
)
from gradlab.errors import InputError, InputTypeError
from gradlab.operators.core import (
    Dense,
    Identity,
    Operator,
    Transposed,
    Zero,
    common_dtype,
    merges_product,
)
from gradlab.patterns import Pattern, maps


class Reshape(Operator):
    """The same entries in the same order, in another shape; its matrix is the identity.

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
        return Reshape(self.output_shape, self.input_shape, self.dtype)

    @property
    def pattern(self) -> Pattern:
        return maps.reshape(self.input_shape, self.output_shape)

    @property
    def is_identity(self) -> bool:
        return self.input_shape == self.output_shape


class Permutation(Operator):
    """The transposition of axes: `y = transpose(x, axes)`.

    Example:
        >>> import numpy as np
        >>> Permutation((1, 0), (2, 3), np.float64)
        Permutation(3x2 <- 2x3, 0 B; dense would be 288 B)
    """

    def __init__(self, axes: Sequence[int], input_shape: Sequence[int], dtype: DTypeLike) -> None:
        ndim = len(input_shape)
        if (
            len(axes) != ndim
            or len(normal_axes(axes, as_shape(input_shape), "Permutation")) != ndim
        ):
            raise InputError(
                f"Permutation: axes {tuple(axes)} must name each axis of {tuple(input_shape)} once"
            )
        self.axes = tuple(axis % ndim for axis in axes)
        super().__init__([input_shape[axis] for axis in self.axes], input_shape, dtype)

    def _apply(self, x: Array) -> Array:
        return namespace(x).permute_dims(x, self.axes)

    @property
    def T(self) -> "Permutation":
        inverse = tuple(self.axes.index(axis) for axis in range(len(self.axes)))
        return Permutation(inverse, self.output_shape, self.dtype)

    @property
    def pattern(self) -> Pattern:
        return maps.transpose(self.input_shape, self.axes)

    @property
    def is_identity(self) -> bool:
        return self.axes == tuple(range(len(self.axes)))


class Broadcast(Operator):
    """Repetition of an array along new axes or axes of size one.

    Args:
        input_shape: The shape that comes in.
        output_shape: The shape that goes out.
        dtype: The input's dtype.
        axes: The axes of `output_shape` along which the input is repeated; by default those
            that NumPy's rules give. The input lacks each of them, or has it with size one.

    Example:
        >>> import numpy as np
        >>> Broadcast((2,), (2, 3), np.float64, axes=(1,)).apply(np.array([1.0, 2.0]))
        array([[1., 1., 1.],
               [2., 2., 2.]])
    """

    transposed_name = "Sum"

    def __init__(
        self,
        input_shape: Iterable[int],
        output_shape: Iterable[int],
        dtype: DTypeLike,
        axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(output_shape, input_shape, dtype)
        small, large = self.input_shape, self.output_shape
        found = repeated_axes(small, large) if axes is None else None
        if axes is None and found is None:
            raise InputError(f"Broadcast: shape {small} does not broadcast to {large}")
        self.axes = normal_axes(axes, large, "Broadcast") if found is None else found
        self.kept_shape = tuple(1 if i in self.axes else size for i, size in enumerate(large))
        if _without_ones(self.kept_shape) != _without_ones(small):
            raise InputError(
                f"Broadcast: shape {large} summed over axes {self.axes} is not {small}"
            )

    def _apply(self, x: Array) -> Array:
        return namespace(x).broadcast_to(x.reshape(self.kept_shape), self.output_shape)

    def _apply_transposed(self, y: Array) -> Array:
        return namespace(y).sum(y, axis=self.axes).reshape(self.input_shape)

    @property
    def pattern(self) -> Pattern:
        repeated = Pattern.broadcast(self.kept_shape, self.output_shape)
        return repeated @ maps.reshape(self.input_shape, self.kept_shape)

    @property
    def is_identity(self) -> bool:
        return self.input_shape == self.output_shape

    @property
    def copies(self) -> int:
        """How often each entry is repeated: how many terms the transposed sum has."""
        return math.prod(self.output_shape[axis] for axis in self.axes)


def sum_over(
    input_shape: Iterable[int],
    axis: int | Sequence[int] | None,
    dtype: DTypeLike,
    keepdims: bool = False,
) -> Operator:
    """Return the sum over the axes that NumPy's `sum(axis=, keepdims=)` would take.

    Example:
        >>> import numpy as np
        >>> sum_over((2, 3), -1, np.float64, keepdims=True).output_shape
        (2, 1)
    """
    large = as_shape(input_shape)
    axes = normal_axes(axis, large, "Sum")
    kept = enumerate(large)
    small = [1 if i in axes else size for i, size in kept if keepdims or i not in axes]
    return Broadcast(small, large, dtype, axes).T


class Slice(Operator):
    """A part of an array, by one slice per axis: `y = x[slices]`; a flip has step -1.

    Args:
        input_shape: The shape that comes in.
        slices: One slice per axis, of any step but zero; axes without one are taken whole.
        dtype: The input's dtype.

    Example:
        >>> import numpy as np
        >>> Slice((5,), [slice(None, None, -2)], np.float64).apply(np.arange(5.0))
        array([4., 2., 0.])
    """

    transposed_name = "Embedding"

    def __init__(
        self, input_shape: Iterable[int], slices: Sequence[slice], dtype: DTypeLike
    ) -> None:
        large = as_shape(input_shape)
        if len(slices) > len(large):
            raise InputError(f"Slice: {len(slices)} slices for an array of shape {large}")
        missing = [slice(None)] * (len(large) - len(slices))
        self.ranges = tuple(range(size)[part] for part, size in zip([*slices, *missing], large))
        super().__init__([len(indices) for indices in self.ranges], large, dtype)

    @property
    def slices(self) -> tuple[slice, ...]:
        """One slice per axis."""
        return tuple(map(_as_slice, self.ranges))

    def _apply(self, x: Array) -> Array:
        return x[self.slices]

    def _apply_transposed(self, y: Array) -> Array:
        zeros = namespace(y).zeros(self.input_shape, dtype=y.dtype)
        return set_at(zeros, self.slices, y)

    @property
    def pattern(self) -> Pattern:
        flipped = tuple(i for i, indices in enumerate(self.ranges) if indices.step < 0)
        forward = [indices[::-1] if indices.step < 0 else indices for indices in self.ranges]
        taken = maps.slice(
            self.input_shape,
            tuple(indices.start for indices in forward),
            tuple(indices.start if not indices else indices[-1] + 1 for indices in forward),
            tuple(indices.step for indices in forward),
        )
        return maps.reverse(self.output_shape, flipped) @ taken if flipped else taken

    @property
    def is_identity(self) -> bool:
        return self.ranges == tuple(map(range, self.input_shape))


def _as_slice(indices: range) -> slice:
    """Return the slice that takes exactly these indices, without Python's negative ends."""
    if not indices:
        return slice(0, 0)
    stop = None if indices.stop < 0 else indices.stop
    return slice(indices.start, stop, indices.step)


def embedding(slices: Sequence[slice], output_shape: Iterable[int], dtype: DTypeLike) -> Operator:
    """Return the map that sets an array into zeros, by one slice per axis: a slice's transpose.

    Concatenation and stacking embed each of their inputs; padding embeds its one.

    Example:
        >>> import numpy as np
        >>> embedding([slice(1, 3)], (5,), np.float64).apply(np.array([7.0, 8.0]))
        array([0., 7., 8., 0., 0.])
    """
    return Slice(output_shape, slices, dtype).T


class Selection(Operator):
    """Entries picked by index, as NumPy's `take`: along an axis, or from the flat array.

    Args:
        indices: Integers of any shape, known or traced; negative ones count from the end. An
            index of JAX that is out of bounds reads zero.
        input_shape: The shape that comes in.
        dtype: The input's dtype.
        axis: The axis that is indexed; None: the array is flattened first, and the output has
            the shape of the indices.

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

    transposed_name = "Scatter"

    def __init__(
        self, indices: Array, input_shape: Sequence[int], dtype: DTypeLike, axis: int | None = None
    ) -> None:
        if not hasattr(indices, "dtype"):
            indices = np.asarray(indices, dtype=None if np.size(indices) else np.intp)
        if indices.dtype.kind not in "iu":
            raise InputTypeError(
                f"Selection: indices must be integers; got dtype {indices.dtype}; "
                "turn a mask into indices with numpy.nonzero"
            )
        large, self.axis = as_shape(input_shape), axis
        before, after = large[:0], large[:0]
        size = math.prod(large)
        if axis is not None:
            (self.axis,) = normal_axes(axis, large, "Selection")
            before, size, after = large[: self.axis], large[self.axis], large[self.axis + 1 :]
        self._view = (math.prod(before), size, math.prod(after))
        super().__init__((*before, *indices.shape, *after), large, dtype, (indices,))
        self.indices = indices
        if self.is_static and indices.size and not -size <= indices.min() <= indices.max() < size:
            raise InputError(
                f"Selection: indices run from {indices.min()} to {indices.max()}; "
                f"the axis of shape {large} that they index has {size} entries"
            )

    @property
    def is_static(self) -> bool:
        """Whether the indices are known numbers, not JAX's."""
        return isinstance(self.indices, np.ndarray | np.generic)

    def _apply(self, x: Array) -> Array:
        xp, flat = namespace(self.indices, x), self.indices.reshape(-1)
        x = x.reshape(self._view)
        if xp is np:
            return x[:, flat].reshape(self.output_shape)
        return xp.asarray(x).at[:, flat].get(mode="fill", fill_value=0).reshape(self.output_shape)

    def _apply_transposed(self, y: Array) -> Array:
        xp, flat = namespace(self.indices, y), self.indices.reshape(-1)
        before, size, after = self._view
        y = xp.asarray(y)
        if before == after == 1:  # along one axis alone NumPy adds five times as fast
            return scatter_add((size,), flat, y.reshape(-1)).reshape(self.input_shape)
        y = y.reshape(before, flat.shape[0], after)
        return scatter_add(self._view, (slice(None), flat), y).reshape(self.input_shape)

    @property
    def pattern(self) -> Pattern:
        if not self.is_static:
            return Pattern.dense(self.output_shape, self.input_shape)
        indices = np.asarray(self.indices)
        if self.axis is not None:
            return maps.take(self.input_shape, indices, self.axis)
        size = math.prod(self.input_shape)
        return maps.take((size,), indices, 0) @ maps.reshape(self.input_shape, (size,))


def scatter(
    indices: Array, output_shape: Sequence[int], dtype: DTypeLike, axis: int | None = None
) -> Operator:
    """Return the map that adds entries at their indices into zeros: a selection's transpose.

    Example:
        >>> import numpy as np
        >>> scatter([1, 1], (3,), np.float64).apply(np.array([2.0, 3.0]))
        array([0., 5., 0.])
    """
    return Selection(indices, output_shape, dtype, axis).T


def _without_ones(shape: Shape) -> list[int]:
    return [size for size in shape if size != 1]


@merges_product(Reshape, Reshape)
def _reshape_after_reshape(a: Reshape, b: Reshape) -> Operator:
    return Reshape(b.input_shape, a.output_shape, common_dtype(a, b))


@merges_product(Dense, Reshape)
def _dense_after_reshape(a: Dense, b: Reshape) -> Operator:
    return Dense(a.matrix, a.output_shape, b.input_shape)


@merges_product(Permutation, Permutation)
def _permutation_after_permutation(a: Permutation, b: Permutation) -> Operator:
    return Permutation([b.axes[axis] for axis in a.axes], b.input_shape, common_dtype(a, b))


@merges_product(Broadcast, Broadcast)
def _broadcast_after_broadcast(a: Broadcast, b: Broadcast) -> Operator:
    # The axes that `a` does not repeat are, up to ones, the axes that `b` puts out, in order.
    passed = [i for i, size in enumerate(a.output_shape) if i not in a.axes and size != 1]
    middle = [i for i, size in enumerate(b.output_shape) if size != 1]
    earlier = [i for i, j in zip(passed, middle) if j in b.axes]
    return Broadcast(b.input_shape, a.output_shape, common_dtype(a, b), (*a.axes, *earlier))


@merges_product(Broadcast, Reshape)
def _broadcast_after_reshape(a: Broadcast, b: Reshape) -> Operator | None:
    if _without_ones(a.input_shape) != _without_ones(b.input_shape):
        return None
    return Broadcast(b.input_shape, a.output_shape, common_dtype(a, b), a.axes)


@merges_product(Transposed, Broadcast)
def _sum_after_broadcast(a: Transposed, b: Broadcast) -> Operator | None:
    summed = a.operator
    if not isinstance(summed, Broadcast) or summed.axes != b.axes:
        return None
    if summed.input_shape != b.input_shape:
        return None
    if b.copies == 0:
        return Zero(a.output_shape, b.input_shape, common_dtype(a, b))
    identity = Identity(a.output_shape, common_dtype(a, b))
    return identity if b.copies == 1 else b.copies * identity


@merges_product(Selection, Selection)
def _selection_after_selection(a: Selection, b: Selection) -> Operator | None:
    # JAX's indices may lie outside, which indexing them once more would hide.
    if a.axis != b.axis or b.indices.ndim != 1 or not (a.is_static and b.is_static):
        return None
    return Selection(b.indices[a.indices], b.input_shape, common_dtype(a, b), b.axis)


@merges_product(Slice, Slice)
def _slice_after_slice(a: Slice, b: Slice) -> Operator:
    ranges = (indices[part] for indices, part in zip(b.ranges, a.slices))
    return Slice(b.input_shape, tuple(map(_as_slice, ranges)), common_dtype(a, b))


@merges_product(Slice, Transposed)
def _slice_after_embedding(a: Slice, b: Transposed) -> Operator | None:
    if not isinstance(b.operator, Slice):
        return None
    if a.ranges == b.operator.ranges:
        return Identity(a.output_shape, common_dtype(a, b))
    for wanted, filled in zip(a.ranges, b.operator.ranges):
        if wanted and filled and (max(wanted) < min(filled) or max(filled) < min(wanted)):
            return Zero(a.output_shape, b.input_shape, common_dtype(a, b))
    return None
