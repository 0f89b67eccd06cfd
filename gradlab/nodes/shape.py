"""Entries moved, repeated and set into larger arrays: linear maps that compute nothing.

The Jacobian is a permutation, a selection, a slice or a broadcast; backward moves and adds back.
"""

import math
from abc import abstractmethod
from itertools import accumulate, pairwise

import numpy as np

from gradlab import operators as ops
from gradlab.common.arrays import Array, DTypeLike, Index, Shape, normal_axes, repeated_axes, set_at
from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._base import Applied, Gradients, Like, Linear, Namespace, Node, Pulled
from gradlab.nodes._lazy import jnp
from gradlab.operators import Operator

_AXES = "scalar: scalar; zero size: 0x3 axis=1"


class Reshape(Linear):
    """x with another shape, its entries in the same (C) order.

    Args:
        shape: the new shape; one size may be -1.
    """

    shape: Shape = (-1,)
    jax = "jax.numpy.reshape"
    drawn = (
        "3x4 shape=(4,3); 2x3x4 shape=(-1,); 6 shape=(2,1,3); scalar: 1x1 shape=(); "
        "zero size: 0x5 shape=(3,0)"
    )

    def operator(self, x: Like) -> Operator:
        size, known = math.prod(x.shape), math.prod([n for n in self.shape if n != -1])
        shape = tuple(size // max(known, 1) if n == -1 else n for n in self.shape)
        fits = math.prod(shape) == size and self.shape.count(-1) <= 1
        self.require(fits, f"{shape_text(x.shape)} has {size} entries, which do not fill it")
        return ops.Reshape(x.shape, shape, x.dtype)


class Transpose(Linear):
    """x with its axes reordered.

    Args:
        axes: output axis i is input axis axes[i]; None reverses them.
    """

    axes: tuple[int, ...] | None = None
    jax = "jax.numpy.transpose"
    drawn = (
        "3x4; 2x3x4 axes=(1,2,0); 2x3x4 axes=(0,-1,1); scalar: scalar; size-1 axes: 1x3x1; "
        "zero size: 0x3"
    )

    def operator(self, x: Like) -> Operator:
        rank = len(x.shape)
        axes = tuple(reversed(range(rank))) if self.axes is None else self.axes
        fits = sorted(a + rank if a < 0 else a for a in axes) == list(range(rank))
        self.require(fits, f"name each axis, 0 to {rank - 1}, once", x=x.shape)
        return ops.Permutation(axes, x.shape, x.dtype)


class BroadcastTo(Linear):
    """x repeated to a shape, by NumPy's rules.

    Args:
        shape: the shape to fill; x's shape, aligned from the right, has its sizes or ones.
    """

    shape: Shape = ()
    jax = "jax.numpy.broadcast_to"
    drawn = (
        "4 shape=(3,4); 3x1 shape=(2,3,4); scalar shape=(5,); nothing repeated: 1x3 shape=(1,3); "
        "zero size: 3 shape=(0,3)"
    )

    def operator(self, x: Like) -> Operator:
        small, large = shape_text(x.shape), shape_text(self.shape)
        fits = repeated_axes(x.shape, tuple(self.shape)) is not None
        self.require(fits, f"shape {small} does not broadcast to {large}")
        return ops.Broadcast(x.shape, self.shape, x.dtype)


class Squeeze(Linear):
    """x without some of its axes of size 1.

    Args:
        axis: the axes that go; None: all of size 1.
    """

    axis: int | tuple[int, ...] | None = None
    jax = "jax.numpy.squeeze"
    drawn = "1x3x1; 1x4x1 axis=-1; 1x2x1x1 axis=(0,2); scalar: scalar; zero size: 0x1 axis=1"

    def operator(self, x: Like) -> Operator:
        axes = normal_axes(self.axis, x.shape, self)
        ones = self.axis is None or all(x.shape[a] == 1 for a in axes)
        self.require(ones, f"another size than 1 stands at axis {self.axis}", x=x.shape)
        shape = [n for i, n in enumerate(x.shape) if n != 1 or i not in axes]
        return ops.Reshape(x.shape, shape, x.dtype)


class ExpandDims(Linear):
    """x with new axes of size 1.

    Args:
        axis: where they stand in the output.
    """

    axis: int | tuple[int, ...] = 0
    jax = "jax.numpy.expand_dims"
    drawn = f"3x2; 4 axis=-1; 2x3 axis=(0,2); {_AXES}"

    def operator(self, x: Like) -> Operator:
        rank = len(x.shape) + (1 if isinstance(self.axis, int) else len(self.axis))
        axes, sizes = normal_axes(self.axis, (1,) * rank, self), iter(x.shape)
        shape = [1 if i in axes else next(sizes) for i in range(rank)]
        return ops.Reshape(x.shape, shape, x.dtype)


class _Joined(Node):
    """Arrays set side by side into one."""

    _kind = "Local gradients: embeddings. Backward: each input's own slice of the upstream."

    def gradients(self, xp: Namespace, shape: Shape, *parts: tuple[Index, Like]) -> Gradients:
        """Return an embedding for each input, after a reshape where it gains an axis."""
        operators = []
        for place, x in parts:
            there = ops.embedding(place, shape, x.dtype)
            operators.append(there @ ops.Reshape(x.shape, there.input_shape, x.dtype))
        return tuple(operators)

    def pull(
        self, xp: Namespace, upstream: Array, shape: Shape, *parts: tuple[Index, Like]
    ) -> Pulled:
        return tuple([upstream[place].reshape(x.shape) for place, x in parts])


class Concatenate(_Joined):
    """Arrays joined along an axis.

    Args:
        axis: the axis along which they follow each other.
    """

    axis: int = 0
    drawn = "2x3 4x3; 2x3 2x1 2x2 axis=-1; 2x1x3 axis=1; zero size: 0 3"

    def apply(self, xp: Namespace, *xs: Array) -> Applied:
        rank = len(xs[0].shape)
        axis = self.axis + rank if self.axis < 0 else self.axis
        others = {(len(x.shape), x.shape[:axis], x.shape[axis + 1 :]) for x in xs}
        if not 0 <= axis < rank or len(others) > 1:
            raise InputError(
                f"{self!r}: shapes {', '.join(shape_text(x.shape) for x in xs)} cannot be "
                f"joined along axis {self.axis}; all other axes must have equal sizes"
            )
        y = xp.concat(xs, axis=axis)
        edges = pairwise([0, *accumulate(x.shape[axis] for x in xs)])
        before = (slice(None),) * axis
        parts = [((*before, slice(a, b)), Like.of(x)) for (a, b), x in zip(edges, xs)]
        return y, (y.shape, *parts)

    def reference(self, *xs: Array) -> Array:
        return jnp.concatenate(xs, axis=self.axis)


class Stack(_Joined):
    """Arrays of one shape, side by side along a new axis.

    Args:
        axis: where the new axis stands in the output.
    """

    axis: int = 0
    drawn = "2x3 2x3; 4 4 4 axis=-1; 2x3 axis=1; scalar: scalar scalar; zero size: 0 0"

    def apply(self, xp: Namespace, *xs: Array) -> Applied:
        if len({x.shape for x in xs}) > 1:
            raise InputError(
                f"{self!r}: shapes {', '.join(shape_text(x.shape) for x in xs)} cannot be "
                "stacked; all must be equal"
            )
        (axis,) = normal_axes(self.axis, (len(xs), *xs[0].shape), self)
        y, before = xp.stack(xs, axis=axis), (slice(None),) * axis
        parts = [((*before, slice(i, i + 1)), Like.of(x)) for i, x in enumerate(xs)]
        return y, (y.shape, *parts)

    def reference(self, *xs: Array) -> Array:
        return jnp.stack(xs, axis=self.axis)


class _Copies(Linear):
    """A node that repeats x along an axis of its own, then merges axes: a reshaped broadcast."""

    @abstractmethod
    def layout(self, shape: Shape) -> tuple[Shape, Shape, Shape]:
        """Return x's shape with ones for the copies, that shape filled, and the output's shape."""

    def operator(self, x: Like) -> Operator:
        """Return the broadcast between two reshapes."""
        single, many, out = self.layout(x.shape)
        to, back = ops.Reshape(x.shape, single, x.dtype), ops.Reshape(many, out, x.dtype)
        return back @ ops.Broadcast(single, many, x.dtype) @ to


class Tile(_Copies):
    """x laid side by side: along each axis so many copies, one after the other.

    Args:
        times: the number of copies for each axis of x.
    """

    times: tuple[int, ...] = (2,)
    jax = "jax.numpy.tile"
    drawn = (
        "3; 2x4 times=(3,2); 2x1x3 times=(1,2,1); no copies: 2x3 times=(2,0); "
        "zero size: 0x3 times=(2,2)"
    )

    def layout(self, shape: Shape) -> tuple[Shape, Shape, Shape]:
        self.require(len(self.times) == len(shape), "give one for each axis", x=shape)
        single = tuple(n for size in shape for n in (1, size))
        many = tuple(n for pair in zip(self.times, shape) for n in pair)
        return single, many, tuple(k * n for k, n in zip(self.times, shape))


class Repeat(_Copies):
    """x with each entry along an axis repeated, the copies next to each other.

    Args:
        times: the number of copies.
        axis: the axis along which the entries are repeated.
    """

    times: int = 2
    axis: int = -1
    jax = "jax.numpy.repeat"
    drawn = "3; 2x4 times=3 axis=0; 2x3x2 axis=1; one copy: 2x3 times=1; zero size: 0x3"

    def layout(self, shape: Shape) -> tuple[Shape, Shape, Shape]:
        (axis,) = normal_axes(self.axis, shape, self)
        before, size, after = shape[:axis], shape[axis], shape[axis + 1 :]
        single = (*before, size, 1, *after)
        many = (*before, size, self.times, *after)
        return single, many, (*before, size * self.times, *after)


class Slice(Linear):
    """x[start:stop:step] along each axis.

    Args:
        slices: for each axis the three arguments of a Python slice, `(start, stop, step)`; axes
            that are not named are taken whole. The step may be negative.
    """

    slices: tuple[tuple[int | None, int | None, int | None], ...] = ()
    drawn = (
        "4x3 slices=((1,3,None),); 5x3 slices=((None,None,2),(None,None,-1)); "
        "2x4x3 slices=((None,None,None),(-2,None,None)); negative step: 6 slices=((4,0,-2),); "
        "zero size: 4 slices=((2,2,None),)"
    )

    def operator(self, x: Like) -> Operator:
        self.require(len(self.slices) <= len(x.shape), "more slices than axes", x=x.shape)
        return ops.Slice(x.shape, [slice(*bounds) for bounds in self.slices], x.dtype)

    def reference(self, x: Array) -> Array:
        return x[tuple(slice(*bounds) for bounds in self.slices)]


class Pad(Linear):
    """x with a border of one value.

    Args:
        widths: for each axis how many entries come before and after x.
        value: what the border holds.
    """

    widths: tuple[tuple[int, int], ...] = ((1, 1),)
    value: float = 0.0
    drawn = (
        "3; 2x3 widths=((1,2),(0,3)) value=-1.5; 2x1x3 widths=((0,0),(2,0),(1,1)); "
        "no border: 3 widths=((0,0),); zero size: 0x3 widths=((1,1),(0,0))"
    )

    def operator(self, x: Like) -> Operator:
        fits = len(self.widths) == len(x.shape)
        self.require(fits, "give (before, after) for each axis", x=x.shape)
        shape = [low + n + high for n, (low, high) in zip(x.shape, self.widths)]
        return ops.embedding(self._place(x.shape), shape, x.dtype)

    def _place(self, shape: Shape) -> tuple[slice, ...]:
        return tuple(slice(low, low + n) for n, (low, _) in zip(shape, self.widths))

    def apply(self, xp: Namespace, x: Array) -> Applied:
        shape, like = self.operator(Like.of(x)).output_shape, Like.of(x)
        border = xp.full(shape, self.value, dtype=x.dtype)
        return set_at(border, self._place(x.shape), x), (like,)

    def reference(self, x: Array) -> Array:
        return jnp.pad(x, self.widths, constant_values=self.value)


class Flip(Linear):
    """x with the order of its entries reversed along axes.

    Args:
        axis: the axis or axes; None means all.
    """

    axis: int | tuple[int, ...] | None = None
    jax = "jax.numpy.flip"
    drawn = f"3x4; 5 axis=0; 2x3x4 axis=(0,-1); {_AXES}"

    def operator(self, x: Like) -> Operator:
        axes = normal_axes(self.axis, x.shape, self)
        reverse = [slice(None, None, -1 if i in axes else 1) for i in range(len(x.shape))]
        return ops.Slice(x.shape, reverse, x.dtype)


class Roll(Linear):
    """x shifted along an axis, what leaves at one end coming in at the other.

    Args:
        shift: by how many places; negative ones shift towards the front.
        axis: the axis.
    """

    shift: int = 1
    axis: int = -1
    jax = "jax.numpy.roll"
    drawn = "3x4; 5 shift=-2 axis=0; 2x4x3 shift=7 axis=1; a full turn: 2x3 shift=3; zero size: 3x0"

    def operator(self, x: Like) -> Operator:
        (axis,) = normal_axes(self.axis, x.shape, self)
        n, before = x.shape[axis], (slice(None),) * axis
        k = self.shift % n if n else 0
        if k == 0:
            return ops.Identity(x.shape, x.dtype)
        moves = ((slice(k, n), slice(0, n - k)), (slice(0, k), slice(n - k, n)))
        front, back = (
            ops.embedding((*before, to), x.shape, x.dtype)
            @ ops.Slice(x.shape, (*before, taken), x.dtype)
            for to, taken in moves
        )
        return front + back

    def apply(self, xp: Namespace, x: Array) -> Applied:
        normal_axes(self.axis, x.shape, self)
        return xp.roll(x, self.shift, axis=self.axis), (Like.of(x),)

    def pull(self, xp: Namespace, upstream: Array, x: Like) -> Pulled:
        return xp.roll(upstream, -self.shift, axis=self.axis)


class _Rearrangement(Linear):
    """Axes of images, (images, channels, height, width), split, permuted and merged.

    Args:
        factor: by how much each side of an image grows or shrinks.
    """

    factor: int = 2
    shapes = "x (images, channels, height, width)"

    @abstractmethod
    def plan(self, shape: Shape) -> tuple[Shape, Shape, Shape]:
        """Return the shape with split axes, their new order, and the output's shape."""

    def operator(self, x: Like) -> Operator:
        """Return the permutation between two reshapes."""
        split, order, out = self.plan(x.shape)
        fits = math.prod(split) == math.prod(x.shape)
        self.require(fits, f"expected sizes divisible by the factor {self.factor}", x=x.shape)
        permute = ops.Permutation(order, split, x.dtype)
        merge = ops.Reshape(permute.output_shape, out, x.dtype)
        return merge @ permute @ ops.Reshape(x.shape, split, x.dtype)


class PixelShuffle(_Rearrangement):
    """Channels turned into pixels: y[n, c, h r + i, w r + j] = x[n, c r^2 + i r + j, h, w].

    x has shape (images, channels r^2, height, width), y (images, channels, height r, width r).

    Source: Shi et al. 2016, "Real-time single image and video super-resolution".
    """

    drawn = "1x4x2x3; 2x8x1x2; 1x9x2x1 factor=3; factor 1: 1x2x3x1 factor=1; zero size: 0x4x2x2"

    def plan(self, shape: Shape) -> tuple[Shape, Shape, Shape]:
        r, (n, c, h, w) = self.factor, shape
        channels = c // (r * r)
        return (n, channels, r, r, h, w), (0, 1, 4, 2, 5, 3), (n, channels, h * r, w * r)

    def reference(self, x: Array) -> Array:
        r, (_, c, h, w) = self.factor, x.shape
        channel, row, column = np.ix_(*map(np.arange, (c // (r * r), h * r, w * r)))
        return x[:, channel * r * r + row % r * r + column % r, row // r, column // r]


class PixelUnshuffle(_Rearrangement):
    """Pixels turned into channels: y[n, c r^2 + i r + j, h, w] = x[n, c, h r + i, w r + j].

    x has shape (images, channels, height r, width r), y (images, channels r^2, height, width).
    """

    drawn = "1x2x4x6; 2x1x2x2; 1x1x3x6 factor=3; factor 1: 1x2x3x1 factor=1; zero size: 0x4x2x2"

    def plan(self, shape: Shape) -> tuple[Shape, Shape, Shape]:
        r, (n, c, h, w) = self.factor, shape
        h, w = h // r, w // r
        return (n, c, h, r, w, r), (0, 1, 3, 5, 2, 4), (n, c * r * r, h, w)

    def reference(self, x: Array) -> Array:
        r, (_, c, h, w) = self.factor, x.shape
        channel, row, column = np.ix_(*map(np.arange, (c * r * r, h // r, w // r)))
        return x[:, channel // (r * r), row * r + channel // r % r, column * r + channel % r]


class _Triangle(Node):
    """x with zeros on one side of a diagonal, over its last two axes.

    Args:
        offset: the diagonal at which the triangle ends: 0 the main one, above it positive.
    """

    _kind = (
        "Local gradient: a diagonal of ones and zeros. Backward: the same triangle of the upstream."
    )
    offset: int = 0
    shapes = "x (*batch, m, n) -> (*batch, m, n)"
    drawn = "3x3; 2x4 offset=1; 2x4x3 offset=-1; size-1 axes: 1x1; zero size: 0x3"

    @abstractmethod
    def keeps(self, rows: Array, columns: Array) -> Array:
        """Return where the entries stay."""

    def apply(self, xp: Namespace, x: Array) -> Applied:
        rows, columns = x.shape[-2:]
        kept = self.keeps(xp.arange(rows)[:, None], xp.arange(columns)[None, :])
        mask = xp.broadcast_to(kept, x.shape)
        return xp.where(mask, x, xp.zeros_like(x)), (mask, x.dtype)

    def gradients(self, xp: Namespace, mask: Array, dtype: DTypeLike) -> Gradients:
        """Return the diagonal of ones and zeros."""
        return ops.Diagonal(mask.astype(dtype))

    def pull(self, xp: Namespace, upstream: Array, mask: Array, dtype: DTypeLike) -> Pulled:
        return xp.where(mask, upstream, xp.zeros_like(upstream))


class Tril(_Triangle):
    """The lower triangle of x, over its last two axes."""

    jax = "jax.numpy.tril"

    def keeps(self, rows: Array, columns: Array) -> Array:
        return columns <= rows + self.offset


class Triu(_Triangle):
    """The upper triangle of x, over its last two axes."""

    jax = "jax.numpy.triu"

    def keeps(self, rows: Array, columns: Array) -> Array:
        return columns >= rows + self.offset


def _flat_diagonal(shape: Shape, offset: int) -> Array:
    """Return the flat indices of a diagonal of each matrix in an array of this shape."""
    *batch, rows, columns = shape
    places = np.arange(min(rows + min(offset, 0), columns - max(offset, 0)))
    first = (places + max(-offset, 0)) * columns + places + max(offset, 0)
    matrices = np.arange(math.prod(batch)).reshape(batch)
    return matrices[..., None] * (rows * columns) + first


class MatrixDiagonal(Linear):
    """The diagonal of x, over its last two axes.

    Args:
        offset: which diagonal: 0 the main one, above it positive.
    """

    offset: int = 0
    shapes = "x (*batch, m, n)"
    drawn = "3x3; 3x5 offset=1; 2x4x3 offset=-2; size-1 axes: 1x1; zero size: 0x2x2"

    def operator(self, x: Like) -> Operator:
        return ops.Selection(_flat_diagonal(x.shape, self.offset), x.shape, x.dtype)

    def reference(self, x: Array) -> Array:
        return jnp.diagonal(x, self.offset, -2, -1)


class DiagonalMatrix(Linear):
    """Matrices with x, along its last axis, on their diagonals and zeros elsewhere."""

    shapes = "x (*batch, n) -> (*batch, n, n)"
    drawn = "3; 2x4; 2x1x3; size-1 axes: 1; zero size: 0x2"

    def operator(self, x: Like) -> Operator:
        shape = (*x.shape, x.shape[-1])
        return ops.scatter(_flat_diagonal(shape, 0), shape, x.dtype)

    def reference(self, x: Array) -> Array:
        return x[..., None] * jnp.eye(x.shape[-1], dtype=x.dtype)
