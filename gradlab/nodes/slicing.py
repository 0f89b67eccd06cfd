"""Parts of an array and arrays set into larger ones: the Jacobian is a slice or an embedding."""

from dataclasses import dataclass
from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, axes_of, namespace, set_at
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, generic
from gradlab.nodes._lazy import jnp
from gradlab.operators import Identity, embedding
from gradlab.operators import Slice as SliceOperator

__all__ = ["Flip", "Pad", "Roll", "Slice"]


@dataclass(frozen=True)
class Slice(Node):
    """x[start:stop:step] along each axis.

    Args:
        slices: for each axis the three arguments of a Python slice, `(start, stop, step)`; axes
            that are not named are taken whole. The step may be negative.

    Local gradient: a slice. Backward: dx = zeros, with the upstream set in where it was taken.
    """

    slices: tuple[tuple[int | None, int | None, int | None], ...] = ()

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        if len(self.slices) > len(x.shape):
            raise InputError(f"{self!r}: more slices than axes of shape {shape_text(x.shape)}")
        y = x[self._index()]
        return y, (x, y)

    def _index(self) -> tuple[slice, ...]:
        return tuple(slice(*bounds) for bounds in self.slices)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, _ = residuals
        return (SliceOperator(x.shape, self._index(), x.dtype),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, y = residuals
        upstream = as_upstream(self, upstream, y).astype(x.dtype)
        return (set_at(namespace(x).zeros_like(x), self._index(), upstream),)

    def reference(self, x: Array) -> Array:
        return x[self._index()]

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(((1, 3, None),)), (4, 3)),
            generic(cls(((None, None, 2), (None, None, -1))), (5, 3)),
            generic(cls(((None, None, None), (-2, None, None))), (2, 4, 3)),
            Case(cls(((4, 0, -2),)), ((6,),), "negative step"),
            Case(cls(((2, 2, None),)), ((4,),), "zero size"),
        )


@dataclass(frozen=True)
class Pad(Node):
    """x with a border of one value.

    Args:
        widths: for each axis how many entries come before and after x.
        value: what the border holds.

    Local gradient: an embedding, the transpose of a slice.
    Backward: dx = the upstream without its border.
    """

    widths: tuple[tuple[int, int], ...] = ((1, 1),)
    value: float = 0.0

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        if len(self.widths) != len(x.shape):
            raise InputError(
                f"{self!r}: {len(self.widths)} pairs of widths came for shape "
                f"{shape_text(x.shape)}; give (before, after) for each axis"
            )
        xp = namespace(x)
        shape = tuple(low + n + high for n, (low, high) in zip(x.shape, self.widths))
        y = set_at(xp.full(shape, self.value, dtype=x.dtype), self._place(x.shape), x)
        return y, (x, y)

    def _place(self, shape: tuple[int, ...]) -> tuple[slice, ...]:
        return tuple(slice(low, low + n) for n, (low, _) in zip(shape, self.widths))

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, y = residuals
        return (embedding(self._place(x.shape), y.shape, x.dtype),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, y = residuals
        return (as_upstream(self, upstream, y)[self._place(x.shape)].astype(x.dtype),)

    def reference(self, x: Array) -> Array:
        return jnp.pad(x, self.widths, constant_values=self.value)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3,)),
            generic(cls(((1, 2), (0, 3)), -1.5), (2, 3)),
            generic(cls(((0, 0), (2, 0), (1, 1))), (2, 1, 3)),
            Case(cls(((0, 0),)), ((3,),), "no border"),
            Case(cls(((1, 1), (0, 0))), ((0, 3),), "zero size"),
        )


@dataclass(frozen=True)
class Flip(Node):
    """x with the order of its entries reversed along axes.

    Args:
        axis: the axis or axes; None means all.

    Local gradient: a slice of step -1, its own transpose. Backward: dx = the upstream flipped.
    """

    axis: int | tuple[int, ...] | None = None

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        axes = axes_of(self, self.axis, x.shape)
        y = namespace(x).flip(x, axis=axes)
        return y, (y, axes)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        y, axes = residuals
        reverse = [slice(None, None, -1 if i in axes else 1) for i in range(len(y.shape))]
        return (SliceOperator(y.shape, reverse, y.dtype),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        y, axes = residuals
        return (namespace(y).flip(as_upstream(self, upstream, y), axis=axes).astype(y.dtype),)

    def reference(self, x: Array) -> Array:
        return jnp.flip(x, self.axis)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4)),
            generic(cls(axis=0), (5,)),
            generic(cls(axis=(0, -1)), (2, 3, 4)),
            Case(cls(), ((),), "scalar"),
            Case(cls(axis=1), ((0, 3),), "zero size"),
        )


@dataclass(frozen=True)
class Roll(Node):
    """x shifted along an axis, what leaves at one end coming in at the other.

    Args:
        shift: by how many places; negative ones shift towards the front.
        axis: the axis.

    Local gradient: a cyclic permutation, as two embedded slices.
    Backward: dx = the upstream shifted back.
    """

    shift: int = 1
    axis: int = -1

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        (axis,) = axes_of(self, self.axis, x.shape)
        y = namespace(x).roll(x, self.shift, axis=axis)
        return y, (y, axis)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        y, axis = residuals
        n, before = y.shape[axis], (slice(None),) * axis
        k = self.shift % n if n else 0
        if k == 0:
            return (Identity(y.shape, y.dtype),)
        moves = ((slice(k, n), slice(0, n - k)), (slice(0, k), slice(n - k, n)))
        front, back = (
            embedding((*before, to), y.shape, y.dtype)
            @ SliceOperator(y.shape, (*before, taken), y.dtype)
            for to, taken in moves
        )
        return (front + back,)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        y, axis = residuals
        upstream = as_upstream(self, upstream, y)
        return (namespace(y).roll(upstream, -self.shift, axis=axis).astype(y.dtype),)

    def reference(self, x: Array) -> Array:
        return jnp.roll(x, self.shift, axis=self.axis)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4)),
            generic(cls(-2, axis=0), (5,)),
            generic(cls(7, axis=1), (2, 4, 3)),
            Case(cls(3), ((2, 3),), "a full turn"),
            Case(cls(), ((3, 0),), "zero size"),
        )
