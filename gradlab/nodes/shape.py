"""Entries moved, not changed: the Jacobian is a permutation or a selection, backward moves back."""

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, Shape, as_inputs, as_upstream, namespace
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, generic
from gradlab.nodes._lazy import jnp
from gradlab.operators import Permutation, embedding
from gradlab.operators import Reshape as ReshapeOperator

__all__ = ["Concatenate", "Reshape", "Transpose"]


@dataclass(frozen=True)
class Reshape(Node):
    """x with another shape, its entries in the same (C) order.

    Args:
        shape: the new shape; one size may be -1.

    Local gradient: the identity between two shapes. Backward: dx = upstream in x's shape.
    """

    shape: Shape = (-1,)

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        try:
            y = namespace(x).reshape(x, self.shape)
        except (ValueError, TypeError):
            raise InputError(
                f"{self!r}: shape {shape_text(x.shape)} has {x.size} entries, which do not fill "
                f"{self.shape}; the number of entries must stay the same"
            ) from None
        return y, (x, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, y = residuals
        return (ReshapeOperator(x.shape, y.shape, x.dtype),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, y = residuals
        return (as_upstream(self, upstream, y).reshape(x.shape),)

    def reference(self, x: Array) -> Array:
        return jnp.reshape(x, self.shape)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls((4, 3)), (3, 4)),
            generic(cls((-1,)), (2, 3, 4)),
            generic(cls((2, 1, 3)), (6,)),
            Case(cls(()), ((1, 1),), "scalar"),
            Case(cls((3, 0)), ((0, 5),), "zero size"),
        )


@dataclass(frozen=True)
class Transpose(Node):
    """x with its axes reordered.

    Args:
        axes: output axis i is input axis axes[i]; None reverses them.

    Local gradient: a permutation. Backward: dx = upstream with the inverse permutation.
    """

    axes: tuple[int, ...] | None = None

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        rank = len(x.shape)
        axes = tuple(reversed(range(rank))) if self.axes is None else self.axes
        axes = tuple(a + rank if a < 0 else a for a in axes)
        if sorted(axes) != list(range(rank)):
            raise InputError(
                f"{self!r}: axes {self.axes} do not name each axis of shape "
                f"{shape_text(x.shape)} once; expected an order of 0 to {rank - 1}"
            )
        y = namespace(x).permute_dims(x, axes)
        return y, (x, y, axes)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, _, axes = residuals
        return (Permutation(axes, x.shape, x.dtype),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        _, y, axes = residuals
        inverse = tuple(axes.index(i) for i in range(len(axes)))
        return (namespace(y).permute_dims(as_upstream(self, upstream, y), inverse),)

    def reference(self, x: Array) -> Array:
        return jnp.transpose(x, self.axes)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4)),
            generic(cls((1, 2, 0)), (2, 3, 4)),
            generic(cls((0, -1, 1)), (2, 3, 4)),
            Case(cls(), ((),), "scalar"),
            Case(cls(), ((1, 3, 1),), "size-1 axes"),
            Case(cls(), ((0, 3),), "zero size"),
        )


@dataclass(frozen=True)
class Concatenate(Node):
    """Arrays joined along an axis.

    Args:
        axis: the axis along which they follow each other.

    Local gradients: embeddings, each the transpose of a slice.
    Backward: each input's gradient is its own slice of the upstream.
    """

    axis: int = 0

    def forward(self, *xs: Any) -> tuple[Array, Any]:
        arrays = as_inputs(self, xs)
        rank = len(arrays[0].shape)
        axis = self.axis + rank if self.axis < 0 else self.axis
        others = {(len(x.shape), x.shape[:axis], x.shape[axis + 1 :]) for x in arrays}
        if not 0 <= axis < rank or len(others) > 1:
            raise InputError(
                f"{self!r}: shapes {', '.join(shape_text(x.shape) for x in arrays)} cannot be "
                f"joined along axis {self.axis}; all other axes must have equal sizes"
            )
        y = namespace(*arrays).concat(arrays, axis=axis)
        edges = [0, *accumulate(x.shape[axis] for x in arrays)]
        places = tuple((slice(None),) * axis + (slice(a, b),) for a, b in pairwise(edges))
        return y, (arrays, y, places)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        xs, y, places = residuals
        return tuple(embedding(place, y.shape, x.dtype) for x, place in zip(xs, places))

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        xs, y, places = residuals
        upstream = as_upstream(self, upstream, y)
        return tuple(upstream[place].astype(x.dtype) for x, place in zip(xs, places))

    def reference(self, *xs: Array) -> Array:
        return jnp.concatenate(xs, axis=self.axis)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 3), (4, 3)),
            generic(cls(axis=-1), (2, 3), (2, 1), (2, 2)),
            generic(cls(axis=1), (2, 1, 3)),
            Case(cls(), ((0,), (3,)), "zero size"),
        )
