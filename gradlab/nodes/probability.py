"""The softmax family: each row depends on itself alone, by a diagonal plus a rank-one matrix."""

from dataclasses import dataclass
from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, axes_of, keeping, namespace
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, generic, special
from gradlab.nodes._functions import log_softmax, softmax
from gradlab.nodes._lazy import jax, jnp
from gradlab.operators import DiagonalPlusLowRank, Operator, Permutation

__all__ = ["GumbelSoftmax", "LogSoftmax", "Softmax", "Sparsemax", "on_axis"]


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


@dataclass(frozen=True)
class Softmax(Node):
    """exp(x) / sum(exp(x)) along an axis.

    Args:
        axis: the axis along which the outputs sum to 1.

    Local gradient: diag(p) - p p^T for each row by itself.
    Backward: dx = p * (upstream - sum(upstream * p)).
    """

    axis: int = -1

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        (axis,) = axes_of(self, self.axis, x.shape)
        p = softmax(x, axis)
        return p, (p, axis)

    def local_gradient(self, residuals: Any) -> tuple[Operator, ...]:
        p, axis = residuals
        rows = namespace(p).moveaxis(p, axis, -1)
        column = rows[..., None]
        return (on_axis(DiagonalPlusLowRank(rows, -column, column), axis),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        p, axis = residuals
        upstream = as_upstream(self, upstream, p)
        return (p * (upstream - (upstream * p).sum(axis=axis, keepdims=True)),)

    def reference(self, x: Array) -> Array:
        return jax.nn.softmax(x, axis=self.axis)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4)),
            generic(cls(axis=0), (5, 2)),
            generic(cls(axis=1), (2, 3, 4)),
            Case(cls(), ((4, 1),), "size-1 axes"),
            Case(cls(), ((0, 3),), "zero size"),
            special(cls(), "saturated", [[0.0, 40.0, -40.0], [1e3, 1e3, -1e3]]),
            special(cls(), "ties", [[1.0, 1.0, 1.0]]),
            special(cls(), "masked by -inf", [[0.5, float("-inf"), 1.0]]),
        )


@dataclass(frozen=True)
class LogSoftmax(Node):
    """x - log(sum(exp(x))) along an axis.

    Args:
        axis: the axis along which exp of the outputs sums to 1.

    Local gradient: I - 1 p^T for each row by itself, with p = softmax(x).
    Backward: dx = upstream - p * sum(upstream).
    """

    axis: int = -1

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        (axis,) = axes_of(self, self.axis, x.shape)
        y = log_softmax(x, axis)
        return y, (y, axis)

    def local_gradient(self, residuals: Any) -> tuple[Operator, ...]:
        y, axis = residuals
        xp = namespace(y)
        rows = xp.exp(xp.moveaxis(y, axis, -1))
        ones = xp.ones_like(rows)
        return (on_axis(DiagonalPlusLowRank(ones, -ones[..., None], rows[..., None]), axis),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        y, axis = residuals
        upstream = as_upstream(self, upstream, y)
        p = namespace(y).exp(y)
        return ((upstream - p * upstream.sum(axis=axis, keepdims=True)).astype(y.dtype),)

    def reference(self, x: Array) -> Array:
        return jax.nn.log_softmax(x, axis=self.axis)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4)),
            generic(cls(axis=0), (5, 2)),
            generic(cls(axis=1), (2, 3, 4)),
            Case(cls(), ((4, 1),), "size-1 axes"),
            Case(cls(), ((0, 3),), "zero size"),
            special(cls(), "saturated", [[0.0, 40.0, -40.0], [1e3, 1e3, -1e3]]),
            special(cls(), "masked by -inf", [[0.5, float("-inf"), 1.0]]),
        )


@dataclass(frozen=True)
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

    def forward(self, x: Any, noise: Any) -> tuple[Array, Any]:
        x, noise = as_inputs(self, (x, noise))
        if x.shape != noise.shape:
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)} and the noise "
                f"{shape_text(noise.shape)}; each entry needs a noise of its own"
            )
        (axis,) = axes_of(self, self.axis, x.shape)
        p = keeping(softmax((x + noise) / self.temperature, axis), (x, noise))
        return p, (x, noise, p, axis)

    def local_gradient(self, residuals: Any) -> tuple[Operator, ...]:
        *_, p, axis = residuals
        rows = namespace(p).moveaxis(p, axis, -1)
        column = rows[..., None]
        gradient = on_axis(DiagonalPlusLowRank(rows, -column, column), axis) * (
            1 / self.temperature
        )
        return gradient, gradient

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, noise, p, axis = residuals
        upstream = as_upstream(self, upstream, p)
        centred = upstream - (upstream * p).sum(axis=axis, keepdims=True)
        gradient = p * centred / self.temperature
        return gradient.astype(x.dtype), gradient.astype(noise.dtype)

    def reference(self, x: Array, noise: Array) -> Array:
        return jax.nn.softmax((x + noise) / self.temperature, axis=self.axis)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4), (3, 4)),
            generic(cls(temperature=0.5, axis=0), (5, 2), (5, 2)),
            generic(cls(temperature=2.0), (2, 3, 2), (2, 3, 2)),
            Case(cls(), ((0, 3), (0, 3)), "zero size"),
            special(cls(0.1), "nearly one-hot", [[0.0, 40.0, -40.0]], [[0.5, -1.0, 3.0]]),
        )


@dataclass(frozen=True)
class Sparsemax(Node):
    """The point of the probability simplex nearest to x, along an axis: max(x - t, 0).

    The threshold t makes the outputs sum to 1; many of them are exactly 0.

    Args:
        axis: the axis along which the outputs sum to 1.

    Local gradient: diag(s) - s s^T / sum(s) for each row by itself, where s = (y > 0) marks the
    support. Backward: dx = s * (upstream - mean of the upstream over the support).
    Where an entry just enters the support (x = t) it counts as outside.
    Source: Martins and Astudillo 2016, "From softmax to sparsemax", algorithm 1 and section 2.5.
    """

    axis: int = -1

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        (axis,) = axes_of(self, self.axis, x.shape)
        xp, n = namespace(x), x.shape[axis]
        x = x - xp.max(x, axis=axis, keepdims=True)
        counts = xp.arange(1, n + 1, dtype=x.dtype).reshape((-1,) + (1,) * (x.ndim - 1 - axis))
        counts = counts.reshape((1,) * axis + counts.shape)
        falling = xp.flip(xp.sort(x, axis=axis), axis=axis)
        thresholds = (xp.cumulative_sum(falling, axis=axis) - xp.ones_like(x)) / counts
        threshold = xp.max(thresholds, axis=axis, keepdims=True)  # the one of the right support
        y = xp.maximum(x - threshold, xp.zeros_like(x))
        return y, (y, axis)

    def local_gradient(self, residuals: Any) -> tuple[Operator, ...]:
        y, axis = residuals
        s = (namespace(y).moveaxis(y, axis, -1) > 0).astype(y.dtype)
        share = -s / s.sum(axis=-1, keepdims=True)
        return (on_axis(DiagonalPlusLowRank(s, share[..., None], s[..., None]), axis),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        y, axis = residuals
        s = (y > 0).astype(y.dtype)
        upstream = as_upstream(self, upstream, y) * s
        mean = upstream.sum(axis=axis, keepdims=True) / s.sum(axis=axis, keepdims=True)
        return ((upstream - s * mean).astype(y.dtype),)

    def reference(self, x: Array) -> Array:
        rows = jnp.moveaxis(x, self.axis, -1)
        falling = -jnp.sort(-rows, axis=-1)
        sums, k = jnp.cumsum(falling, axis=-1), jnp.arange(1, rows.shape[-1] + 1)
        size = jnp.sum(1 + k * falling > sums, axis=-1, keepdims=True)
        threshold = (jnp.take_along_axis(sums, size - 1, axis=-1) - 1) / size
        return jnp.moveaxis(jax.nn.relu(rows - threshold), -1, self.axis)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4)),
            generic(cls(axis=0), (5, 2)),
            generic(cls(axis=1), (2, 3, 4)),
            Case(cls(), ((4, 1),), "size-1 axes"),
            Case(cls(), ((0, 3),), "zero size"),
            special(cls(), "ties and one winner", [[1.0, 1.0, 1.0], [500.0, -500.0, 0.0]]),
        )
