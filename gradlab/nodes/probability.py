"""The softmax family: each row depends on itself alone, by a diagonal plus a rank-one matrix."""

import math

from gradlab.common.arrays import Array, in_dtype_of, normal_axes
from gradlab.nodes._base import Applied, Gradients, Namespace, Node, Pulled
from gradlab.nodes._lazy import jax, jnp
from gradlab.nodes._stable import log_softmax, softmax
from gradlab.operators import DiagonalPlusLowRank, Operator, Permutation


def on_axis(operator: Operator, axis: int) -> Operator:
    """Return an operator that acts on the last axis, moved to act on `axis`."""
    rank = len(operator.output_shape)
    if axis == rank - 1:
        return operator
    order = (*(i for i in range(rank) if i != axis), axis)
    shape = [0] * rank
    for place, size in zip(order, operator.output_shape):
        shape[place] = size
    move = Permutation(order, tuple(shape), operator.dtype)
    return move.T @ operator @ move


class _Simplex(Node):
    """A map of the rows along an axis.

    Args:
        axis: the axis along which the outputs sum to 1 (for log-softmax: their exponentials).
    """

    axis: int = -1
    drawn = "3x4; 5x2 axis=0; 2x3x4 axis=1; size-1 axes: 4x1; zero size: 0x3"


class Softmax(_Simplex):
    """exp(x) / sum(exp(x)) along an axis.

    Local gradient: diag(p) - p p^T for each row by itself.
    Backward: dx = p * (upstream - sum(upstream * p)).
    """

    jax = "jax.nn.softmax"
    points = {
        "saturated": [[0.0, 40.0, -40.0], [1e3, 1e3, -1e3]],
        "ties": [[1.0, 1.0, 1.0]],
        "masked by -inf": [[0.5, -math.inf, 1.0]],
    }

    def apply(self, xp: Namespace, x: Array) -> Applied:
        (axis,) = normal_axes(self.axis, x.shape, self)
        p = softmax(x, axis)
        return p, (p, axis)

    def gradients(self, xp: Namespace, p: Array, axis: int) -> Gradients:
        rows = xp.moveaxis(p, axis, -1)
        column = rows[..., None]
        return on_axis(DiagonalPlusLowRank(rows, -column, column), axis)

    def pull(self, xp: Namespace, upstream: Array, p: Array, axis: int) -> Pulled:
        return p * (upstream - (upstream * p).sum(axis=axis, keepdims=True))


class LogSoftmax(_Simplex):
    """x - log(sum(exp(x))) along an axis.

    Local gradient: I - 1 p^T for each row by itself, with p = softmax(x).
    Backward: dx = upstream - p * sum(upstream).
    """

    jax = "jax.nn.log_softmax"
    points = {
        "saturated": [[0.0, 40.0, -40.0], [1e3, 1e3, -1e3]],
        "masked by -inf": [[0.5, -math.inf, 1.0]],
    }

    def apply(self, xp: Namespace, x: Array) -> Applied:
        (axis,) = normal_axes(self.axis, x.shape, self)
        y = log_softmax(x, axis)
        return y, (y, axis)

    def gradients(self, xp: Namespace, y: Array, axis: int) -> Gradients:
        rows = xp.exp(xp.moveaxis(y, axis, -1))
        ones = xp.ones_like(rows)
        return on_axis(DiagonalPlusLowRank(ones, -ones[..., None], rows[..., None]), axis)

    def pull(self, xp: Namespace, upstream: Array, y: Array, axis: int) -> Pulled:
        return upstream - xp.exp(y) * upstream.sum(axis=axis, keepdims=True)


class GumbelSoftmax(Node):
    """softmax((x + noise) / temperature) along an axis: a differentiable draw of a category.

    The noise is an input, -log(-log(uniform)), so that the node has no state and no randomness.

    Args:
        temperature: near 0 the outputs are nearly one-hot.
        axis: the axis along which the outputs sum to 1.

    Local gradients: (diag(p) - p p^T) / temperature for each row by itself, in x as in the noise.
    Backward: dx = dnoise = p * (upstream - sum(upstream * p)) / temperature.
    Source: Jang et al. 2017, "Categorical reparameterization with Gumbel-softmax".
    """

    temperature: float = 1.0
    axis: int = -1
    shapes = "x (*any), noise (*any) -> (*any)"
    drawn = (
        "3x4 3x4; 5x2 5x2 temperature=0.5 axis=0; 2x3x2 2x3x2 temperature=2.0; zero size: 0x3 0x3"
    )
    points = {"nearly one-hot": ({"temperature": 0.1}, [[0.0, 40.0, -40.0]], [[0.5, -1.0, 3.0]])}

    def apply(self, xp: Namespace, x: Array, noise: Array) -> Applied:
        (axis,) = normal_axes(self.axis, x.shape, self)
        p = in_dtype_of(softmax((x + noise) / self.temperature, axis), (x, noise))
        return p, (p, axis)

    def gradients(self, xp: Namespace, p: Array, axis: int) -> Gradients:
        rows = xp.moveaxis(p, axis, -1)
        column = rows[..., None]
        gradient = on_axis(DiagonalPlusLowRank(rows, -column, column), axis)
        gradient = gradient * (1 / self.temperature)
        return gradient, gradient

    def pull(self, xp: Namespace, upstream: Array, p: Array, axis: int) -> Pulled:
        centred = upstream - (upstream * p).sum(axis=axis, keepdims=True)
        gradient = p * centred / self.temperature
        return gradient, gradient

    def reference(self, x: Array, noise: Array) -> Array:
        return jax.nn.softmax((x + noise) / self.temperature, axis=self.axis)


class Sparsemax(_Simplex):
    """The point of the probability simplex nearest to x, along an axis: max(x - t, 0).

    The threshold t makes the outputs sum to 1; many of them are exactly 0.

    Local gradient: diag(s) - s s^T / sum(s) for each row by itself, where s = (y > 0) marks the
    support. Backward: dx = s * (upstream - mean of the upstream over the support).
    Where an entry just enters the support (x = t) it counts as outside.
    Source: Martins and Astudillo 2016, "From softmax to sparsemax", algorithm 1 and section 2.5.
    """

    points = {"ties and one winner": [[1.0, 1.0, 1.0], [500.0, -500.0, 0.0]]}

    def apply(self, xp: Namespace, x: Array) -> Applied:
        (axis,) = normal_axes(self.axis, x.shape, self)
        n, x = x.shape[axis], x - xp.max(x, axis=axis, keepdims=True)
        view = (1,) * axis + (-1,) + (1,) * (x.ndim - 1 - axis)
        counts = xp.arange(1, n + 1, dtype=x.dtype).reshape(view)
        falling = xp.flip(xp.sort(x, axis=axis), axis=axis)
        thresholds = (xp.cumulative_sum(falling, axis=axis) - xp.ones_like(x)) / counts
        threshold = xp.max(thresholds, axis=axis, keepdims=True)  # the one of the right support
        y = xp.maximum(x - threshold, xp.zeros_like(x))
        return y, ((y > 0).astype(y.dtype), axis)

    def gradients(self, xp: Namespace, support: Array, axis: int) -> Gradients:
        s = xp.moveaxis(support, axis, -1)
        share = -s / s.sum(axis=-1, keepdims=True)
        return on_axis(DiagonalPlusLowRank(s, share[..., None], s[..., None]), axis)

    def pull(self, xp: Namespace, upstream: Array, s: Array, axis: int) -> Pulled:
        inside = upstream * s
        mean = inside.sum(axis=axis, keepdims=True) / s.sum(axis=axis, keepdims=True)
        return inside - s * mean

    def reference(self, x: Array) -> Array:
        rows = jnp.moveaxis(x, self.axis, -1)
        falling = -jnp.sort(-rows, axis=-1)
        sums, k = jnp.cumsum(falling, axis=-1), jnp.arange(1, rows.shape[-1] + 1)
        size = jnp.sum(1 + k * falling > sums, axis=-1, keepdims=True)
        threshold = (jnp.take_along_axis(sums, size - 1, axis=-1) - 1) / size
        return jnp.moveaxis(jax.nn.relu(rows - threshold), -1, self.axis)
