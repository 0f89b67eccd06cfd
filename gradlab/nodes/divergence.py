"""Losses of predicted probabilities: how far they are from the ones that should be."""

from dataclasses import dataclass
from typing import Any

from gradlab.errors import InputError
from gradlab.nodes._arrays import Array, namespace, widened
from gradlab.nodes._domain import POSITIVE, REALS, Case, Domain, generic, special
from gradlab.nodes._functions import logistic, softplus
from gradlab.nodes._lazy import jax, jnp
from gradlab.nodes._losses import EntryLoss, ReducedLoss, require_equal_shapes

__all__ = ["BinaryCrossEntropy", "DiceLoss", "KlDivergence", "SigmoidCrossEntropy"]

_UNIT = Domain(low=0.0, high=1.0)


@dataclass(frozen=True)
class SigmoidCrossEntropy(EntryLoss):
    """Binary cross-entropy of logits: t log(1 + exp(-x)) weight + (1 - t) log(1 + exp(x)).

    Args:
        reduction: "mean", "sum" or "none".
        weight: by how much positive targets count more.

    Local gradients: for each entry (1 - t) s(x) - weight t s(-x), with s the sigmoid, which for
    weight 1 is s(x) - t but does not cancel; and weight softplus(-x) - softplus(x) in the target.
    Backward: each times upstream / n.
    """

    weight: float = 1.0

    def value(self, x: Array, target: Array) -> Array:
        return self.weight * target * softplus(-x) + (1.0 - target) * softplus(x)

    def derivatives(self, x: Array, target: Array) -> tuple[Array, ...]:
        dx = (1.0 - target) * logistic(x) - self.weight * target * logistic(-x)
        return dx, self.weight * softplus(-x) - softplus(x)

    def reference(self, x: Array, target: Array) -> Array:
        wrong, right = jax.nn.log_sigmoid(-x), jax.nn.log_sigmoid(x)
        return self.reduced(-self.weight * target * right - (1 - target) * wrong)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        extreme = [-800.0, -40.0, 0.0, 40.0, 800.0]
        return (
            *super().cases(),
            special(cls(weight=3.0), "saturated", extreme, [0.0, 1.0, 0.5, 1.0, 0.0]),
        )


class BinaryCrossEntropy(EntryLoss):
    """-(t log(p) + (1 - t) log(1 - p)) of probabilities p, 0 < p < 1.

    Prefer `SigmoidCrossEntropy`, which takes logits: here p = 1 - 1e-9 is 1 in float32.

    Local gradients: for each entry (p - t) / (p (1 - p)) and log(1 - p) - log(p).
    Backward: each times upstream / n.
    """

    domains = (_UNIT, REALS)

    def value(self, p: Array, target: Array) -> Array:
        xp = namespace(p, target)
        return -(target * xp.log(p) + (1.0 - target) * xp.log1p(-p))

    def derivatives(self, p: Array, target: Array) -> tuple[Array, ...]:
        xp = namespace(p, target)
        return (p - target) / (p * (1.0 - p)), xp.log1p(-p) - xp.log(p)

    def reference(self, p: Array, target: Array) -> Array:
        return self.reduced(-(target * jnp.log(p) + (1 - target) * jnp.log1p(-p)))


class KlDivergence(EntryLoss):
    """p (log(p) - log q), for log-probabilities log q and probabilities p; 0 where p = 0.

    Averaged over entries; the divergence of whole distributions is the sum.

    Local gradients: for each entry -p in log q, and log(p) + 1 - log q in p, infinite at p = 0.
    Backward: dlog_q = -upstream * p / n, dp = upstream * (log(p) + 1 - log q) / n.
    """

    domains = (REALS, POSITIVE)

    def value(self, log_q: Array, p: Array) -> Array:
        xp = namespace(log_q, p)
        logarithm = xp.log(xp.where(p == 0, xp.ones_like(p), p))
        return p * (logarithm - log_q)

    def derivatives(self, log_q: Array, p: Array) -> tuple[Array, ...]:
        return -p, namespace(log_q, p).log(p) + 1.0 - log_q

    def reference(self, log_q: Array, p: Array) -> Array:
        return self.reduced(jax.scipy.special.xlogy(p, p) - p * log_q)


@dataclass(frozen=True)
class DiceLoss(ReducedLoss):
    """1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth), for each item of the first axis.

    p and the target have shape (items, ...) and lie between 0 and 1.

    Args:
        reduction: "mean", "sum" or "none".
        smooth: what keeps two empty masks at loss 0.

    Local gradients: with s = sum(p) + sum(t) + smooth and y the loss, for each entry of an item
    (1 - y - 2 t) / s in p and (1 - y - 2 p) / s in the target.
    Backward: dp = upstream * (1 - y - 2 t) / s / n, dtarget likewise.
    Source: Milletari et al. 2016, "V-Net", section 3, with sums in place of squares.
    """

    smooth: float = 1.0
    domains = (_UNIT,)

    def require_shapes(self, x: tuple[Array, ...]) -> None:
        require_equal_shapes(self, x)
        if not x[0].shape:
            raise InputError(f"{self!r}: scalars came; expected (items, ...)")

    def items(self, *x: Array) -> tuple[Array, tuple[Any, ...], Any]:
        p, t = (widened(xi.reshape(xi.shape[0], -1)) for xi in x)
        total = p.sum(axis=1, keepdims=True) + t.sum(axis=1, keepdims=True) + self.smooth
        overlap = (2.0 * (p * t).sum(axis=1, keepdims=True) + self.smooth) / total
        gradients = ((overlap - 2.0 * b) / total for b in (t, p))
        losses = (1.0 - overlap)[:, 0].astype(x[0].dtype)
        return losses, tuple(g.reshape(x[0].shape).astype(x[0].dtype) for g in gradients), None

    def reference(self, p: Array, target: Array) -> Array:
        axes = tuple(range(1, p.ndim))
        overlap = 2 * jnp.sum(p * target, axes) + self.smooth
        total = jnp.sum(p, axes) + jnp.sum(target, axes) + self.smooth
        return self.reduced(1 - overlap / total)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4), (3, 4)),
            generic(cls("sum", smooth=0.5), (2, 3, 2), (2, 3, 2)),
            generic(cls("none"), (4, 2), (4, 2)),
            special(cls(), "empty masks", [[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]),
        )
