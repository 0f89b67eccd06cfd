"""Nodes whose gradient is not that of their forward, on purpose: the rule is declared.

Each one's reference is JAX code that has this rule, written with `stop_gradient`, so that they are
verified against what they declare.
"""

from dataclasses import dataclass
from typing import Any

from gradlab.nodes._arrays import Array, namespace
from gradlab.nodes._base import Elementwise
from gradlab.nodes._domain import Case, generic
from gradlab.nodes._lazy import jax, jnp

__all__ = ["GradientReversal", "StopGradient", "StraightThroughRound", "StraightThroughSign"]


def _zero(x: Array) -> Array:
    """Return 0 with the gradient of x."""
    return x - jax.lax.stop_gradient(x)


class StraightThroughRound(Elementwise):
    """x rounded to the nearest integer, halves to even; its gradient that of x.

    Local gradient: declared, the identity (that of rounding is 0 almost everywhere).
    Backward: dx = upstream.
    Source: Bengio et al. 2013, "Estimating or propagating gradients through stochastic neurons".
    """

    def value(self, x: Array) -> Array:
        return namespace(x).round(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (1.0,)

    def reference(self, x: Array) -> Array:
        return jax.lax.stop_gradient(jnp.round(x)) + _zero(x)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("halves", [-1.5, -0.5, 0.5, 1.5, 2.5]),)


class StraightThroughSign(Elementwise):
    """1 where x >= 0, -1 elsewhere; its gradient that of x held between -1 and 1.

    Local gradient: declared, diag(|x| <= 1). Backward: dx = upstream where |x| <= 1, 0 elsewhere.
    Source: Hubara et al. 2016, "Binarized neural networks", equation 4.
    """

    def value(self, x: Array) -> Array:
        one = namespace(x).ones_like(x)
        return namespace(x).where(x >= 0, one, -one)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        xp = namespace(y)
        return (xp.where(xp.abs(x[0]) <= 1, xp.ones_like(y), xp.zeros_like(y)),)

    def reference(self, x: Array) -> Array:
        return jnp.where(x >= 0, 1.0, -1.0) + _zero(jax.nn.hard_tanh(x))

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("the jump and both edges", [-2.0, -1.0, 0.0, 1.0, 3.0]),)


class StopGradient(Elementwise):
    """x, through which no gradient goes back.

    Local gradient: declared, diag(0). Backward: dx = 0.
    """

    def value(self, x: Array) -> Array:
        return x

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (namespace(y).zeros_like(y),)

    def reference(self, x: Array) -> Array:
        return jax.lax.stop_gradient(x)


@dataclass(frozen=True)
class GradientReversal(Elementwise):
    """x, whose gradient goes back with its sign changed: it trains what lies before it to do harm.

    Args:
        strength: by how much the reversed gradient is multiplied.

    Local gradient: declared, -strength times the identity. Backward: dx = -strength * upstream.
    Source: Ganin and Lempitsky 2015, "Unsupervised domain adaptation".
    """

    strength: float = 1.0

    def value(self, x: Array) -> Array:
        return x

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (-self.strength,)

    def reference(self, x: Array) -> Array:
        return jax.lax.stop_gradient(x) - self.strength * _zero(x)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (*super().cases(), generic(cls(0.3), (3, 4)))
