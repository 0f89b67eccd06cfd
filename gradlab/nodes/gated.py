"""Gates: an input times a function of itself, or of its other half."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, axes_of, keeping, namespace
from gradlab.nodes._base import Elementwise, Node
from gradlab.nodes._domain import Case, Domain, generic, special
from gradlab.nodes._functions import gelu_gate, logistic, logistic_slope, softplus
from gradlab.nodes._lazy import jax, jnp
from gradlab.nodes.rectified import inside
from gradlab.operators import Diagonal, Slice

__all__ = ["Geglu", "Gelu", "Glu", "HardSwish", "Mish", "Reglu", "Silu", "Swiglu"]


class _SelfGated(Elementwise):
    """y = x g(x), so dy/dx = g(x) + x g'(x)."""

    @abstractmethod
    def gate(self, x: Array) -> tuple[Array, Array]:
        """Return the gate g(x) and its derivative."""

    def value(self, x: Array) -> Array:
        """Return x g(x)."""
        return x * self.gate(x)[0]

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        """Return g(x) + x g'(x)."""
        g, slope = self.gate(x[0])
        return (g + x[0] * slope,)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        """Return zero, saturation and magnitudes whose cube overflows."""
        return (("zero, saturated and large", [-1e30, -40.0, -5.0, 0.0, 5.0, 40.0, 1e30]),)


class Silu(_SelfGated):
    """x sigmoid(x), also called swish.

    Local gradient: diag(s + x s (1 - s)) with s = sigmoid(x).
    Backward: dx = upstream * (s + x s (1 - s)).
    """

    def gate(self, x: Array) -> tuple[Array, Array]:
        return logistic(x), logistic_slope(x)

    def reference(self, x: Array) -> Array:
        return jax.nn.silu(x)


@dataclass(frozen=True)
class Gelu(_SelfGated):
    """x Phi(x), where Phi is the normal distribution function.

    Args:
        approximate: take (1 + tanh(u)) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3) for Phi.

    Local gradient: diag(Phi(x) + x Phi'(x)). Backward: dx = upstream * (Phi(x) + x Phi'(x)).
    Phi is written as erfc, or as the logistic function of 2 u, so that its tail keeps its digits.
    Source: Hendrycks and Gimpel 2016, "Gaussian error linear units".
    """

    approximate: bool = True

    def gate(self, x: Array) -> tuple[Array, Array]:
        return gelu_gate(x, self.approximate)

    def reference(self, x: Array) -> Array:
        return jax.nn.gelu(x, approximate=self.approximate)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        exact = cls(approximate=False)
        points = cls.special_points()[0][1]
        return (*super().cases(), generic(exact, (3, 4)), special(exact, "exact form", points))


class Mish(_SelfGated):
    """x tanh(softplus(x)).

    Local gradient: diag(t + x (1 - t^2) sigmoid(x)) with t = tanh(softplus(x)).
    Backward: dx = upstream * (t + x (1 - t^2) sigmoid(x)). In e = exp(-|softplus(x)|) the factor
    1 - t^2 does not cancel. Source: Misra 2019, "Mish".
    """

    def gate(self, x: Array) -> tuple[Array, Array]:
        xp, s = namespace(x), softplus(x)
        return xp.tanh(s), 4.0 * logistic_slope(2.0 * s) * logistic(x)

    def reference(self, x: Array) -> Array:
        return jax.nn.mish(x)


class HardSwish(_SelfGated):
    """x (x + 3) / 6 between -3 and 3, 0 below and x above.

    Local gradient: diag(h + x / 6 where -3 < x < 3) with h the hard sigmoid of x, which gives
    0 and 1 at the kinks, as in JAX. Backward: dx = upstream * (h + x / 6 where -3 < x < 3).
    Source: Howard et al. 2019, "Searching for MobileNetV3", section 5.2.
    """

    domains = (Domain(kinks=(-3.0, 3.0)),)

    def gate(self, x: Array) -> tuple[Array, Array]:
        return namespace(x).clip(x + 3.0, 0.0, 6.0) / 6.0, inside(x, -3.0, 3.0) / 6.0

    def reference(self, x: Array) -> Array:
        return jax.nn.hard_swish(x)

    @classmethod
    def special_points(cls) -> tuple[Any, ...]:
        return (("both kinks", [-4.0, -3.0, 0.0, 3.0, 1e30]),)


@dataclass(frozen=True)
class _GatedUnit(Node):
    """a g(b), where a and b are the first and second half of x along an axis.

    Args:
        axis: the axis that is halved; its size is even.
    """

    axis: int = -1

    @abstractmethod
    def gate(self, b: Array) -> tuple[Array, Array]:
        """Return the gate g(b) and its derivative."""

    @abstractmethod
    def reference_gate(self, b: Array) -> Array:
        """Return the gate as JAX computes it."""

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        """Return a g(b)."""
        (x,) = as_inputs(self, inputs)
        (axis,) = axes_of(self, self.axis, x.shape)
        if x.shape[axis] % 2:
            raise InputError(
                f"{self!r}: axis {self.axis} of shape {shape_text(x.shape)} has odd size; "
                "its two halves are the values and their gates"
            )
        first, second = self._halves(x.shape, axis)
        y = keeping(x[first] * self.gate(x[second])[0], (x,))
        return y, (x, y, axis)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        """Return Diagonal(g(b)) on the first half plus Diagonal(a g'(b)) on the second."""
        x, _, axis = residuals
        halves = self._halves(x.shape, axis)
        parts = zip(self._factors(x, halves), halves)
        values, gates = (Diagonal(d) @ Slice(x.shape, half, x.dtype) for d, half in parts)
        return (values + gates,)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        """Return upstream * g(b) and upstream * a g'(b), joined along the axis."""
        x, y, axis = residuals
        upstream = as_upstream(self, upstream, y)
        factors = self._factors(x, self._halves(x.shape, axis))
        return (namespace(x).concat([upstream * d for d in factors], axis=axis).astype(x.dtype),)

    def _factors(self, x: Array, halves: Any) -> tuple[Array, Array]:
        first, second = halves
        g, slope = self.gate(x[second])
        return keeping(g, (x,)), keeping(x[first] * slope, (x,))

    @staticmethod
    def _halves(shape: tuple[int, ...], axis: int) -> tuple[tuple[slice, ...], ...]:
        before, middle = (slice(None),) * axis, shape[axis] // 2
        return (*before, slice(0, middle)), (*before, slice(middle, None))

    def reference(self, x: Array) -> Array:
        """Return a g(b) in JAX."""
        a, b = jnp.split(x, 2, axis=self.axis)
        return a * self.reference_gate(b)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        """Return both kinds of axes, and a saturated gate."""
        return (
            generic(cls(), (3, 4)),
            generic(cls(axis=0), (6,)),
            generic(cls(axis=1), (2, 4, 3)),
            Case(cls(), ((2, 0),), "zero size"),
            special(cls(), "saturated gates", [1.0, -2.0, 3.0, -1e3, 0.5, 1e3]),
        )


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

    domains = (Domain(kinks=(0.0,)),)

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
