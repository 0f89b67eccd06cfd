"""Hyperbolic functions and their inverses: entry by entry, hence diagonal."""

from typing import Any

from gradlab.nodes._arrays import Array, namespace
from gradlab.nodes._base import Elementwise
from gradlab.nodes._domain import Domain
from gradlab.nodes._lazy import jnp

__all__ = ["Arccosh", "Arcsinh", "Arctanh", "Cosh", "Sinh"]


class Sinh(Elementwise):
    """sinh(x).

    Local gradient: diag(cosh(x)). Backward: dx = upstream * cosh(x).
    """

    def value(self, x: Array) -> Array:
        return namespace(x).sinh(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (namespace(y).cosh(x[0]),)

    def reference(self, x: Array) -> Array:
        return jnp.sinh(x)


class Cosh(Elementwise):
    """cosh(x).

    Local gradient: diag(sinh(x)). Backward: dx = upstream * sinh(x).
    """

    def value(self, x: Array) -> Array:
        return namespace(x).cosh(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (namespace(y).sinh(x[0]),)

    def reference(self, x: Array) -> Array:
        return jnp.cosh(x)


class Arcsinh(Elementwise):
    """The number whose hyperbolic sine is x.

    Local gradient: diag(1 / sqrt(1 + x^2)). Backward: dx = upstream / sqrt(1 + x^2), written as
    the length of (1, x), which does not overflow in x^2.
    """

    def value(self, x: Array) -> Array:
        return namespace(x).asinh(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        xp = namespace(y)
        return (1.0 / xp.hypot(xp.ones_like(y), x[0]),)

    def reference(self, x: Array) -> Array:
        return jnp.arcsinh(x)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("large magnitudes", [-1e30, 0.0, 1e30]),)


class Arccosh(Elementwise):
    """The number y >= 0 whose hyperbolic cosine is x, for x > 1.

    Local gradient: diag(1 / sqrt(x^2 - 1)), infinite at x = 1.
    Backward: dx = upstream / (sqrt(x - 1) sqrt(x + 1)), exact near 1 and finite for large x.
    """

    domains = (Domain(low=1.0),)

    def value(self, x: Array) -> Array:
        return namespace(x).acosh(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        xp = namespace(y)
        return (1.0 / (xp.sqrt(x[0] - 1.0) * xp.sqrt(x[0] + 1.0)),)

    def reference(self, x: Array) -> Array:
        return jnp.arccosh(x)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("large magnitudes", [1.001, 1e30]),)


class Arctanh(Elementwise):
    """The number whose hyperbolic tangent is x, for -1 < x < 1.

    Local gradient: diag(1 / ((1 - x) (1 + x))). Backward: dx = upstream / ((1 - x) (1 + x)).
    """

    domains = (Domain(low=-1.0, high=1.0),)

    def value(self, x: Array) -> Array:
        return namespace(x).atanh(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (1.0 / ((1.0 - x[0]) * (1.0 + x[0])),)

    def reference(self, x: Array) -> Array:
        return jnp.arctanh(x)
