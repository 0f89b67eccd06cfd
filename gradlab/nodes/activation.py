"""Activations: smooth ones, ones with corners, and gates.

At a corner each takes the side that JAX takes; its docstring says which.
"""

import math
from abc import abstractmethod
from typing import Any

from gradlab.common.arrays import Array, Shape, in_dtype_of, namespace, normal_axes
from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._base import Applied, Derivative, Elementwise, Gradients, Namespace, Node, Pulled
from gradlab.nodes._domain import NONZERO, REALS, Domain
from gradlab.nodes._lazy import jax, jnp
from gradlab.nodes._stable import gelu_gate, logistic, logistic_slope, softplus, strictly_between
from gradlab.operators import Diagonal, Slice


class Tanh(Elementwise):
    """tanh(x).

    Local gradient: diag(1 - y^2). Backward: dx = upstream * (1 - y^2).
    """

    jax = "jax.numpy.tanh"

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.tanh(x)

    def derivative(self, xp: Namespace, y: Array) -> Derivative:
        return 1.0 - y * y


class Sigmoid(Elementwise):
    """1 / (1 + exp(-x)).

    Local gradient: diag(y (1 - y)). Backward: dx = upstream * y (1 - y).
    With e = exp(-|x|), which never overflows, y (1 - y) = e / (1 + e)^2: written so, it keeps its
    digits where y rounds to 1.
    """

    jax = "jax.nn.sigmoid"
    points = {"saturated": [-800.0, -40.0, 0.0, 40.0, 800.0]}

    def value(self, xp: Namespace, x: Array) -> Array:
        return logistic(x)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return logistic_slope(x)


class Softplus(Elementwise):
    """log(1 + exp(x)): a relu without its corner.

    Local gradient: diag(sigmoid(x)). Backward: dx = upstream * sigmoid(x).
    """

    jax = "jax.nn.softplus"
    points = {"zero and saturated": [-800.0, -40.0, 0.0, 40.0, 800.0]}

    def value(self, xp: Namespace, x: Array) -> Array:
        return softplus(x)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return logistic(x)


class LogSigmoid(Elementwise):
    """log(1 / (1 + exp(-x))), which is -softplus(-x).

    Local gradient: diag(sigmoid(-x)). Backward: dx = upstream * sigmoid(-x).
    """

    jax = "jax.nn.log_sigmoid"
    points = {"zero and saturated": [-800.0, -40.0, 0.0, 40.0, 800.0]}

    def value(self, xp: Namespace, x: Array) -> Array:
        return -softplus(-x)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return logistic(-x)


class Softsign(Elementwise):
    """x / (1 + |x|).

    Local gradient: diag(1 / (1 + |x|)^2). Backward: dx = upstream / (1 + |x|)^2. It is smooth at 0.
    """

    jax = "jax.nn.soft_sign"
    points = {"zero and large magnitudes": [-1e6, 0.0, 1e6]}

    def value(self, xp: Namespace, x: Array) -> Array:
        return x / (1.0 + xp.abs(x))

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        r = 1.0 / (1.0 + xp.abs(x))
        return r * r


class Squareplus(Elementwise):
    """(x + sqrt(x^2 + b)) / 2: a relu without its corner and without exponentials.

    Args:
        b: how wide the corner is rounded.

    Local gradient: diag(y / r) with r = sqrt(x^2 + b), for (1 + x / r) / 2 = y / r.
    Backward: dx = upstream * y / r. Below 0, where x + r cancels, y = b / (2 (r - x)).
    Source: Barron 2021, "Squareplus".
    """

    b: float = 4.0
    points = {"zero and both ends": [-1e3, 0.0, 1e3]}

    def value(self, xp: Namespace, x: Array) -> Array:
        r = self._root(x)
        far = r + xp.abs(x)
        return xp.where(x < 0, 0.5 * self.b / far, 0.5 * far)

    def derivative(self, xp: Namespace, x: Array, y: Array) -> Derivative:
        return y / self._root(x)

    def _root(self, x: Array) -> Array:
        return namespace(x).hypot(x, math.sqrt(self.b) * namespace(x).ones_like(x))

    def reference(self, x: Array) -> Array:
        return jax.nn.squareplus(x, self.b)


class Relu(Elementwise):
    """max(x, 0).

    Local gradient: diag(x > 0), with 0 at the kink x = 0, as in JAX.
    Backward: dx = upstream * (x > 0).
    """

    domains = (NONZERO,)
    jax = "jax.nn.relu"
    points = {"the kink": [-1.0, 0.0, 2.0]}

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.maximum(x, xp.zeros_like(x))

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return xp.where(x > 0, xp.ones_like(x), xp.zeros_like(x))


class LeakyRelu(Elementwise):
    """x where x >= 0, slope * x elsewhere.

    Args:
        slope: the slope on the negative side.

    Local gradient: diag(1 or slope), with 1 at the kink x = 0, as in JAX.
    Backward: dx = upstream * (1 or slope).
    """

    slope: float = 0.01
    domains = (NONZERO,)
    variants = ({}, {"slope": 0.3})
    points = {"the kink": [-1.0, 0.0, 2.0]}

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.where(x >= 0, x, self.slope * x)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        one = xp.ones_like(x)
        return xp.where(x >= 0, one, self.slope * one)

    def reference(self, x: Array) -> Array:
        return jax.nn.leaky_relu(x, self.slope)


class Prelu(Elementwise):
    """x where x >= 0, slope * x elsewhere, with a slope that is learned and broadcasts.

    Local gradients: diag(1 or slope) and diag(0 or x), with 1 and 0 at the kink x = 0.
    Backward: dx = upstream * (1 or slope), dslope = upstream * min(x, 0), summed to its shape.
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
    """min(max(x, 0), 6).

    Local gradient: diag(0 < x < 6), with 0 at both kinks, as in JAX.
    Backward: dx = upstream * (0 < x < 6).
    """

    domains = (Domain(kinks=(0.0, 6.0)),)
    jax = "jax.nn.relu6"
    points = {"both kinks": [-1.0, 0.0, 3.0, 6.0, 7.0]}

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.clip(x, 0.0, 6.0)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return strictly_between(x, 0.0, 6.0)


class HardTanh(Elementwise):
    """x, held between -1 and 1.

    Local gradient: diag(-1 <= x <= 1), with 1 at both kinks, as in JAX.
    Backward: dx = upstream * (-1 <= x <= 1).
    """

    domains = (Domain(kinks=(-1.0, 1.0)),)
    jax = "jax.nn.hard_tanh"
    points = {"both kinks": [-2.0, -1.0, 0.5, 1.0, 3.0]}

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.clip(x, -1.0, 1.0)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return xp.where(xp.abs(x) <= 1, xp.ones_like(x), xp.zeros_like(x))


class HardSigmoid(Elementwise):
    """(x + 3) / 6, held between 0 and 1.

    Local gradient: diag(1/6 where -3 < x < 3), with 0 at both kinks, as in JAX.
    Backward: dx = upstream / 6 where -3 < x < 3.
    """

    domains = (Domain(kinks=(-3.0, 3.0)),)
    jax = "jax.nn.hard_sigmoid"
    points = {"both kinks": [-4.0, -3.0, 0.0, 3.0, 5.0]}

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.clip(x + 3.0, 0.0, 6.0) / 6.0

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        return strictly_between(x, -3.0, 3.0) / 6.0


class _ExponentialBelow(Elementwise):
    """A line above 0 and a scaled exponential below: scale * (x or alpha (exp(x / decay) - 1))."""

    domains = (NONZERO,)
    points = {
        "the kink and both ends": [-1e4, -1.0, 0.0, 2.0, 1e4],
    }

    @abstractmethod
    def constants(self) -> tuple[float, float, float]:
        """Return scale, alpha and decay."""

    def value(self, xp: Namespace, x: Array) -> Array:
        """Return the line or the exponential; the one not taken does not overflow."""
        scale, alpha, decay = self.constants()
        below = alpha * xp.expm1(xp.minimum(x, xp.zeros_like(x)) / decay)
        return xp.where(x > 0, scale * x, scale * below)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        """Return scale, or scale * alpha / decay * exp(x / decay)."""
        scale, alpha, decay = self.constants()
        below = scale * alpha / decay * xp.exp(xp.minimum(x, xp.zeros_like(x)) / decay)
        return xp.where(x > 0, scale * xp.ones_like(x), below)


class Elu(_ExponentialBelow):
    """x where x > 0, alpha (exp(x) - 1) elsewhere.

    Args:
        alpha: minus the limit at -infinity.

    Local gradient: diag(1 or alpha exp(x)), with alpha at the kink x = 0, as in JAX.
    Backward: dx = upstream * (1 or alpha exp(x)). Source: Clevert et al. 2016, "ELU".
    """

    alpha: float = 1.0
    jax = "jax.nn.elu"
    variants = ({}, {"alpha": 1.5})

    def constants(self) -> tuple[float, float, float]:
        return 1.0, self.alpha, 1.0


class Selu(_ExponentialBelow):
    """scale * (x where x > 0, alpha (exp(x) - 1) elsewhere), which keeps mean 0 and variance 1.

    Local gradient: diag(scale * (1 or alpha exp(x))), with scale * alpha at the kink x = 0, as in
    JAX. Backward: dx = upstream * scale * (1 or alpha exp(x)).
    Source: Klambauer et al. 2017, "Self-normalizing neural networks"; the two constants solve its
    fixed-point equations.
    """

    jax = "jax.nn.selu"

    def constants(self) -> tuple[float, float, float]:
        return 1.0507009873554804934193349852946, 1.6732632423543772848170429916717, 1.0


class Celu(_ExponentialBelow):
    """x where x > 0, alpha (exp(x / alpha) - 1) elsewhere: ELU without its kink.

    Args:
        alpha: minus the limit at -infinity.

    Local gradient: diag(1 or exp(x / alpha)). Backward: dx = upstream * (1 or exp(x / alpha)).
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
        """Return x g(x)."""
        return x * self.gate(x)[0]

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        """Return g(x) + x g'(x)."""
        g, slope = self.gate(x)
        return g + x * slope


class Silu(_SelfGated):
    """x sigmoid(x), also called swish.

    Local gradient: diag(s + x s (1 - s)) with s = sigmoid(x).
    Backward: dx = upstream * (s + x s (1 - s)).
    """

    jax = "jax.nn.silu"

    def gate(self, x: Array) -> tuple[Array, Array]:
        return logistic(x), logistic_slope(x)


class Gelu(_SelfGated):
    """x Phi(x), where Phi is the normal distribution function.

    Args:
        approximate: take (1 + tanh(u)) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3) for Phi.

    Local gradient: diag(Phi(x) + x Phi'(x)). Backward: dx = upstream * (Phi(x) + x Phi'(x)).
    Phi is written as erfc, or as the logistic function of 2 u, so that its tail keeps its digits.
    Source: Hendrycks and Gimpel 2016, "Gaussian error linear units".
    """

    approximate: bool = True
    jax = "jax.nn.gelu"
    variants = ({}, {"approximate": False})
    points = {
        **_SelfGated.points,
        "exact form": (
            {"approximate": False},
            [-1e30, -40.0, -5.0, 0.0, 5.0, 40.0, 1e30],
        ),
    }

    def gate(self, x: Array) -> tuple[Array, Array]:
        return gelu_gate(x, self.approximate)


class Mish(_SelfGated):
    """x tanh(softplus(x)).

    Local gradient: diag(t + x (1 - t^2) sigmoid(x)) with t = tanh(softplus(x)).
    Backward: dx = upstream * (t + x (1 - t^2) sigmoid(x)). In e = exp(-|softplus(x)|) the factor
    1 - t^2 does not cancel. Source: Misra 2019, "Mish".
    """

    jax = "jax.nn.mish"

    def gate(self, x: Array) -> tuple[Array, Array]:
        xp, s = namespace(x), softplus(x)
        return xp.tanh(s), 4.0 * logistic_slope(2.0 * s) * logistic(x)


class HardSwish(_SelfGated):
    """x (x + 3) / 6 between -3 and 3, 0 below and x above.

    Local gradient: diag(h + x / 6 where -3 < x < 3) with h the hard sigmoid of x, which gives
    0 and 1 at the kinks, as in JAX. Backward: dx = upstream * (h + x / 6 where -3 < x < 3).
    Source: Howard et al. 2019, "Searching for MobileNetV3", section 5.2.
    """

    domains = (Domain(kinks=(-3.0, 3.0)),)
    jax = "jax.nn.hard_swish"
    points = {"both kinks": [-4.0, -3.0, 0.0, 3.0, 1e30]}

    def gate(self, x: Array) -> tuple[Array, Array]:
        return namespace(x).clip(x + 3.0, 0.0, 6.0) / 6.0, strictly_between(x, -3.0, 3.0) / 6.0


class _GatedUnit(Node):
    """a g(b), where a and b are the first and second half of x along an axis.

    Args:
        axis: the axis that is halved; its size is even.
    """

    axis: int = -1
    drawn = "3x4; 6 axis=0; 2x4x3 axis=1; zero size: 2x0"
    points = {"saturated gates": [1.0, -2.0, 3.0, -1e3, 0.5, 1e3]}

    @abstractmethod
    def gate(self, b: Array) -> tuple[Array, Array]:
        """Return the gate g(b) and its derivative."""

    @abstractmethod
    def reference_gate(self, b: Array) -> Array:
        """Return the gate as JAX computes it."""

    def apply(self, xp: Namespace, x: Array) -> Applied:
        """Return a g(b)."""
        (axis,) = normal_axes(self.axis, x.shape, self)
        if x.shape[axis] % 2:
            raise InputError(
                f"{self!r}: axis {self.axis} of shape {shape_text(x.shape)} has odd size; "
                "its two halves are the values and their gates"
            )
        first, second = self._halves(x.shape, axis)
        return x[first] * self.gate(x[second])[0], (x, axis)

    def gradients(self, xp: Namespace, x: Array, axis: int) -> Gradients:
        """Return Diagonal(g(b)) on the first half plus Diagonal(a g'(b)) on the second."""
        halves = self._halves(x.shape, axis)
        parts = zip(self._factors(x, halves), halves)
        values, gates = (Diagonal(d) @ Slice(x.shape, half, x.dtype) for d, half in parts)
        return values + gates

    def pull(self, xp: Namespace, upstream: Array, x: Array, axis: int) -> Pulled:
        """Return upstream * g(b) and upstream * a g'(b), joined along the axis."""
        factors = self._factors(x, self._halves(x.shape, axis))
        return xp.concat([upstream * d for d in factors], axis=axis)

    def _factors(self, x: Array, halves: tuple[Any, Any]) -> tuple[Array, Array]:
        first, second = halves
        g, derivative = self.gate(x[second])
        return in_dtype_of(g, (x,)), in_dtype_of(x[first] * derivative, (x,))

    @staticmethod
    def _halves(shape: Shape, axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        before, middle = (slice(None),) * axis, shape[axis] // 2
        return (*before, slice(0, middle)), (*before, slice(middle, None))

    def reference(self, x: Array) -> Array:
        """Return a g(b) in JAX."""
        a, b = jnp.split(x, 2, axis=self.axis)
        return a * self.reference_gate(b)


class Glu(_GatedUnit):
    """a sigmoid(b), where a and b are the two halves of x along an axis.

    Local gradient: diag(s) on the first half, diag(a s (1 - s)) on the second, with s = sigmoid(b).
    Backward: dx = (upstream * s, upstream * a s (1 - s)), joined along the axis.
    Source: Dauphin et al. 2017, "Language modeling with gated convolutional networks".
    """

    def gate(self, b: Array) -> tuple[Array, Array]:
        return logistic(b), logistic_slope(b)

    def reference_gate(self, b: Array) -> Array:
        return jax.nn.sigmoid(b)


class Reglu(_GatedUnit):
    """a relu(b), where a and b are the two halves of x along an axis.

    Local gradient: diag(relu(b)) on the first half, diag(a (b > 0)) on the second, 0 at b = 0.
    Backward: dx = (upstream * relu(b), upstream * a (b > 0)), joined along the axis.
    Source: Shazeer 2020, "GLU variants improve transformer".
    """

    domains = (NONZERO,)

    def gate(self, b: Array) -> tuple[Array, Array]:
        xp = namespace(b)
        zero = xp.zeros_like(b)
        return xp.maximum(b, zero), xp.where(b > 0, xp.ones_like(b), zero)

    def reference_gate(self, b: Array) -> Array:
        return jax.nn.relu(b)


class Geglu(_GatedUnit):
    """a gelu(b), where a and b are the two halves of x along an axis.

    Local gradient: diag(gelu(b)) on the first half, diag(a gelu'(b)) on the second.
    Backward: dx = (upstream * gelu(b), upstream * a gelu'(b)), joined along the axis.
    Source: Shazeer 2020, "GLU variants improve transformer".
    """

    def gate(self, b: Array) -> tuple[Array, Array]:
        g, slope = gelu_gate(b, approximate=True)
        return b * g, g + b * slope

    def reference_gate(self, b: Array) -> Array:
        return jax.nn.gelu(b)


class Swiglu(_GatedUnit):
    """a silu(b), where a and b are the two halves of x along an axis.

    Local gradient: diag(silu(b)) on the first half, diag(a silu'(b)) on the second.
    Backward: dx = (upstream * silu(b), upstream * a silu'(b)), joined along the axis.
    Source: Shazeer 2020, "GLU variants improve transformer".
    """

    def gate(self, b: Array) -> tuple[Array, Array]:
        s = logistic(b)
        return b * s, s + b * logistic_slope(b)

    def reference_gate(self, b: Array) -> Array:
        return jax.nn.silu(b)
