"""The gates of arithmetic, with the names that the course gives them.

Source: CS231n, "Backpropagation, Intuitions": add distributes, multiply swaps, max routes.
"""

from gradlab.common.arrays import Array
from gradlab.nodes._base import (
    Applied,
    Derivative,
    Elementwise,
    Gradients,
    Like,
    Namespace,
    Node,
    Pulled,
)
from gradlab.nodes._domain import NONZERO, POSITIVE, REALS
from gradlab.nodes._lazy import jnp
from gradlab.operators import Identity


class Add(Elementwise):
    """x + y: the gate that distributes. Both inputs receive the upstream unchanged.

    Local gradients: identity and identity. Backward: dx = upstream, dy = upstream.
    """

    jax = "jax.numpy.add"

    def value(self, xp: Namespace, x: Array, y: Array) -> Array:
        return x + y

    def derivative(self, xp: Namespace) -> Derivative:
        return 1.0, 1.0


class Subtract(Elementwise):
    """x - y.

    Local gradients: identity and minus the identity. Backward: dx = upstream, dy = -upstream.
    """

    jax = "jax.numpy.subtract"

    def value(self, xp: Namespace, x: Array, y: Array) -> Array:
        return x - y

    def derivative(self, xp: Namespace) -> Derivative:
        return 1.0, -1.0


class Multiply(Elementwise):
    """x * y: the gate that swaps. Each input's local gradient is the other input.

    Local gradients: diag(y) and diag(x). Backward: dx = upstream * y, dy = upstream * x.
    """

    jax = "jax.numpy.multiply"

    def value(self, xp: Namespace, x: Array, y: Array) -> Array:
        return x * y

    def derivative(self, xp: Namespace, x: Array, y: Array) -> Derivative:
        return y, x


class Divide(Elementwise):
    """x / y.

    Local gradients: diag(1 / y) and diag(-x / y^2).
    Backward: dx = upstream / y, dy = -upstream * (x / y) / y, which cannot overflow in y^2.
    """

    jax = "jax.numpy.divide"
    domains = (REALS, NONZERO)

    def value(self, xp: Namespace, x: Array, y: Array) -> Array:
        return x / y

    def derivative(self, xp: Namespace, y: Array, quotient: Array) -> Derivative:
        return 1.0 / y, -quotient / y


class Negate(Elementwise):
    """-x.

    Local gradient: minus the identity. Backward: dx = -upstream.
    """

    jax = "jax.numpy.negative"

    def value(self, xp: Namespace, x: Array) -> Array:
        return -x

    def derivative(self, xp: Namespace) -> Derivative:
        return -1.0


class Reciprocal(Elementwise):
    """1 / x.

    Local gradient: diag(-1 / x^2) = diag(-y^2). Backward: dx = -upstream * y^2.
    """

    jax = "jax.numpy.reciprocal"
    domains = (NONZERO,)

    def value(self, xp: Namespace, x: Array) -> Array:
        return 1.0 / x

    def derivative(self, xp: Namespace, y: Array) -> Derivative:
        return -y * y


class Square(Elementwise):
    """x^2.

    Local gradient: diag(2 x). Backward: dx = 2 x * upstream.
    """

    jax = "jax.numpy.square"

    def value(self, xp: Namespace, x: Array) -> Array:
        return x * x

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return 2.0 * x


class Sqrt(Elementwise):
    """The square root of x, for x > 0.

    Local gradient: diag(1 / (2 y)); at x = 0 it is infinite, as in JAX.
    Backward: dx = upstream / (2 y).
    """

    jax = "jax.numpy.sqrt"
    domains = (POSITIVE,)

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.sqrt(x)

    def derivative(self, xp: Namespace, y: Array) -> Derivative:
        return 0.5 / y


class Power(Elementwise):
    """x^y, for x > 0.

    Local gradients: diag(y x^(y-1)), which is 0 where y = 0, and diag(log(x) x^y).
    Backward: dx = upstream * y x^(y-1), dy = upstream * log(x) x^y.
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
    """max(x, y): the gate that routes. The greater input receives the upstream, the other nothing.

    Local gradients: diag(x > y) and diag(y > x). Backward: dx = upstream * (x > y), dy the rest.
    At a tie each receives half, as in JAX; the course's gate gives all of it to both.
    """

    jax = "jax.numpy.maximum"
    points = {"ties": ([1.0, 2.0, 0.0], [1.0, 3.0, 0.0])}

    def value(self, xp: Namespace, x: Array, y: Array) -> Array:
        return xp.maximum(x, y)

    def derivative(self, xp: Namespace, x: Array, y: Array) -> Derivative:
        return _routed(xp, x, y), _routed(xp, y, x)


class Minimum(Elementwise):
    """min(x, y): routes to the smaller input.

    Local gradients: diag(x < y) and diag(y < x). Backward: dx = upstream * (x < y), dy the rest.
    At a tie each receives half, as in JAX.
    """

    jax = "jax.numpy.minimum"
    points = {"ties": ([1.0, 2.0, 0.0], [1.0, 3.0, 0.0])}

    def value(self, xp: Namespace, x: Array, y: Array) -> Array:
        return xp.minimum(x, y)

    def derivative(self, xp: Namespace, x: Array, y: Array) -> Derivative:
        return _routed(xp, y, x), _routed(xp, x, y)


class Copy(Node):
    """x handed to several users: a fork. What is copied forward is added backward.

    Args:
        times: the number of copies.

    Local gradients: the identity for each copy. Backward: dx = the sum of the upstreams.
    """

    times: int = 2
    drawn = "3x4; 5 times=3; 2x1x3 times=1; scalar: scalar; zero size: 0x3"

    def apply(self, xp: Namespace, x: Array) -> Applied:
        return (x,) * self.times, (Like.of(x),)

    def gradients(self, xp: Namespace, x: Like) -> Gradients:
        return ((Identity(x.shape, x.dtype),),) * self.times

    def pull(self, xp: Namespace, upstream: tuple[Array, ...], x: Like) -> Pulled:
        first, *others = upstream
        return sum(others, start=first)

    def reference(self, x: Array) -> tuple[Array, ...]:
        return (jnp.asarray(x),) * self.times
