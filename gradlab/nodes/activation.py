"""The activations of layers: entry by entry, hence diagonal."""

from typing import Any

from gradlab.nodes._arrays import Array, namespace
from gradlab.nodes._base import Elementwise
from gradlab.nodes._domain import Domain
from gradlab.nodes._lazy import jax, jnp

__all__ = ["Relu", "Sigmoid", "Tanh"]


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
        xp = namespace(x)
        e = xp.exp(-xp.abs(x))
        return xp.where(x >= 0, xp.ones_like(e), e) / (1.0 + e)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        xp = namespace(y)
        e = xp.exp(-xp.abs(x[0]))
        return (e / (1.0 + e) ** 2,)

    def reference(self, x: Array) -> Array:
        return jax.nn.sigmoid(x)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("saturated", [-800.0, -40.0, 0.0, 40.0, 800.0]),)


class Relu(Elementwise):
    """max(x, 0).

    Local gradient: diag(x > 0), with 0 at the kink x = 0, as in JAX.
    Backward: dx = upstream * (x > 0).
    """

    domains = (Domain(kinks=(0.0,)),)

    def value(self, x: Array) -> Array:
        xp = namespace(x)
        return xp.maximum(x, xp.zeros_like(x))

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        xp = namespace(y)
        return (xp.where(x[0] > 0, xp.ones_like(y), xp.zeros_like(y)),)

    def reference(self, x: Array) -> Array:
        return jax.nn.relu(x)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("the kink", [-1.0, 0.0, 2.0]),)
