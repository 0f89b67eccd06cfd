"""Circular functions and their inverses: entry by entry, hence diagonal."""

import math
from typing import Any

from gradlab.nodes._arrays import Array, namespace
from gradlab.nodes._base import Elementwise
from gradlab.nodes._domain import Domain
from gradlab.nodes._lazy import jnp

__all__ = ["Arccos", "Arcsin", "Arctan", "Atan2", "Cos", "Sin", "Sinc", "Tan"]

_INTERVAL = Domain(low=-1.0, high=1.0)


class Sin(Elementwise):
    """sin(x).

    Local gradient: diag(cos(x)). Backward: dx = upstream * cos(x).
    """

    def value(self, x: Array) -> Array:
        return namespace(x).sin(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (namespace(y).cos(x[0]),)

    def reference(self, x: Array) -> Array:
        return jnp.sin(x)


class Cos(Elementwise):
    """cos(x).

    Local gradient: diag(-sin(x)). Backward: dx = -upstream * sin(x).
    """

    def value(self, x: Array) -> Array:
        return namespace(x).cos(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (-namespace(y).sin(x[0]),)

    def reference(self, x: Array) -> Array:
        return jnp.cos(x)


class Tan(Elementwise):
    """tan(x).

    Local gradient: diag(1 + y^2). Backward: dx = upstream * (1 + y^2).
    """

    def value(self, x: Array) -> Array:
        return namespace(x).tan(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (1.0 + y * y,)

    def reference(self, x: Array) -> Array:
        return jnp.tan(x)


class Arcsin(Elementwise):
    """The angle in [-pi/2, pi/2] whose sine is x, for -1 < x < 1.

    Local gradient: diag(1 / sqrt((1 - x) (1 + x))), infinite at both ends.
    Backward: dx = upstream / sqrt((1 - x) (1 + x)); 1 - x^2 would lose digits near the ends.
    """

    domains = (_INTERVAL,)

    def value(self, x: Array) -> Array:
        return namespace(x).asin(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (1.0 / namespace(y).sqrt((1.0 - x[0]) * (1.0 + x[0])),)

    def reference(self, x: Array) -> Array:
        return jnp.arcsin(x)


class Arccos(Elementwise):
    """The angle in [0, pi] whose cosine is x, for -1 < x < 1.

    Local gradient: diag(-1 / sqrt((1 - x) (1 + x))), infinite at both ends.
    Backward: dx = -upstream / sqrt((1 - x) (1 + x)).
    """

    domains = (_INTERVAL,)

    def value(self, x: Array) -> Array:
        return namespace(x).acos(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (-1.0 / namespace(y).sqrt((1.0 - x[0]) * (1.0 + x[0])),)

    def reference(self, x: Array) -> Array:
        return jnp.arccos(x)


class Arctan(Elementwise):
    """The angle in (-pi/2, pi/2) whose tangent is x.

    Local gradient: diag(1 / (1 + x^2)). Backward: dx = upstream / (1 + x^2).
    """

    def value(self, x: Array) -> Array:
        return namespace(x).atan(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (1.0 / (1.0 + x[0] * x[0]),)

    def reference(self, x: Array) -> Array:
        return jnp.arctan(x)


class Atan2(Elementwise):
    """The angle of the point (x, y), in (-pi, pi].

    Local gradients: diag(x / r^2) and diag(-y / r^2), where r^2 = x^2 + y^2.
    Backward: dy = upstream * (x / r) / r, dx = -upstream * (y / r) / r, which cannot overflow in
    r^2. At the origin there is no gradient: NaN, as in JAX.
    """

    domains = (Domain(kinks=(0.0,)),)

    def value(self, y: Array, x: Array) -> Array:
        return namespace(y, x).atan2(y, x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        rise, run = x
        r = namespace(y).hypot(rise, run)
        return run / r / r, -rise / r / r

    def reference(self, y: Array, x: Array) -> Array:
        return jnp.arctan2(y, x)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("axes and large magnitudes", [0.0, 1.0, -1e30], [2.0, 0.0, 1e30]),)


class Sinc(Elementwise):
    """sin(pi x) / (pi x), and 1 at x = 0.

    Local gradient: diag((cos(pi x) - y) / x). Backward: dx = upstream * (cos(pi x) - y) / x.
    Near 0, where that difference loses its digits, its Taylor series takes over. The sine is taken
    of pi (x - n), n the nearest integer: pi x is rounded, and near the zeros that is all one sees.
    """

    def value(self, x: Array) -> Array:
        xp, t = namespace(x), math.pi * x
        n = xp.round(x)
        sine = (1 - 2 * xp.abs(n % 2)) * xp.sin(math.pi * (x - n))
        return xp.where(t == 0, xp.ones_like(x), sine / xp.where(t == 0, xp.ones_like(t), t))

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        xp, t = namespace(y), math.pi * x[0]
        near = xp.abs(t) < 0.5
        square = xp.where(near, t * t, xp.zeros_like(t))
        series = xp.zeros_like(t)
        for k in reversed(range(1, 8)):  # d/dt sin(t)/t = sum (-1)^k 2k t^(2k-1) / (2k+1)!
            series = series * square + (-1) ** k * 2 * k / math.factorial(2 * k + 1)
        direct = (xp.cos(t) - y) / xp.where(near, xp.ones_like(t), t)
        return (math.pi * xp.where(near, t * series, direct),)

    def reference(self, x: Array) -> Array:
        return jnp.sinc(x)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("zero and its neighbourhood", [0.0, 0.1, -0.15, 0.16, 1.0, -2.0]),)
