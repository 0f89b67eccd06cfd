"""Activations with corners: pieces of lines and exponentials, entry by entry, hence diagonal.

At a corner each takes the side that JAX takes; its docstring says which.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from gradlab.nodes._arrays import Array, namespace
from gradlab.nodes._base import Elementwise
from gradlab.nodes._domain import REALS, Case, Domain, generic
from gradlab.nodes._lazy import jax, jnp

__all__ = [
    "Celu",
    "Elu",
    "HardSigmoid",
    "HardTanh",
    "LeakyRelu",
    "Prelu",
    "Relu",
    "Relu6",
    "Selu",
    "inside",
]

_KINK = Domain(kinks=(0.0,))


def inside(x: Array, low: float, high: float) -> Array:
    """Return 1 where low < x < high, and 0 elsewhere, both edges included."""
    xp = namespace(x)
    return xp.where((x > low) & (x < high), xp.ones_like(x), xp.zeros_like(x))


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


@dataclass(frozen=True)
class LeakyRelu(Elementwise):
    """x where x >= 0, slope * x elsewhere.

    Args:
        slope: the slope on the negative side.

    Local gradient: diag(1 or slope), with 1 at the kink x = 0, as in JAX.
    Backward: dx = upstream * (1 or slope).
    """

    slope: float = 0.01
    domains = (_KINK,)

    def value(self, x: Array) -> Array:
        return namespace(x).where(x >= 0, x, self.slope * x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        one = namespace(y).ones_like(y)
        return (namespace(y).where(x[0] >= 0, one, self.slope * one),)

    def reference(self, x: Array) -> Array:
        return jax.nn.leaky_relu(x, self.slope)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("the kink", [-1.0, 0.0, 2.0]),)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (*super().cases(), generic(cls(0.3), (3, 4)))


class Prelu(Elementwise):
    """x where x >= 0, slope * x elsewhere, with a slope that is learned and broadcasts.

    Local gradients: diag(1 or slope) and diag(0 or x), with 1 and 0 at the kink x = 0.
    Backward: dx = upstream * (1 or slope), dslope = upstream * min(x, 0), summed to its shape.
    Source: He et al. 2015, "Delving deep into rectifiers".
    """

    domains = (_KINK, REALS)

    def value(self, x: Array, slope: Array) -> Array:
        return namespace(x).where(x >= 0, x, slope * x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        xp, (a, slope) = namespace(y), x
        one = xp.ones_like(a)
        return xp.where(a >= 0, one, slope * one), xp.minimum(a, xp.zeros_like(a))

    def reference(self, x: Array, slope: Array) -> Array:
        return jnp.where(x >= 0, x, slope * x)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("the kink", [-1.0, 0.0, 2.0], 0.25),)


class Relu6(Elementwise):
    """min(max(x, 0), 6).

    Local gradient: diag(0 < x < 6), with 0 at both kinks, as in JAX.
    Backward: dx = upstream * (0 < x < 6).
    """

    domains = (Domain(kinks=(0.0, 6.0)),)

    def value(self, x: Array) -> Array:
        return namespace(x).clip(x, 0.0, 6.0)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (inside(x[0], 0.0, 6.0),)

    def reference(self, x: Array) -> Array:
        return jax.nn.relu6(x)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("both kinks", [-1.0, 0.0, 3.0, 6.0, 7.0]),)


class HardTanh(Elementwise):
    """x, held between -1 and 1.

    Local gradient: diag(-1 <= x <= 1), with 1 at both kinks, as in JAX.
    Backward: dx = upstream * (-1 <= x <= 1).
    """

    domains = (Domain(kinks=(-1.0, 1.0)),)

    def value(self, x: Array) -> Array:
        return namespace(x).clip(x, -1.0, 1.0)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        xp = namespace(y)
        return (xp.where(xp.abs(x[0]) <= 1, xp.ones_like(y), xp.zeros_like(y)),)

    def reference(self, x: Array) -> Array:
        return jax.nn.hard_tanh(x)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("both kinks", [-2.0, -1.0, 0.5, 1.0, 3.0]),)


class HardSigmoid(Elementwise):
    """(x + 3) / 6, held between 0 and 1.

    Local gradient: diag(1/6 where -3 < x < 3), with 0 at both kinks, as in JAX.
    Backward: dx = upstream / 6 where -3 < x < 3.
    """

    domains = (Domain(kinks=(-3.0, 3.0)),)

    def value(self, x: Array) -> Array:
        return namespace(x).clip(x + 3.0, 0.0, 6.0) / 6.0

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (inside(x[0], -3.0, 3.0) / 6.0,)

    def reference(self, x: Array) -> Array:
        return jax.nn.hard_sigmoid(x)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("both kinks", [-4.0, -3.0, 0.0, 3.0, 5.0]),)


class _ExponentialBelow(Elementwise):
    """A line above 0 and a scaled exponential below: scale * (x or alpha (exp(x / decay) - 1))."""

    domains = (_KINK,)

    @abstractmethod
    def constants(self) -> tuple[float, float, float]:
        """Return scale, alpha and decay."""

    def value(self, x: Array) -> Array:
        """Return the line or the exponential; the one not taken does not overflow."""
        scale, alpha, decay = self.constants()
        xp = namespace(x)
        below = alpha * xp.expm1(xp.minimum(x, xp.zeros_like(x)) / decay)
        return xp.where(x > 0, scale * x, scale * below)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        """Return scale, or scale * alpha / decay * exp(x / decay)."""
        scale, alpha, decay = self.constants()
        xp = namespace(y)
        below = scale * alpha / decay * xp.exp(xp.minimum(x[0], xp.zeros_like(y)) / decay)
        return (xp.where(x[0] > 0, scale * xp.ones_like(y), below),)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        """Return the kink and both far ends."""
        return (("the kink and both ends", [-1e4, -1.0, 0.0, 2.0, 1e4]),)


@dataclass(frozen=True)
class Elu(_ExponentialBelow):
    """x where x > 0, alpha (exp(x) - 1) elsewhere.

    Args:
        alpha: minus the limit at -infinity.

    Local gradient: diag(1 or alpha exp(x)), with alpha at the kink x = 0, as in JAX.
    Backward: dx = upstream * (1 or alpha exp(x)). Source: Clevert et al. 2016, "ELU".
    """

    alpha: float = 1.0

    def constants(self) -> tuple[float, float, float]:
        return 1.0, self.alpha, 1.0

    def reference(self, x: Array) -> Array:
        return jax.nn.elu(x, self.alpha)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (*super().cases(), Case(cls(1.5), ([-1.0, 0.0, 2.0],), "another alpha"))


class Selu(_ExponentialBelow):
    """scale * (x where x > 0, alpha (exp(x) - 1) elsewhere), which keeps mean 0 and variance 1.

    Local gradient: diag(scale * (1 or alpha exp(x))), with scale * alpha at the kink x = 0, as in
    JAX. Backward: dx = upstream * scale * (1 or alpha exp(x)).
    Source: Klambauer et al. 2017, "Self-normalizing neural networks"; the two constants solve its
    fixed-point equations.
    """

    def constants(self) -> tuple[float, float, float]:
        return 1.0507009873554804934193349852946, 1.6732632423543772848170429916717, 1.0

    def reference(self, x: Array) -> Array:
        return jax.nn.selu(x)


@dataclass(frozen=True)
class Celu(_ExponentialBelow):
    """x where x > 0, alpha (exp(x / alpha) - 1) elsewhere: ELU without its kink.

    Args:
        alpha: minus the limit at -infinity.

    Local gradient: diag(1 or exp(x / alpha)). Backward: dx = upstream * (1 or exp(x / alpha)).
    Source: Barron 2017, "Continuously differentiable exponential linear units".
    """

    alpha: float = 1.0

    def constants(self) -> tuple[float, float, float]:
        return 1.0, self.alpha, self.alpha

    def reference(self, x: Array) -> Array:
        return jax.nn.celu(x, self.alpha)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (*super().cases(), Case(cls(1.5), ([-1.0, 0.0, 2.0],), "another alpha"))
