"""Activations: smooth ones, ones with corners, and gates.

At a corner each takes the side that JAX takes; its docstring says which.
"""

import math
from abc import abstractmethod
from typing import ClassVar

from gradlab.common.arrays import Array, Function, Index, Shape, in_dtype_of, namespace, normal_axes
from gradlab.nodes._base import Applied, Derivative, Elementwise, Gradients, Namespace, Node, Pulled
from gradlab.nodes._domain import NONZERO, REALS, Domain
from gradlab.nodes._lazy import jax, jnp
from gradlab.nodes._stable import (
    gelu_gate,
    logistic,
    logistic_slope,
    ones_where,
    softplus,
    strictly_between,
)
from gradlab.operators import Diagonal, Slice


class Tanh(Elementwise):
    """tanh(x); d/dx = 1 - y^2."""

    jax = "jax.numpy.tanh"
    formulas = lambda xp, x: xp.tanh(x), lambda xp, y: 1.0 - y * y


class Sigmoid(Elementwise):
    """1 / (1 + exp(-x)); d/dx = y (1 - y).

    With e = exp(-|x|), which never overflows, y (1 - y) = e / (1 + e)^2: written so, it keeps its
    digits where y rounds to 1.
    """

    jax = "jax.nn.sigmoid"
    points = {"saturated": [-800.0, -40.0, 0.0, 40.0, 800.0]}
    formulas = lambda xp, x: logistic(x), lambda xp, x: logistic_slope(x)


class Softplus(Elementwise):
    """log(1 + exp(x)), a relu without its corner; d/dx = sigmoid(x)."""

    jax = "jax.nn.softplus"
    points = {"zero and saturated": [-800.0, -40.0, 0.0, 40.0, 800.0]}
    formulas = lambda xp, x: softplus(x), lambda xp, x: logistic(x)


class LogSigmoid(Elementwise):
    """log(1 / (1 + exp(-x))), which is -softplus(-x); d/dx = sigmoid(-x)."""

    jax = "jax.nn.log_sigmoid"
    points = {"zero and saturated": [-800.0, -40.0, 0.0, 40.0, 800.0]}
    formulas = lambda xp, x: -softplus(-x), lambda xp, x: logistic(-x)


class Softsign(Elementwise):
    """x / (1 + |x|), smooth at 0; d/dx = 1 / (1 + |x|)^2."""

    jax = "jax.nn.soft_sign"
    points = {"zero and large magnitudes": [-1e6, 0.0, 1e6]}

    def value(self, xp: Namespace, x: Array) -> Array:
        return x / (1.0 + xp.abs(x))

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        r = 1.0 / (1.0 + xp.abs(x))
        return r * r


class Squareplus(Elementwise):
    """(x + r) / 2 with r = sqrt(x^2 + b): a relu without its corner; d/dx = y / r.

    Args:
        b: how wide the corner is rounded.

    For (1 + x / r) / 2 = y / r. Below 0, where x + r cancels, y = b / (2 (r - x)).
    Source: Barron 2021, "Squareplus".
    """

    b: float = 4.0
    jax = "jax.nn.squareplus"
    points = {"zero and both ends": [-1e3, 0.0, 1e3]}

    def value(self, xp: Namespace, x: Array) -> Array:
        r = self._root(x)
        far = r + xp.abs(x)
        return xp.where(x < 0, 0.5 * self.b / far, 0.5 * far)

    def derivative(self, xp: Namespace, x: Array, y: Array) -> Derivative:
        return y / self._root(x)

    def _root(self, x: Array) -> Array:
        return namespace(x).hypot(x, math.sqrt(self.b) * namespace(x).ones_like(x))


class Relu(Elementwise):
    """max(x, 0); d/dx = (x > 0), with 0 at the kink x = 0, as in JAX."""

    domains = (NONZERO,)
    jax = "jax.nn.relu"
    points = {"the kink": [-1.0, 0.0, 2.0]}
    formulas = lambda xp, x: xp.maximum(x, xp.zeros_like(x)), lambda xp, x: ones_where(x > 0, x)


class LeakyRelu(Elementwise):
    """x where x >= 0, slope * x elsewhere; d/dx = 1 or slope, with 1 at the kink, as in JAX.

    Args:
        slope: the slope on the negative side.
    """

    slope: float = 0.01
    jax = "jax.nn.leaky_relu"
    domains = (NONZERO,)
    variants = ({}, {"slope": 0.3})
    points = {"the kink": [-1.0, 0.0, 2.0]}

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.where(x >= 0, x, self.slope * x)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        one = xp.ones_like(x)
        return xp.where(x >= 0, one, self.slope * one)


class Prelu(Elementwise):
    """x where x >= 0, slope * x elsewhere; d/dx = 1 or slope, and d/dslope = min(x, 0).

    The slope is learned and broadcasts. At the kink x = 0 d/dx is 1.
    Source: He et al. 2015, "Delving deep into rectifiers".
    """

    domains = (NONZERO, REALS)
    points = {"the kink": ([-1.0, 0.0, 2.0], 0.25)}

    def value(self, xp: Namespace, x: Array, slope: Array) -> Array:
        return xp.where(x >= 0, x, slope * x)

    def derivative(self, xp: Namespace, x: Array, slope: Array) -> Derivative:
        one = xp.ones_like(x)
        return xp.where(x >= 0, one, slope * one), xp.minimum(x, xp.zeros_like(x))

    def reference(self, x: Array, slope: Array) -> Array:
        return jnp.where(x >= 0, x, slope * x)


class Relu6(Elementwise):
    """min(max(x, 0), 6); d/dx = (0 < x < 6), with 0 at both kinks, as in JAX."""

    domains = (Domain(kinks=(0.0, 6.0)),)
    jax = "jax.nn.relu6"
    points = {"both kinks": [-1.0, 0.0, 3.0, 6.0, 7.0]}
    formulas = lambda xp, x: xp.clip(x, 0.0, 6.0), lambda xp, x: strictly_between(x, 0.0, 6.0)


class HardTanh(Elementwise):
    """x, held between -1 and 1; d/dx = (-1 <= x <= 1), with 1 at both kinks, as in JAX."""

    domains = (Domain(kinks=(-1.0, 1.0)),)
    jax = "jax.nn.hard_tanh"
    points = {"both kinks": [-2.0, -1.0, 0.5, 1.0, 3.0]}
    formulas = lambda xp, x: xp.clip(x, -1.0, 1.0), lambda xp, x: ones_where(xp.abs(x) <= 1, x)


class HardSigmoid(Elementwise):
    """(x + 3) / 6, held between 0 and 1; d/dx = 1/6 where -3 < x < 3, else 0, as in JAX."""

    domains = (Domain(kinks=(-3.0, 3.0)),)
    jax = "jax.nn.hard_sigmoid"
    points = {"both kinks": [-4.0, -3.0, 0.0, 3.0, 5.0]}
    formulas = (
        lambda xp, x: xp.clip(x + 3.0, 0.0, 6.0) / 6.0,
        lambda xp, x: strictly_between(x, -3.0, 3.0) / 6.0,
    )


class _ExponentialBelow(Elementwise):
    """A line above 0 and a scaled exponential below: scale * (x or alpha (exp(x / decay) - 1))."""

    domains = (NONZERO,)
    points = {"the kink and both ends": [-1e4, -1.0, 0.0, 2.0, 1e4]}

    @abstractmethod
    def constants(self) -> tuple[float, float, float]:
        """Return scale, alpha and decay."""

    def value(self, xp: Namespace, x: Array) -> Array:
        scale, alpha, decay = self.constants()  # the exponential that is not taken is exp(0)
        below = alpha * xp.expm1(xp.minimum(x, xp.zeros_like(x)) / decay)
        return xp.where(x > 0, scale * x, scale * below)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        scale, alpha, decay = self.constants()
        below = scale * alpha / decay * xp.exp(xp.minimum(x, xp.zeros_like(x)) / decay)
        return xp.where(x > 0, scale * xp.ones_like(x), below)


class Elu(_ExponentialBelow):
    """x where x > 0, alpha (exp(x) - 1) elsewhere; d/dx = 1 or alpha exp(x), the latter at 0.

    Args:
        alpha: minus the limit at -infinity.

    Source: Clevert et al. 2016, "ELU".
    """

    alpha: float = 1.0
    jax = "jax.nn.elu"
    variants = ({}, {"alpha": 1.5})

    def constants(self) -> tuple[float, float, float]:
        return 1.0, self.alpha, 1.0


class Selu(_ExponentialBelow):
    """scale * (x where x > 0, alpha (exp(x) - 1) elsewhere); d/dx = scale * (1 or alpha exp(x)).

    It keeps mean 0 and variance 1. At the kink x = 0 d/dx is scale * alpha, as in JAX.
    Source: Klambauer et al. 2017, "Self-normalizing neural networks"; the two constants solve its
    fixed-point equations.
    """

    jax = "jax.nn.selu"

    def constants(self) -> tuple[float, float, float]:
        return 1.0507009873554804934193349852946, 1.6732632423543772848170429916717, 1.0


class Celu(_ExponentialBelow):
    """x where x > 0, alpha (exp(x / alpha) - 1) elsewhere: ELU without its kink.

    Its slope d/dx is 1 or exp(x / alpha).

    Args:
        alpha: minus the limit at -infinity.

    Source: Barron 2017, "Continuously differentiable exponential linear units".
    """

    alpha: float = 1.0
    jax = "jax.nn.celu"
    variants = ({}, {"alpha": 1.5})

    def constants(self) -> tuple[float, float, float]:
        return 1.0, self.alpha, self.alpha


class _SelfGated(Elementwise):
    """y = x g(x), so dy/dx = g(x) + x g'(x)."""

    points = {"zero, saturated and large": [-1e30, -40.0, -5.0, 0.0, 5.0, 40.0, 1e30]}

    @abstractmethod
    def gate(self, x: Array) -> tuple[Array, Array]:
        """Return the gate g(x) and its derivative."""

    def value(self, xp: Namespace, x: Array) -> Array:
        return x * self.gate(x)[0]

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        g, slope = self.gate(x)
        return g + x * slope


class Silu(_SelfGated):
    """x s with s = sigmoid(x), also called swish; d/dx = s + x s (1 - s)."""

    jax = "jax.nn.silu"

    def gate(self, x: Array) -> tuple[Array, Array]:
        return logistic(x), logistic_slope(x)


class Gelu(_SelfGated):
    """x Phi(x), where Phi is the normal distribution function; d/dx = Phi(x) + x Phi'(x).

    Args:
        approximate: take (1 + tanh(u)) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3) for Phi.

    Phi is written as erfc, or as the logistic function of 2 u, so that its tail keeps its digits.
    Source: Hendrycks and Gimpel 2016, "Gaussian error linear units".
    """

    approximate: bool = True
    jax = "jax.nn.gelu"
    variants = ({}, {"approximate": False})
    points = {
        **_SelfGated.points,
        "exact form": ({"approximate": False}, *_SelfGated.points.values()),
    }

    def gate(self, x: Array) -> tuple[Array, Array]:
        return gelu_gate(x, self.approximate)


class Mish(_SelfGated):
    """x t with t = tanh(softplus(x)); d/dx = t + x (1 - t^2) sigmoid(x).

    In e = exp(-|softplus(x)|) the factor 1 - t^2 does not cancel. Source: Misra 2019, "Mish".
    """

    jax = "jax.nn.mish"

    def gate(self, x: Array) -> tuple[Array, Array]:
        xp, s = namespace(x), softplus(x)
        return xp.tanh(s), 4.0 * logistic_slope(2.0 * s) * logistic(x)


class HardSwish(_SelfGated):
    """x (x + 3) / 6 between -3 and 3, 0 below and x above; d/dx = h + x / 6 where -3 < x < 3.

    Here h is the hard sigmoid of x, which gives 0 and 1 at the kinks, as in JAX.
    Source: Howard et al. 2019, "Searching for MobileNetV3", section 5.2.
    """

    domains = (Domain(kinks=(-3.0, 3.0)),)
    jax = "jax.nn.hard_swish"
    points = {"both kinks": [-4.0, -3.0, 0.0, 3.0, 1e30]}

    def gate(self, x: Array) -> tuple[Array, Array]:
        return namespace(x).clip(x + 3.0, 0.0, 6.0) / 6.0, strictly_between(x, -3.0, 3.0) / 6.0


class _GatedUnit(Node):
    """a g(b), where a and b are the first and second half of x along an axis of even size.

    Args:
        axis: the axis that is halved.
    """

    _kind = (
        "Local gradient: diag(g(b)) on the first half, diag(a g'(b)) on the second. Backward: dx "
        "= (upstream * g(b), upstream * a g'(b)), joined along the axis."
    )

    axis: int = -1
    drawn = "3x4; 6 axis=0; 2x4x3 axis=1; zero size: 2x0"
    points = {"saturated gates": [1.0, -2.0, 3.0, -1e3, 0.5, 1e3]}

    gate: ClassVar[Function]
    """The gate g(b) and its derivative."""

    reference_gate: ClassVar[Function]
    """The gate as JAX computes it."""

    def apply(self, xp: Namespace, x: Array) -> Applied:
        (axis,) = normal_axes(self.axis, x.shape, self)
        self.require(x.shape[axis] % 2 == 0, f"axis {self.axis} has odd size; halve it", x=x.shape)
        first, second = self._halves(x.shape, axis)
        return x[first] * self.gate(x[second])[0], (x, axis)

    def gradients(self, xp: Namespace, x: Array, axis: int) -> Gradients:
        """Return Diagonal(g(b)) on the first half plus Diagonal(a g'(b)) on the second."""
        halves = self._halves(x.shape, axis)
        parts = zip(self._factors(x, halves), halves)
        values, gates = (Diagonal(d) @ Slice(x.shape, half, x.dtype) for d, half in parts)
        return values + gates

    def pull(self, xp: Namespace, upstream: Array, x: Array, axis: int) -> Pulled:
        factors = self._factors(x, self._halves(x.shape, axis))
        return xp.concat([upstream * d for d in factors], axis=axis)

    def _factors(self, x: Array, halves: tuple[Index, Index]) -> tuple[Array, Array]:
        first, second = halves
        g, derivative = self.gate(x[second])
        return in_dtype_of(g, (x,)), in_dtype_of(x[first] * derivative, (x,))

    @staticmethod
    def _halves(shape: Shape, axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        before, middle = (slice(None),) * axis, shape[axis] // 2
        return (*before, slice(0, middle)), (*before, slice(middle, None))

    def reference(self, x: Array) -> Array:
        a, b = jnp.split(x, 2, axis=self.axis)
        return a * self.reference_gate(b)


class Glu(_GatedUnit):
    """a s(b) with s the sigmoid, where a and b are the two halves of x along an axis.

    Source: Dauphin et al. 2017, "Language modeling with gated convolutional networks".
    """

    gate = staticmethod(lambda b: (logistic(b), logistic_slope(b)))
    reference_gate = staticmethod(lambda b: jax.nn.sigmoid(b))


class Reglu(_GatedUnit):
    """a relu(b), where a and b are the two halves of x along an axis; see `Glu`.

    The slope of the gate is 0 at the kink b = 0.
    Source: Shazeer 2020, "GLU variants improve transformer".
    """

    domains = (NONZERO,)

    reference_gate = staticmethod(lambda b: jax.nn.relu(b))

    @staticmethod
    def gate(b: Array) -> tuple[Array, Array]:
        xp = namespace(b)
        return xp.maximum(b, xp.zeros_like(b)), ones_where(b > 0, b)


class Geglu(_GatedUnit):
    """a gelu(b), where a and b are the two halves of x along an axis; see `Glu` and `Reglu`."""

    reference_gate = staticmethod(lambda b: jax.nn.gelu(b))

    @staticmethod
    def gate(b: Array) -> tuple[Array, Array]:
        g, slope = gelu_gate(b, approximate=True)
        return b * g, g + b * slope


class Swiglu(_GatedUnit):
    """a silu(b), where a and b are the two halves of x along an axis; see `Glu` and `Reglu`."""

    gate = staticmethod(lambda b: (b * (s := logistic(b)), s + b * logistic_slope(b)))
    reference_gate = staticmethod(lambda b: jax.nn.silu(b))
