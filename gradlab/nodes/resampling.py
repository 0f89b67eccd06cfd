"""Planes brought to another size: each spatial axis by a matrix of its own.

Adaptive pooling and linear interpolation are separable: y = A_1 x A_2^T, with one small, fixed
matrix per axis, so backward is the same with the matrices transposed.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, Shape, as_inputs, as_upstream, namespace
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, generic
from gradlab.nodes._lazy import jax, jnp
from gradlab.operators import Broadcast, Contraction, Operator, Reshape

__all__ = ["AdaptiveAveragePool", "UpsampleBilinear", "UpsampleNearest"]

_LETTERS = "abcdefgh"


@dataclass(frozen=True)
class _Separable(Node):
    """A node that maps each of the last axes by a fixed matrix."""

    size: Shape = (2, 2)

    @abstractmethod
    def _matrix(self, entries: int, places: int) -> Array:
        """Return the matrix (places, entries) of one axis."""

    def _matrices(self, x: Array) -> list[Array]:
        xp, rank = namespace(x), len(self.size)
        if len(x.shape) < rank or 0 in x.shape[len(x.shape) - rank :] or min(self.size) < 1:
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)}; expected at least {rank} axes, one "
                "for each entry of size, and none of these empty"
            )
        spatial = x.shape[len(x.shape) - rank :]
        return [xp.asarray(self._matrix(n, m), dtype=x.dtype) for n, m in zip(spatial, self.size)]

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        matrices = self._matrices(x)
        return _along_axes(matrices, x), (x, matrices)

    def local_gradient(self, residuals: Any) -> tuple[Operator, ...]:
        x, matrices = residuals
        batch, rank = x.shape[: x.ndim - len(matrices)], len(matrices)
        inner, outer = _LETTERS[:rank], _LETTERS[:rank].upper()
        factors = ",".join(map("".join, zip(outer, inner)))
        middle = (math.prod(batch), *x.shape[len(batch) :])
        planes = Contraction(f"{factors},n{inner}->n{outer}", *matrices, input_shape=middle)
        return (
            Reshape(planes.output_shape, (*batch, *self.size), x.dtype)
            @ planes
            @ Reshape(x.shape, middle, x.dtype),
        )

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, matrices = residuals
        y = namespace(x).empty((*x.shape[: x.ndim - len(matrices)], *self.size), dtype=x.dtype)
        return (_along_axes([a.T for a in matrices], as_upstream(self, upstream, y)),)


def _along_axes(matrices: list[Array], x: Array) -> Array:
    """Return x with the last axes multiplied by one matrix each."""
    xp, rank = namespace(x), len(matrices)
    for axis, matrix in zip(range(-rank, 0), matrices):
        x = xp.moveaxis(xp.moveaxis(x, axis, -1) @ matrix.T, -1, axis).astype(matrix.dtype)
    return x


@dataclass(frozen=True)
class AdaptiveAveragePool(_Separable):
    """The means of as many bins as asked for: y[p] = mean of x[floor(p n / m) : ceil((p+1) n / m)].

    Shapes: x (..., *spatial), y (..., *size); n entries of an axis become m, in overlapping bins
    where m does not divide n.

    Args:
        size: how many bins each of the last axes gets.

    Local gradient: one matrix per axis, A[p, i] = 1 / bin's length where i lies in bin p, the same
    for each plane. Backward: dx = A_1^T upstream A_2.
    """

    def _matrix(self, entries: int, places: int) -> Array:
        p, i = np.arange(places)[:, None], np.arange(entries)
        bins = (i >= p * entries // places) & (i < -(-(p + 1) * entries // places))
        return bins / bins.sum(axis=1, keepdims=True)

    def reference(self, x: Array) -> Array:
        for axis, m in zip(range(-len(self.size), 0), self.size):
            n = x.shape[axis]
            edges = [(p * n // m, math.ceil((p + 1) * n / m)) for p in range(m)]
            means = [jax.lax.slice_in_dim(x, *ends, axis=axis).mean(axis) for ends in edges]
            x = jnp.stack(means, axis)
        return x

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 2, 3, 4)),
            generic(cls((3, 2)), (2, 5, 3)),
            generic(cls((4,)), (3, 6)),
            Case(cls((3, 3)), ((1, 1, 1),), "size-1 axes"),
            Case(cls(), ((0, 2, 3, 4),), "zero size"),
        )


@dataclass(frozen=True)
class UpsampleBilinear(_Separable):
    """Linear interpolation along each of the last axes (bilinear along two) to a larger size.

    Entry p of m lies at (p + 1/2) n / m - 1/2 among the n entries, clamped to the first and the
    last: pixels are squares, and their corners are aligned (half-pixel centres, PyTorch's
    align_corners=False). y[p] = (1 - t) x[i] + t x[i + 1] for the place i + t.

    Shapes: x (..., *spatial), y (..., *size), no axis shorter than before.

    Args:
        size: the new sizes of the last axes.

    Local gradient: one matrix per axis with two entries in a row, 1 - t and t, the same for each
    plane. Backward: dx = A_1^T upstream A_2.
    """

    size: Shape = (4, 4)

    def _matrix(self, entries: int, places: int) -> Array:
        if places < entries:
            raise InputError(
                f"{self!r}: cannot make {places} of {entries} entries; size must not be smaller "
                "than the axis (for less, average: AdaptiveAveragePool)"
            )
        at = self._steps(entries, places)[:, None]
        return np.maximum(0, 2 * places - np.abs(at - 2 * places * np.arange(entries))) / (
            2 * places
        )

    def _steps(self, entries: int, places: int) -> Array:
        """Return where each place lies, in steps of 1 / (2 places): integers, hence exact."""
        steps = (2 * np.arange(places) + 1) * entries - places
        return np.clip(steps, 0, 2 * places * (entries - 1))

    def reference(self, x: Array) -> Array:
        for axis, m in zip(range(-len(self.size), 0), self.size):
            rows, whole = jnp.moveaxis(x, axis, -1), 2 * m
            first, rest = np.divmod(self._steps(rows.shape[-1], m), whole)
            after = np.minimum(first + 1, rows.shape[-1] - 1)
            ends = ((first, (whole - rest) / whole), (after, rest / whole))
            parts = (
                jnp.einsum("...p,p->...p", rows[..., i], jnp.asarray(t, x.dtype)) for i, t in ends
            )
            x = jnp.moveaxis(sum(parts), -1, axis)
        return x

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 2, 2, 2)),
            generic(cls((5, 3)), (2, 2, 3)),
            generic(cls((7,)), (3, 4)),
            Case(cls((3, 2)), ((1, 1, 1),), "size-1 axes"),
            Case(cls(), ((0, 2, 2, 2),), "zero size"),
        )


@dataclass(frozen=True)
class UpsampleNearest(Node):
    """Each entry repeated along the last axes: y[p] = x[p // scale].

    Shapes: x (..., *spatial), y (..., *(spatial * scale)).

    Args:
        scale: how often an entry is repeated, one number for each of the last axes.

    Local gradient: a broadcast: dy[p]/dx[i] = 1 where p // scale = i, else 0.
    Backward: dx[i] = the sum of the upstream over the block that repeats x[i].
    """

    scale: Shape = (2, 2)

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        rank = len(self.scale)
        if len(x.shape) < rank or min(self.scale, default=1) < 1:
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)}; expected at least {rank} axes, and "
                "positive scales"
            )
        lead = x.ndim - rank
        narrow = x.shape[:lead] + tuple(m for n in x.shape[lead:] for m in (n, 1))
        wide = x.shape[:lead] + tuple(m for pair in zip(x.shape[lead:], self.scale) for m in pair)
        y_shape = x.shape[:lead] + tuple(n * s for n, s in zip(x.shape[lead:], self.scale))
        y = namespace(x).broadcast_to(x.reshape(narrow), wide).reshape(y_shape)
        return y, (x, y, narrow, wide)

    def local_gradient(self, residuals: Any) -> tuple[Operator, ...]:
        x, y, narrow, wide = residuals
        return (
            Reshape(wide, y.shape, x.dtype)
            @ Broadcast(narrow, wide, x.dtype, axes=self._repeated(x))
            @ Reshape(x.shape, narrow, x.dtype),
        )

    def _repeated(self, x: Array) -> tuple[int, ...]:
        lead = x.ndim - len(self.scale)
        return tuple(range(lead + 1, lead + 2 * len(self.scale), 2))

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, y, _, wide = residuals
        upstream = as_upstream(self, upstream, y).reshape(wide)
        return (upstream.sum(axis=self._repeated(x)).astype(x.dtype),)

    def reference(self, x: Array) -> Array:
        axes = zip(range(-len(self.scale), 0), self.scale)
        return reduce(lambda y, pair: jnp.repeat(y, pair[1], axis=pair[0]), axes, x)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 1, 2, 3)),
            generic(cls((1, 3)), (2, 2, 3)),
            generic(cls((2,)), (3, 4)),
            Case(cls(), ((1, 1, 1),), "size-1 axes"),
            Case(cls(), ((0, 2, 2),), "zero size"),
        )
