"""Losses: items with a loss each, folded to one number, and their gradients.

A loss is computed together with its gradients, which share nearly all of the work; backward then
multiplies them by the upstream.
"""

import math
from abc import abstractmethod
from itertools import product
from math import prod
from typing import ClassVar, TypeAlias

import numpy as np

from gradlab.common.arrays import Array, DType, Function, Shape, at_least_float32, namespace
from gradlab.errors import InputError
from gradlab.nodes._base import Applied, Gradients, Namespace, Node, Pulled, after_xp
from gradlab.nodes._domain import BOOLEANS, POSITIVE, REALS, Domain
from gradlab.nodes._lazy import jax, jnp
from gradlab.nodes._stable import (
    log_softmax,
    logistic,
    logsumexp,
    norm,
    safe_divide,
    sign,
    softplus,
)
from gradlab.operators import BlockDiagonal, Dense, Diagonal, Operator, Reshape

_LABELS = Domain(low=0, high=3, integer=True)
_UNIT = Domain(low=0.0, high=1.0)

# the losses, their gradients, and the items' weights in the mean
Items: TypeAlias = tuple[Array, tuple[Array | None, ...], Array | None]


class Loss(Node):
    """One loss for each item, summed.

    Write `per_item`. The gradient of an item's loss fills a row, or a single entry where an item is
    one entry: unreduced, the local gradient is block-diagonal or diagonal; reduced, it is one row.
    """

    _kind = (
        "Local gradient: a row for each item, block-diagonal; one row where the losses are "
        "folded. Backward: the upstream times it; forward finds both at once."
    )

    @property
    def folding(self) -> str:
        """How the items are folded: "mean", "sum" or "none"."""
        return "sum"

    @abstractmethod
    def per_item(self, xp: Namespace, *x: Array) -> Items:
        """Return each item's loss, its gradient in each input, and its weight in the mean.

        A gradient has its input's shape, which starts with the losses' shape; it is None for an
        input without one. The weights are None where all items count alike.
        """

    def apply(self, xp: Namespace, *x: Array) -> Applied:
        known = self.folding in ("mean", "sum", "none")
        self.require(known, "use reduction='mean', 'sum' or 'none'")
        losses, gradients, weights = self.per_item(xp, *x)
        factor: Array = 1.0
        items = losses.shape
        if self.folding == "mean":
            size = max(losses.size, 1)
            factor = 1.0 / size if weights is None else safe_divide(1.0, weights.sum())
        if self.folding != "none":
            losses = (at_least_float32(losses).sum() * factor).astype(losses.dtype)
        return losses, (items, factor, x[0].dtype, *gradients)

    def gradients(
        self, xp: Namespace, items: Shape, factor: Array, dtype: DType, *found: Array
    ) -> Gradients:
        return tuple(
            None if g is None else self._operator((g * factor).astype(dtype), items) for g in found
        )

    def _operator(self, gradient: Array, items: Shape) -> Operator:
        shape = gradient.shape
        if self.folding != "none":
            return Dense(gradient.reshape(1, -1), (), shape)
        if shape == items:
            return Diagonal(gradient)
        rows = (prod(items), prod(shape[len(items) :]))
        blocks = BlockDiagonal(gradient.reshape(rows[0], 1, rows[1]))
        to_rows = Reshape(shape, rows, gradient.dtype)
        return Reshape((rows[0], 1), items, gradient.dtype) @ blocks @ to_rows


class ReducedLoss(Loss):
    """A loss that is averaged over its items, summed, or neither.

    Args:
        reduction: "mean", "sum" or "none".
    """

    reduction: str = "mean"

    @property
    def folding(self) -> str:
        return self.reduction

    def reduced(self, losses: Array) -> Array:
        """Return JAX's losses, folded: for references."""
        return {"mean": losses.mean, "sum": losses.sum, "none": lambda: losses}[self.reduction]()


class _EntryLoss(ReducedLoss):
    """A loss whose items are single entries: write `value` and `derivative`, or `formulas`."""

    _kind = (
        "Entry by entry: the local gradient is diag(d/dx), in one row where the losses are "
        "folded. Backward: dx = upstream * d/dx / n for a mean over n entries, without n for a sum."
    )

    def __init_subclass__(cls, **keywords: bool) -> None:
        super().__init_subclass__(**keywords)
        names = [parameter.name for parameter in after_xp(cls, "value")]
        cls.shapes = ", ".join(f"{name} (*any)" for name in names) + " -> () or (*any)"
        three, five, two, none, scalar = (
            " ".join([shape] * len(names)) for shape in ("3x4", "5", "2x3", "0x3", "scalar")
        )
        cls.drawn = (
            f"{three}; {five} reduction=sum; {two} reduction=none; scalar: {scalar}; "
            f"zero size: {none} reduction=sum"
        )

    def value(self, xp: Namespace, *x: Array) -> Array:
        """Return the loss of each entry."""
        raise NotImplementedError

    def derivative(self, xp: Namespace, *x: Array) -> tuple[Array, ...]:
        """Return its derivative in each input."""
        raise NotImplementedError

    def per_item(self, xp: Namespace, *x: Array) -> Items:
        return self.value(xp, *x), self.derivative(xp, *x), None


class _ResidualLoss(_EntryLoss):
    """A loss of r = x - target alone: three formulas, or methods where they have parameters."""

    _kind = f"With r = x - target, d/dx = d/dr and d/dtarget = -d/dr. {_EntryLoss._kind}"

    of_r: ClassVar[tuple[Function, ...]] = ()
    """`of`, `slope` and `of_jax` as functions, where they need no parameter."""

    def of(self, xp: Namespace, r: Array) -> Array:
        """Return the loss of each entry."""
        return self.of_r[0](xp, r)

    def slope(self, xp: Namespace, r: Array) -> Array:
        """Return d/dr."""
        return self.of_r[1](xp, r)

    def of_jax(self, r: Array) -> Array:
        """Return the loss as JAX computes it."""
        return self.of_r[2](r)

    def value(self, xp: Namespace, x: Array, target: Array) -> Array:
        return self.of(xp, x - target)

    def derivative(self, xp: Namespace, x: Array, target: Array) -> tuple[Array, ...]:
        d = self.slope(xp, x - target)
        return d, -d

    def reference(self, x: Array, target: Array) -> Array:
        return self.reduced(self.of_jax(x - target))


class L2Loss(Loss):
    """The squared L2 norm, sum(x^2), over all entries; its local gradient is the row 2 x^T."""

    drawn = "3x4; 5; 2x1x3; scalar: scalar; zero size: 0x3"
    points = {"zeros": [0.0, 0.0, 1.0]}

    def per_item(self, xp: Namespace, *x: Array) -> Items:
        return x[0] * x[0], (2.0 * x[0],), None

    def reference(self, x: Array) -> Array:
        return jnp.sum(jnp.square(x))


class MseLoss(_ResidualLoss):
    """r^2 with r = x - target, by default averaged: the mean squared error; d/dr = 2 r."""

    of_r = lambda xp, r: r * r, lambda xp, r: 2.0 * r, lambda r: jnp.square(r)


class L1Loss(_ResidualLoss):
    """|r| with r = x - target, by default averaged; d/dr = sign(r), with sign(0) = 1, as in JAX."""

    points = {"a hit": ([1.0, 2.0], [1.0, 3.0])}
    of_r = lambda xp, r: xp.abs(r), lambda xp, r: sign(r), lambda r: jnp.abs(r)


class HuberLoss(_ResidualLoss):
    """r^2 / 2 near the target, delta (|r| - delta / 2) far from it; d/dr = r within +-delta.

    Args:
        delta: how near is near.

    Source: Huber 1964, "Robust estimation of a location parameter".
    """

    delta: float = 1.0
    points = {"hit, edge and far": ({"delta": 0.5}, [0.0, 0.5, 1.0, -1.0, 1e4], [0.0] * 5)}

    def of(self, xp: Namespace, r: Array) -> Array:
        near = xp.clip(xp.abs(r), 0.0, self.delta)
        return near * (xp.abs(r) - 0.5 * near)

    def slope(self, xp: Namespace, r: Array) -> Array:
        return xp.clip(r, -self.delta, self.delta)

    def of_jax(self, r: Array) -> Array:
        far = self.delta * (jnp.abs(r) - 0.5 * self.delta)
        return jnp.where(jnp.abs(r) <= self.delta, 0.5 * r * r, far)


class SmoothL1Loss(_ResidualLoss):
    """r^2 / (2 beta) near the target, |r| - beta / 2 far from it; d/dr = r / beta within +-1.

    A Huber loss divided by beta, so that its slope far away is 1.

    Args:
        beta: how near is near.

    Source: Girshick 2015, "Fast R-CNN", equation 3.
    """

    beta: float = 1.0
    points = {"hit, edge and far": ({"beta": 0.5}, [0.0, 0.25, 0.5, -0.5, 1e4], [0.0] * 5)}

    def of(self, xp: Namespace, r: Array) -> Array:
        near = xp.clip(xp.abs(r), 0.0, self.beta)
        return near / self.beta * (xp.abs(r) - 0.5 * near)

    def slope(self, xp: Namespace, r: Array) -> Array:
        return xp.clip(r / self.beta, -1.0, 1.0)

    def of_jax(self, r: Array) -> Array:
        far = jnp.abs(r) - 0.5 * self.beta
        return jnp.where(jnp.abs(r) < self.beta, 0.5 * r * r / self.beta, far)


class LogCoshLoss(_ResidualLoss):
    """log(cosh(r)): a square near the target, a distance far from it; d/dr = tanh(r).

    Written |r| + softplus(-2 |r|) - log(2), in which nothing overflows.
    """

    points = {"hit and far": ([0.0, 1e3, -1e3], [0.0] * 3)}
    of_r = (
        lambda xp, r: xp.abs(r) + softplus(-2.0 * xp.abs(r)) - math.log(2),
        lambda xp, r: xp.tanh(r),
        lambda r: jnp.logaddexp(r, -r) - math.log(2),
    )


class PoissonNllLoss(_EntryLoss):
    """exp(x) - target * x: minus the log likelihood of a count, up to a constant.

    x is the logarithm of the rate; d/dx = exp(x) - target and d/dtarget = -x.
    """

    points = {"no counts": ([-50.0, 0.0, 3.0], [0.0, 0.0, 7.0])}
    formulas = (
        lambda xp, x, target: xp.exp(x) - target * x,
        lambda xp, x, target: (xp.exp(x) - target, -x),
    )

    def reference(self, x: Array, target: Array) -> Array:
        return self.reduced(jnp.exp(x) - target * x)


class GaussianNllLoss(_EntryLoss):
    """(log(variance) + r^2 / variance) / 2 with r = x - target, for a predicted mean and variance.

    Minus the log likelihood of a normal variable, up to a constant; the variance is positive.
    d/dx = r / variance = -d/dtarget, and d/dvariance = (1 - r^2 / variance) / (2 variance).
    Source: Nix and Weigend 1994, "Estimating the mean and variance of the target probability
    distribution".
    """

    domains = (REALS, REALS, POSITIVE)

    def value(self, xp: Namespace, x: Array, target: Array, variance: Array) -> Array:
        r = x - target
        return 0.5 * (xp.log(variance) + r * r / variance)

    def derivative(
        self, xp: Namespace, x: Array, target: Array, variance: Array
    ) -> tuple[Array, ...]:
        r = x - target
        d = r / variance
        return d, -d, 0.5 * (1.0 - r * d) / variance

    def reference(self, x: Array, target: Array, variance: Array) -> Array:
        return self.reduced(0.5 * (jnp.log(variance) + jnp.square(x - target) / variance))


class SigmoidCrossEntropy(_EntryLoss):
    """Binary cross-entropy of logits: t log(1 + exp(-x)) weight + (1 - t) log(1 + exp(x)).

    Args:
        weight: by how much positive targets count more.

    d/dx = (1 - t) s(x) - weight t s(-x), with s the sigmoid, which for weight 1 is s(x) - t but
    does not cancel; d/dt = weight softplus(-x) - softplus(x).
    """

    weight: float = 1.0
    points = {
        "saturated": ({"weight": 3.0}, [-800.0, -40.0, 0.0, 40.0, 800.0], [0.0, 1.0, 0.5, 1.0, 0.0])
    }

    def value(self, xp: Namespace, x: Array, target: Array) -> Array:
        return self.weight * target * softplus(-x) + (1.0 - target) * softplus(x)

    def derivative(self, xp: Namespace, x: Array, target: Array) -> tuple[Array, ...]:
        dx = (1.0 - target) * logistic(x) - self.weight * target * logistic(-x)
        return dx, self.weight * softplus(-x) - softplus(x)

    def reference(self, x: Array, target: Array) -> Array:
        wrong, right = jax.nn.log_sigmoid(-x), jax.nn.log_sigmoid(x)
        return self.reduced(-self.weight * target * right - (1 - target) * wrong)


class BinaryCrossEntropy(_EntryLoss):
    """-(t log(p) + (1 - t) log(1 - p)) of probabilities p, 0 < p < 1.

    Prefer `SigmoidCrossEntropy`, which takes logits: here p = 1 - 1e-9 is 1 in float32.
    d/dp = (p - t) / (p (1 - p)) and d/dt = log(1 - p) - log(p).
    """

    domains = (_UNIT, REALS)
    formulas = (
        lambda xp, p, target: -(target * xp.log(p) + (1.0 - target) * xp.log1p(-p)),
        lambda xp, p, target: ((p - target) / (p * (1.0 - p)), xp.log1p(-p) - xp.log(p)),
    )

    def reference(self, p: Array, target: Array) -> Array:
        return self.reduced(-(target * jnp.log(p) + (1 - target) * jnp.log1p(-p)))


class KlDivergence(_EntryLoss):
    """p (log(p) - log q), for log-probabilities log q and probabilities p; 0 where p = 0.

    Averaged over entries; the divergence of whole distributions is the sum.
    d/dlog_q = -p and d/dp = log(p) + 1 - log q, infinite at p = 0.
    """

    domains = (REALS, POSITIVE)
    formulas = (
        lambda xp, log_q, p: p * (xp.log(xp.where(p == 0, xp.ones_like(p), p)) - log_q),
        lambda xp, log_q, p: (-p, xp.log(p) + 1.0 - log_q),
    )

    def reference(self, log_q: Array, p: Array) -> Array:
        return self.reduced(jax.scipy.special.xlogy(p, p) - p * log_q)


class DiceLoss(ReducedLoss):
    """1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth), for each item of the first axis.

    p and the target lie between 0 and 1.

    Args:
        smooth: what keeps two empty masks at loss 0.

    With s = sum(p) + sum(t) + smooth and y the loss, d/dp = (1 - y - 2 t) / s for each entry of an
    item, and d/dt = (1 - y - 2 p) / s.
    Source: Milletari et al. 2016, "V-Net", section 3, with sums in place of squares.
    """

    smooth: float = 1.0
    domains = (_UNIT,)
    shapes = "p (items, *rest), target (items, *rest) -> () or (items)"
    drawn = "3x4 3x4; 2x3x2 2x3x2 reduction=sum smooth=0.5; 4x2 4x2 reduction=none"
    points = {"empty masks": ([[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]])}

    def per_item(self, xp: Namespace, *x: Array) -> Items:
        p, t = (at_least_float32(xi.reshape(xi.shape[0], -1)) for xi in x)
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


def _one_hot(labels: Array, x: Array) -> Array:
    """Return 1 in x's dtype at the class of each label, 0 elsewhere."""
    classes = namespace(x, labels).arange(x.shape[-1]).reshape((1,) * labels.ndim + (-1,))
    return (labels[..., None] == classes).astype(x.dtype)


def _require_classes(node: Node, x: Array, labels: Array, ignore: int | None = None) -> None:
    """Raise an InputError if a label is no class; traced labels cannot be looked at."""
    if namespace(x, labels) is not np:
        return
    known = labels[labels != ignore] if ignore is not None else labels
    if known.size and not 0 <= known.min() <= known.max() < x.shape[-1]:
        raise InputError(
            f"{node!r}: labels run from {known.min()} to {known.max()}, but x has "
            f"{x.shape[-1]} classes; `ignore` names a label that counts for nothing"
        )


class LabelLoss(ReducedLoss):
    """A loss of rows of scores, given the right class of each.

    Args:
        ignore: a label whose rows count for nothing; None for none.
    """

    ignore: int | None = None
    domains = (REALS, _LABELS)
    shapes = "x (*rows, classes), labels (*rows) -> () or (*rows)"

    @abstractmethod
    def per_row(self, xp: Namespace, x: Array, right: Array) -> tuple[Array, Array, Array | None]:
        """Return each row's loss, its gradient, and its weight (None where all count alike).

        `right` is one-hot, in x's dtype: 1 at the right class.
        """

    def reduced_counted(self, losses: Array, labels: Array) -> Array:
        """Return JAX's losses, those of ignored labels left out, folded: for references."""
        if self.ignore is None:
            return self.reduced(losses)
        kept = labels != self.ignore
        losses = jnp.where(kept, losses, jnp.zeros_like(losses))
        if self.reduction == "mean":
            return losses.sum() / jnp.maximum(kept.sum(), 1)
        return self.reduced(losses)

    def per_item(self, xp: Namespace, *x: Array) -> Items:
        scores, labels = x
        _require_classes(self, scores, labels, self.ignore)
        losses, gradients, weights = self.per_row(xp, scores, _one_hot(labels, scores))
        if self.ignore is None:
            return losses, (gradients, None), weights
        kept, zero = labels != self.ignore, xp.zeros_like(losses)
        weights = xp.where(kept, xp.ones_like(losses) if weights is None else weights, zero)
        gradients = xp.where(kept[..., None], gradients, xp.zeros_like(gradients))
        return xp.where(kept, losses, zero), (gradients, None), weights


class CrossEntropy(LabelLoss):
    """-sum over classes of q log softmax(x), where q is nearly one-hot at the label.

    q = w ((1 - smoothing) onehot + smoothing / classes), w the classes' weights; the mean divides
    by the sum of the labels' weights.

    Args:
        smoothing: the share of q that is spread over all classes.
        weights: one number for each class; None for ones.

    For each row d/dx = p sum(q) - q, with p = softmax(x).
    Source: Szegedy et al. 2016, "Rethinking the Inception architecture", section 7.
    """

    smoothing: float = 0.0
    weights: tuple[float, ...] | None = None
    drawn = (
        "4x3 [0,2,1,2]; 2x2x3 [[2,0],[1,1]] reduction=sum smoothing=0.1; "
        "3x3 [1,0,2] reduction=none weights=(0.5,2.0,1.0); weights, smoothing, ignored: "
        "5x3 [0,1,2,2,0] weights=(0.5,2.0,1.0) smoothing=0.2 ignore=1; "
        "all ignored: 2x3 [0,0] ignore=0"
    )
    points = {
        "saturated": ([[0.0, 40.0, -40.0], [1e3, -1e3, 0.0]], [0, 1]),
        "masked by -inf": ([[0.5, -math.inf, 1.0]], [0]),
    }

    def per_row(self, xp: Namespace, x: Array, right: Array) -> tuple[Array, Array, Array | None]:
        q, weight = right, None
        if self.smoothing:
            q = (1.0 - self.smoothing) * right + self.smoothing / x.shape[-1]
        if self.weights is not None:
            classes = xp.asarray(self.weights, dtype=x.dtype)
            classes = classes.reshape((1,) * (x.ndim - 1) + (-1,))
            q, weight = classes * q, (classes * right).sum(axis=-1)
        log_p = log_softmax(x, -1)
        losses = -(q * xp.where(q == 0, xp.zeros_like(q), log_p)).sum(axis=-1)
        return losses, xp.exp(log_p) * q.sum(axis=-1, keepdims=True) - q, weight

    def reference(self, x: Array, labels: Array) -> Array:
        classes, log_p = x.shape[-1], jax.nn.log_softmax(x, axis=-1)
        weights = jnp.asarray(self.weights or [1.0] * classes, dtype=x.dtype)
        kept = jnp.ones(labels.shape, bool) if self.ignore is None else labels != self.ignore
        known = jnp.where(kept, labels, 0)
        own = -jnp.take_along_axis(log_p, known[..., None], axis=-1)[..., 0] * weights[known]
        losses = (1 - self.smoothing) * own
        if self.smoothing:
            losses = losses - self.smoothing / classes * jnp.sum(log_p * weights, axis=-1)
        losses = jnp.where(kept, losses, 0)
        if self.reduction != "mean":
            return self.reduced(losses)
        total = jnp.sum(jnp.where(kept, weights[known], 0))
        return jnp.sum(losses) / jnp.where(total == 0, 1, total)


class SoftmaxCrossEntropy(Node):
    """The mean over rows of -log softmax(x)[label]: `CrossEntropy` at its plainest and fastest.

    Local gradient: one row, (p - onehot(label)) / rows with p = softmax(x). Backward: dx = upstream
    times that.
    """

    domains = (REALS, _LABELS)
    shapes = "x (rows, classes), labels (rows) -> ()"
    drawn = "4x3 [0,2,1,2]; 2x5 [4,0]; 1x3 [1]"
    points = {
        "saturated": ([[0.0, 40.0, -40.0], [1e3, -1e3, 0.0]], [0, 1]),
        "one class": ([[2.0], [3.0]], [0, 0]),
    }

    def apply(self, xp: Namespace, x: Array, labels: Array) -> Applied:
        shifted = x - x.max(axis=1, keepdims=True)
        e = xp.exp(shifted)
        total = e.sum(axis=1, keepdims=True)
        picked = shifted[xp.arange(x.shape[0]), labels]
        loss = (xp.log(total[:, 0]) - picked).sum() / max(x.shape[0], 1)
        return loss, (e / total, labels)

    def gradients(self, xp: Namespace, p: Array, labels: Array) -> Gradients:
        row = self.pull(xp, xp.ones((), dtype=p.dtype), p, labels)[0].astype(p.dtype)
        return Dense(row.reshape(1, -1), (), p.shape), None

    def pull(self, xp: Namespace, upstream: Array, p: Array, labels: Array) -> Pulled:
        right = labels[:, None] == xp.arange(p.shape[1])[None, :]
        return (p - right.astype(p.dtype)) * (upstream / p.shape[0]), None

    def reference(self, x: Array, labels: Array) -> Array:
        log_p = jax.nn.log_softmax(x, axis=1)
        return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=1))


class NllLoss(LabelLoss):
    """-x[label], for rows x of log-probabilities: the negative log likelihood; d/dx = -onehot."""

    drawn = (
        "4x3 [0,2,1,2]; 2x2x3 [[2,0],[1,1]] reduction=sum; 2x4 [3,0] reduction=none; "
        "ignored: 3x3 [0,-1,2] ignore=-1"
    )
    points = {"impossible classes": ([[-0.5, -math.inf, -1.0]], [2])}

    def per_row(self, xp: Namespace, x: Array, right: Array) -> tuple[Array, Array, Array | None]:
        return -xp.where(right == 0, xp.zeros_like(x), x).sum(axis=-1), -right, None

    def reference(self, x: Array, labels: Array) -> Array:
        known = jnp.clip(labels, 0, x.shape[-1] - 1)[..., None]  # an ignored one may be no class
        return self.reduced_counted(-jnp.take_along_axis(x, known, axis=-1)[..., 0], labels)


class FocalLoss(LabelLoss):
    """-(1 - p)^gamma log(p), with p = softmax(x)[label]: cross-entropy that neglects the easy rows.

    Args:
        gamma: 0, for cross-entropy, or 1 and more.

    For each row d/dx = c (onehot - softmax(x)), where c = gamma (1 - p)^(gamma - 1) p log(p)
    - (1 - p)^gamma. 1 - p is written -expm1(log p), which keeps its digits where p is near 1.
    Source: Lin et al. 2017, "Focal loss for dense object detection", equation 4.
    """

    gamma: float = 2.0
    drawn = (
        "4x3 [0,2,1,2]; 2x2x3 [[2,0],[1,1]] reduction=sum gamma=1.0; "
        "2x4 [3,0] reduction=none gamma=3.5; cross-entropy: 2x3 [0,2] gamma=0.0; "
        "ignored: 3x3 [0,1,2] ignore=1"
    )
    points = {"easy and hard": ([[30.0, 0.0, -5.0], [0.0, 30.0, 0.0]], [0, 2])}

    def per_row(self, xp: Namespace, x: Array, right: Array) -> tuple[Array, Array, Array | None]:
        log_all = log_softmax(x, -1)
        log_p = xp.where(right == 0, xp.zeros_like(x), log_all).sum(axis=-1, keepdims=True)
        rest = -xp.expm1(log_p)
        power = rest**self.gamma
        c = -power
        if self.gamma:
            c = c + self.gamma * rest ** (self.gamma - 1.0) * xp.exp(log_p) * log_p
        return (-power * log_p)[..., 0], c * (right - xp.exp(log_all)), None

    def reference(self, x: Array, labels: Array) -> Array:
        known = jnp.clip(labels, 0, x.shape[-1] - 1)[..., None]
        log_p = jnp.take_along_axis(jax.nn.log_softmax(x, axis=-1), known, axis=-1)[..., 0]
        return self.reduced_counted(-((-jnp.expm1(log_p)) ** self.gamma) * log_p, labels)


class MulticlassHinge(LabelLoss):
    """sum over wrong classes j of max(0, x[j] - x[label] + margin): the multiclass SVM loss.

    Args:
        margin: by how much the right class must win.

    For each row d/dx = 1 at the classes that violate the margin, minus their number at the label,
    0 elsewhere; a class exactly at the margin does not violate it.
    Source: CS231n, "Linear classification"; Weston and Watkins 1999.
    """

    margin: float = 1.0
    drawn = (
        "4x3 [0,2,1,2]; 2x2x3 [[2,0],[1,1]] reduction=sum margin=0.5; 2x4 [3,0] reduction=none; "
        "ignored: 3x3 [0,1,2] ignore=1"
    )
    points = {"at the margin": ([[1.0, 2.0, 0.0], [3.0, 0.0, 9.0]], [1, 0])}

    def per_row(self, xp: Namespace, x: Array, right: Array) -> tuple[Array, Array, Array | None]:
        zero = xp.zeros_like(x)
        own = (x * right).sum(axis=-1, keepdims=True)
        margins = xp.where(right == 0, xp.maximum(x - own + self.margin, zero), zero)
        violates = (margins > 0).astype(x.dtype)
        return margins.sum(axis=-1), violates - right * violates.sum(axis=-1, keepdims=True), None

    def reference(self, x: Array, labels: Array) -> Array:
        wrong = jnp.arange(x.shape[-1]) != labels[..., None]
        known = jnp.clip(labels, 0, x.shape[-1] - 1)[..., None]
        margins = jax.nn.relu(x - jnp.take_along_axis(x, known, axis=-1) + self.margin)
        return self.reduced_counted(jnp.sum(jnp.where(wrong, margins, 0), axis=-1), labels)


class TemporalSoftmaxLoss(Loss):
    """The cross-entropy of all steps that count in a batch of sequences, divided by their number.

    The mask is true where a step counts. The sum is divided by the number of sequences.
    d/dx = mask * (softmax(x) - onehot(label)) / sequences.
    Source: CS231n, assignment 3, the loss of the captioning network.
    """

    domains = (REALS, _LABELS, BOOLEANS)
    shapes = "x (sequences, steps, words), labels (sequences, steps), mask (sequences, steps) -> ()"
    drawn = (
        "2x3x4 [[0,2,3],[1,1,0]] 2x3; 1x4x3 [[2,0,1,2]] 1x4; 3x1x3 [[2],[0],[1]] 3x1; "
        "nothing counts: 1x2x3 [[0,1]] [[False,False]]"
    )
    points = {"saturated": ([[[0.0, 1e3], [40.0, -40.0]]], [[0, 0]], [[True, True]])}

    def per_item(self, xp: Namespace, *x: Array) -> Items:
        scores, labels, mask = x
        right = _one_hot(labels, scores)
        weight = mask[..., None].astype(scores.dtype) / max(scores.shape[0], 1)
        log_p = log_softmax(scores, -1)
        losses = xp.where(right == 1, -log_p * weight, xp.zeros_like(scores)).sum(axis=-1)
        return losses, ((xp.exp(log_p) - right) * weight, None, None), None

    def reference(self, x: Array, labels: Array, mask: Array) -> Array:
        log_p = jax.nn.log_softmax(x, axis=-1)
        own = jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
        return -jnp.sum(jnp.where(mask, own, 0)) / x.shape[0]


def _direction(x: Array) -> tuple[Array, Array]:
    """Return the unit vector and the length of each row; NaN for a row of zeros."""
    length = norm(x, -1)
    return x / length, length


class CosineLoss(ReducedLoss):
    """1 - cos(x, y), for each pair of rows along the last axis.

    With a = x / |x|, b = y / |y| and c = sum(a b), for each row d/dx = (c a - b) / |x| and d/dy =
    (c b - a) / |y|. A row of zeros has no direction: NaN.
    """

    shapes = "x (*rows, features), y (*rows, features) -> () or (*rows)"
    drawn = "3x4 3x4; 5 5 reduction=sum; 2x2x3 2x2x3 reduction=none"
    points = {"large entries": ([[3e9, -4e9, 0.0]], [[1e9, 1e9, 1e9]])}

    def per_item(self, xp: Namespace, *x: Array) -> Items:
        (a, x_length), (b, y_length) = map(_direction, x)
        c = (a * b).sum(axis=-1, keepdims=True)
        return (1.0 - c)[..., 0], ((c * a - b) / x_length, (c * b - a) / y_length), None

    def reference(self, x: Array, y: Array) -> Array:
        lengths = jnp.linalg.norm(x, axis=-1) * jnp.linalg.norm(y, axis=-1)
        return self.reduced(1 - jnp.sum(x * y, axis=-1) / lengths)


class TripletLoss(ReducedLoss):
    """max(0, |anchor - positive| - |anchor - negative| + margin), row by row.

    Args:
        margin: by how much nearer the positive must be.

    Where the loss is positive, with u and v the directions from positive and negative to the
    anchor, the gradients of a row are u - v, -u and v; elsewhere 0, the corner included. Where a
    distance is 0 there is no direction: NaN.
    Source: Schroff et al. 2015, "FaceNet", equation 3, with distances in place of their squares.
    """

    margin: float = 1.0
    shapes = (
        "anchor (*rows, features), positive (*rows, features), negative (*rows, features) "
        "-> () or (*rows)"
    )
    drawn = "3x4 3x4 3x4; 5 5 5 reduction=sum margin=0.5; 2x2x3 2x2x3 2x2x3 reduction=none"
    points = {"satisfied": ([[0.0, 0.0]], [[0.5, 0.0]], [[0.0, 9.0]])}

    def per_item(self, xp: Namespace, *x: Array) -> Items:
        anchor, positive, negative = x
        (u, near), (v, far) = _direction(anchor - positive), _direction(anchor - negative)
        loss = near - far + self.margin
        active, zero = loss > 0, xp.zeros_like(u)
        gradients = tuple(xp.where(active, g, zero) for g in (u - v, -u, v))
        return xp.maximum(loss, xp.zeros_like(loss))[..., 0], gradients, None

    def reference(self, anchor: Array, positive: Array, negative: Array) -> Array:
        near = jnp.linalg.norm(anchor - positive, axis=-1)
        far = jnp.linalg.norm(anchor - negative, axis=-1)
        return self.reduced(jax.nn.relu(near - far + self.margin))


class InfoNceLoss(Loss):
    """The mean cross-entropy of each query's own key among all keys: a contrastive loss.

    The logits are the dot products / temperature, and query i belongs to key i. Normalise the rows
    first for cosine similarities.

    Args:
        temperature: what the logits are divided by.

    With D = (softmax(logits) - I) / (items temperature), d/dqueries = D @ keys and d/dkeys =
    D^T @ queries.
    Source: van den Oord et al. 2018, "Contrastive predictive coding", equation 4.
    """

    temperature: float = 0.1
    shapes = "queries (items, features), keys (items, features) -> ()"
    drawn = "3x4 3x4; 5x2 5x2 temperature=1.0; 2x3 2x3 temperature=0.5; 1x3 1x3"
    points = {"saturated": ([[9.0, 0.0], [0.0, 9.0]], [[9.0, 1.0], [-1.0, 9.0]])}

    def per_item(self, xp: Namespace, *x: Array) -> Items:
        queries, keys = x
        n = max(queries.shape[0], 1)
        log_p = log_softmax((queries @ keys.T) / self.temperature, -1)
        own = xp.eye(queries.shape[0], dtype=queries.dtype)
        d = (xp.exp(log_p) - own) / (n * self.temperature)
        loss = -xp.where(own == 0, xp.zeros_like(log_p), log_p).sum() / n
        return loss, (d @ keys, d.T @ queries), None

    def reference(self, queries: Array, keys: Array) -> Array:
        log_p = jax.nn.log_softmax(jnp.matmul(queries, keys.T) / self.temperature, axis=1)
        return -jnp.mean(jnp.diagonal(log_p))


_POSITIVE_LABELS = Domain(low=1, high=3, integer=True)


class Ctc(Node):
    """The connectionist temporal classification loss: -log p(labels | logits), for each sequence.

    p is the sum, over all paths that become the labels when repeats are merged and blanks then
    dropped, of the product of softmax(logits[t])[path[t]] over time. Of the labels the first
    label_lengths count, none of them blank. Of the steps the first logit_lengths count.

    Args:
        blank: the class that stands for no label.

    Local gradient: a row for each sequence, d/dlogits = softmax(logits) - g, with g[t, c] the
    probability, given the labels, that the path is at class c at time t: 0 from logit_lengths on; g
    by the forward-backward recursions. Backward: dlogits = upstream times that. A sequence too
    short for its labels has loss inf and gradient nan.
    Source: Graves et al., "Connectionist temporal classification" (ICML 2006), section 4.
    """

    blank: int = 0
    domains = (REALS, _POSITIVE_LABELS, _POSITIVE_LABELS, _POSITIVE_LABELS)
    shapes = (
        "logits (batch, time, classes), labels (batch, places), logit_lengths (batch), "
        "label_lengths (batch) -> (batch)"
    )
    drawn = (
        "2x3x3 [[1,2],[2,0]] [3,2] [2,1]; 1x3x2 [[1,1]] [3] [2]; "
        "2x2x3 [[0],[1]] [2,1] [1,1] blank=2; no labels: 1x3x2 [[1]] [3] [0]"
    )
    points = {"saturated": ([[[40.0, -40.0], [0.0, 300.0]]], [[1]], [2], [1])}

    def apply(
        self, xp: Namespace, logits: Array, labels: Array, times: Array, lengths: Array
    ) -> Applied:
        self.require(logits.shape[1] > 0, "expected at least one step", logits=logits.shape)
        log_p = log_softmax(logits, -1)
        states = self._states(xp, labels)
        forward_log, backward_log = self._recursions(xp, log_p, states, times, lengths)
        total = logsumexp(forward_log[:, 0] + backward_log[:, 0], -1)[:, 0]
        active = xp.arange(logits.shape[1])[None, :] < times[:, None]
        log_g = forward_log + backward_log - total[:, None, None]
        return -total.astype(logits.dtype), (log_p, states, log_g, active)

    def _states(self, xp: Namespace, labels: Array) -> Array:
        """Return the labels with a blank before, between and after: (batch, 2 places + 1)."""
        blanks = xp.full_like(labels, self.blank)
        pairs = xp.stack([blanks, labels], axis=-1).reshape(labels.shape[0], -1)
        return xp.concat([pairs, xp.full_like(labels[:, :1], self.blank)], axis=1)

    def _recursions(
        self, xp: Namespace, log_p: Array, states: Array, times: Array, lengths: Array
    ) -> tuple[Array, Array]:
        """Return the log-probabilities of all ways to each state, and of all ways on from it."""
        never = xp.asarray(-math.inf, dtype=log_p.dtype)
        at = xp.take_along_axis(log_p, states[:, None, :], axis=2)
        # A path may skip a blank between two labels that differ.
        differ = (states[:, 2:] != states[:, :-2]) & (states[:, 2:] != self.blank)
        skips = xp.concat(
            [xp.zeros_like(differ[:, :1]), xp.zeros_like(differ[:, :1]), differ], axis=1
        )
        place = xp.arange(states.shape[1])[None, :]
        end = 2 * lengths[:, None]
        final = (place == end) | (place == end - 1)

        def moved(a: Array, by: int) -> Array:
            rest = xp.full_like(a[:, : abs(by)], -math.inf)
            return xp.concat([rest, a[:, :-by]] if by > 0 else [a[:, -by:], rest], axis=1)

        ways = xp.where(place < 2, at[:, 0], never)
        forward = [ways]
        for t in range(1, log_p.shape[1]):
            skip = xp.where(skips, moved(ways, 2), never)
            ways = xp.logaddexp(xp.logaddexp(ways, moved(ways, 1)), skip) + at[:, t]
            forward.append(ways)
        leaving = xp.concat([skips[:, 2:], xp.zeros_like(skips[:, :2])], axis=1)
        on = xp.where(final, xp.zeros_like(ways), never)
        backward = [on]
        for t in range(log_p.shape[1] - 1, 0, -1):
            ahead = on + at[:, t]
            skip = xp.where(leaving, moved(ahead, -2), never)
            further = xp.logaddexp(xp.logaddexp(ahead, moved(ahead, -1)), skip)
            on = xp.where((t < times)[:, None], further, on)
            backward.append(on)
        return xp.stack(forward, axis=1), xp.stack(backward[::-1], axis=1)

    def _gradient(
        self, xp: Namespace, log_p: Array, states: Array, log_g: Array, active: Array
    ) -> Array:
        """Return softmax(logits) - g where the sequence lasts, 0 after it."""
        onehot = states[:, :, None] == xp.arange(log_p.shape[2])[None, None, :]
        gradient = xp.exp(log_p) - xp.exp(log_g) @ onehot.astype(log_p.dtype)
        zero = xp.zeros_like(gradient)
        return xp.where(active[:, :, None], gradient, zero).astype(log_p.dtype)

    def gradients(self, xp: Namespace, log_p: Array, *kept: Array) -> Gradients:
        n, time, classes = log_p.shape
        rows = BlockDiagonal(self._gradient(xp, log_p, *kept).reshape(n, 1, time * classes))
        before = Reshape(log_p.shape, (n, time * classes), log_p.dtype)
        return Reshape((n, 1), (n,), log_p.dtype) @ rows @ before, None, None, None

    def pull(self, xp: Namespace, upstream: Array, *kept: Array) -> Pulled:
        return upstream[:, None, None] * self._gradient(xp, *kept), None, None, None

    def reference(
        self, logits: Array, labels: Array, logit_lengths: Array, label_lengths: Array
    ) -> Array:
        """Sum over all paths, as the definition says."""
        _, time, classes = logits.shape
        paths = np.array(list(product(range(classes), repeat=time)))
        log_p = jax.nn.log_softmax(logits, axis=-1)
        each = log_p[:, np.arange(time), paths]
        lasts = jnp.arange(time)[None, :] < logit_lengths[:, None]
        scores = jnp.where(lasts[:, None, :], each, 0.0).sum(-1)
        read = np.array([[_read(p[:n], self.blank, time) for p in paths] for n in range(time + 1)])
        wanted = jnp.full((labels.shape[0], time), -1).at[:, : labels.shape[1]].set(labels)
        wanted = jnp.where(jnp.arange(time)[None, :] < label_lengths[:, None], wanted, -1)
        match = (jnp.asarray(read)[logit_lengths] == wanted[:, None, :]).all(-1)
        # Paths that differ only after the end are one path: keep that which ends in class 0.
        once = jnp.where(lasts[:, None, :], 0, jnp.asarray(paths)[None]).sum(-1) == 0
        return -jax.nn.logsumexp(jnp.where(match & once, scores, -jnp.inf), axis=-1)


def _read(path: Array, blank: int, size: int) -> list[int]:
    """Return the labels that a path becomes, filled up with -1."""
    kept = [int(c) for i, c in enumerate(path) if c != blank and (i == 0 or c != path[i - 1])]
    return kept + [-1] * (size - len(kept))
