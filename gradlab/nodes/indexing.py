"""Entries chosen by index: the Jacobian is a selection, and backward adds where indices repeat."""

from dataclasses import dataclass
from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, axes_of, namespace, scatter_add
from gradlab.nodes._base import Node
from gradlab.nodes._domain import REALS, Case, Domain, special
from gradlab.nodes._functions import flat_index
from gradlab.nodes._lazy import jnp
from gradlab.operators import Selection

__all__ = ["Take", "TakeAlongAxis"]


@dataclass(frozen=True)
class Take(Node):
    """The entries of x at `indices` along an axis: y = x[..., indices, ...].

    Args:
        axis: the axis that is indexed. Indices run from 0; they are not checked against the axis
            under `jit`, where JAX clamps them.

    Local gradient: a selection (one 1 in each row); None for the indices.
    Backward: dx[k] = the sum of the upstream over all places whose index is k: a scatter-add.
    An assignment in its place would keep only the last of repeated indices.
    """

    axis: int = 0

    domains = (REALS, Domain(low=0, high=3, integer=True))

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        x, indices = as_inputs(self, inputs)
        (axis,) = axes_of(self, self.axis, x.shape)
        place = (slice(None),) * axis + (indices,)
        y = x[place]
        return y, (x, indices, y, axis)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, indices, _, axis = residuals
        return Selection(indices, x.shape, x.dtype, axis=axis), None

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        x, indices, y, axis = residuals
        upstream = as_upstream(self, upstream, y).astype(x.dtype)
        return scatter_add(x.shape, (slice(None),) * axis + (indices,), upstream), None

    def reference(self, x: Array, indices: Array) -> Array:
        return jnp.take(x, indices, axis=self.axis)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            special(cls(), "generic", (4, 3), [2, 0, 1]),
            special(cls(axis=1), "generic", (2, 5, 3), [[4, 1], [0, 3]]),
            special(cls(axis=-1), "generic", (3, 4), [1]),
            special(cls(), "repeated indices", (4, 2), [1, 3, 1, 1]),
            special(cls(), "scalar index", (4, 2), 2),
            Case(cls(), ((4, 2), (0,)), "zero size"),
        )


@dataclass(frozen=True)
class TakeAlongAxis(Node):
    """For each row its own entries: y[i, j] = x[i, indices[i, j]], for rows along an axis.

    Args:
        axis: the axis that is indexed; all other axes of x and of the indices are equal.

    Local gradient: a selection; None for the indices.
    Backward: dx = the upstream added at the indices of each row; repeated ones add up.
    """

    axis: int = -1

    domains = (REALS, Domain(low=0, high=3, integer=True))

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        x, indices = as_inputs(self, inputs)
        (axis,) = axes_of(self, self.axis, x.shape)
        others = [(len(a.shape), a.shape[:axis], a.shape[axis + 1 :]) for a in (x, indices)]
        if others[0] != others[1]:
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)} and the indices "
                f"{shape_text(indices.shape)}; they may differ along axis {self.axis} only"
            )
        xp, size = namespace(x, indices), x.shape[axis]
        flat = flat_index(xp.where(indices < 0, indices + size, indices), axis, x.shape)
        y = x.reshape(-1)[flat]
        return y, (x, flat, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, flat, _ = residuals
        return Selection(flat, x.shape, x.dtype), None

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        x, flat, y = residuals
        upstream = as_upstream(self, upstream, y).astype(x.dtype)
        return scatter_add((x.size,), flat, upstream).reshape(x.shape), None

    def reference(self, x: Array, indices: Array) -> Array:
        return jnp.take_along_axis(x, indices, axis=self.axis)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            special(cls(), "generic", (2, 3), [[2, 0], [1, 1]]),
            special(cls(axis=0), "generic", (4, 2), [[3, 0]]),
            special(cls(axis=1), "generic", (2, 4, 1), [[[3], [1], [0]], [[2], [2], [0]]]),
            special(cls(), "repeated and negative", (1, 3), [[-1, 2, 2, 0]]),
            Case(cls(), ((2, 3), (2, 0)), "zero size"),
        )
