"""Running folds along an axis: each output sees the inputs up to its own place, so it is causal.

The Jacobian is lower triangular along the axis and diagonal in all others.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradlab.nodes._arrays import Array, as_inputs, as_upstream, axes_of, namespace, scatter_add
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, Domain, generic, special
from gradlab.nodes._functions import flat_index
from gradlab.nodes._lazy import jax, jnp
from gradlab.nodes.reduction import products_before
from gradlab.operators import CumulativeSum, LowerTriangular, Selection

__all__ = ["Cumlogsumexp", "Cummax", "Cummin", "Cumprod", "Cumsum"]


@dataclass(frozen=True)
class _Running(Node):
    """A running fold.

    Args:
        axis: the axis along which it runs.
    """

    axis: int = -1

    @abstractmethod
    def value(self, x: Array, axis: int) -> Array:
        """Return the running fold."""

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        """Return the running fold."""
        (x,) = as_inputs(self, inputs)
        (axis,) = axes_of(self, self.axis, x.shape)
        y = self.value(x, axis)
        return y, (x, y, axis)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        """Return runs along the last, the first and a middle axis, then the corners."""
        return (
            generic(cls(), (3, 4)),
            generic(cls(axis=0), (5,)),
            generic(cls(axis=1), (2, 4, 3)),
            Case(cls(axis=0), ((1, 3),), "size-1 axes"),
            Case(cls(), ((0, 3),), "zero size"),
        )


class Cumsum(_Running):
    """The running sum of x along an axis.

    Local gradient: the lower triangle of ones along the axis.
    Backward: dx = the running sum of the upstream from the other end.
    """

    def value(self, x: Array, axis: int) -> Array:
        return namespace(x).cumulative_sum(x, axis=axis)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, _, axis = residuals
        return (CumulativeSum(x.shape, x.dtype, axis),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, y, axis = residuals
        xp = namespace(x)
        upstream = as_upstream(self, upstream, y)
        return (xp.flip(xp.cumulative_sum(xp.flip(upstream, axis=axis), axis=axis), axis=axis),)

    def reference(self, x: Array) -> Array:
        return jnp.cumsum(x, axis=self.axis)


class _Triangular(_Running):
    """A running fold whose local gradient is a full lower triangle along the axis."""

    @abstractmethod
    def triangle(self, x: Array, y: Array) -> Array:
        """Return dy[..., i] / dx[..., j] for j <= i, for rows on the last axis."""

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        """Return one lower triangle for each row."""
        x, y, axis = residuals
        return (LowerTriangular(self._entries(x, y, axis), x.shape, axis),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        """Return the upstream times the triangle, row by row."""
        x, y, axis = residuals
        xp = namespace(x)
        rows = xp.moveaxis(as_upstream(self, upstream, y), axis, -1)[..., None]
        dx = (rows * self._entries(x, y, axis)).sum(axis=-2)
        return (xp.moveaxis(dx, -1, axis).astype(x.dtype),)

    def _entries(self, x: Array, y: Array, axis: int) -> Array:
        xp = namespace(x)
        return xp.tril(self.triangle(xp.moveaxis(x, axis, -1), xp.moveaxis(y, axis, -1)))


class Cumprod(_Triangular):
    """The running product of x along an axis.

    Local gradient: the lower triangle dy[i]/dx[j] = the product of x[k] over k <= i, k not j.
    Backward: dx[j] = sum over i >= j of upstream[i] * that product, formed without dividing by
    x[j], so that zeros are exact.
    """

    def value(self, x: Array, axis: int) -> Array:
        return namespace(x).cumulative_prod(x, axis=axis)

    def triangle(self, x: Array, y: Array) -> Array:
        xp, n = namespace(x), x.shape[-1]
        places = xp.arange(n)
        later = places[:, None] > places[None, :]
        between = xp.where(later, x[..., :, None], xp.ones_like(x[..., None, :]))
        return products_before(x)[..., None, :] * xp.cumulative_prod(between, axis=-2)

    def reference(self, x: Array) -> Array:
        return jnp.cumprod(x, axis=self.axis)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        """Return the runs, and rows with one and two zeros."""
        zeros = [[2.0, 0.0, 3.0, -1.0], [0.0, 3.0, 0.0, 2.0]]
        return (*super().cases(), special(cls(), "zeros", zeros))


class Cumlogsumexp(_Triangular):
    """log of the running sum of exp(x) along an axis.

    Local gradient: the lower triangle dy[i]/dx[j] = exp(x[j] - y[i]): a softmax over each prefix.
    Backward: dx[j] = sum over i >= j of upstream[i] exp(x[j] - y[i]).
    """

    def value(self, x: Array, axis: int) -> Array:
        if namespace(x) is np:
            return np.logaddexp.accumulate(x, axis=axis)
        return jax.lax.cumlogsumexp(x, axis=axis)

    def triangle(self, x: Array, y: Array) -> Array:
        xp = namespace(x)
        difference = x[..., None, :] - y[..., :, None]
        return xp.exp(xp.minimum(difference, xp.zeros_like(difference)))  # tril takes the rest out

    def reference(self, x: Array) -> Array:
        return jax.lax.cumlogsumexp(x, axis=self.axis % x.ndim)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        """Return the runs, and rows of large magnitudes."""
        return (*super().cases(), special(cls(), "large", [[-800.0, 800.0, 799.0, 1e3]]))


class _RunningExtremum(_Running):
    """A running maximum or minimum: each output is the last record."""

    domains = (Domain(distinct=True),)

    @abstractmethod
    def risen(self, x: Array) -> Array:
        """Return x, or -x for a minimum, so that a record is a maximum."""

    def value(self, x: Array, axis: int) -> Array:
        """Return the entry that is the record at each place."""
        return x.reshape(-1)[self._records(x, axis)]

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        """Return the selection of the records."""
        x, _, axis = residuals
        return (Selection(self._records(x, axis), x.shape, x.dtype),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        """Return the upstream, added up where each record was set."""
        x, y, axis = residuals
        upstream = as_upstream(self, upstream, y).astype(x.dtype)
        return (scatter_add((x.size,), self._records(x, axis), upstream).reshape(x.shape),)

    def _records(self, x: Array, axis: int) -> Array:
        """Return at each place the flat index of the entry that is the record there."""
        xp, rows = namespace(x), namespace(x).moveaxis(self.risen(x), axis, -1)
        best = _running_maximum(rows)
        first = xp.ones_like(rows[..., :1], dtype=bool)
        new = xp.concat([first, rows[..., 1:] > best[..., :-1]], axis=-1)
        places = _running_maximum(xp.where(new, xp.arange(rows.shape[-1]), 0))
        return flat_index(xp.moveaxis(places, -1, axis), axis, x.shape)


def _running_maximum(rows: Array) -> Array:
    if namespace(rows) is np:
        return np.maximum.accumulate(rows, axis=-1)
    return jax.lax.cummax(rows, axis=rows.ndim - 1)


class Cummax(_RunningExtremum):
    """The running maximum of x along an axis.

    Local gradient: a selection, dy[i]/dx[j] = 1 where x[j] is the greatest up to i.
    Backward: dx[j] = the sum of the upstream over the places at which x[j] is the record.
    Of equal entries the first keeps the record; JAX shares it in an order that its scan chooses.
    """

    def risen(self, x: Array) -> Array:
        return x

    def reference(self, x: Array) -> Array:
        return jax.lax.cummax(x, axis=self.axis % x.ndim)


class Cummin(_RunningExtremum):
    """The running minimum of x along an axis.

    Local gradient: a selection, dy[i]/dx[j] = 1 where x[j] is the least up to i.
    Backward: dx[j] = the sum of the upstream over the places at which x[j] is the record.
    Of equal entries the first keeps the record; JAX shares it in an order that its scan chooses.
    """

    def risen(self, x: Array) -> Array:
        return -x

    def reference(self, x: Array) -> Array:
        return jax.lax.cummin(x, axis=self.axis % x.ndim)
