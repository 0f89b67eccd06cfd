"""The gates of arithmetic, with the names that the course gives them.

Source: CS231n, "Backpropagation, Intuitions": add distributes, multiply swaps, max routes.
"""

from dataclasses import dataclass
from typing import Any

from gradlab.nodes._arrays import Array, as_inputs, as_upstream, namespace
from gradlab.nodes._base import Elementwise, Node
from gradlab.nodes._domain import POSITIVE, REALS, Case, Domain, generic
from gradlab.nodes._lazy import jnp
from gradlab.operators import Identity

__all__ = [
    "Add",
    "Copy",
    "Divide",
    "Maximum",
    "Minimum",
    "Multiply",
    "Negate",
    "Power",
    "Reciprocal",
    "Sqrt",
    "Square",
    "Subtract",
]

_NONZERO = Domain(kinks=(0.0,))


class Add(Elementwise):
    """x + y: the gate that distributes. Both inputs receive the upstream unchanged.

    Local gradients: identity and identity. Backward: dx = upstream, dy = upstream.
    """

    def value(self, x: Array, y: Array) -> Array:
        return x + y

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return 1.0, 1.0

    def reference(self, x: Array, y: Array) -> Array:
        return jnp.add(x, y)


class Subtract(Elementwise):
    """x - y.

    Local gradients: identity and minus the identity. Backward: dx = upstream, dy = -upstream.
    """

    def value(self, x: Array, y: Array) -> Array:
        return x - y

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return 1.0, -1.0

    def reference(self, x: Array, y: Array) -> Array:
        return jnp.subtract(x, y)


class Multiply(Elementwise):
    """x * y: the gate that swaps. Each input's local gradient is the other input.

    Local gradients: diag(y) and diag(x). Backward: dx = upstream * y, dy = upstream * x.
    """

    def value(self, x: Array, y: Array) -> Array:
        return x * y

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        a, b = x
        return b, a

    def reference(self, x: Array, y: Array) -> Array:
        return jnp.multiply(x, y)


class Divide(Elementwise):
    """x / y.

    Local gradients: diag(1 / y) and diag(-x / y^2).
    Backward: dx = upstream / y, dy = -upstream * (x / y) / y, which cannot overflow in y^2.
    """

    domains = (REALS, _NONZERO)

    def value(self, x: Array, y: Array) -> Array:
        return x / y

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        divisor = x[1]
        return 1.0 / divisor, -y / divisor

    def reference(self, x: Array, y: Array) -> Array:
        return jnp.divide(x, y)


class Negate(Elementwise):
    """-x.

    Local gradient: minus the identity. Backward: dx = -upstream.
    """

    def value(self, x: Array) -> Array:
        return -x

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (-1.0,)

    def reference(self, x: Array) -> Array:
        return jnp.negative(x)


class Reciprocal(Elementwise):
    """1 / x.

    Local gradient: diag(-1 / x^2) = diag(-y^2). Backward: dx = -upstream * y^2.
    """

    domains = (_NONZERO,)

    def value(self, x: Array) -> Array:
        return 1.0 / x

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (-y * y,)

    def reference(self, x: Array) -> Array:
        return jnp.reciprocal(x)


class Square(Elementwise):
    """x^2.

    Local gradient: diag(2 x). Backward: dx = 2 x * upstream.
    """

    def value(self, x: Array) -> Array:
        return x * x

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (2.0 * x[0],)

    def reference(self, x: Array) -> Array:
        return jnp.square(x)


class Sqrt(Elementwise):
    """The square root of x, for x > 0.

    Local gradient: diag(1 / (2 y)); at x = 0 it is infinite, as in JAX.
    Backward: dx = upstream / (2 y).
    """

    domains = (POSITIVE,)

    def value(self, x: Array) -> Array:
        return namespace(x).sqrt(x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (0.5 / y,)

    def reference(self, x: Array) -> Array:
        return jnp.sqrt(x)


class Power(Elementwise):
    """x^y, for x > 0.

    Local gradients: diag(y x^(y-1)), which is 0 where y = 0, and diag(log(x) x^y).
    Backward: dx = upstream * y x^(y-1), dy = upstream * log(x) x^y.
    At x = 0 the logarithm is left out, as JAX does: d(0^y)/dy = 0 for y > 0.
    """

    domains = (POSITIVE, REALS)

    def value(self, x: Array, y: Array) -> Array:
        return x**y

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        base, exponent = x
        xp = namespace(base, exponent)
        lowered = base ** xp.where(exponent == 0, xp.ones_like(exponent), exponent - 1.0)
        positive = xp.where(base < 0, xp.nan * base, base)  # NaN without NumPy's warning
        logarithm = xp.log(xp.where(base == 0, xp.ones_like(base), positive))
        return exponent * lowered, logarithm * y

    def reference(self, x: Array, y: Array) -> Array:
        return jnp.power(x, y)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("exponents 0, 1 and 2", [0.5, 2.0, 3.0], [0.0, 1.0, 2.0]),)


def _routed(chosen: Array, other: Array) -> Array:
    """Return 1 where `chosen` wins, 0 where it loses, 1/2 at a tie."""
    xp = namespace(chosen, other)
    wins = xp.where(chosen > other, xp.ones_like(chosen), xp.zeros_like(chosen))
    return xp.where(chosen == other, 0.5 * xp.ones_like(chosen), wins)


class Maximum(Elementwise):
    """max(x, y): the gate that routes. The greater input receives the upstream, the other nothing.

    Local gradients: diag(x > y) and diag(y > x). Backward: dx = upstream * (x > y), dy the rest.
    At a tie each receives half, as in JAX; the course's gate gives all of it to both.
    """

    def value(self, x: Array, y: Array) -> Array:
        return namespace(x, y).maximum(x, y)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        a, b = x
        return _routed(a, b), _routed(b, a)

    def reference(self, x: Array, y: Array) -> Array:
        return jnp.maximum(x, y)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("ties", [1.0, 2.0, 0.0], [1.0, 3.0, 0.0]),)


class Minimum(Elementwise):
    """min(x, y): routes to the smaller input.

    Local gradients: diag(x < y) and diag(y < x). Backward: dx = upstream * (x < y), dy the rest.
    At a tie each receives half, as in JAX.
    """

    def value(self, x: Array, y: Array) -> Array:
        return namespace(x, y).minimum(x, y)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        a, b = x
        return _routed(b, a), _routed(a, b)

    def reference(self, x: Array, y: Array) -> Array:
        return jnp.minimum(x, y)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("ties", [1.0, 2.0, 0.0], [1.0, 3.0, 0.0]),)


@dataclass(frozen=True)
class Copy(Node):
    """x handed to several users: a fork. What is copied forward is added backward.

    Args:
        times: the number of copies.

    Local gradients: the identity for each copy. Backward: dx = the sum of the upstreams.
    """

    times: int = 2

    def forward(self, *inputs: Any) -> tuple[Any, Any]:
        (x,) = as_inputs(self, inputs)
        return (x,) * self.times, x

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        return ((Identity(residuals.shape, dtype=residuals.dtype),),) * self.times

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        first, *others = (as_upstream(self, u, residuals) for u in upstream)
        return (sum(others, start=first),)

    def reference(self, x: Array) -> tuple[Array, ...]:
        return (jnp.asarray(x),) * self.times

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4)),
            generic(cls(3), (5,)),
            generic(cls(1), (2, 1, 3)),
            Case(cls(), ((),), "scalar"),
            Case(cls(), ((0, 3),), "zero size"),
        )
