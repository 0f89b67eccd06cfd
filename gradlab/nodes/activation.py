"""Smooth activations: entry by entry, hence diagonal."""

import math
from dataclasses import dataclass
from typing import Any

from gradlab.nodes._arrays import Array, namespace
from gradlab.nodes._base import Elementwise
from gradlab.nodes._functions import logistic, logistic_slope, softplus
from gradlab.nodes._lazy import jax, jnp

__all__ = ["LogSigmoid", "Sigmoid", "Softplus", "Softsign", "Squareplus", "Tanh"]


class Tanh(Elementwise):
    """tanh(x).

    Local gradient: diag(1 - y^2). Backward: dx = upstream * (1 - y^2).
    """

    def value(self, x: Array) -> Array:
        return namespace(x).tanh(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (1.0 - y * y,)

    def reference(self, x: Array) -> Array:
        return jnp.tanh(x)


class Sigmoid(Elementwise):
    """1 / (1 + exp(-x)).

    Local gradient: diag(y (1 - y)). Backward: dx = upstream * y (1 - y).
    With e = exp(-|x|), which never overflows, y (1 - y) = e / (1 + e)^2: written so, it keeps its
    digits where y rounds to 1.
    """

    def value(self, x: Array) -> Array:
        return logistic(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (logistic_slope(x[0]),)

    def reference(self, x: Array) -> Array:
        return jax.nn.sigmoid(x)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("saturated", [-800.0, -40.0, 0.0, 40.0, 800.0]),)


class Softplus(Elementwise):
    """log(1 + exp(x)): a relu without its corner.

    Local gradient: diag(sigmoid(x)). Backward: dx = upstream * sigmoid(x).
    """

    def value(self, x: Array) -> Array:
        return softplus(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (logistic(x[0]),)

    def reference(self, x: Array) -> Array:
        return jax.nn.softplus(x)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("zero and saturated", [-800.0, -40.0, 0.0, 40.0, 800.0]),)


class LogSigmoid(Elementwise):
    """log(1 / (1 + exp(-x))), which is -softplus(-x).

    Local gradient: diag(sigmoid(-x)). Backward: dx = upstream * sigmoid(-x).
    """

    def value(self, x: Array) -> Array:
        return -softplus(-x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (logistic(-x[0]),)

    def reference(self, x: Array) -> Array:
        return jax.nn.log_sigmoid(x)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("zero and saturated", [-800.0, -40.0, 0.0, 40.0, 800.0]),)


class Softsign(Elementwise):
    """x / (1 + |x|).

    Local gradient: diag(1 / (1 + |x|)^2). Backward: dx = upstream / (1 + |x|)^2. It is smooth at 0.
    """

    def value(self, x: Array) -> Array:
        return x / (1.0 + namespace(x).abs(x))

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        r = 1.0 / (1.0 + namespace(y).abs(x[0]))
        return (r * r,)

    def reference(self, x: Array) -> Array:
        return jax.nn.soft_sign(x)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("zero and large magnitudes", [-1e6, 0.0, 1e6]),)


@dataclass(frozen=True)
class Squareplus(Elementwise):
    """(x + sqrt(x^2 + b)) / 2: a relu without its corner and without exponentials.

    Args:
        b: how wide the corner is rounded.

    Local gradient: diag(y / r) with r = sqrt(x^2 + b), for (1 + x / r) / 2 = y / r.
    Backward: dx = upstream * y / r. Below 0, where x + r cancels, y = b / (2 (r - x)).
    Source: Barron 2021, "Squareplus".
    """

    b: float = 4.0

    def value(self, x: Array) -> Array:
        xp, r = namespace(x), self._root(x)
        far = r + xp.abs(x)
        return xp.where(x < 0, 0.5 * self.b / far, 0.5 * far)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (y / self._root(x[0]),)

    def _root(self, x: Array) -> Array:
        return namespace(x).hypot(x, math.sqrt(self.b) * namespace(x).ones_like(x))

    def reference(self, x: Array) -> Array:
        return jax.nn.squareplus(x, self.b)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("zero and both ends", [-1e3, 0.0, 1e3]),)
