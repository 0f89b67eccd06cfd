"""Elementary functions and their inverses: entry by entry, hence diagonal.

In the formulas y is the output.
"""

import math

from gradlab.common.arrays import Array, erf
from gradlab.nodes._base import Derivative, Elementwise, Namespace
from gradlab.nodes._domain import NONZERO, POSITIVE, Domain
from gradlab.nodes._lazy import jnp
from gradlab.nodes._stable import logistic, sign


class Exp(Elementwise):
    """exp(x); d/dx = y."""

    jax = "jax.numpy.exp"
    formulas = lambda xp, x: xp.exp(x), lambda xp, y: y


class Exp2(Elementwise):
    """2^x; d/dx = log(2) y."""

    jax = "jax.numpy.exp2"
    formulas = lambda xp, x: xp.exp2(x), lambda xp, y: math.log(2) * y


class Expm1(Elementwise):
    """exp(x) - 1, exact near x = 0; d/dx = exp(x), as y + 1 would lose its digits near y = -1."""

    jax = "jax.numpy.expm1"
    formulas = lambda xp, x: xp.expm1(x), lambda xp, x: xp.exp(x)


class Log(Elementwise):
    """The natural logarithm of x, for x > 0; d/dx = 1 / x."""

    domains = (POSITIVE,)
    jax = "jax.numpy.log"
    formulas = lambda xp, x: xp.log(x), lambda xp, x: 1.0 / x


class Log2(Elementwise):
    """The logarithm of x to base 2, for x > 0; d/dx = 1 / (log(2) x)."""

    domains = (POSITIVE,)
    jax = "jax.numpy.log2"
    formulas = lambda xp, x: xp.log2(x), lambda xp, x: 1.0 / (math.log(2) * x)


class Log1p(Elementwise):
    """log(1 + x), exact near x = 0, for x > -1; d/dx = 1 / (1 + x)."""

    domains = (Domain(low=-1.0),)
    jax = "jax.numpy.log1p"
    formulas = lambda xp, x: xp.log1p(x), lambda xp, x: 1.0 / (1.0 + x)


class Logaddexp(Elementwise):
    """log(exp(x) + exp(y)), a maximum without its kink; d/dx = s and d/dy = 1 - s.

    Here s = 1 / (1 + exp(y - x)). The difference y - x comes first, so that large inputs keep their
    digits. Where both are -inf each receives half, where JAX has NaN.
    """

    jax = "jax.numpy.logaddexp"
    points = {
        "ties, saturated, -inf": ([1.0, 900.0, -math.inf, 2.0], [1.0, -900.0, 3.0, -math.inf])
    }

    def value(self, xp: Namespace, x: Array, y: Array) -> Array:
        return xp.logaddexp(x, y)

    def derivative(self, xp: Namespace, x: Array, y: Array) -> Derivative:
        difference = xp.where(x == y, xp.zeros_like(x), x - y)
        return logistic(difference), logistic(-difference)


class Erf(Elementwise):
    """The integral of 2 / sqrt(pi) exp(-t^2) from 0 to x; d/dx = 2 / sqrt(pi) exp(-x^2)."""

    jax = "jax.scipy.special.erf"
    formulas = lambda xp, x: erf(x), lambda xp, x: 2 / math.sqrt(math.pi) * xp.exp(-x * x)


_INTERVAL = Domain(low=-1.0, high=1.0)


class Sin(Elementwise):
    """sin(x); d/dx = cos(x)."""

    jax = "jax.numpy.sin"
    formulas = lambda xp, x: xp.sin(x), lambda xp, x: xp.cos(x)


class Cos(Elementwise):
    """cos(x); d/dx = -sin(x)."""

    jax = "jax.numpy.cos"
    formulas = lambda xp, x: xp.cos(x), lambda xp, x: -xp.sin(x)


class Tan(Elementwise):
    """tan(x); d/dx = 1 + y^2."""

    jax = "jax.numpy.tan"
    formulas = lambda xp, x: xp.tan(x), lambda xp, y: 1.0 + y * y


class Arcsin(Elementwise):
    """The angle in [-pi/2, pi/2] whose sine is x, for -1 < x < 1; d/dx = 1 / sqrt((1 - x) (1 + x)).

    Infinite at both ends, near which 1 - x^2 would lose digits.
    """

    domains = (_INTERVAL,)
    jax = "jax.numpy.arcsin"
    formulas = lambda xp, x: xp.asin(x), lambda xp, x: 1.0 / xp.sqrt((1.0 - x) * (1.0 + x))


class Arccos(Elementwise):
    """The angle in [0, pi] whose cosine is x, for -1 < x < 1; d/dx = -1 / sqrt((1 - x) (1 + x)).

    Infinite at both ends.
    """

    domains = (_INTERVAL,)
    jax = "jax.numpy.arccos"
    formulas = lambda xp, x: xp.acos(x), lambda xp, x: -1.0 / xp.sqrt((1.0 - x) * (1.0 + x))


class Arctan(Elementwise):
    """The angle in (-pi/2, pi/2) whose tangent is x; d/dx = 1 / (1 + x^2)."""

    jax = "jax.numpy.arctan"
    formulas = lambda xp, x: xp.atan(x), lambda xp, x: 1.0 / (1.0 + x * x)


class Atan2(Elementwise):
    """The angle of the point (x, y), in (-pi, pi]; d/dy = x / r^2 and d/dx = -y / r^2.

    Written (x / r) (1 / r) with r = hypot(x, y): r^2 may overflow, and XLA makes it of (x / r) / r.
    At the origin there is no gradient: NaN, as in JAX.
    """

    domains = (NONZERO,)
    jax = "jax.numpy.arctan2"
    points = {"axes and large magnitudes": ([0.0, 1.0, -1e30], [2.0, 0.0, 1e30])}

    def value(self, xp: Namespace, y: Array, x: Array) -> Array:
        return xp.atan2(y, x)

    def derivative(self, xp: Namespace, y: Array, x: Array) -> Derivative:
        r = xp.hypot(y, x)
        return x / r * (1.0 / r), -y / r * (1.0 / r)


class Sinc(Elementwise):
    """sin(pi x) / (pi x), and 1 at x = 0; d/dx = (cos(pi x) - y) / x.

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
    """sinh(x); d/dx = cosh(x)."""

    jax = "jax.numpy.sinh"
    formulas = lambda xp, x: xp.sinh(x), lambda xp, x: xp.cosh(x)


class Cosh(Elementwise):
    """cosh(x); d/dx = sinh(x)."""

    jax = "jax.numpy.cosh"
    formulas = lambda xp, x: xp.cosh(x), lambda xp, x: xp.sinh(x)


class Arcsinh(Elementwise):
    """The number whose hyperbolic sine is x; d/dx = 1 / sqrt(1 + x^2).

    That root is the length of (1, x), which does not overflow in x^2.
    """

    jax = "jax.numpy.arcsinh"
    points = {"large magnitudes": [-1e30, 0.0, 1e30]}
    formulas = lambda xp, x: xp.asinh(x), lambda xp, x: 1.0 / xp.hypot(xp.ones_like(x), x)


class Arccosh(Elementwise):
    """The number y >= 0 whose hyperbolic cosine is x, for x > 1; d/dx = 1 / sqrt(x^2 - 1).

    Infinite at x = 1. Written 1 / (sqrt(x - 1) sqrt(x + 1)): exact near 1 and finite for large x.
    """

    domains = (Domain(low=1.0),)
    jax = "jax.numpy.arccosh"
    points = {"large magnitudes": [1.001, 1e30]}
    formulas = lambda xp, x: xp.acosh(x), lambda xp, x: 1.0 / (xp.sqrt(x - 1.0) * xp.sqrt(x + 1.0))


class Arctanh(Elementwise):
    """The number whose hyperbolic tangent is x, for -1 < x < 1; d/dx = 1 / ((1 - x) (1 + x))."""

    domains = (_INTERVAL,)
    jax = "jax.numpy.arctanh"
    formulas = lambda xp, x: xp.atanh(x), lambda xp, x: 1.0 / ((1.0 - x) * (1.0 + x))


class Abs(Elementwise):
    """|x|; d/dx = sign(x), with 1 at the kink x = 0, as in JAX."""

    domains = (NONZERO,)
    jax = "jax.numpy.abs"
    points = {"the kink": [-1.0, 0.0, 2.0]}
    formulas = lambda xp, x: xp.abs(x), lambda xp, x: sign(x)


class Rsqrt(Elementwise):
    """1 / sqrt(x), for x > 0; d/dx = -y / (2 x)."""

    domains = (POSITIVE,)
    jax = "jax.lax.rsqrt"
    formulas = lambda xp, x: 1.0 / xp.sqrt(x), lambda xp, x, y: -0.5 * y / x


class Cbrt(Elementwise):
    """The cube root of x, of its sign; d/dx = 1 / (3 y^2), infinite at 0, where JAX has NaN."""

    domains = (NONZERO,)
    jax = "jax.numpy.cbrt"
    formulas = lambda xp, x: xp.cbrt(x), lambda xp, y: 1.0 / (3.0 * y * y)


class Hypot(Elementwise):
    """sqrt(x^2 + y^2) = r, which does not overflow in the squares; d/dx = x / r and d/dy = y / r.

    The gradient is the unit vector. At the origin there is none: NaN.
    """

    domains = (NONZERO,)
    points = {"ties and large magnitudes": ([1.0, 3e30, -2.0], [1.0, 4e30, 2.0])}
    formulas = lambda xp, x, y: xp.hypot(x, y), lambda xp, x, y, r: (x / r, y / r)

    def reference(self, x: Array, y: Array) -> Array:
        return jnp.sqrt(jnp.square(x) + jnp.square(y))
