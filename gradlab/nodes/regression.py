"""Losses of predicted numbers: entry by entry, folded by mean or sum."""

import math
from dataclasses import dataclass

from gradlab.nodes._arrays import Array, namespace
from gradlab.nodes._domain import POSITIVE, REALS, Case, special
from gradlab.nodes._functions import softplus
from gradlab.nodes._lazy import jnp
from gradlab.nodes._losses import EntryLoss

__all__ = [
    "GaussianNllLoss",
    "HuberLoss",
    "L1Loss",
    "LogCoshLoss",
    "MseLoss",
    "PoissonNllLoss",
    "SmoothL1Loss",
]


def _signs(difference: Array) -> Array:
    """Return the sign of each entry, 1 at 0, as JAX has it for the absolute value."""
    one = namespace(difference).ones_like(difference)
    return namespace(difference).where(difference >= 0, one, -one)


class MseLoss(EntryLoss):
    """(x - target)^2, by default averaged: the mean squared error.

    Local gradients: for each entry 2 (x - target) and minus that, in one row when reduced.
    Backward: dx = upstream * 2 (x - target) / n, dtarget = -dx.
    """

    def value(self, x: Array, target: Array) -> Array:
        return (x - target) * (x - target)

    def derivatives(self, x: Array, target: Array) -> tuple[Array, ...]:
        d = 2.0 * (x - target)
        return d, -d

    def reference(self, x: Array, target: Array) -> Array:
        return self.reduced(jnp.square(x - target))


class L1Loss(EntryLoss):
    """|x - target|, by default averaged: the mean absolute error.

    Local gradients: for each entry sign(x - target) and minus that, with sign(0) = 1, as in JAX.
    Backward: dx = upstream * sign(x - target) / n, dtarget = -dx.
    """

    def value(self, x: Array, target: Array) -> Array:
        return namespace(x, target).abs(x - target)

    def derivatives(self, x: Array, target: Array) -> tuple[Array, ...]:
        d = _signs(x - target)
        return d, -d

    def reference(self, x: Array, target: Array) -> Array:
        return self.reduced(jnp.abs(x - target))

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (*super().cases(), special(cls(), "a hit", [1.0, 2.0], [1.0, 3.0]))


@dataclass(frozen=True)
class HuberLoss(EntryLoss):
    """(x - target)^2 / 2 near the target, delta (|x - target| - delta / 2) far from it.

    Args:
        reduction: "mean", "sum" or "none".
        delta: how near is near.

    Local gradients: for each entry x - target held between -delta and delta, and minus that.
    Backward: dx = upstream * clip(x - target, -delta, delta) / n, dtarget = -dx.
    Source: Huber 1964, "Robust estimation of a location parameter".
    """

    delta: float = 1.0

    def value(self, x: Array, target: Array) -> Array:
        xp = namespace(x, target)
        size = xp.abs(x - target)
        near = xp.clip(size, 0.0, self.delta)
        return near * (size - 0.5 * near)

    def derivatives(self, x: Array, target: Array) -> tuple[Array, ...]:
        d = namespace(x, target).clip(x - target, -self.delta, self.delta)
        return d, -d

    def reference(self, x: Array, target: Array) -> Array:
        r = x - target
        far = self.delta * (jnp.abs(r) - 0.5 * self.delta)
        return self.reduced(jnp.where(jnp.abs(r) <= self.delta, 0.5 * r * r, far))

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        points = [0.0, 0.5, 1.0, -1.0, 1e4], [0.0] * 5
        return (*super().cases(), special(cls(delta=0.5), "hit, edge and far", *points))


@dataclass(frozen=True)
class SmoothL1Loss(EntryLoss):
    """(x - target)^2 / (2 beta) near the target, |x - target| - beta / 2 far from it.

    A Huber loss divided by beta, so that its slope far away is 1.

    Args:
        reduction: "mean", "sum" or "none".
        beta: how near is near.

    Local gradients: for each entry (x - target) / beta held between -1 and 1, and minus that.
    Backward: dx = upstream * clip((x - target) / beta, -1, 1) / n, dtarget = -dx.
    Source: Girshick 2015, "Fast R-CNN", equation 3.
    """

    beta: float = 1.0

    def value(self, x: Array, target: Array) -> Array:
        xp = namespace(x, target)
        size = xp.abs(x - target)
        near = xp.clip(size, 0.0, self.beta)
        return near / self.beta * (size - 0.5 * near)

    def derivatives(self, x: Array, target: Array) -> tuple[Array, ...]:
        d = namespace(x, target).clip((x - target) / self.beta, -1.0, 1.0)
        return d, -d

    def reference(self, x: Array, target: Array) -> Array:
        r = x - target
        far = jnp.abs(r) - 0.5 * self.beta
        return self.reduced(jnp.where(jnp.abs(r) < self.beta, 0.5 * r * r / self.beta, far))

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        points = [0.0, 0.25, 0.5, -0.5, 1e4], [0.0] * 5
        return (*super().cases(), special(cls(beta=0.5), "hit, edge and far", *points))


class LogCoshLoss(EntryLoss):
    """log(cosh(x - target)): a square near the target, a distance far from it, smooth throughout.

    Local gradients: for each entry tanh(x - target) and minus that.
    Backward: dx = upstream * tanh(x - target) / n, dtarget = -dx. The value is written
    |r| + softplus(-2 |r|) - log(2), in which nothing overflows.
    """

    def value(self, x: Array, target: Array) -> Array:
        size = namespace(x, target).abs(x - target)
        return size + softplus(-2.0 * size) - math.log(2)

    def derivatives(self, x: Array, target: Array) -> tuple[Array, ...]:
        d = namespace(x, target).tanh(x - target)
        return d, -d

    def reference(self, x: Array, target: Array) -> Array:
        r = x - target
        return self.reduced(jnp.logaddexp(r, -r) - math.log(2))

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (*super().cases(), special(cls(), "hit and far", [0.0, 1e3, -1e3], [0.0] * 3))


class PoissonNllLoss(EntryLoss):
    """exp(x) - target * x: minus the log likelihood of a count, up to a constant.

    x is the logarithm of the rate.

    Local gradients: for each entry exp(x) - target and -x.
    Backward: dx = upstream * (exp(x) - target) / n, dtarget = -upstream * x / n.
    """

    def value(self, x: Array, target: Array) -> Array:
        return namespace(x, target).exp(x) - target * x

    def derivatives(self, x: Array, target: Array) -> tuple[Array, ...]:
        return namespace(x, target).exp(x) - target, -x

    def reference(self, x: Array, target: Array) -> Array:
        return self.reduced(jnp.exp(x) - target * x)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (*super().cases(), special(cls(), "no counts", [-50.0, 0.0, 3.0], [0.0, 0.0, 7.0]))


class GaussianNllLoss(EntryLoss):
    """(log(variance) + (x - target)^2 / variance) / 2, for a predicted mean x and variance.

    Minus the log likelihood of a normal variable, up to a constant; the variance is positive.

    Local gradients: with r = x - target, for each entry r / variance, minus that, and
    (1 - r^2 / variance) / (2 variance).
    Backward: each times upstream / n. Source: Nix and Weigend 1994, "Estimating the mean and
    variance of the target probability distribution".
    """

    domains = (REALS, REALS, POSITIVE)

    def value(self, x: Array, target: Array, variance: Array) -> Array:
        r = x - target
        return 0.5 * (namespace(x, target, variance).log(variance) + r * r / variance)

    def derivatives(self, x: Array, target: Array, variance: Array) -> tuple[Array, ...]:
        r = x - target
        d = r / variance
        return d, -d, 0.5 * (1.0 - r * d) / variance

    def reference(self, x: Array, target: Array, variance: Array) -> Array:
        return self.reduced(0.5 * (jnp.log(variance) + jnp.square(x - target) / variance))
