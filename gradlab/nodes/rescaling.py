"""Arrays divided by a size of their own, or by one that was measured before."""

from dataclasses import dataclass
from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import (
    Array,
    as_inputs,
    as_upstream,
    axes_of,
    keeping,
    namespace,
    widened,
)
from gradlab.nodes._base import Node
from gradlab.nodes._domain import POSITIVE, REALS, Case, generic, special
from gradlab.nodes._lazy import jax, jnp
from gradlab.nodes.normalisation import along, other_axes
from gradlab.nodes.probability import on_axis
from gradlab.operators import (
    Broadcast,
    Convolution,
    Diagonal,
    DiagonalPlusLowRank,
    Operator,
    Reshape,
    Zero,
)

__all__ = ["BatchNormInference", "L2Normalize", "LocalResponseNorm", "SpectralNorm", "WeightNorm"]


def _length(x: Array, axis: Any) -> Array:
    """Return sqrt(sum(x^2)) over axes, which stay; divided by the greatest entry on the way."""
    xp = namespace(x)
    top = xp.max(xp.abs(x), axis=axis, keepdims=True, initial=0.0)
    ratio = x / xp.where(top == 0, xp.ones_like(top), top)
    return top * xp.sqrt((ratio * ratio).sum(axis=axis, keepdims=True))


def _projection(h: Array, length: Array) -> Operator:
    """Return (I - h h^T) / length along the last axis: what is left of x beside its direction."""
    inverse = namespace(h).broadcast_to(1.0 / length, h.shape)
    return DiagonalPlusLowRank(inverse, -(h * inverse)[..., None], h[..., None])


@dataclass(frozen=True)
class L2Normalize(Node):
    """x / |x| along an axis: the direction of each row.

    Args:
        axis: the axis along which the outputs have length 1.

    Local gradient: (I - y y^T) / |x| for each row by itself.
    Backward: dx = (upstream - y sum(upstream * y)) / |x|. At x = 0 there is no direction: NaN.
    """

    axis: int = -1

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        (axis,) = axes_of(self, self.axis, x.shape)
        length = _length(x, axis)
        y = x / length
        return y, (y, length, axis)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        y, length, axis = residuals
        xp = namespace(y)
        return (
            on_axis(_projection(xp.moveaxis(y, axis, -1), xp.moveaxis(length, axis, -1)), axis),
        )

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        y, length, axis = residuals
        upstream = as_upstream(self, upstream, y)
        along_y = (upstream * y).sum(axis=axis, keepdims=True)
        return (((upstream - y * along_y) / length).astype(y.dtype),)

    def reference(self, x: Array) -> Array:
        return x / jnp.sqrt(jnp.sum(jnp.square(x), axis=self.axis, keepdims=True))

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4)),
            generic(cls(axis=0), (5, 2)),
            generic(cls(axis=1), (2, 3, 2)),
            Case(cls(), ((0, 3),), "zero size"),
            special(cls(), "zero and large entries", [[0.0, 3e20, -4e20]]),
        )


class WeightNorm(Node):
    """Weights given by length and direction: w = scale * v / |v|, row by row.

    v has shape (outputs, ...), scale (outputs,).

    Local gradients: in v, scale (I - h h^T) / |v| for each row, with h = v / |v|; in scale, diag(h)
    after a broadcast.
    Backward: dv = scale (upstream - h sum(upstream * h)) / |v|, dscale = sum(upstream * h).
    Source: Salimans and Kingma 2016, "Weight normalization", section 2.
    """

    def forward(self, v: Any, scale: Any) -> tuple[Array, Any]:
        v, scale = as_inputs(self, (v, scale))
        if len(v.shape) < 2 or scale.shape != v.shape[:1]:
            raise InputError(
                f"{self!r}: v has shape {shape_text(v.shape)} and scale {shape_text(scale.shape)}; "
                "expected (outputs, ...) and (outputs,)"
            )
        length = _length(v, other_axes(0, v.ndim))
        h = v / length
        w = along(scale, 0, v.ndim) * h
        return w, (v, scale, h, length, w)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        v, scale, h, length, _ = residuals
        rows = h.reshape(v.shape[0], -1)
        to_rows = Reshape(v.shape, rows.shape, v.dtype)
        gain = Diagonal(namespace(v, scale).broadcast_to(along(scale, 0, v.ndim), v.shape))
        spread = Broadcast(scale.shape, v.shape, v.dtype, other_axes(0, v.ndim))
        inner = _projection(rows, length.reshape(-1, 1))
        return gain @ to_rows.T @ inner @ to_rows, Diagonal(h) @ spread

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        v, scale, h, length, w = residuals
        upstream = as_upstream(self, upstream, w)
        along_h = (upstream * h).sum(axis=other_axes(0, v.ndim), keepdims=True)
        dv = along(scale, 0, v.ndim) * (upstream - h * along_h) / length
        return dv.astype(v.dtype), along_h.reshape(-1).astype(scale.dtype)

    def reference(self, v: Array, scale: Array) -> Array:
        rows = jnp.reshape(v, (v.shape[0], -1))
        rows = scale[:, None] * rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
        return jnp.reshape(rows, v.shape)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4), (3,)),
            generic(cls(), (2, 3, 2), (2,)),
            generic(cls(), (1, 5), (1,)),
            special(cls(), "zero and large entries", [[0.0, 3e15, -4e15]], (1,)),
        )


class SpectralNorm(Node):
    """w divided by its greatest singular value, found by one step of the power iteration.

    w has shape (outputs, inputs), u (outputs,): the direction that the last step left behind. With
    v = w^T u / |w^T u| and u' = w v / |w v|, the outputs are w / s, where s = u'^T w v, and u'.
    Both directions are held constant, as in the paper, so u gets a gradient of zero; the reference
    says so with `stop_gradient`.

    Local gradients: in w, I / s - w (u' v^T)^T / s^2: a diagonal plus a matrix of rank one; else 0.
    Backward: dw = (upstream - sum(upstream * w / s) u' v^T) / s.
    Source: Miyato et al. 2018, "Spectral normalization for GANs", algorithm 1 and equation 12.
    """

    def forward(self, w: Any, u: Any) -> tuple[Any, Any]:
        w, u = as_inputs(self, (w, u))
        if len(w.shape) != 2 or u.shape != w.shape[:1]:
            raise InputError(
                f"{self!r}: w has shape {shape_text(w.shape)} and u {shape_text(u.shape)}; "
                "expected (outputs, inputs) and (outputs,)"
            )
        v = keeping(u @ w, (u, w))
        v = v / _length(v, None)
        image = keeping(w @ v, (w,))
        s = _length(image, None).reshape(())
        u_next = image / s
        y = w / s
        return (y, u_next), (w, u, u_next, v, s, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        w, u, u_next, v, s, y = residuals
        xp, flat = namespace(w), (w.size,)
        rank_one = (u_next[:, None] * v[None, :]).reshape(-1, 1)
        inverse = xp.broadcast_to(1.0 / s.reshape(1), flat).astype(w.dtype)
        inner = DiagonalPlusLowRank(inverse, -(y.reshape(-1) * inverse)[:, None], rank_one)
        flatten = Reshape(w.shape, flat, w.dtype)
        zeros = [Zero(y.shape, u.shape, w.dtype), Zero(u.shape, w.shape, w.dtype)]
        zeros.append(Zero(u.shape, u.shape, w.dtype))
        return (flatten.T @ inner @ flatten, zeros[0]), (zeros[1], zeros[2])

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        w, u, u_next, v, s, y = residuals
        upstream = as_upstream(self, upstream[0], y)
        dw = (upstream - (upstream * y).sum() * u_next[:, None] * v[None, :]) / s
        return dw.astype(w.dtype), namespace(u).zeros_like(u)

    def reference(self, w: Array, u: Array) -> tuple[Array, Array]:
        still = jax.lax.stop_gradient(w)
        v = jnp.matmul(jax.lax.stop_gradient(u), still)
        v = v / jnp.linalg.norm(v)
        image = jnp.matmul(still, v)
        u_next = image / jnp.linalg.norm(image)
        return w / jnp.dot(u_next, jnp.matmul(w, v)), u_next

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4), (3,)),
            generic(cls(), (4, 2), (4,)),
            generic(cls(), (1, 3), (1,)),
            special(cls(), "rank one", [[1.0, 2.0], [2.0, 4.0]], [1.0, 0.5]),
        )


@dataclass(frozen=True)
class BatchNormInference(Node):
    """Batch norm with kept statistics: scale (x - mean) / sqrt(variance + eps) + shift.

    x has shape (batch, features, ...), all others (features,); the variance is positive.

    Args:
        eps: what is added to the variance.

    Local gradients: with r = 1 / sqrt(variance + eps) and h = (x - mean) r, diagonals after
    broadcasts: scale r in x, h in scale, 1 in shift, -scale r in mean, -scale h r^2 / 2 in
    variance.
    Backward: dx = upstream * scale r; the others upstream times theirs, summed over all but the
    features. Source: Ioffe and Szegedy 2015, "Batch normalization", algorithm 2.
    """

    eps: float = 1e-5
    domains = (REALS, REALS, REALS, REALS, POSITIVE)

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        x, *statistics = arrays = as_inputs(self, inputs)
        if len(x.shape) < 2 or any(s.shape != x.shape[1:2] for s in statistics):
            shapes = ", ".join(shape_text(a.shape) for a in arrays)
            raise InputError(
                f"{self!r}: shapes {shapes} came; expected (batch, features, ...) and four "
                "times (features,)"
            )
        scale, shift, mean, variance = (along(s, 1, x.ndim) for s in statistics)
        r = keeping(1.0 / namespace(x).sqrt(variance + self.eps), (variance,))
        h = (x - mean) * r
        y = scale * h + shift
        return y, (arrays, scale, h, r, y)

    def _derivatives(self, residuals: Any) -> tuple[Any, ...]:
        _, scale, h, r, y = residuals
        one = namespace(y).ones_like(r)
        return scale * r, h, one, -scale * r, keeping(-0.5 * scale * h * r * r, (y,))

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        (x, *statistics), *_, y = residuals
        d, *rest = (
            Diagonal(namespace(y).broadcast_to(d, y.shape)) for d in self._derivatives(residuals)
        )
        axes = other_axes(1, x.ndim)
        spreads = (Broadcast(s.shape, y.shape, y.dtype, axes) for s in statistics)
        return (d, *(one @ spread for one, spread in zip(rest, spreads)))

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        (x, *statistics), *_, y = residuals
        upstream = as_upstream(self, upstream, y)
        d, *rest = self._derivatives(residuals)
        axes = other_axes(1, x.ndim)
        sums = [(upstream * di).sum(axis=axes).astype(s.dtype) for di, s in zip(rest, statistics)]
        return ((upstream * d).astype(x.dtype), *sums)

    def reference(
        self, x: Array, scale: Array, shift: Array, mean: Array, variance: Array
    ) -> Array:
        view = (1, -1) + (1,) * (x.ndim - 2)
        h = (x - mean.reshape(view)) / jnp.sqrt(variance.reshape(view) + self.eps)
        return scale.reshape(view) * h + shift.reshape(view)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (5, 3), *[(3,)] * 4),
            generic(cls(1e-3), (2, 2, 3), *[(2,)] * 4),
            generic(cls(), (2, 1, 2, 2), *[(1,)] * 4),
            Case(cls(), ((0, 2), *[(2,)] * 4), "zero size"),
            special(cls(), "no variance", (3, 2), (2,), (2,), (2,), [0.0, 1e-12]),
        )


@dataclass(frozen=True)
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

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        if len(x.shape) < 2:
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)}; expected (images, channels, ...)"
            )
        low, high = self._reach
        wide = widened(x)
        d = self.k + self.alpha / self.size * self._window_sum(wide * wide, low, high)
        y = (wide * d**-self.beta).astype(x.dtype)
        return y, (x, d, y)

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
        return 2 * self.alpha * self.beta / self.size * widened(x) * d ** (-self.beta - 1)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, d, _ = residuals
        xp = namespace(x)
        images = (x.shape[0], 1, x.shape[1], x.size // max(x.shape[0] * x.shape[1], 1))
        ones = xp.ones((1, 1, self.size, 1), dtype=x.dtype)
        window = Convolution(ones, images, padding=(self._reach, (0, 0)))
        shape = Reshape(x.shape, images, x.dtype)
        own = Diagonal((d**-self.beta).astype(x.dtype))
        weight = Diagonal(self._weight(x, d).astype(x.dtype))
        return (own - weight @ shape.T @ window @ shape @ Diagonal(x),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, d, y = residuals
        upstream = widened(as_upstream(self, upstream, y))
        low, high = self._reach
        shared = self._window_sum(upstream * self._weight(x, d), high, low)
        return ((upstream * d**-self.beta - widened(x) * shared).astype(x.dtype),)

    def reference(self, x: Array) -> Array:
        places = jnp.arange(x.shape[1])
        low, high = self._reach
        distance = places[None, :] - places[:, None]
        window = ((distance >= -low) & (distance <= high)).astype(x.dtype)
        squares = jnp.einsum("ij,nj...->ni...", window, jnp.square(x))
        return x / (self.k + self.alpha / self.size * squares) ** self.beta

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 7, 2)),
            generic(cls(size=2, alpha=0.5), (2, 4)),
            generic(cls(size=3, alpha=1.0, beta=0.5, k=2.0), (1, 3, 2, 2)),
            Case(cls(size=1), ((2, 3),), "window of one"),
            Case(cls(size=3), ((0, 3, 2),), "zero size"),
        )
