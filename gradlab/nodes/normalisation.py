"""Normalisation: entries of one group brought to mean 0 and variance 1, then scaled and shifted.

Batch, layer, instance and group normalisation are one formula; they differ in what a group is.
Seen as rows, one row a group of n entries, with r = 1 / sqrt(variance + eps) and h = (x - mean) r,
a row's Jacobian is the identity less what mean and variance take away:

    dh/dx = r (I - (1 1^T + h h^T) / n)          a diagonal plus a matrix of rank two
    dx    = r (g - mean(g) - h mean(g h))        for an upstream g of h
"""

from abc import abstractmethod
from dataclasses import dataclass
from math import prod
from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, Shape, as_inputs, as_upstream, keeping, namespace, widened
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, generic, special
from gradlab.nodes._lazy import jnp
from gradlab.operators import Broadcast, Diagonal, DiagonalPlusLowRank, Permutation, Reshape

__all__ = [
    "BatchNorm",
    "BatchNormStepwise",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "RmsNorm",
    "along",
    "other_axes",
]


def along(scale: Array, axis: int, rank: int) -> Array:
    """Return one number for each place of an axis, ready to broadcast over an array's others."""
    return scale.reshape((1,) * axis + (-1,) + (1,) * (rank - 1 - axis))


def other_axes(axis: int, rank: int) -> Shape:
    """Return all axes but one."""
    return tuple(i for i in range(rank) if i != axis)


def _mean(rows: Array) -> Array:
    return rows.sum(axis=-1, keepdims=True) / max(rows.shape[-1], 1)


def _inverse_root(square: Array, eps: float) -> Array:
    return 1.0 / namespace(square).sqrt(square + eps)


def _standardised(x: Array, axis: Any, eps: float) -> Array:
    """Return x at mean 0 and variance 1 over axes, as JAX computes it."""
    variance = jnp.var(x, axis=axis, keepdims=True)
    return (x - jnp.mean(x, axis=axis, keepdims=True)) / jnp.sqrt(variance + eps)


@dataclass(frozen=True)
class _Normalisation(Node):
    """Groups of entries normalised, then scaled and shifted along one axis of x.

    Args:
        eps: what is added to the variance.
    """

    eps: float = 1e-5
    least_rank = 2

    @abstractmethod
    def layout(self, shape: Shape) -> tuple[Shape, int, int]:
        """Return the order of axes that puts groups first, their number, and the scale's axis."""

    def forward(self, x: Any, scale: Any, shift: Any) -> tuple[Array, Any]:
        """Return scale * h + shift."""
        x, scale, shift = as_inputs(self, (x, scale, shift))
        self._require_shapes(x, scale, shift)
        axis, rank = self.layout(x.shape)[2], x.ndim
        rows = widened(self._rows(x))
        rows = rows - _mean(rows)
        r = _inverse_root(_mean(rows * rows), self.eps)
        h = self._unrows(rows * r, x.shape).astype(x.dtype)
        y = keeping(h * along(scale, axis, rank) + along(shift, axis, rank), (x, scale, shift))
        return y, (x, scale, shift, h, r, y)

    def _require_shapes(self, x: Array, scale: Array, shift: Array) -> None:
        if len(x.shape) < self.least_rank:
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)}; expected (images, channels, ...) "
                f"of {self.least_rank} axes or more"
            )
        axis = self.layout(x.shape)[2]
        if scale.shape != (x.shape[axis],) or shift.shape != scale.shape:
            raise InputError(
                f"{self!r}: scale has shape {shape_text(scale.shape)} and shift "
                f"{shape_text(shift.shape)}; expected one number for each of the "
                f"{x.shape[axis]} places of x's axis {axis}"
            )

    def _rows(self, x: Array) -> Array:
        order, groups, _ = self.layout(x.shape)
        return namespace(x).permute_dims(x, order).reshape(groups, x.size // max(groups, 1))

    def _unrows(self, rows: Array, shape: Shape) -> Array:
        order = self.layout(shape)[0]
        inverse = tuple(order.index(i) for i in range(len(order)))
        return namespace(rows).permute_dims(rows.reshape(tuple(shape[i] for i in order)), inverse)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        """Return the rows' Jacobian scaled, a diagonal after a broadcast, and that broadcast."""
        x, scale, _, h, r, _ = residuals
        xp, (order, _, axis), rows = namespace(x, scale), self.layout(x.shape), self._rows(h)
        right = xp.stack([xp.ones_like(rows), rows], axis=-1)
        left = right * (r / -max(rows.shape[1], 1)).astype(h.dtype)[..., None]
        own = xp.broadcast_to(r.astype(h.dtype), rows.shape)
        inner = DiagonalPlusLowRank(own, left, right)
        permute = Permutation(order, x.shape, x.dtype)
        to_rows = Reshape(permute.output_shape, rows.shape, x.dtype) @ permute
        gain = Diagonal(xp.broadcast_to(along(scale, axis, x.ndim), x.shape))
        spread = Broadcast(scale.shape, x.shape, x.dtype, other_axes(axis, x.ndim))
        return gain @ to_rows.T @ inner @ to_rows, Diagonal(h) @ spread, spread

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        """Return r (g - mean(g) - h mean(g h)) with g = upstream * scale, and the two sums."""
        x, scale, shift, h, r, y = residuals
        upstream = as_upstream(self, upstream, y)
        axis = self.layout(x.shape)[2]
        g, h_rows = (widened(self._rows(a)) for a in (upstream * along(scale, axis, x.ndim), h))
        dx = self._unrows(self.rows_backward(g, h_rows, r), x.shape)
        others = other_axes(axis, x.ndim)
        dscale, dshift = (upstream * h).sum(axis=others), upstream.sum(axis=others)
        return dx.astype(x.dtype), dscale.astype(scale.dtype), dshift.astype(shift.dtype)

    def rows_backward(self, g: Array, h: Array, r: Array) -> Array:
        """Return the gradient of each row for an upstream g of h."""
        return r * (g - _mean(g) - h * _mean(g * h))


class LayerNorm(_Normalisation):
    """Each row of x, along its last axis, normalised by itself; y = scale * h + shift.

    x has shape (..., features), scale and shift (features,).

    Local gradients: in x, scale times r (I - (1 1^T + h h^T) / n) for each row; in scale and shift,
    diag(h) after a broadcast, and that broadcast.
    Backward: dx = r (g - mean(g) - h mean(g h)) with g = upstream * scale; dscale and dshift are
    upstream * h and upstream, summed over the rows.
    Source: Ba et al. 2016, "Layer normalization".
    """

    least_rank = 1

    def layout(self, shape: Shape) -> tuple[Shape, int, int]:
        return tuple(range(len(shape))), prod(shape[:-1]), len(shape) - 1

    def reference(self, x: Array, scale: Array, shift: Array) -> Array:
        h = _standardised(x, -1, self.eps)
        return h * jnp.broadcast_to(scale, x.shape) + jnp.broadcast_to(shift, x.shape)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4), (4,), (4,)),
            generic(cls(1e-3), (2, 3, 4), (4,), (4,)),
            generic(cls(), (5,), (5,), (5,)),
            Case(cls(), ((3, 1), (1,), (1,)), "size-1 axes"),
            Case(cls(), ((0, 3), (3,), (3,)), "zero size"),
            special(
                cls(), "constant and distant rows", [[2.0] * 3, [1e3, 1e3 + 1, 1e3 - 3]], (3,), (3,)
            ),
        )


class BatchNorm(_Normalisation):
    """Each feature of x, along axis 1, normalised over the batch and all positions.

    x has shape (batch, features, ...): rows of features, or images with their channels (spatial
    batch norm); scale and shift have shape (features,); y = scale * h + shift. This is how it
    trains; running statistics are the caller's to keep, and `BatchNormInference` uses them.

    Local gradients: in x, scale times r (I - (1 1^T + h h^T) / n) for each feature; in scale and
    shift, diag(h) after a broadcast, and that broadcast.
    Backward: dx = r (g - mean(g) - h mean(g h)) with g = upstream * scale; dscale and dshift are
    upstream * h and upstream, summed over all but the features.
    Source: Ioffe and Szegedy 2015, "Batch normalization", algorithm 1.
    """

    def layout(self, shape: Shape) -> tuple[Shape, int, int]:
        return (1, *other_axes(1, len(shape))), shape[1], 1

    def reference(self, x: Array, scale: Array, shift: Array) -> Array:
        h = _standardised(x, other_axes(1, x.ndim), self.eps)
        view = (1, -1) + (1,) * (x.ndim - 2)
        return h * scale.reshape(view) + shift.reshape(view)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        constant = [[2.0, 1e3], [2.0, 1e3 + 1], [2.0, 1e3 - 3]]
        return (
            generic(cls(), (5, 3), (3,), (3,)),
            generic(cls(1e-3), (3, 2, 4), (2,), (2,)),
            generic(cls(), (2, 3, 2, 2), (3,), (3,)),
            Case(cls(), ((1, 2), (2,), (2,)), "a batch of one"),
            special(cls(), "constant and distant features", constant, (2,), (2,)),
        )


class BatchNormStepwise(BatchNorm):
    """Batch norm whose backward goes through the graph: deviation, variance, root, mean.

    The same function as `BatchNorm`, with the derivation that a course does first; the other one is
    what these steps add up to.

    Local gradients: as in `BatchNorm`, r (I - (1 1^T + h h^T) / n) for each feature.
    Backward: with g = upstream * scale, d = x - mean = h / r and n entries,
    dvariance = -r^3 sum(g d) / 2, dmean = -r sum(g) - 2 dvariance mean(d),
    dx = r g + 2 dvariance d / n + dmean / n.
    Source: Ioffe and Szegedy 2015, section 3, the six equations after algorithm 1.
    """

    def rows_backward(self, g: Array, h: Array, r: Array) -> Array:
        n, deviation = max(h.shape[-1], 1), h / r
        dvariance = -0.5 * r * r * r * (g * deviation).sum(axis=-1, keepdims=True)
        dmean = -r * g.sum(axis=-1, keepdims=True) - 2.0 * dvariance * _mean(deviation)
        return r * g + (2.0 * dvariance * deviation + dmean) / n


class InstanceNorm(_Normalisation):
    """Each channel of each image normalised over its positions; y = scale * h + shift.

    x has shape (images, channels, ...), scale and shift (channels,).

    Local gradients: in x, scale times r (I - (1 1^T + h h^T) / n) for each channel of each image;
    in scale and shift, diag(h) after a broadcast, and that broadcast.
    Backward: dx = r (g - mean(g) - h mean(g h)) with g = upstream * scale; dscale and dshift are
    upstream * h and upstream, summed over all but the channels.
    Source: Ulyanov et al. 2016, "Instance normalization".
    """

    least_rank = 3

    def layout(self, shape: Shape) -> tuple[Shape, int, int]:
        return tuple(range(len(shape))), shape[0] * shape[1], 1

    def reference(self, x: Array, scale: Array, shift: Array) -> Array:
        h = _standardised(x, tuple(range(2, x.ndim)), self.eps)
        view = (1, -1) + (1,) * (x.ndim - 2)
        return h * scale.reshape(view) + shift.reshape(view)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 3, 4), (3,), (3,)),
            generic(cls(1e-3), (1, 2, 3), (2,), (2,)),
            generic(cls(), (2, 1, 2, 3), (1,), (1,)),
            Case(cls(), ((2, 2, 1), (2,), (2,)), "one position"),
            Case(cls(), ((0, 2, 3), (2,), (2,)), "zero size"),
        )


@dataclass(frozen=True)
class GroupNorm(_Normalisation):
    """Groups of channels of each image normalised together; y = scale * h + shift.

    x has shape (images, channels, ...), scale and shift (channels,). One group is a layer norm over
    channels and positions, as many groups as channels an instance norm.

    Args:
        eps: what is added to the variance.
        groups: into how many groups the channels are divided.

    Local gradients: in x, scale times r (I - (1 1^T + h h^T) / n) for each group of each image; in
    scale and shift, diag(h) after a broadcast, and that broadcast.
    Backward: dx = r (g - mean(g) - h mean(g h)) with g = upstream * scale: the scale varies inside
    a group, so it comes before the means; dscale and dshift are upstream * h and upstream, summed
    over all but the channels.
    Source: Wu and He 2018, "Group normalization".
    """

    groups: int = 2

    def layout(self, shape: Shape) -> tuple[Shape, int, int]:
        if shape[1] % self.groups:
            raise InputError(
                f"{self!r}: {shape[1]} channels cannot be divided into {self.groups} groups"
            )
        return tuple(range(len(shape))), shape[0] * self.groups, 1

    def reference(self, x: Array, scale: Array, shift: Array) -> Array:
        grouped = x.reshape((x.shape[0], self.groups, x.shape[1] // self.groups, *x.shape[2:]))
        h = _standardised(grouped, tuple(range(2, grouped.ndim)), self.eps).reshape(x.shape)
        view = (1, -1) + (1,) * (x.ndim - 2)
        return h * scale.reshape(view) + shift.reshape(view)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 4, 3), (4,), (4,)),
            generic(cls(1e-3, groups=3), (1, 6, 2), (6,), (6,)),
            generic(cls(groups=1), (2, 3), (3,), (3,)),
            Case(cls(groups=2), ((2, 2, 1), (2,), (2,)), "one entry to a group"),
            Case(cls(), ((0, 2, 3), (2,), (2,)), "zero size"),
        )


@dataclass(frozen=True)
class RmsNorm(Node):
    """Each row of x, along its last axis, divided by its root mean square; y = scale * h.

    x has shape (..., features), scale (features,). A layer norm that leaves the mean where it is.

    Args:
        eps: what is added to the mean square.

    Local gradients: in x, scale times r (I - h h^T / n) for each row, with h = x r and
    r = 1 / sqrt(mean(x^2) + eps); in scale, diag(h) after a broadcast.
    Backward: dx = r (g - h mean(g h)) with g = upstream * scale; dscale = upstream * h, summed
    over the rows. Source: Zhang and Sennrich 2019, "Root mean square layer normalization".
    """

    eps: float = 1e-6

    def forward(self, x: Any, scale: Any) -> tuple[Array, Any]:
        x, scale = as_inputs(self, (x, scale))
        if not x.shape or scale.shape != x.shape[-1:]:
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)} and scale {shape_text(scale.shape)}; "
                "expected (..., features) and (features,)"
            )
        wide = widened(x)
        r = _inverse_root(_mean(wide * wide), self.eps)
        h = (wide * r).astype(x.dtype)
        y = h * along(scale, x.ndim - 1, x.ndim)
        return y, (x, scale, h, r, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, scale, h, r, _ = residuals
        xp, last = namespace(x, scale), x.ndim - 1
        left = h * (r / -max(x.shape[-1], 1)).astype(h.dtype)
        own = xp.broadcast_to(r.astype(h.dtype), x.shape)
        inner = DiagonalPlusLowRank(own, left[..., None], h[..., None])
        gain = Diagonal(xp.broadcast_to(along(scale, last, x.ndim), x.shape))
        spread = Broadcast(scale.shape, x.shape, x.dtype, other_axes(last, x.ndim))
        return gain @ inner, Diagonal(h) @ spread

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        x, scale, h, r, y = residuals
        upstream = as_upstream(self, upstream, y)
        g, wide = widened(upstream * along(scale, x.ndim - 1, x.ndim)), widened(h)
        dx = r * (g - wide * _mean(g * wide))
        dscale = (upstream * h).sum(axis=other_axes(x.ndim - 1, x.ndim))
        return dx.astype(x.dtype), dscale.astype(scale.dtype)

    def reference(self, x: Array, scale: Array) -> Array:
        size = jnp.sqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.eps)
        return x / size * jnp.broadcast_to(scale, x.shape)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4), (4,)),
            generic(cls(1e-3), (2, 3, 4), (4,)),
            generic(cls(), (5,), (5,)),
            Case(cls(), ((0, 3), (3,)), "zero size"),
            special(cls(), "zero and large rows", [[0.0] * 3, [1e6, -2e6, 0.0]], (3,)),
        )
