"""Elementary functions and their inverses: entry by entry, hence diagonal."""

import math

from gradlab.common.arrays import Array, erf
from gradlab.nodes._base import Derivative, Elementwise, Namespace
from gradlab.nodes._domain import NONZERO, POSITIVE, Domain
from gradlab.nodes._lazy import jnp
from gradlab.nodes._stable import logistic


class Exp(Elementwise):
    """exp(x).

    Local gradient: diag(y). Backward: dx = upstream * y.
    """

    jax = "jax.numpy.exp"

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.exp(x)

    def derivative(self, xp: Namespace, y: Array) -> Derivative:
        return y


class Exp2(Elementwise):
    """2^x.

    Local gradient: diag(log(2) y). Backward: dx = upstream * log(2) y.
    """

    jax = "jax.numpy.exp2"

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.exp2(x)

    def derivative(self, xp: Namespace, y: Array) -> Derivative:
        return math.log(2) * y


class Expm1(Elementwise):
    """exp(x) - 1, exact near x = 0.

    Local gradient: diag(exp(x)). Backward: dx = upstream * exp(x); y + 1 would lose its digits
    where y is near -1.
    """

    jax = "jax.numpy.expm1"

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.expm1(x)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return xp.exp(x)


class Log(Elementwise):
    """The natural logarithm of x, for x > 0.

    Local gradient: diag(1 / x). Backward: dx = upstream / x.
    """

    domains = (POSITIVE,)
    jax = "jax.numpy.log"

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.log(x)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return 1.0 / x


class Log2(Elementwise):
    """The logarithm of x to base 2, for x > 0.

    Local gradient: diag(1 / (x log(2))). Backward: dx = upstream / (x log(2)).
    """

    domains = (POSITIVE,)
    jax = "jax.numpy.log2"

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.log2(x)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return 1.0 / (math.log(2) * x)


class Log1p(Elementwise):
    """log(1 + x), exact near x = 0, for x > -1.

    Local gradient: diag(1 / (1 + x)). Backward: dx = upstream / (1 + x).
    """

    domains = (Domain(low=-1.0),)
    jax = "jax.numpy.log1p"

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.log1p(x)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return 1.0 / (1.0 + x)


class Logaddexp(Elementwise):
    """log(exp(x) + exp(y)): a maximum without its kink.

    Local gradients: diag(s) and diag(1 - s), where s = 1 / (1 + exp(y - x)).
    Backward: dx = upstream * s, dy = upstream * (1 - s). The difference y - x comes first, so that
    large inputs keep their digits. Where both are -inf each receives half, where JAX has NaN.
    """

    jax = "jax.numpy.logaddexp"
    points = {
        "ties, saturated, -inf": (
            [1.0, 900.0, -math.inf, 2.0],
            [1.0, -900.0, 3.0, -math.inf],
        )
    }

    def value(self, xp: Namespace, x: Array, y: Array) -> Array:
        return xp.logaddexp(x, y)

    def derivative(self, xp: Namespace, x: Array, y: Array) -> Derivative:
        difference = xp.where(x == y, xp.zeros_like(x), x - y)
        return logistic(difference), logistic(-difference)


class Erf(Elementwise):
    """The error function, 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x.

    Local gradient: diag(2 / sqrt(pi) exp(-x^2)). Backward: dx = upstream * 2 / sqrt(pi) exp(-x^2).
    """

    jax = "jax.scipy.special.erf"

    def value(self, xp: Namespace, x: Array) -> Array:
        return erf(x)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return 2 / math.sqrt(math.pi) * xp.exp(-x * x)


_INTERVAL = Domain(low=-1.0, high=1.0)


class Sin(Elementwise):
    """sin(x).

    Local gradient: diag(cos(x)). Backward: dx = upstream * cos(x).
    """

    jax = "jax.numpy.sin"

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.sin(x)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return xp.cos(x)


class Cos(Elementwise):
    """cos(x).

    Local gradient: diag(-sin(x)). Backward: dx = -upstream * sin(x).
    """

    jax = "jax.numpy.cos"

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.cos(x)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return -xp.sin(x)


class Tan(Elementwise):
    """tan(x).

    Local gradient: diag(1 + y^2). Backward: dx = upstream * (1 + y^2).
    """

    jax = "jax.numpy.tan"

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.tan(x)

    def derivative(self, xp: Namespace, y: Array) -> Derivative:
        return 1.0 + y * y


class Arcsin(Elementwise):
    """The angle in [-pi/2, pi/2] whose sine is x, for -1 < x < 1.

    Local gradient: diag(1 / sqrt((1 - x) (1 + x))), infinite at both ends.
    Backward: dx = upstream / sqrt((1 - x) (1 + x)); 1 - x^2 would lose digits near the ends.
    """

    domains = (_INTERVAL,)
    jax = "jax.numpy.arcsin"

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.asin(x)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return 1.0 / xp.sqrt((1.0 - x) * (1.0 + x))


class Arccos(Elementwise):
    """The angle in [0, pi] whose cosine is x, for -1 < x < 1.

    Local gradient: diag(-1 / sqrt((1 - x) (1 + x))), infinite at both ends.
    Backward: dx = -upstream / sqrt((1 - x) (1 + x)).
    """

    domains = (_INTERVAL,)
    jax = "jax.numpy.arccos"

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.acos(x)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return -1.0 / xp.sqrt((1.0 - x) * (1.0 + x))


class Arctan(Elementwise):
    """The angle in (-pi/2, pi/2) whose tangent is x.

    Local gradient: diag(1 / (1 + x^2)). Backward: dx = upstream / (1 + x^2).
    """

    jax = "jax.numpy.arctan"

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.atan(x)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return 1.0 / (1.0 + x * x)


class Atan2(Elementwise):
    """The angle of the point (x, y), in (-pi, pi].

    Local gradients: diag(x / r^2) and diag(-y / r^2), where r^2 = x^2 + y^2.
    Backward: dy = upstream * (x / r) / r, dx = -upstream * (y / r) / r, which cannot overflow in
    r^2. At the origin there is no gradient: NaN, as in JAX.
    """

    domains = (NONZERO,)
    jax = "jax.numpy.arctan2"
    points = {"axes and large magnitudes": ([0.0, 1.0, -1e30], [2.0, 0.0, 1e30])}

    def value(self, xp: Namespace, y: Array, x: Array) -> Array:
        return xp.atan2(y, x)

    def derivative(self, xp: Namespace, y: Array, x: Array) -> Derivative:
        r = xp.hypot(y, x)
        return x / r / r, -y / r / r


class Sinc(Elementwise):
    """sin(pi x) / (pi x), and 1 at x = 0.

    Local gradient: diag((cos(pi x) - y) / x). Backward: dx = upstream * (cos(pi x) - y) / x.
    Near 0, where that difference loses its digits, its Taylor series takes over. The sine is taken
    of pi (x - n), n the nearest integer: pi x is rounded, and near the zeros that is all one sees.
    """

    jax = "jax.numpy.sinc"
    points = {"zero and its neighbourhood": [0.0, 0.1, -0.15, 0.16, 1.0, -2.0]}

    def value(self, xp: Namespace, x: Array) -> Array:
        t = math.pi * x
        n = xp.round(x)
        sine = (1 - 2 * xp.abs(n % 2)) * xp.sin(math.pi * (x - n))
        return xp.where(t == 0, xp.ones_like(x), sine / xp.where(t == 0, xp.ones_like(t), t))

    def derivative(self, xp: Namespace, x: Array, y: Array) -> Derivative:
        t = math.pi * x
        near = xp.abs(t) < 0.5
        square = xp.where(near, t * t, xp.zeros_like(t))
        series = xp.zeros_like(t)
        for k in reversed(range(1, 8)):  # d/dt sin(t)/t = sum (-1)^k 2k t^(2k-1) / (2k+1)!
            series = series * square + (-1) ** k * 2 * k / math.factorial(2 * k + 1)
        direct = (xp.cos(t) - y) / xp.where(near, xp.ones_like(t), t)
        return math.pi * xp.where(near, t * series, direct)


class Sinh(Elementwise):
    """sinh(x).

    Local gradient: diag(cosh(x)). Backward: dx = upstream * cosh(x).
    """

    jax = "jax.numpy.sinh"

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.sinh(x)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return xp.cosh(x)


class Cosh(Elementwise):
    """cosh(x).

    Local gradient: diag(sinh(x)). Backward: dx = upstream * sinh(x).
    """

    jax = "jax.numpy.cosh"

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.cosh(x)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return xp.sinh(x)


class Arcsinh(Elementwise):
    """The number whose hyperbolic sine is x.

    Local gradient: diag(1 / sqrt(1 + x^2)). Backward: dx = upstream / sqrt(1 + x^2), written as
    the length of (1, x), which does not overflow in x^2.
    """

    jax = "jax.numpy.arcsinh"
    points = {"large magnitudes": [-1e30, 0.0, 1e30]}

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.asinh(x)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return 1.0 / xp.hypot(xp.ones_like(x), x)


class Arccosh(Elementwise):
    """The number y >= 0 whose hyperbolic cosine is x, for x > 1.

    Local gradient: diag(1 / sqrt(x^2 - 1)), infinite at x = 1.
    Backward: dx = upstream / (sqrt(x - 1) sqrt(x + 1)), exact near 1 and finite for large x.
    """

    domains = (Domain(low=1.0),)
    jax = "jax.numpy.arccosh"
    points = {"large magnitudes": [1.001, 1e30]}

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.acosh(x)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return 1.0 / (xp.sqrt(x - 1.0) * xp.sqrt(x + 1.0))


class Arctanh(Elementwise):
    """The number whose hyperbolic tangent is x, for -1 < x < 1.

    Local gradient: diag(1 / ((1 - x) (1 + x))). Backward: dx = upstream / ((1 - x) (1 + x)).
    """

    domains = (_INTERVAL,)
    jax = "jax.numpy.arctanh"

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.atanh(x)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return 1.0 / ((1.0 - x) * (1.0 + x))


class Abs(Elementwise):
    """|x|.

    Local gradient: diag(sign(x)), with 1 at the kink x = 0, as in JAX.
    Backward: dx = upstream where x >= 0, -upstream elsewhere.
    """

    domains = (NONZERO,)
    jax = "jax.numpy.abs"
    points = {"the kink": [-1.0, 0.0, 2.0]}

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.abs(x)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        one = xp.ones_like(x)
        return xp.where(x >= 0, one, -one)


class Rsqrt(Elementwise):
    """1 / sqrt(x), for x > 0.

    Local gradient: diag(-y / (2 x)). Backward: dx = -upstream * y / (2 x).
    """

    domains = (POSITIVE,)
    jax = "jax.lax.rsqrt"

    def value(self, xp: Namespace, x: Array) -> Array:
        return 1.0 / xp.sqrt(x)

    def derivative(self, xp: Namespace, x: Array, y: Array) -> Derivative:
        return -0.5 * y / x


class Cbrt(Elementwise):
    """The cube root of x, of the sign of x.

    Local gradient: diag(1 / (3 y^2)), infinite at x = 0, where JAX has NaN.
    Backward: dx = upstream / (3 y^2).
    """

    domains = (NONZERO,)
    jax = "jax.numpy.cbrt"

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.cbrt(x)

    def derivative(self, xp: Namespace, y: Array) -> Derivative:
        return 1.0 / (3.0 * y * y)


class Hypot(Elementwise):
    """sqrt(x^2 + y^2): the length of (x, y), which does not overflow in the squares.

    Local gradients: diag(x / r) and diag(y / r), where r is the output: the unit vector.
    Backward: dx = upstream * x / r, dy = upstream * y / r. At the origin there is no gradient: NaN.
    """

    domains = (NONZERO,)
    points = {"ties and large magnitudes": ([1.0, 3e30, -2.0], [1.0, 4e30, 2.0])}

    def value(self, xp: Namespace, x: Array, y: Array) -> Array:
        return xp.hypot(x, y)

    def derivative(self, xp: Namespace, x: Array, y: Array, r: Array) -> Derivative:
        return x / r, y / r

    def reference(self, x: Array, y: Array) -> Array:
        return jnp.sqrt(jnp.square(x) + jnp.square(y))
