"""Running folds along an axis, and entries in order of size.

The Jacobian of a running fold is lower triangular along the axis and diagonal in all others: each
output sees the inputs up to its own place. Sorting is a permutation that the entries choose.
"""

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from gradlab.common.arrays import Array, Shape, namespace, normal_axes
from gradlab.formatting import shape_text
from gradlab.nodes._base import Applied, Gradients, Like, Linear, Namespace, Node
from gradlab.nodes._domain import Domain
from gradlab.nodes._lazy import jax
from gradlab.nodes._stable import flat_index
from gradlab.nodes.reduction import products_before
from gradlab.operators import CumulativeSum, LowerTriangular, Operator, Selection

_RUNS = "3x4; 5 axis=0; 2x4x3 axis=1; size-1 axes: 1x3 axis=0; zero size: 0x3"


class Cumsum(Linear):
    """The running sum of x along an axis.

    Args:
        axis: the axis along which it runs.
    """

    axis: int = -1
    jax = "jax.numpy.cumsum"
    drawn = _RUNS

    def operator(self, x: Like) -> Operator:
        (axis,) = normal_axes(self.axis, x.shape, self)
        return CumulativeSum(x.shape, x.dtype, axis)


class _Triangular(Node):
    """A running fold whose local gradient is a full lower triangle along the axis.

    Args:
        axis: the axis along which it runs.
    """

    axis: int = -1
    drawn = _RUNS

    @abstractmethod
    def value(self, xp: Namespace, x: Array, axis: int) -> Array:
        """Return the running fold."""

    @abstractmethod
    def triangle(self, xp: Namespace, x: Array, y: Array) -> Array:
        """Return dy[..., i] / dx[..., j] for j <= i, for rows on the last axis."""

    def apply(self, xp: Namespace, x: Array) -> Applied:
        (axis,) = normal_axes(self.axis, x.shape, self)
        y = self.value(xp, x, axis)
        return y, (x, y, axis)

    def gradients(self, xp: Namespace, x: Array, y: Array, axis: int) -> Gradients:
        """Return one lower triangle for each row."""
        return LowerTriangular(self._entries(xp, x, y, axis), x.shape, axis)

    def _entries(self, xp: Namespace, x: Array, y: Array, axis: int) -> Array:
        return xp.tril(self.triangle(xp, xp.moveaxis(x, axis, -1), xp.moveaxis(y, axis, -1)))


class Cumprod(_Triangular):
    """The running product of x along an axis.

    Local gradient: the lower triangle dy[i]/dx[j] = the product of x[k] over k <= i, k not j.
    Backward: dx[j] = sum over i >= j of upstream[i] * that product, formed without dividing by
    x[j], so that zeros are exact.
    """

    jax = "jax.numpy.cumprod"
    points = {"zeros": [[2.0, 0.0, 3.0, -1.0], [0.0, 3.0, 0.0, 2.0]]}

    def value(self, xp: Namespace, x: Array, axis: int) -> Array:
        return xp.cumulative_prod(x, axis=axis)

    def triangle(self, xp: Namespace, x: Array, y: Array) -> Array:
        places = xp.arange(x.shape[-1])
        later = places[:, None] > places[None, :]
        between = xp.where(later, x[..., :, None], xp.ones_like(x[..., None, :]))
        return products_before(x)[..., None, :] * xp.cumulative_prod(between, axis=-2)


class Cumlogsumexp(_Triangular):
    """log of the running sum of exp(x) along an axis.

    Local gradient: the lower triangle dy[i]/dx[j] = exp(x[j] - y[i]): a softmax over each prefix.
    Backward: dx[j] = sum over i >= j of upstream[i] exp(x[j] - y[i]).
    """

    points = {"large": [[-800.0, 800.0, 799.0, 1e3]]}

    def value(self, xp: Namespace, x: Array, axis: int) -> Array:
        if xp is np:
            return np.logaddexp.accumulate(x, axis=axis)
        return jax.lax.cumlogsumexp(x, axis=axis)

    def triangle(self, xp: Namespace, x: Array, y: Array) -> Array:
        difference = x[..., None, :] - y[..., :, None]
        return xp.exp(xp.minimum(difference, xp.zeros_like(difference)))  # tril takes the rest out

    def reference(self, x: Array) -> Array:
        return jax.lax.cumlogsumexp(x, axis=self.axis % x.ndim)


class _Chosen(Node):
    """A node that reads entries of x at places that it finds by their order."""

    domains = (Domain(distinct=True),)

    @abstractmethod
    def places(self, xp: Namespace, x: Array) -> Array:
        """Return the flat index of each output entry in x."""

    def apply(self, xp: Namespace, x: Array) -> Applied:
        flat = self.places(xp, x)
        return x.reshape(-1)[flat], (flat, x.shape, x.dtype)

    def gradients(self, xp: Namespace, flat: Array, shape: Shape, dtype: object) -> Gradients:
        """Return the selection of those places."""
        return Selection(flat, shape, dtype)


class _RunningExtremum(_Chosen):
    """A running maximum or minimum: each output is the last record.

    Args:
        axis: the axis along which it runs.
    """

    _kind = (
        "Local gradient: a selection, dy[i]/dx[j] = 1 where x[j] is the record at i. Backward: "
        "dx[j] = the sum of the upstream over the places at which x[j] is the record. Of equal "
        "entries the first keeps it; JAX shares it in an order that its scan chooses."
    )
    axis: int = -1
    drawn = _RUNS

    sign: ClassVar[int] = 1  # -1 for a minimum, so that a record is a maximum

    def places(self, xp: Namespace, x: Array) -> Array:
        """Return at each place the flat index of the entry that is the record there."""
        (axis,) = normal_axes(self.axis, x.shape, self)
        rows = xp.moveaxis(self.sign * x, axis, -1)
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
    """The running maximum of x along an axis."""

    def reference(self, x: Array) -> Array:
        return jax.lax.cummax(x, axis=self.axis % x.ndim)


class Cummin(_RunningExtremum):
    """The running minimum of x along an axis."""

    sign = -1

    def reference(self, x: Array) -> Array:
        return jax.lax.cummin(x, axis=self.axis % x.ndim)


class Sort(_Chosen):
    """x in ascending order along an axis; equal entries keep their order.

    Args:
        axis: the axis along which it is sorted.

    Local gradient: a permutation of each row, found by sorting.
    Backward: dx = the upstream put back where each entry came from.
    """

    axis: int = -1
    jax = "jax.numpy.sort"
    drawn = "3x4; 5x2 axis=0; 2x4x3 axis=1; size-1 axes: 2x1; zero size: 0x3"
    points = {"ties": [[2.0, 1.0, 2.0, 1.0]]}

    def places(self, xp: Namespace, x: Array) -> Array:
        (axis,) = normal_axes(self.axis, x.shape, self)
        return flat_index(xp.argsort(x, axis=axis, stable=True), axis, x.shape)


class TopK(_Chosen):
    """The k greatest entries of each row, along the last axis, in descending order.

    Args:
        k: how many.

    Local gradient: a selection found by sorting. Of equal entries the first comes first, as in JAX.
    Backward: dx = the upstream put back where each entry came from, 0 elsewhere.
    """

    k: int = 2
    drawn = "3x4; 5 k=3; 2x3x2 k=1; none: 2x3 k=0; zero size: 0x3"
    points = {"ties": [[2.0, 1.0, 2.0, 2.0]]}

    def places(self, xp: Namespace, x: Array) -> Array:
        fits = bool(x.shape) and 0 <= self.k <= x.shape[-1]
        self.require(fits, f"there are no {self.k} entries in a row of shape {shape_text(x.shape)}")
        order = xp.argsort(-x, axis=-1, stable=True)
        return flat_index(order[..., : self.k], len(x.shape) - 1, x.shape)

    def reference(self, x: Array) -> Array:
        return jax.lax.top_k(x, self.k)[0]
