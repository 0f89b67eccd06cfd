"""Entries chosen by a mask or by bounds, and nodes whose gradient is declared.

The Jacobian is a diagonal of zeros and ones, or of what is declared. Noise is drawn outside: the
mask that drops entries is an input, so that nodes keep no state. The reference of a declared
gradient is JAX code that has this rule, written with `stop_gradient`.
"""

import math

from gradlab.common.arrays import Array, DTypeLike, in_dtype_of, namespace
from gradlab.nodes._base import Derivative, Elementwise, Like, Linear, Namespace
from gradlab.nodes._domain import BOOLEANS, REALS, Domain
from gradlab.nodes._lazy import jax, jnp
from gradlab.nodes._stable import ones_where, sign, strictly_between
from gradlab.operators import Diagonal, Operator


class Where(Elementwise):
    """x where the mask is true, y elsewhere; d/dx = mask and d/dy = not mask."""

    domains = (BOOLEANS, REALS)
    jax = "jax.numpy.where"
    formulas = (
        lambda xp, mask, x, y: xp.where(mask, x, y),
        lambda xp, mask, dtype: (None, mask.astype(dtype), (~mask).astype(dtype)),
    )


class MaskedFill(Elementwise):
    """x, with `fill` where the mask is true; d/dx = not mask.

    Args:
        fill: the number to write; -inf before a softmax.
    """

    fill: float = 0.0
    domains = (REALS, BOOLEANS)
    points = {"filled with -inf": ({"fill": -math.inf}, [1.0, 2.0], [True, False])}

    def value(self, xp: Namespace, x: Array, mask: Array) -> Array:
        return xp.where(mask, xp.asarray(self.fill, dtype=x.dtype), x)

    def derivative(self, xp: Namespace, mask: Array, dtype: DTypeLike) -> Derivative:
        return (~mask).astype(dtype), None

    def reference(self, x: Array, mask: Array) -> Array:
        return jnp.where(mask, self.fill, x)


class Clip(Elementwise):
    """x, held between two bounds; d/dx = (low < x < high), with 1/2 at both, as in JAX.

    Args:
        low: the lower bound; -inf for none.
        high: the upper bound; inf for none.
    """

    low: float = -1.0
    high: float = 1.0
    jax = "jax.numpy.clip"
    domains = (Domain(kinks=(-1.0, 1.0)),)
    points = {
        "both bounds": [-2.0, -1.0, 0.5, 1.0, 3.0],
        "one bound": ({"low": -math.inf, "high": 0.0}, [-2.0, 0.0, 0.5]),
    }

    def value(self, xp: Namespace, x: Array) -> Array:
        return xp.clip(x, self.low, self.high)

    def derivative(self, xp: Namespace, x: Array) -> Derivative:
        edge = ones_where((x == self.low) | (x == self.high), x)
        return strictly_between(x, self.low, self.high) + 0.5 * edge


def _scale(node: "Dropout | DropPath") -> float:
    """Return what keeps the mean where it was: 1 / (1 - rate); 0 where nothing is kept."""
    node.require(0 <= node.rate <= 1, "the rate is no probability")
    return 1.0 / (1.0 - node.rate) if node.rate < 1 else 0.0


class Dropout(Elementwise):
    """x / (1 - rate) where the mask is true, 0 elsewhere: inverted dropout.

    Args:
        rate: the probability with which the mask was drawn false.

    d/dx = mask / (1 - rate): the backward uses the same mask.
    Source: Srivastava et al. 2014, "Dropout".
    """

    rate: float = 0.5
    domains = (REALS, BOOLEANS)
    variants = ({}, {"rate": 0.1})
    points = {"all dropped": ((3,), [False, False, False])}

    def value(self, xp: Namespace, x: Array, mask: Array) -> Array:
        return xp.where(mask, x * _scale(self), xp.zeros_like(x))

    def derivative(self, xp: Namespace, mask: Array, dtype: DTypeLike) -> Derivative:
        return _scale(self) * mask.astype(dtype), None

    def reference(self, x: Array, mask: Array) -> Array:
        return jnp.where(mask, x / (1 - self.rate), 0)


class DropPath(Linear):
    """x / (1 - rate) for the items that the mask keeps, 0 for the others: stochastic depth.

    Args:
        rate: the probability with which the mask was drawn false.

    Local gradient: diag(mask / (1 - rate)), the same for all of an item. Backward: dx = upstream
    times that.
    Source: Huang et al. 2016, "Deep networks with stochastic depth".
    """

    rate: float = 0.5
    domains = (REALS, BOOLEANS)
    shapes = "x (items, *rest), mask (items) -> (items, *rest)"
    drawn = "5x2 5; 4 4 rate=0.25; 3x2x2 3; zero size: 0x3 0"

    def operator(self, x: Like, mask: Array) -> Operator:
        weights = in_dtype_of(_scale(self) * mask.astype(x.dtype), (x,))
        weights = weights.reshape((-1,) + (1,) * (len(x.shape) - 1))
        return Diagonal(namespace(mask).broadcast_to(weights, x.shape))

    def reference(self, x: Array, mask: Array) -> Array:
        kept = jnp.broadcast_to(jnp.expand_dims(mask, tuple(range(1, x.ndim))), x.shape)
        return jnp.where(kept, x / (1 - self.rate), 0)


def _zero(x: Array) -> Array:
    """Return 0 with the gradient of x."""
    return x - jax.lax.stop_gradient(x)


class StraightThroughRound(Elementwise):
    """x rounded to the nearest integer, halves to even; d/dx = 1, as declared.

    Source: Bengio et al. 2013, "Estimating or propagating gradients through stochastic neurons".
    """

    points = {"halves": [-1.5, -0.5, 0.5, 1.5, 2.5]}
    formulas = lambda xp, x: xp.round(x), lambda xp: 1.0

    def reference(self, x: Array) -> Array:
        return jax.lax.stop_gradient(jnp.round(x)) + _zero(x)


class StraightThroughSign(Elementwise):
    """1 where x >= 0, -1 elsewhere; d/dx = (|x| <= 1), as declared: that of a hard tanh.

    Source: Hubara et al. 2016, "Binarized neural networks", equation 4.
    """

    points = {"the jump and both edges": [-2.0, -1.0, 0.0, 1.0, 3.0]}
    formulas = lambda xp, x: sign(x), lambda xp, x: ones_where(xp.abs(x) <= 1, x)

    def reference(self, x: Array) -> Array:
        return jnp.where(x >= 0, 1.0, -1.0) + _zero(jax.nn.hard_tanh(x))


class StopGradient(Elementwise):
    """x, through which no gradient goes back: d/dx = 0, as declared."""

    jax = "jax.lax.stop_gradient"
    formulas = lambda xp, x: x, lambda xp: 0.0


class GradientReversal(Elementwise):
    """x; d/dx = -strength, as declared: it trains what lies before it to do harm.

    Args:
        strength: by how much the reversed gradient is multiplied.

    Source: Ganin and Lempitsky 2015, "Unsupervised domain adaptation".
    """

    strength: float = 1.0
    variants = ({}, {"strength": 0.3})

    def value(self, xp: Namespace, x: Array) -> Array:
        return x

    def derivative(self, xp: Namespace) -> Derivative:
        return -self.strength

    def reference(self, x: Array) -> Array:
        return jax.lax.stop_gradient(x) - self.strength * _zero(x)
