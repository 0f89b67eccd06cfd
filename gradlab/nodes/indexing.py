"""Entries chosen by index: the Jacobian is a selection, and backward adds where indices repeat."""

from dataclasses import dataclass
from typing import Any

from gradlab.nodes._arrays import Array, as_inputs, as_upstream, axes_of, scatter_add
from gradlab.nodes._base import Node
from gradlab.nodes._domain import REALS, Case, Domain, special
from gradlab.nodes._lazy import jnp
from gradlab.operators import Selection

__all__ = ["Take"]


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
