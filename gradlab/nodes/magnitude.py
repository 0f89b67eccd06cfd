"""Absolute values, roots and lengths, entry by entry, hence diagonal."""

from typing import Any

from gradlab.nodes._arrays import Array, namespace
from gradlab.nodes._base import Elementwise
from gradlab.nodes._domain import POSITIVE, Domain
from gradlab.nodes._lazy import jax, jnp

__all__ = ["Abs", "Cbrt", "Hypot", "Rsqrt"]

_NONZERO = Domain(kinks=(0.0,))


class Abs(Elementwise):
    """|x|.

    Local gradient: diag(sign(x)), with 1 at the kink x = 0, as in JAX.
    Backward: dx = upstream where x >= 0, -upstream elsewhere.
    """

    domains = (_NONZERO,)

    def value(self, x: Array) -> Array:
        return namespace(x).abs(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        one = namespace(y).ones_like(y)
        return (namespace(y).where(x[0] >= 0, one, -one),)

    def reference(self, x: Array) -> Array:
        return jnp.abs(x)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("the kink", [-1.0, 0.0, 2.0]),)


class Rsqrt(Elementwise):
    """1 / sqrt(x), for x > 0.

    Local gradient: diag(-y / (2 x)). Backward: dx = -upstream * y / (2 x).
    """

    domains = (POSITIVE,)

    def value(self, x: Array) -> Array:
        return 1.0 / namespace(x).sqrt(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (-0.5 * y / x[0],)

    def reference(self, x: Array) -> Array:
        return jax.lax.rsqrt(x)


class Cbrt(Elementwise):
    """The cube root of x, of the sign of x.

    Local gradient: diag(1 / (3 y^2)), infinite at x = 0, where JAX has NaN.
    Backward: dx = upstream / (3 y^2).
    """

    domains = (_NONZERO,)

    def value(self, x: Array) -> Array:
        return namespace(x).cbrt(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (1.0 / (3.0 * y * y),)

    def reference(self, x: Array) -> Array:
        return jnp.cbrt(x)


class Hypot(Elementwise):
    """sqrt(x^2 + y^2): the length of (x, y), which does not overflow in the squares.

    Local gradients: diag(x / r) and diag(y / r), where r is the output: the unit vector.
    Backward: dx = upstream * x / r, dy = upstream * y / r. At the origin there is no gradient: NaN.
    """

    domains = (_NONZERO,)

    def value(self, x: Array, y: Array) -> Array:
        return namespace(x, y).hypot(x, y)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return x[0] / y, x[1] / y

    def reference(self, x: Array, y: Array) -> Array:
        return jnp.sqrt(jnp.square(x) + jnp.square(y))

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("ties and large magnitudes", [1.0, 3e30, -2.0], [1.0, 4e30, 2.0]),)
