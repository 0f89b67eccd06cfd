"""Exponentials and logarithms: entry by entry, hence diagonal."""

import math
from typing import Any

from gradlab.nodes._arrays import Array, erf, namespace
from gradlab.nodes._base import Elementwise
from gradlab.nodes._domain import POSITIVE, Domain
from gradlab.nodes._functions import logistic
from gradlab.nodes._lazy import jax, jnp

__all__ = ["Erf", "Exp", "Exp2", "Expm1", "Log", "Log1p", "Log2", "Logaddexp"]


class Exp(Elementwise):
    """exp(x).

    Local gradient: diag(y). Backward: dx = upstream * y.
    """

    def value(self, x: Array) -> Array:
        return namespace(x).exp(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (y,)

    def reference(self, x: Array) -> Array:
        return jnp.exp(x)


class Exp2(Elementwise):
    """2^x.

    Local gradient: diag(log(2) y). Backward: dx = upstream * log(2) y.
    """

    def value(self, x: Array) -> Array:
        return namespace(x).exp2(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (math.log(2) * y,)

    def reference(self, x: Array) -> Array:
        return jnp.exp2(x)


class Expm1(Elementwise):
    """exp(x) - 1, exact near x = 0.

    Local gradient: diag(exp(x)). Backward: dx = upstream * exp(x); y + 1 would lose its digits
    where y is near -1.
    """

    def value(self, x: Array) -> Array:
        return namespace(x).expm1(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (namespace(y).exp(x[0]),)

    def reference(self, x: Array) -> Array:
        return jnp.expm1(x)


class Log(Elementwise):
    """The natural logarithm of x, for x > 0.

    Local gradient: diag(1 / x). Backward: dx = upstream / x.
    """

    domains = (POSITIVE,)

    def value(self, x: Array) -> Array:
        return namespace(x).log(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (1.0 / x[0],)

    def reference(self, x: Array) -> Array:
        return jnp.log(x)


class Log2(Elementwise):
    """The logarithm of x to base 2, for x > 0.

    Local gradient: diag(1 / (x log(2))). Backward: dx = upstream / (x log(2)).
    """

    domains = (POSITIVE,)

    def value(self, x: Array) -> Array:
        return namespace(x).log2(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (1.0 / (math.log(2) * x[0]),)

    def reference(self, x: Array) -> Array:
        return jnp.log2(x)


class Log1p(Elementwise):
    """log(1 + x), exact near x = 0, for x > -1.

    Local gradient: diag(1 / (1 + x)). Backward: dx = upstream / (1 + x).
    """

    domains = (Domain(low=-1.0),)

    def value(self, x: Array) -> Array:
        return namespace(x).log1p(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (1.0 / (1.0 + x[0]),)

    def reference(self, x: Array) -> Array:
        return jnp.log1p(x)


class Logaddexp(Elementwise):
    """log(exp(x) + exp(y)): a maximum without its kink.

    Local gradients: diag(s) and diag(1 - s), where s = 1 / (1 + exp(y - x)).
    Backward: dx = upstream * s, dy = upstream * (1 - s). The difference y - x comes first, so that
    large inputs keep their digits. Where both are -inf each receives half, where JAX has NaN.
    """

    def value(self, x: Array, y: Array) -> Array:
        return namespace(x, y).logaddexp(x, y)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        xp, (a, b) = namespace(y), x
        difference = xp.where(a == b, xp.zeros_like(y), a - b)
        return logistic(difference), logistic(-difference)

    def reference(self, x: Array, y: Array) -> Array:
        return jnp.logaddexp(x, y)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        inf = math.inf
        return (("ties, saturated, -inf", [1.0, 900.0, -inf, 2.0], [1.0, -900.0, 3.0, -inf]),)


class Erf(Elementwise):
    """The error function, 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x.

    Local gradient: diag(2 / sqrt(pi) exp(-x^2)). Backward: dx = upstream * 2 / sqrt(pi) exp(-x^2).
    """

    def value(self, x: Array) -> Array:
        return erf(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (2 / math.sqrt(math.pi) * namespace(y).exp(-x[0] * x[0]),)

    def reference(self, x: Array) -> Array:
        return jax.scipy.special.erf(x)
