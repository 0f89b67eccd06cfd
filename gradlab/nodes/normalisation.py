"""Normalisation: entries of one group brought to mean 0 and variance 1, or to a size of 1.

Batch, layer, instance and group normalisation are one formula; they differ in what a group is.
Seen as rows, one row a group of n entries, with r = 1 / sqrt(variance + eps) and h = (x - mean) r,
a row's Jacobian is the identity less what mean and variance take away:

    dh/dx = r (I - (1 1^T + h h^T) / n)          a diagonal plus a matrix of rank two
    dx    = r (g - mean(g) - h mean(g h))        for an upstream g of h
"""

from abc import abstractmethod
from math import prod

from gradlab import operators as ops
from gradlab.common.arrays import (
    Array,
    Axis,
    Shape,
    at_least_float32,
    in_dtype_of,
    namespace,
    normal_axes,
)
from gradlab.nodes._base import Applied, Gradients, Like, Namespace, Node, Outputs, Pulled
from gradlab.nodes._domain import POSITIVE, REALS
from gradlab.nodes._lazy import jax, jnp
from gradlab.nodes._stable import norm
from gradlab.nodes.probability import on_axis
from gradlab.operators import Operator


def _along(scale: Array, axis: int, rank: int) -> Array:
    """Return one number for each place of an axis, ready to broadcast over an array's others."""
    return scale.reshape((1,) * axis + (-1,) + (1,) * (rank - 1 - axis))


def _other_axes(axis: int, rank: int) -> Shape:
    """Return all axes but one."""
    return tuple(i for i in range(rank) if i != axis)


def _spread(axis: int, x: Like | Array) -> ops.Broadcast:
    """Return the map that repeats one number for each place of x's axis over all of x."""
    rank = len(x.shape)
    return ops.Broadcast((x.shape[axis],), x.shape, x.dtype, _other_axes(axis, rank))


def _mean(rows: Array) -> Array:
    return rows.sum(axis=-1, keepdims=True) / max(rows.shape[-1], 1)


def _inverse_root(square: Array, eps: float) -> Array:
    return 1.0 / namespace(square).sqrt(square + eps)


def _standardised(x: Array, axis: Axis, eps: float) -> Array:
    """Return x at mean 0 and variance 1 over axes, as JAX computes it."""
    variance = jnp.var(x, axis=axis, keepdims=True)
    return (x - jnp.mean(x, axis=axis, keepdims=True)) / jnp.sqrt(variance + eps)


class _Normalisation(Node):
    """Groups of entries normalised, then scaled and shifted along one axis of x.

    Args:
        eps: what is added to the variance.
    """

    _kind = (
        "Local gradients, with r = 1 / sqrt(variance + eps) and h = (x - mean) r: in x scale * r "
        "(I - (1 1^T + h h^T) / n) for each group of n entries, in scale diag(h), in shift 1. "
        "Backward: dx = r (g - mean(g) - h mean(g h)) with g = upstream * scale, dscale = "
        "upstream * h and dshift = upstream, summed."
    )
    eps: float = 1e-5

    @abstractmethod
    def layout(self, shape: Shape) -> tuple[Shape, int, int]:
        """Return the order of axes that puts groups first, their number, and the scale's axis."""

    def apply(self, xp: Namespace, x: Array, scale: Array, shift: Array) -> Applied:
        axis, rank = self.layout(x.shape)[2], x.ndim
        rows = at_least_float32(self._rows(xp, x))
        rows = rows - _mean(rows)
        r = _inverse_root(_mean(rows * rows), self.eps)
        h = self._unrows(xp, rows * r, x.shape).astype(x.dtype)
        return h * _along(scale, axis, rank) + _along(shift, axis, rank), (scale, h, r)

    def _rows(self, xp: Namespace, x: Array) -> Array:
        order, groups, _ = self.layout(x.shape)
        return xp.permute_dims(x, order).reshape(groups, x.size // max(groups, 1))

    def _unrows(self, xp: Namespace, rows: Array, shape: Shape) -> Array:
        order = self.layout(shape)[0]
        inverse = tuple(order.index(i) for i in range(len(order)))
        return xp.permute_dims(rows.reshape(tuple(shape[i] for i in order)), inverse)

    def gradients(self, xp: Namespace, scale: Array, h: Array, r: Array) -> Gradients:
        """Return the rows' Jacobian scaled, a diagonal after a broadcast, and that broadcast."""
        (order, _, axis), rows = self.layout(h.shape), self._rows(xp, h)
        right = xp.stack([xp.ones_like(rows), rows], axis=-1)
        left = right * (r / -max(rows.shape[1], 1)).astype(h.dtype)[..., None]
        own = xp.broadcast_to(r.astype(h.dtype), rows.shape)
        inner = ops.DiagonalPlusLowRank(own, left, right)
        permute = ops.Permutation(order, h.shape, h.dtype)
        to_rows = ops.Reshape(permute.output_shape, rows.shape, h.dtype) @ permute
        gain = ops.Diagonal(xp.broadcast_to(_along(scale, axis, h.ndim), h.shape))
        spread = _spread(axis, h)
        return gain @ to_rows.T @ inner @ to_rows, ops.Diagonal(h) @ spread, spread

    def pull(self, xp: Namespace, u: Array, scale: Array, h: Array, r: Array) -> Pulled:
        axis = self.layout(h.shape)[2]
        g = at_least_float32(self._rows(xp, u * _along(scale, axis, h.ndim)))
        rows = at_least_float32(self._rows(xp, h))
        dx = self._unrows(xp, self.rows_backward(g, rows, r), h.shape)
        others = _other_axes(axis, h.ndim)
        return dx, (u * h).sum(axis=others), u.sum(axis=others)

    def rows_backward(self, g: Array, h: Array, r: Array) -> Array:
        """Return the gradient of each row for an upstream g of h."""
        return r * (g - _mean(g) - h * _mean(g * h))

    def reference(self, x: Array, scale: Array, shift: Array) -> Array:
        view = (1, -1) + (1,) * (x.ndim - 2)
        return self.standard(x) * scale.reshape(view) + shift.reshape(view)

    def standard(self, x: Array) -> Array:
        """Return h in JAX."""
        raise NotImplementedError


class LayerNorm(_Normalisation):
    """Each row of x, along its last axis, normalised by itself; y = scale * h + shift.

    Source: Ba et al. 2016, "Layer normalization".
    """

    shapes = "x (*rows, features), scale (features), shift (features) -> (*rows, features)"
    drawn = "3x4 4 4; 2x3x4 4 4 eps=1e-3; 5 5 5; size-1 axes: 3x1 1 1; zero size: 0x3 3 3"
    points = {"constant and distant rows": ([[2.0] * 3, [1e3, 1e3 + 1, 1e3 - 3]], (3,), (3,))}

    def layout(self, shape: Shape) -> tuple[Shape, int, int]:
        return tuple(range(len(shape))), prod(shape[:-1]), len(shape) - 1

    def reference(self, x: Array, scale: Array, shift: Array) -> Array:
        h = _standardised(x, -1, self.eps)
        return h * jnp.broadcast_to(scale, x.shape) + jnp.broadcast_to(shift, x.shape)


class BatchNorm(_Normalisation):
    """Each feature of x, along axis 1, normalised over the batch and all positions.

    Rows of features, or images with their channels (spatial batch norm); y = scale * h + shift.
    This is how it trains; running statistics are the caller's to keep, and `BatchNormInference`
    uses them.

    Source: Ioffe and Szegedy 2015, "Batch normalization", algorithm 1.
    """

    shapes = "x (batch, features, *positions), scale (features), shift (features)"
    drawn = "5x3 3 3; 3x2x4 2 2 eps=1e-3; 2x3x2x2 3 3; a batch of one: 1x2 2 2"
    points = {
        "constant and distant features": ([[2.0, 1e3], [2.0, 1e3 + 1], [2.0, 1e3 - 3]], (2,), (2,))
    }

    def layout(self, shape: Shape) -> tuple[Shape, int, int]:
        return (1, *_other_axes(1, len(shape))), shape[1], 1

    def standard(self, x: Array) -> Array:
        return _standardised(x, _other_axes(1, x.ndim), self.eps)


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

    Source: Ulyanov et al. 2016, "Instance normalization".
    """

    shapes = "x (images, channels, length, *more), scale (channels), shift (channels)"
    drawn = (
        "2x3x4 3 3; 1x2x3 2 2 eps=1e-3; 2x1x2x3 1 1; one position: 2x2x1 2 2; zero size: 0x2x3 2 2"
    )

    def layout(self, shape: Shape) -> tuple[Shape, int, int]:
        return tuple(range(len(shape))), shape[0] * shape[1], 1

    def standard(self, x: Array) -> Array:
        return _standardised(x, tuple(range(2, x.ndim)), self.eps)


class GroupNorm(_Normalisation):
    """Groups of channels of each image normalised together; y = scale * h + shift.

    One group is a layer norm over channels and positions, as many groups as channels an instance
    norm.

    Args:
        groups: into how many groups the channels are divided.

    Source: Wu and He 2018, "Group normalization".
    """

    groups: int = 2
    shapes = "x (images, channels, *positions), scale (channels), shift (channels)"
    drawn = (
        "2x4x3 4 4; 1x6x2 6 6 eps=1e-3 groups=3; 2x3 3 3 groups=1; "
        "one entry to a group: 2x2x1 2 2; zero size: 0x2x3 2 2"
    )

    def layout(self, shape: Shape) -> tuple[Shape, int, int]:
        count, groups = shape[1], self.groups
        self.require(
            count % groups == 0, f"{count} channels cannot be divided into {groups} groups"
        )
        return tuple(range(len(shape))), shape[0] * self.groups, 1

    def standard(self, x: Array) -> Array:
        grouped = x.reshape((x.shape[0], self.groups, x.shape[1] // self.groups, *x.shape[2:]))
        return _standardised(grouped, tuple(range(2, grouped.ndim)), self.eps).reshape(x.shape)


class RmsNorm(Node):
    """Each row of x, along its last axis, divided by its root mean square; y = scale * h.

    A layer norm that leaves the mean where it is.

    Args:
        eps: what is added to the mean square.

    Local gradients: in x, scale times r (I - h h^T / n) for each row, with h = x r and
    r = 1 / sqrt(mean(x^2) + eps); in scale, diag(h) after a broadcast.
    Backward: dx = r (g - h mean(g h)) with g = upstream * scale; dscale = upstream * h, summed
    over the rows. Source: Zhang and Sennrich 2019, "Root mean square layer normalization".
    """

    eps: float = 1e-6
    shapes = "x (*rows, features), scale (features) -> (*rows, features)"
    drawn = "3x4 4; 2x3x4 4 eps=1e-3; 5 5; zero size: 0x3 3"
    points = {"zero and large rows": ([[0.0] * 3, [1e6, -2e6, 0.0]], (3,))}

    def apply(self, xp: Namespace, x: Array, scale: Array) -> Applied:
        wide = at_least_float32(x)
        r = _inverse_root(_mean(wide * wide), self.eps)
        h = (wide * r).astype(x.dtype)
        return h * _along(scale, x.ndim - 1, x.ndim), (scale, h, r)

    def gradients(self, xp: Namespace, scale: Array, h: Array, r: Array) -> Gradients:
        last = h.ndim - 1
        left = h * (r / -max(h.shape[-1], 1)).astype(h.dtype)
        own = xp.broadcast_to(r.astype(h.dtype), h.shape)
        inner = ops.DiagonalPlusLowRank(own, left[..., None], h[..., None])
        gain = ops.Diagonal(xp.broadcast_to(_along(scale, last, h.ndim), h.shape))
        return gain @ inner, ops.Diagonal(h) @ _spread(last, h)

    def pull(self, xp: Namespace, u: Array, scale: Array, h: Array, r: Array) -> Pulled:
        g, wide = at_least_float32(u * _along(scale, h.ndim - 1, h.ndim)), at_least_float32(h)
        return r * (g - wide * _mean(g * wide)), u * h

    def reference(self, x: Array, scale: Array) -> Array:
        size = jnp.sqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.eps)
        return x / size * jnp.broadcast_to(scale, x.shape)


def _projection(h: Array, length: Array) -> Operator:
    """Return (I - h h^T) / length along the last axis: what is left of x beside its direction."""
    inverse = namespace(h).broadcast_to(1.0 / length, h.shape)
    return ops.DiagonalPlusLowRank(inverse, -(h * inverse)[..., None], h[..., None])


class L2Normalize(Node):
    """x / |x| along an axis: the direction of each row.

    Args:
        axis: the axis along which the outputs have length 1.

    Local gradient: (I - y y^T) / |x| for each row by itself.
    Backward: dx = (upstream - y sum(upstream * y)) / |x|. At x = 0 there is no direction: NaN.
    """

    axis: int = -1
    drawn = "3x4; 5x2 axis=0; 2x3x2 axis=1; zero size: 0x3"
    points = {"zero and large entries": [[0.0, 3e20, -4e20]]}

    def apply(self, xp: Namespace, x: Array) -> Applied:
        (axis,) = normal_axes(self.axis, x.shape, self)
        length = norm(x, axis)
        y = x / length
        return y, (y, length, axis)

    def gradients(self, xp: Namespace, y: Array, length: Array, axis: int) -> Gradients:
        rows, lengths = (xp.moveaxis(a, axis, -1) for a in (y, length))
        return on_axis(_projection(rows, lengths), axis)

    def pull(self, xp: Namespace, u: Array, y: Array, length: Array, axis: int) -> Pulled:
        return (u - y * (u * y).sum(axis=axis, keepdims=True)) / length

    def reference(self, x: Array) -> Array:
        return x / jnp.sqrt(jnp.sum(jnp.square(x), axis=self.axis, keepdims=True))


class WeightNorm(Node):
    """Weights given by length and direction: w = scale * v / |v|, row by row.

    Local gradients: in v, scale (I - h h^T) / |v| for each row, with h = v / |v|; in scale, diag(h)
    after a broadcast.
    Backward: dv = scale (upstream - h sum(upstream * h)) / |v|, dscale = sum(upstream * h).
    Source: Salimans and Kingma 2016, "Weight normalization", section 2.
    """

    shapes = "v (outputs, inputs, *more), scale (outputs) -> (outputs, inputs, *more)"
    drawn = "3x4 3; 2x3x2 2; 1x5 1"
    points = {"zero and large entries": ([[0.0, 3e15, -4e15]], (1,))}

    def apply(self, xp: Namespace, v: Array, scale: Array) -> Applied:
        length = norm(v, _other_axes(0, v.ndim))
        h = v / length
        return _along(scale, 0, v.ndim) * h, (scale, h, length)

    def gradients(self, xp: Namespace, scale: Array, h: Array, length: Array) -> Gradients:
        rows = h.reshape(h.shape[0], -1)
        to_rows = ops.Reshape(h.shape, rows.shape, h.dtype)
        gain = ops.Diagonal(xp.broadcast_to(_along(scale, 0, h.ndim), h.shape))
        inner = _projection(rows, length.reshape(-1, 1))
        return gain @ to_rows.T @ inner @ to_rows, ops.Diagonal(h) @ _spread(0, h)

    def pull(self, xp: Namespace, u: Array, scale: Array, h: Array, length: Array) -> Pulled:
        along_h = (u * h).sum(axis=_other_axes(0, h.ndim), keepdims=True)
        dv = _along(scale, 0, h.ndim) * (u - h * along_h) / length
        return dv, along_h.reshape(-1)

    def reference(self, v: Array, scale: Array) -> Array:
        rows = jnp.reshape(v, (v.shape[0], -1))
        rows = scale[:, None] * rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
        return jnp.reshape(rows, v.shape)


class SpectralNorm(Node):
    """w divided by its greatest singular value, found by one step of the power iteration.

    u is the direction that the last step left behind. With
    v = w^T u / |w^T u| and u' = w v / |w v|, the outputs are w / s, where s = u'^T w v, and u'.
    Both directions are held constant, as in the paper, so u gets a gradient of zero; the reference
    says so with `stop_gradient`.

    Local gradients: in w, I / s - w (u' v^T)^T / s^2: a diagonal plus a matrix of rank one; else 0.
    Backward: dw = (upstream - sum(upstream * w / s) u' v^T) / s.
    Source: Miyato et al. 2018, "Spectral normalization for GANs", algorithm 1 and equation 12.
    """

    shapes = "w (outputs, inputs), u (outputs) -> (outputs, inputs), (outputs)"
    drawn = "3x4 3; 4x2 4; 1x3 1"
    points = {"rank one": ([[1.0, 2.0], [2.0, 4.0]], [1.0, 0.5])}

    def apply(self, xp: Namespace, w: Array, u: Array) -> Applied:
        v = in_dtype_of(u @ w, (u, w))
        v = v / norm(v, None)
        image = in_dtype_of(w @ v, (w,))
        s = norm(image, None).reshape(())
        u_next, y = image / s, w / s
        return (y, u_next), (u_next, v, s, y)

    def gradients(self, xp: Namespace, u: Array, v: Array, s: Array, y: Array) -> Gradients:
        rank_one = (u[:, None] * v[None, :]).reshape(-1, 1)
        inverse = xp.broadcast_to(1.0 / s.reshape(1), (y.size,)).astype(y.dtype)
        inner = ops.DiagonalPlusLowRank(inverse, -(y.reshape(-1) * inverse)[:, None], rank_one)
        flatten, dtype = ops.Reshape(y.shape, (y.size,), y.dtype), y.dtype
        return (
            (flatten.T @ inner @ flatten, ops.Zero(y.shape, u.shape, dtype)),
            (ops.Zero(u.shape, y.shape, dtype), ops.Zero(u.shape, u.shape, dtype)),
        )

    def pull(
        self, xp: Namespace, upstream: Outputs, u: Array, v: Array, s: Array, y: Array
    ) -> Pulled:
        dy, _ = upstream
        return (dy - (dy * y).sum() * u[:, None] * v[None, :]) / s, xp.zeros_like(u)

    def reference(self, w: Array, u: Array) -> tuple[Array, Array]:
        still = jax.lax.stop_gradient(w)
        v = jnp.matmul(jax.lax.stop_gradient(u), still)
        v = v / jnp.linalg.norm(v)
        image = jnp.matmul(still, v)
        u_next = image / jnp.linalg.norm(image)
        return w / jnp.dot(u_next, jnp.matmul(w, v)), u_next


class BatchNormInference(Node):
    """Batch norm with kept statistics: scale (x - mean) / sqrt(variance + eps) + shift.

    Args:
        eps: what is added to the variance, which is positive.

    Local gradients: with r = 1 / sqrt(variance + eps) and h = (x - mean) r, diagonals after
    broadcasts: scale r in x, h in scale, 1 in shift, -scale r in mean, -scale h r^2 / 2 in
    variance.
    Backward: dx = upstream * scale r; the others upstream times theirs, summed over all but the
    features. Source: Ioffe and Szegedy 2015, "Batch normalization", algorithm 2.
    """

    eps: float = 1e-5
    domains = (REALS, REALS, REALS, REALS, POSITIVE)
    shapes = (
        "x (batch, features, *positions), scale (features), shift (features), mean (features), "
        "variance (features) -> (batch, features, *positions)"
    )
    drawn = "5x3 3 3 3 3; 2x2x3 2 2 2 2 eps=1e-3; 2x1x2x2 1 1 1 1; zero size: 0x2 2 2 2 2"
    points = {"no variance": ((3, 2), (2,), (2,), (2,), [0.0, 1e-12])}

    def apply(self, xp: Namespace, x: Array, *statistics: Array) -> Applied:
        scale, shift, mean, variance = (_along(s, 1, x.ndim) for s in statistics)
        r = in_dtype_of(_inverse_root(variance, self.eps), (variance,))
        h = (x - mean) * r
        return scale * h + shift, (scale, h, r)

    def gradients(self, xp: Namespace, scale: Array, h: Array, r: Array) -> Gradients:
        of_variance = in_dtype_of(-0.5 * scale * h * r * r, (h,))
        slopes = scale * r, h, xp.ones_like(r), -scale * r, of_variance
        of_x, *others = (ops.Diagonal(xp.broadcast_to(d, h.shape)) for d in slopes)
        return of_x, *(other @ _spread(1, h) for other in others)

    def reference(
        self, x: Array, scale: Array, shift: Array, mean: Array, variance: Array
    ) -> Array:
        view = (1, -1) + (1,) * (x.ndim - 2)
        h = (x - mean.reshape(view)) / jnp.sqrt(variance.reshape(view) + self.eps)
        return scale.reshape(view) * h + shift.reshape(view)


class LocalResponseNorm(Node):
    """x / d^beta with d = k + alpha * mean of x^2 over a window of channels, along axis 1.

    The mean is over `size` channels, those beyond the edges counting as 0, as in torch.

    Args:
        size: the width of the window; an even one reaches one channel further down.
        alpha: the factor of the mean square.
        beta: the power.
        k: the constant.

    Local gradient: diag(d^-beta) - (2 alpha beta / size) diag(x d^(-beta-1)) W diag(x), where W
    sums over the window: banded along the channels, diagonal along all other axes.
    Backward: dx = upstream d^-beta - (2 alpha beta / size) x W^T(upstream x d^(-beta-1)).
    Source: Krizhevsky et al. 2012, "ImageNet classification", section 3.3.
    """

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0
    shapes = "x (images, channels, *positions) -> (images, channels, *positions)"
    drawn = (
        "2x7x2; 2x4 size=2 alpha=0.5; 1x3x2x2 size=3 alpha=1.0 beta=0.5 k=2.0; "
        "window of one: 2x3 size=1; zero size: 0x3x2 size=3"
    )

    def apply(self, xp: Namespace, x: Array) -> Applied:
        low, high = self._reach
        wide = at_least_float32(x)
        d = self.k + self.alpha / self.size * self._window_sum(wide * wide, low, high)
        return (wide * d**-self.beta).astype(x.dtype), (x, d)

    @property
    def _reach(self) -> tuple[int, int]:
        return self.size // 2, (self.size - 1) // 2

    @staticmethod
    def _window_sum(x: Array, low: int, high: int) -> Array:
        """Return for each channel the sum of those from `low` before it to `high` after it."""
        n, border = x.shape[1], namespace(x).zeros_like(x[:, :1])
        padded = namespace(x).concat([*[border] * low, x, *[border] * high], axis=1)
        shifted = [padded[:, i : i + n] for i in range(low + high + 1)]
        return sum(shifted[1:], start=shifted[0])

    def _weight(self, x: Array, d: Array) -> Array:
        factor = 2 * self.alpha * self.beta / self.size
        return factor * at_least_float32(x) * d ** (-self.beta - 1)

    def gradients(self, xp: Namespace, x: Array, d: Array) -> Gradients:
        images = (x.shape[0], 1, x.shape[1], x.size // max(x.shape[0] * x.shape[1], 1))
        ones = xp.ones((1, 1, self.size, 1), dtype=x.dtype)
        window = ops.Convolution(ones, images, padding=(self._reach, (0, 0)))
        shape = ops.Reshape(x.shape, images, x.dtype)
        own = ops.Diagonal((d**-self.beta).astype(x.dtype))
        weight = ops.Diagonal(self._weight(x, d).astype(x.dtype))
        return own - weight @ shape.T @ window @ shape @ ops.Diagonal(x)

    def pull(self, xp: Namespace, upstream: Array, x: Array, d: Array) -> Pulled:
        u, (low, high) = at_least_float32(upstream), self._reach
        shared = self._window_sum(u * self._weight(x, d), high, low)
        return u * d**-self.beta - at_least_float32(x) * shared

    def reference(self, x: Array) -> Array:
        places = jnp.arange(x.shape[1])
        low, high = self._reach
        distance = places[None, :] - places[:, None]
        window = ((distance >= -low) & (distance <= high)).astype(x.dtype)
        squares = jnp.einsum("ij,nj...->ni...", window, jnp.square(x))
        return x / (self.k + self.alpha / self.size * squares) ** self.beta
