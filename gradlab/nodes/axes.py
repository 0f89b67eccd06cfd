"""Axes added, removed and repeated: the Jacobian is a reshape or a broadcast."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import (
    Array,
    Shape,
    as_inputs,
    as_upstream,
    axes_of,
    namespace,
    unbroadcast,
)
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, generic
from gradlab.nodes._lazy import jnp
from gradlab.operators import Broadcast, Reshape, embedding

__all__ = ["BroadcastTo", "ExpandDims", "Repeat", "Squeeze", "Stack", "Tile"]


@dataclass(frozen=True)
class BroadcastTo(Node):
    """x repeated to a shape, by NumPy's rules.

    Args:
        shape: the shape to fill; x's shape, aligned from the right, has its sizes or ones.

    Local gradient: a broadcast. Backward: dx = upstream summed over the axes along which x was
    repeated: a broadcast's transpose is a sum.
    """

    shape: Shape = ()

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        try:
            fits = np.broadcast_shapes(x.shape, self.shape) == tuple(self.shape)
        except ValueError:
            fits = False
        if not fits:
            raise InputError(
                f"{self!r}: shape {shape_text(x.shape)} does not broadcast to "
                f"{shape_text(self.shape)}; aligned from the right, sizes must be equal or 1"
            )
        y = namespace(x).broadcast_to(x, self.shape)
        return y, (x, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, y = residuals
        return (Broadcast(x.shape, y.shape, x.dtype),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, y = residuals
        return (unbroadcast(as_upstream(self, upstream, y), x),)

    def reference(self, x: Array) -> Array:
        return jnp.broadcast_to(x, self.shape)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls((3, 4)), (4,)),
            generic(cls((2, 3, 4)), (3, 1)),
            generic(cls((5,)), ()),
            Case(cls((1, 3)), ((1, 3),), "nothing repeated"),
            Case(cls((0, 3)), ((3,),), "zero size"),
        )


class _Reshaping(Node):
    """A node that changes the shape alone."""

    @abstractmethod
    def shape_for(self, shape: Shape) -> Shape:
        """Return the output's shape."""

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        """Return x in its new shape."""
        (x,) = as_inputs(self, inputs)
        y = x.reshape(self.shape_for(x.shape))
        return y, (x, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        """Return the identity between the two shapes."""
        x, y = residuals
        return (Reshape(x.shape, y.shape, x.dtype),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        """Return the upstream in x's shape."""
        x, y = residuals
        return (as_upstream(self, upstream, y).reshape(x.shape),)


@dataclass(frozen=True)
class Squeeze(_Reshaping):
    """x without some of its axes of size 1.

    Args:
        axis: the axes that go; None: all of size 1.

    Local gradient: the identity between two shapes. Backward: dx = upstream in x's shape.
    """

    axis: int | tuple[int, ...] | None = None

    def shape_for(self, shape: Shape) -> Shape:
        axes = axes_of(self, self.axis, shape)
        if self.axis is not None and any(shape[a] != 1 for a in axes):
            raise InputError(
                f"{self!r}: shape {shape_text(shape)} has another size than 1 at axis {self.axis}"
            )
        return tuple(n for i, n in enumerate(shape) if n != 1 or i not in axes)

    def reference(self, x: Array) -> Array:
        return jnp.squeeze(x, self.axis)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (1, 3, 1)),
            generic(cls(axis=-1), (1, 4, 1)),
            generic(cls(axis=(0, 2)), (1, 2, 1, 1)),
            Case(cls(), ((),), "scalar"),
            Case(cls(axis=1), ((0, 1),), "zero size"),
        )


@dataclass(frozen=True)
class ExpandDims(_Reshaping):
    """x with new axes of size 1.

    Args:
        axis: where they stand in the output.

    Local gradient: the identity between two shapes. Backward: dx = upstream in x's shape.
    """

    axis: int | tuple[int, ...] = 0

    def shape_for(self, shape: Shape) -> Shape:
        new = 1 if isinstance(self.axis, int) else len(self.axis)
        rank = len(shape) + new
        axes = axes_of(self, self.axis, (1,) * rank)
        kept = iter(shape)
        return tuple(1 if i in axes else next(kept) for i in range(rank))

    def reference(self, x: Array) -> Array:
        return jnp.expand_dims(x, self.axis)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 2)),
            generic(cls(axis=-1), (4,)),
            generic(cls(axis=(0, 2)), (2, 3)),
            Case(cls(), ((),), "scalar"),
            Case(cls(axis=1), ((0, 3),), "zero size"),
        )


@dataclass(frozen=True)
class Stack(Node):
    """Arrays of one shape, side by side along a new axis.

    Args:
        axis: where the new axis stands in the output.

    Local gradients: embeddings, each the transpose of a slice.
    Backward: each input's gradient is its own slice of the upstream.
    """

    axis: int = 0

    def forward(self, *xs: Any) -> tuple[Array, Any]:
        arrays = as_inputs(self, xs)
        if len({x.shape for x in arrays}) > 1:
            raise InputError(
                f"{self!r}: shapes {', '.join(shape_text(x.shape) for x in arrays)} cannot be "
                "stacked; all must be equal"
            )
        (axis,) = axes_of(self, self.axis, (len(arrays), *arrays[0].shape))
        y = namespace(*arrays).stack(arrays, axis=axis)
        return y, (arrays, y, axis)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        xs, y, axis = residuals
        layer = (*xs[0].shape[:axis], 1, *xs[0].shape[axis:])
        before = (slice(None),) * axis
        return tuple(
            embedding((*before, slice(i, i + 1)), y.shape, x.dtype)
            @ Reshape(x.shape, layer, x.dtype)
            for i, x in enumerate(xs)
        )

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        xs, y, axis = residuals
        upstream = as_upstream(self, upstream, y)
        before = (slice(None),) * axis
        return tuple(upstream[(*before, i)].astype(x.dtype) for i, x in enumerate(xs))

    def reference(self, *xs: Array) -> Array:
        return jnp.stack(xs, axis=self.axis)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 3), (2, 3)),
            generic(cls(axis=-1), (4,), (4,), (4,)),
            generic(cls(axis=1), (2, 3)),
            Case(cls(), ((), ()), "scalar"),
            Case(cls(), ((0,), (0,)), "zero size"),
        )


class _Copies(Node):
    """A node that repeats x along an axis of its own, then merges axes: a reshaped broadcast."""

    @abstractmethod
    def layout(self, shape: Shape) -> tuple[Shape, Shape, Shape]:
        """Return x's shape with ones for the copies, that shape filled, and the output's shape."""

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        """Return the copies of x."""
        (x,) = as_inputs(self, inputs)
        single, many, out = self.layout(x.shape)
        y = namespace(x).broadcast_to(x.reshape(single), many).reshape(out)
        return y, (x, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        """Return the broadcast between two reshapes."""
        x, _ = residuals
        single, many, out = self.layout(x.shape)
        to, back = Reshape(x.shape, single, x.dtype), Reshape(many, out, x.dtype)
        return (back @ Broadcast(single, many, x.dtype) @ to,)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        """Return the upstream, summed over the copies."""
        x, y = residuals
        single, many, _ = self.layout(x.shape)
        copies = tuple(i for i, (one, n) in enumerate(zip(single, many)) if one != n)
        upstream = as_upstream(self, upstream, y).reshape(many)
        return (upstream.sum(axis=copies).reshape(x.shape).astype(x.dtype),)


@dataclass(frozen=True)
class Tile(_Copies):
    """x laid side by side: along each axis so many copies, one after the other.

    Args:
        times: the number of copies for each axis of x.

    Local gradient: a broadcast along new axes, which are then merged.
    Backward: dx = the sum of the upstream over all copies.
    """

    times: tuple[int, ...] = (2,)

    def layout(self, shape: Shape) -> tuple[Shape, Shape, Shape]:
        if len(self.times) != len(shape):
            raise InputError(
                f"{self!r}: {len(self.times)} numbers of copies came for shape "
                f"{shape_text(shape)}; give one for each axis"
            )
        single = tuple(n for size in shape for n in (1, size))
        many = tuple(n for pair in zip(self.times, shape) for n in pair)
        return single, many, tuple(k * n for k, n in zip(self.times, shape))

    def reference(self, x: Array) -> Array:
        return jnp.tile(x, self.times)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3,)),
            generic(cls((3, 2)), (2, 4)),
            generic(cls((1, 2, 1)), (2, 1, 3)),
            Case(cls((2, 0)), ((2, 3),), "no copies"),
            Case(cls((2, 2)), ((0, 3),), "zero size"),
        )


@dataclass(frozen=True)
class Repeat(_Copies):
    """x with each entry along an axis repeated, the copies next to each other.

    Args:
        times: the number of copies.
        axis: the axis along which the entries are repeated.

    Local gradient: a broadcast along a new axis, which is then merged.
    Backward: dx = the sum of the upstream over the copies of each entry.
    """

    times: int = 2
    axis: int = -1

    def layout(self, shape: Shape) -> tuple[Shape, Shape, Shape]:
        (axis,) = axes_of(self, self.axis, shape)
        before, size, after = shape[:axis], shape[axis], shape[axis + 1 :]
        single = (*before, size, 1, *after)
        many = (*before, size, self.times, *after)
        return single, many, (*before, size * self.times, *after)

    def reference(self, x: Array) -> Array:
        return jnp.repeat(x, self.times, axis=self.axis)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3,)),
            generic(cls(3, axis=0), (2, 4)),
            generic(cls(2, axis=1), (2, 3, 2)),
            Case(cls(1), ((2, 3),), "one copy"),
            Case(cls(2), ((0, 3),), "zero size"),
        )
