"""Rows written into an array at indices: added, set, or compared.

In all of them x has shape (n, ...), the indices any shape, and the updates that shape followed by
a row's. Indices are not checked against n under `jit`, where JAX leaves out those that are beyond.
"""

from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import (
    Array,
    as_inputs,
    as_upstream,
    max_at,
    namespace,
    scatter_add,
    set_at,
)
from gradlab.nodes._base import Node
from gradlab.nodes._domain import REALS, Case, Domain, special
from gradlab.nodes._lazy import jnp
from gradlab.operators import Diagonal, Identity, scatter

__all__ = ["Scatter", "ScatterAdd", "ScatterMax"]


class _Scattering(Node):
    """What the three have in common: inputs x, indices, updates, and their shapes."""

    domains = (REALS, Domain(low=0, high=3, integer=True), REALS)

    def arrays(self, inputs: tuple[Any, ...]) -> tuple[Array, ...]:
        """Return the inputs, and the updates in x's dtype.

        Raises:
            InputError: the shapes do not belong together.
        """
        x, indices, updates = as_inputs(self, inputs)
        if not x.shape or updates.shape != (*indices.shape, *x.shape[1:]):
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)}, the indices "
                f"{shape_text(indices.shape)} and the updates {shape_text(updates.shape)}; "
                "expected (n, ...), any shape, and the indices' shape followed by a row's"
            )
        return x, indices, updates, updates.astype(x.dtype)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        """Return indices of several ranks, repeated ones and none."""
        return (
            special(cls(), "generic", (4, 3), [2, 0], (2, 3)),
            special(cls(), "generic", (5,), [[4, 1], [0, 3]], (2, 2)),
            special(cls(), "generic", (3, 2, 2), 1, (2, 2)),
            special(cls(), "repeated indices", (4, 2), [1, 3, 1], (3, 2)),
            Case(cls(), ((3, 2), (0,), (0, 2)), "zero size"),
        )


class ScatterAdd(_Scattering):
    """x with the updates added at the indices; repeated indices add up.

    Local gradients: the identity, None for the indices, and a scatter.
    Backward: dx = upstream, dupdates = the upstream at the indices.
    """

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        x, indices, given, updates = self.arrays(inputs)
        y = x + scatter_add(x.shape, indices, updates)
        return y, (x, indices, given, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, indices, _, _ = residuals
        return (
            Identity(x.shape, x.dtype),
            None,
            scatter(indices, x.shape, x.dtype, axis=0),
        )

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        x, indices, updates, y = residuals
        upstream = as_upstream(self, upstream, y)
        return upstream.astype(x.dtype), None, upstream[indices].astype(updates.dtype)

    def reference(self, x: Array, indices: Array, updates: Array) -> Array:
        return jnp.asarray(x).at[indices].add(updates)


class Scatter(_Scattering):
    """x with the updates written at the indices; of repeated ones the last stays.

    Local gradients: a diagonal that is 0 where x was overwritten, None for the indices, and a
    scatter of the updates that stayed.
    Backward: dx = the upstream, 0 where x was overwritten; dupdates = the upstream at the indices,
    0 for updates that were overwritten themselves.
    """

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        x, indices, given, updates = self.arrays(inputs)
        y = set_at(x, indices, updates)
        # Writing each update's number in the same way tells which of them stayed.
        xp, shape = namespace(x, indices), (indices.size, *(1,) * (x.ndim - 1))
        numbers = xp.broadcast_to(
            xp.arange(indices.size).reshape(shape), (indices.size, *x.shape[1:])
        )
        owners = set_at(xp.full(x.shape, -1), indices.reshape(-1), numbers)
        stayed = (owners[indices] == numbers.reshape(updates.shape)).astype(x.dtype)
        return y, (indices, stayed, (owners < 0).astype(x.dtype), given, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        indices, stayed, untouched, _, y = residuals
        write = scatter(indices, y.shape, y.dtype, axis=0)
        return Diagonal(untouched), None, write @ Diagonal(stayed)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        indices, stayed, untouched, updates, y = residuals
        upstream = as_upstream(self, upstream, y)
        return upstream * untouched, None, (upstream[indices] * stayed).astype(updates.dtype)

    def reference(self, x: Array, indices: Array, updates: Array) -> Array:
        return jnp.asarray(x).at[indices].set(updates)


class ScatterMax(_Scattering):
    """x with the greatest of itself and the updates at the indices.

    Local gradients: a diagonal that is 1 where x is the greatest, None for the indices, and a
    scatter of the updates that are the greatest.
    Backward: the upstream goes to the greatest; those that tie share it equally, as in JAX.
    """

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        x, indices, given, updates = self.arrays(inputs)
        y = max_at(x, indices, updates)
        kept, won = (x == y).astype(x.dtype), (updates == y[indices]).astype(x.dtype)
        winners = kept + scatter_add(x.shape, indices, won)
        return y, (indices, kept / winners, won / winners[indices], given, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        indices, kept, won, _, y = residuals
        write = scatter(indices, y.shape, y.dtype, axis=0)
        return Diagonal(kept), None, write @ Diagonal(won)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        indices, kept, won, updates, y = residuals
        upstream = as_upstream(self, upstream, y)
        return upstream * kept, None, (upstream[indices] * won).astype(updates.dtype)

    def reference(self, x: Array, indices: Array, updates: Array) -> Array:
        return jnp.asarray(x).at[indices].max(updates)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        """Return the cases of every scattering, and ties between x and updates."""
        ties = special(cls(), "ties", [1.0, 2.0, 3.0], [0, 0, 2], [5.0, 5.0, 3.0])
        return (*super().cases(), ties)
