"""Pooling: one number for each window, its greatest entry or its mean.

The windows walk over the last axes, as many as the window has sizes; the leading ones are batch.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, Shape, as_inputs, as_upstream, namespace, scatter_add
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, Domain, generic, special
from gradlab.nodes._lazy import jax, jnp
from gradlab.nodes._windows import Padding, PerAxis, Windows, paddings, windows
from gradlab.operators import Convolution, Diagonal, Operator, Reshape, Selection, sum_over

__all__ = ["AveragePool", "GlobalAveragePool", "MaxPool"]


@dataclass(frozen=True)
class _Pool(Node):
    """A node that makes one number of each window."""

    window: Shape = (2, 2)
    stride: PerAxis | None = None
    padding: Padding = 0
    ceil_mode: bool = False

    def _walk(self, shape: Shape) -> Windows:
        rank = len(self.window)
        if len(shape) < rank:
            raise InputError(
                f"{self!r}: x has shape {shape_text(shape)}; expected at least {rank} axes, one "
                "for each size of the window"
            )
        stride = self.window if self.stride is None else self.stride
        size = shape[len(shape) - rank :]
        walk = windows(self, size, self.window, stride, self.padding, 1, self.ceil_mode)
        if not walk.covers.any(axis=tuple(range(rank))).all():
            raise InputError(
                f"{self!r}: a window at the edge of {shape_text(size)} lies wholly in the padding; "
                "padding must be smaller than the window"
            )
        return walk

    def _reduced(self, x: Array, start: float, fold: Any, walk: Windows) -> Array:
        """Return what `jax.lax.reduce_window` makes of x."""
        ones = (1,) * (x.ndim - len(self.window))
        return jax.lax.reduce_window(
            x,
            np.asarray(start, x.dtype),
            fold,
            (*ones, *self.window),
            (*ones, *walk.stride),
            (*((0, 0) for _ in ones), *walk.padding),
        )


@dataclass(frozen=True)
class MaxPool(_Pool):
    """The greatest entry of each window: y[p] = max over taps k of x[stride p + k - padding].

    Shapes: x (..., *spatial), y (..., *places).

    Args:
        window: the window's sizes; it walks over as many last axes.
        stride: the step of the window; None: the window's own size, so that none overlap.
        padding: how far the window may hang over the edges, where it sees nothing; one number,
            or per axis a number or a pair (before, after).
        ceil_mode: whether a last window may hang over the end where it does not fit whole.

    Local gradient: a selection: dy[p]/dx[i] = 1 for the greatest entry under p, 0 for the others.
    Backward: dx[i] = the upstream of all windows whose greatest entry is i, added. Where entries
    tie, the first one (in C order) takes all, as in JAX's `reduce_window` and in PyTorch.
    """

    domains = (Domain(distinct=True),)

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        walk, xp = self._walk(x.shape), namespace(x)
        lead, places = x.shape[: x.ndim - len(walk.size)], walk.places
        seen = walk.take(x, -math.inf).reshape(*lead, walk.taps, walk.spots)
        y = xp.max(seen, axis=-2)
        # A tap in the padding never counts as greatest, not even where all entries are -inf.
        inside = xp.asarray(walk.covers.reshape(walk.taps, walk.spots))
        greatest = (seen == y[..., None, :]) & xp.broadcast_to(inside, seen.shape)
        tap = xp.argmax(greatest, axis=-2)
        entries = xp.asarray(walk.entries.reshape(walk.taps, walk.spots))
        spatial = entries[tap, xp.broadcast_to(xp.arange(walk.spots), tap.shape)]
        size = math.prod(walk.size)
        first = np.arange(math.prod(lead)).reshape(*lead, 1) * size
        index = (spatial + xp.broadcast_to(xp.asarray(first), tap.shape)).reshape(*lead, *places)
        return y.reshape(*lead, *places), (x, index)

    def local_gradient(self, residuals: Any) -> tuple[Operator, ...]:
        x, index = residuals
        return (Selection(index, x.shape, x.dtype),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, index = residuals
        upstream = as_upstream(self, upstream, index).astype(x.dtype)
        flat = scatter_add((x.size,), (index.reshape(-1),), upstream.reshape(-1))
        return (flat.reshape(x.shape),)

    def reference(self, x: Array) -> Array:
        return self._reduced(x, -math.inf, jax.lax.max, self._walk(x.shape))

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        overlapping = cls((3, 2), stride=(2, 1), padding=((1, 0), 1))
        return (
            generic(cls(), (2, 2, 4, 4)),
            generic(overlapping, (2, 4, 3)),
            generic(cls((2,), stride=3, ceil_mode=True), (3, 7)),
            Case(cls((2, 2, 1)), ((1, 2, 2, 3),), "three axes"),
            special(cls((2,), stride=1), "ties", [[1.0, 1.0, 0.0, 1.0, 1.0]]),
            special(cls((2,)), "infinities", [[-math.inf, -math.inf, 1.0, -math.inf]]),
            Case(cls(), ((0, 2, 4, 4),), "zero size"),
        )


@dataclass(frozen=True)
class AveragePool(_Pool):
    """The mean of each window: y[p] = sum over taps k of x[stride p + k - padding] / count[p].

    Shapes: x (..., *spatial), y (..., *places).

    Args:
        window: the window's sizes; it walks over as many last axes.
        stride: the step of the window; None: the window's own size, so that none overlap.
        padding: zeros around the edges; one number, or per axis a number or a pair.
        ceil_mode: whether a last window may hang over the end where it does not fit whole; what
            it sees there is never counted.
        count_padding: whether the padding's zeros count as entries; if not, count[p] is the
            number of the window's taps that lie inside.

    Local gradient: a convolution of each plane with ones, divided by the counts:
    dy[p]/dx[i] = 1 / count[p] where i lies under p, else 0.
    Backward: dx[i] = the sum of upstream[p] / count[p] over the windows p above i.
    """

    count_padding: bool = True

    def _counts(self, walk: Windows) -> Array:
        """Return the number of entries that each place counts."""
        counted = walk
        if self.count_padding:
            padded = replace(walk, padding=paddings(self, self.padding, len(walk.size))).padded
            overhang = tuple((0, n - m) for n, m in zip(walk.padded, padded))
            counted = replace(walk, size=padded, padding=overhang)
        return counted.covers.sum(axis=tuple(range(len(walk.size))))

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        walk, xp = self._walk(x.shape), namespace(x)
        lead = x.shape[: x.ndim - len(walk.size)]
        total = walk.take(x).reshape(*lead, walk.taps, walk.spots).sum(axis=-2)
        weights = xp.asarray(1.0 / self._counts(walk), dtype=x.dtype)
        shape = (*lead, *walk.places)
        return total.reshape(shape) * xp.broadcast_to(weights, shape), (x, weights, walk)

    def local_gradient(self, residuals: Any) -> tuple[Operator, ...]:
        x, weights, walk = residuals
        lead = x.shape[: x.ndim - len(walk.size)]
        planes = (math.prod(lead), 1, *walk.size)
        ones = namespace(x).ones((1, 1, *walk.window), dtype=x.dtype)
        sums = Convolution(ones, planes, walk.stride, walk.padding)
        shape = (*lead, *walk.places)
        return (
            Diagonal(namespace(x).broadcast_to(weights, shape))
            @ Reshape(sums.output_shape, shape, x.dtype)
            @ sums
            @ Reshape(x.shape, planes, x.dtype),
        )

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, weights, walk = residuals
        xp, lead = namespace(x), x.shape[: x.ndim - len(walk.size)]
        shape = (*lead, *walk.places)
        each = as_upstream(self, upstream, xp.broadcast_to(weights, shape)) * xp.broadcast_to(
            weights, shape
        )
        each = each.astype(x.dtype).reshape(*lead, *(1,) * len(walk.size), *walk.places)
        return (walk.add(xp.broadcast_to(each, (*lead, *walk.window, *walk.places))),)

    def reference(self, x: Array) -> Array:
        walk = self._walk(x.shape)
        total = self._reduced(x, 0.0, jax.lax.add, walk)
        return total / jnp.broadcast_to(jnp.asarray(self._counts(walk), x.dtype), total.shape)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        overlapping = cls((3, 2), stride=(2, 1), padding=((1, 0), 1), count_padding=False)
        hanging = cls((3,), stride=2, padding=1, ceil_mode=True)
        return (
            generic(cls(padding=1), (2, 2, 2, 4)),
            generic(overlapping, (2, 4, 3)),
            generic(hanging, (3, 6)),
            Case(cls((1, 2, 2)), ((1, 2, 2, 3),), "three axes"),
            Case(cls(), ((0, 2, 4, 4),), "zero size"),
        )


@dataclass(frozen=True)
class GlobalAveragePool(Node):
    """The mean of each plane: y[n, c] = mean over all spatial axes of x[n, c].

    Shapes: x (batch, channels, *spatial), y (batch, channels).

    Local gradient: 1/n times a sum: dy[n, c]/dx[n, c, i] = 1 / entries of the plane, else 0.
    Backward: dx = upstream / entries of the plane, repeated over it.
    Source: Lin et al., "Network in network" (arXiv:1312.4400, 2013), section 3.2.
    """

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        if len(x.shape) < 3 or 0 in x.shape[2:]:
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)}; expected (batch, channels, "
                "*spatial) with at least one spatial axis, none empty"
            )
        return x.mean(axis=tuple(range(2, x.ndim))), x

    def local_gradient(self, residuals: Any) -> tuple[Operator, ...]:
        x = residuals
        total = sum_over(x.shape, tuple(range(2, x.ndim)), x.dtype)
        return ((1.0 / math.prod(x.shape[2:])) * total,)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, xp = residuals, namespace(residuals)
        plane = x.shape[:2] + (1,) * (x.ndim - 2)
        each = as_upstream(self, upstream, x[(..., *(0,) * (x.ndim - 2))]).reshape(plane)
        return (xp.broadcast_to(each / math.prod(x.shape[2:]), x.shape).astype(x.dtype),)

    def reference(self, x: Array) -> Array:
        return jnp.mean(x, axis=tuple(range(2, x.ndim)))

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 3, 2, 4)),
            generic(cls(), (3, 2, 5)),
            generic(cls(), (1, 2, 2, 3, 2)),
            Case(cls(), ((1, 1, 1, 1),), "size-1 axes"),
            Case(cls(), ((0, 3, 2),), "zero size"),
        )
