"""Entries in order of size: a permutation or a selection that depends on the entries themselves."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, axes_of, namespace, scatter_add
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, Domain, generic, special
from gradlab.nodes._functions import flat_index
from gradlab.nodes._lazy import jax, jnp
from gradlab.operators import Selection

__all__ = ["Sort", "TopK"]


class _Ordering(Node):
    """A node that reads entries of x at places that it finds by their order."""

    domains = (Domain(distinct=True),)

    @abstractmethod
    def places(self, x: Array) -> Array:
        """Return the flat index of each output entry in x."""

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        """Return the entries at those places."""
        (x,) = as_inputs(self, inputs)
        flat = self.places(x)
        y = x.reshape(-1)[flat]
        return y, (x, flat, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        """Return the selection of those places."""
        x, flat, _ = residuals
        return (Selection(flat, x.shape, x.dtype),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        """Return the upstream, put back where each entry came from."""
        x, flat, y = residuals
        upstream = as_upstream(self, upstream, y).astype(x.dtype)
        return (scatter_add((x.size,), flat, upstream).reshape(x.shape),)


@dataclass(frozen=True)
class Sort(_Ordering):
    """x in ascending order along an axis; equal entries keep their order.

    Args:
        axis: the axis along which it is sorted.

    Local gradient: a permutation of each row, found by sorting.
    Backward: dx = the upstream put back where each entry came from.
    """

    axis: int = -1

    def places(self, x: Array) -> Array:
        (axis,) = axes_of(self, self.axis, x.shape)
        return flat_index(namespace(x).argsort(x, axis=axis, stable=True), axis, x.shape)

    def reference(self, x: Array) -> Array:
        return jnp.sort(x, axis=self.axis)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4)),
            generic(cls(axis=0), (5, 2)),
            generic(cls(axis=1), (2, 4, 3)),
            special(cls(), "ties", [[2.0, 1.0, 2.0, 1.0]]),
            Case(cls(), ((2, 1),), "size-1 axes"),
            Case(cls(), ((0, 3),), "zero size"),
        )


@dataclass(frozen=True)
class TopK(_Ordering):
    """The k greatest entries of each row, along the last axis, in descending order.

    Args:
        k: how many.

    Local gradient: a selection found by sorting. Of equal entries the first comes first, as in JAX.
    Backward: dx = the upstream put back where each entry came from, 0 elsewhere.
    """

    k: int = 2

    def places(self, x: Array) -> Array:
        if not x.shape or not 0 <= self.k <= x.shape[-1]:
            raise InputError(
                f"{self!r}: there are no {self.k} entries in a row of shape {shape_text(x.shape)}"
            )
        order = namespace(x).argsort(-x, axis=-1, stable=True)
        return flat_index(order[..., : self.k], len(x.shape) - 1, x.shape)

    def reference(self, x: Array) -> Array:
        return jax.lax.top_k(x, self.k)[0]

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4)),
            generic(cls(3), (5,)),
            generic(cls(1), (2, 3, 2)),
            special(cls(2), "ties", [[2.0, 1.0, 2.0, 2.0]]),
            Case(cls(0), ((2, 3),), "none"),
            Case(cls(2), ((0, 3),), "zero size"),
        )
