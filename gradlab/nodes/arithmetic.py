"""The gates of arithmetic, with the names that the course gives them.

Source: CS231n, "Backpropagation, Intuitions": add distributes, multiply swaps, max routes.
"""

from gradlab.common.arrays import Array
from gradlab.nodes._base import Applied, Derivative, Elementwise, Gradients, Like, Namespace, Node
from gradlab.nodes._domain import NONZERO, POSITIVE, REALS
from gradlab.nodes._lazy import jnp
from gradlab.operators import Identity


class Add(Elementwise):
    """x + y: the gate that distributes. Both inputs receive the upstream unchanged: d/dx = 1."""

    jax = "jax.numpy.add"
    formulas = lambda xp, x, y: x + y, lambda xp: (1.0, 1.0)


class Subtract(Elementwise):
    """x - y; d/dx = 1 and d/dy = -1."""

    jax = "jax.numpy.subtract"
    formulas = lambda xp, x, y: x - y, lambda xp: (1.0, -1.0)


class Multiply(Elementwise):
    """x * y: the gate that swaps. Each input's local gradient is the other: d/dx = y, d/dy = x."""

    jax = "jax.numpy.multiply"
    formulas = lambda xp, x, y: x * y, lambda xp, x, y: (y, x)


class Divide(Elementwise):
    """x / y; d/dx = 1 / y and d/dy = -(x / y) / y, which cannot overflow in y^2."""

    jax = "jax.numpy.divide"
    domains = (REALS, NONZERO)
    formulas = lambda xp, x, y: x / y, lambda xp, y, quotient: (1.0 / y, -quotient / y)


class Negate(Elementwise):
    """-x; d/dx = -1."""

    jax = "jax.numpy.negative"
    formulas = lambda xp, x: -x, lambda xp: -1.0


class Reciprocal(Elementwise):
    """1 / x; d/dx = -1 / x^2 = -y^2."""

    jax = "jax.numpy.reciprocal"
    domains = (NONZERO,)
    formulas = lambda xp, x: 1.0 / x, lambda xp, y: -y * y


class Square(Elementwise):
    """x^2; d/dx = 2 x."""

    jax = "jax.numpy.square"
    formulas = lambda xp, x: x * x, lambda xp, x: 2.0 * x


class Sqrt(Elementwise):
    """The square root y of x, for x > 0; d/dx = 1 / (2 y), infinite at x = 0, as in JAX."""

    jax = "jax.numpy.sqrt"
    domains = (POSITIVE,)
    formulas = lambda xp, x: xp.sqrt(x), lambda xp, y: 0.5 / y


class Power(Elementwise):
    """x^y, for x > 0; d/dx = y x^(y-1), which is 0 where y = 0, and d/dy = log(x) x^y.

    At x = 0 the logarithm is left out, as JAX does: d(0^y)/dy = 0 for y > 0.
    """

    jax = "jax.numpy.power"
    domains = (POSITIVE, REALS)
    points = {"exponents 0, 1 and 2": ([0.5, 2.0, 3.0], [0.0, 1.0, 2.0])}

    def value(self, xp: Namespace, x: Array, y: Array) -> Array:
        return x**y

    def derivative(self, xp: Namespace, x: Array, y: Array, power: Array) -> Derivative:
        lowered = x ** xp.where(y == 0, xp.ones_like(y), y - 1.0)
        positive = xp.where(x < 0, xp.nan * x, x)  # NaN without NumPy's warning
        logarithm = xp.log(xp.where(x == 0, xp.ones_like(x), positive))
        return y * lowered, logarithm * power


def _routed(xp: Namespace, chosen: Array, other: Array) -> Array:
    """Return 1 where `chosen` wins, 0 where it loses, 1/2 at a tie."""
    wins = xp.where(chosen > other, xp.ones_like(chosen), xp.zeros_like(chosen))
    return xp.where(chosen == other, 0.5 * xp.ones_like(chosen), wins)


class Maximum(Elementwise):
    """max(x, y): the gate that routes; d/dx = (x > y) and d/dy = (y > x).

    At a tie each receives half, as in JAX; the course's gate gives all of it to both.
    """

    jax = "jax.numpy.maximum"
    points = {"ties": ([1.0, 2.0, 0.0], [1.0, 3.0, 0.0])}
    formulas = (
        lambda xp, x, y: xp.maximum(x, y),
        lambda xp, x, y: (_routed(xp, x, y), _routed(xp, y, x)),
    )


class Minimum(Elementwise):
    """min(x, y): routes to the smaller input; at a tie each receives half, as in JAX."""

    jax = "jax.numpy.minimum"
    points = {"ties": ([1.0, 2.0, 0.0], [1.0, 3.0, 0.0])}
    formulas = (
        lambda xp, x, y: xp.minimum(x, y),
        lambda xp, x, y: (_routed(xp, y, x), _routed(xp, x, y)),
    )


class Copy(Node):
    """x handed to several users: a fork. Each local gradient is 1; the backward adds upstreams.

    Args:
        times: the number of copies.
    """

    times: int = 2
    drawn = "3x4; 5 times=3; 2x1x3 times=1; scalar: scalar; zero size: 0x3"

    def apply(self, xp: Namespace, x: Array) -> Applied:
        return (x,) * self.times, (Like.of(x),)

    def gradients(self, xp: Namespace, x: Like) -> Gradients:
        return ((Identity(x.shape, x.dtype),),) * self.times

    def reference(self, x: Array) -> tuple[Array, ...]:
        return (jnp.asarray(x),) * self.times
