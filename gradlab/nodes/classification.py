"""Losses of predicted classes: rows of scores, and the right class of each."""

from dataclasses import dataclass
from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, namespace
from gradlab.nodes._domain import BOOLEANS, REALS, Case, special
from gradlab.nodes._functions import log_softmax
from gradlab.nodes._lazy import jax, jnp
from gradlab.nodes._losses import (
    LABELS,
    LabelLoss,
    Loss,
    along_last,
)

__all__ = [
    "CrossEntropy",
    "FocalLoss",
    "MulticlassHinge",
    "NllLoss",
    "TemporalSoftmaxLoss",
]


@dataclass(frozen=True)
class CrossEntropy(LabelLoss):
    """-sum over classes of q log softmax(x), where q is nearly one-hot at the label.

    x has shape (..., classes), the labels (...). q = w ((1 - smoothing) onehot + smoothing /
    classes), w the classes' weights; the mean divides by the sum of the labels' weights.

    Args:
        reduction: "mean", "sum" or "none".
        ignore: a label whose rows count for nothing; None for none.
        smoothing: the share of q that is spread over all classes.
        weights: one number for each class; None for ones.

    Local gradient: for each row p sum(q) - q, with p = softmax(x); None for the labels.
    Backward: dx = upstream * (p sum(q) - q) / n.
    Source: Szegedy et al. 2016, "Rethinking the Inception architecture", section 7.
    """

    smoothing: float = 0.0
    weights: tuple[float, ...] | None = None

    def rows(self, x: Array, right: Array) -> tuple[Array, Array, Any]:
        xp = namespace(x)
        q, weight = right, None
        if self.smoothing:
            q = (1.0 - self.smoothing) * right + self.smoothing / x.shape[-1]
        if self.weights is not None:
            classes = along_last(xp.asarray(self.weights, dtype=x.dtype), x.ndim)
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

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        weighted = cls(weights=(0.5, 2.0, 1.0), smoothing=0.2, ignore=1)
        return (
            special(cls(), "generic", (4, 3), [0, 2, 1, 2]),
            special(cls("sum", smoothing=0.1), "generic", (2, 2, 3), [[2, 0], [1, 1]]),
            special(cls("none", weights=(0.5, 2.0, 1.0)), "generic", (3, 3), [1, 0, 2]),
            special(weighted, "weights, smoothing, ignored", (5, 3), [0, 1, 2, 2, 0]),
            special(cls(ignore=0), "all ignored", (2, 3), [0, 0]),
            special(cls(), "saturated", [[0.0, 40.0, -40.0], [1e3, -1e3, 0.0]], [0, 1]),
            special(cls(), "masked by -inf", [[0.5, float("-inf"), 1.0]], [0]),
        )


class NllLoss(LabelLoss):
    """-x[label], for rows x of log-probabilities: the negative log likelihood.

    x has shape (..., classes), the labels (...).

    Local gradient: for each row minus the one-hot of its label; None for the labels.
    Backward: dx = -upstream * onehot(label) / n.
    """

    def rows(self, x: Array, right: Array) -> tuple[Array, Array, Any]:
        xp = namespace(x)
        return -xp.where(right == 0, xp.zeros_like(x), x).sum(axis=-1), -right, None

    def reference(self, x: Array, labels: Array) -> Array:
        known = jnp.clip(labels, 0, x.shape[-1] - 1)[..., None]  # an ignored one may be no class
        return self.counted(-jnp.take_along_axis(x, known, axis=-1)[..., 0], labels)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            special(cls(), "generic", (4, 3), [0, 2, 1, 2]),
            special(cls("sum"), "generic", (2, 2, 3), [[2, 0], [1, 1]]),
            special(cls("none"), "generic", (2, 4), [3, 0]),
            special(cls(ignore=-1), "ignored", (3, 3), [0, -1, 2]),
            special(cls(), "impossible classes", [[-0.5, float("-inf"), -1.0]], [2]),
        )


@dataclass(frozen=True)
class FocalLoss(LabelLoss):
    """-(1 - p)^gamma log(p), with p = softmax(x)[label]: cross-entropy that neglects the easy rows.

    x has shape (..., classes), the labels (...).

    Args:
        reduction: "mean", "sum" or "none".
        ignore: a label whose rows count for nothing; None for none.
        gamma: 0, for cross-entropy, or 1 and more.

    Local gradient: for each row c (onehot - softmax(x)), where
    c = dloss/dlog p = gamma (1 - p)^(gamma - 1) p log(p) - (1 - p)^gamma; None for the labels.
    Backward: dx = upstream * c (onehot - softmax(x)) / n. 1 - p is written -expm1(log p), which
    keeps its digits where p is near 1.
    Source: Lin et al. 2017, "Focal loss for dense object detection", equation 4.
    """

    gamma: float = 2.0

    def rows(self, x: Array, right: Array) -> tuple[Array, Array, Any]:
        xp, log_all = namespace(x), log_softmax(x, -1)
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
        return self.counted(-((-jnp.expm1(log_p)) ** self.gamma) * log_p, labels)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            special(cls(), "generic", (4, 3), [0, 2, 1, 2]),
            special(cls("sum", gamma=1.0), "generic", (2, 2, 3), [[2, 0], [1, 1]]),
            special(cls("none", gamma=3.5), "generic", (2, 4), [3, 0]),
            special(cls(gamma=0.0), "cross-entropy", (2, 3), [0, 2]),
            special(cls(ignore=1), "ignored", (3, 3), [0, 1, 2]),
            special(cls(), "easy and hard", [[30.0, 0.0, -5.0], [0.0, 30.0, 0.0]], [0, 2]),
        )


@dataclass(frozen=True)
class MulticlassHinge(LabelLoss):
    """sum over wrong classes j of max(0, x[j] - x[label] + margin): the multiclass SVM loss.

    x has shape (..., classes), the labels (...).

    Args:
        reduction: "mean", "sum" or "none".
        ignore: a label whose rows count for nothing; None for none.
        margin: by how much the right class must win.

    Local gradient: for each row 1 at the classes that violate the margin, minus their number at the
    label, 0 elsewhere; a class exactly at the margin does not violate it. None for the labels.
    Backward: dx = upstream * that / n.
    Source: CS231n, "Linear classification"; Weston and Watkins 1999.
    """

    margin: float = 1.0

    def rows(self, x: Array, right: Array) -> tuple[Array, Array, Any]:
        xp, zero = namespace(x), namespace(x).zeros_like(x)
        own = (x * right).sum(axis=-1, keepdims=True)
        margins = xp.where(right == 0, xp.maximum(x - own + self.margin, zero), zero)
        violates = (margins > 0).astype(x.dtype)
        return margins.sum(axis=-1), violates - right * violates.sum(axis=-1, keepdims=True), None

    def reference(self, x: Array, labels: Array) -> Array:
        wrong = jnp.arange(x.shape[-1]) != labels[..., None]
        known = jnp.clip(labels, 0, x.shape[-1] - 1)[..., None]
        margins = jax.nn.relu(x - jnp.take_along_axis(x, known, axis=-1) + self.margin)
        return self.counted(jnp.sum(jnp.where(wrong, margins, 0), axis=-1), labels)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            special(cls(), "generic", (4, 3), [0, 2, 1, 2]),
            special(cls("sum", margin=0.5), "generic", (2, 2, 3), [[2, 0], [1, 1]]),
            special(cls("none"), "generic", (2, 4), [3, 0]),
            special(cls(ignore=1), "ignored", (3, 3), [0, 1, 2]),
            special(cls(), "at the margin", [[1.0, 2.0, 0.0], [3.0, 0.0, 9.0]], [1, 0]),
        )


class TemporalSoftmaxLoss(Loss):
    """The cross-entropy of all steps that count in a batch of sequences, divided by their number.

    x has shape (sequences, steps, words), the labels (sequences, steps), and so has the mask, which
    is true where a step counts. The sum is divided by the number of sequences.

    Local gradient: one row, mask * (softmax(x) - onehot(label)) / sequences; None for the others.
    Backward: dx = upstream * mask * (softmax(x) - onehot(label)) / sequences.
    Source: CS231n, assignment 3, the loss of the captioning network.
    """

    domains = (REALS, LABELS, BOOLEANS)

    def require_shapes(self, x: tuple[Array, ...]) -> None:
        scores, labels, mask = x
        if len(scores.shape) != 3 or not scores.shape[:2] == labels.shape == mask.shape:
            raise InputError(
                f"{self!r}: shapes {', '.join(shape_text(a.shape) for a in x)} came; expected "
                "(sequences, steps, words) and twice (sequences, steps)"
            )

    def items(self, *x: Array) -> tuple[Array, tuple[Any, ...], Any]:
        scores, labels, mask = x
        xp = namespace(scores, labels)
        right = labels[..., None] == along_last(xp.arange(scores.shape[-1]), 3)
        weight = mask[..., None].astype(scores.dtype) / max(scores.shape[0], 1)
        log_p = log_softmax(scores, -1)
        losses = xp.where(right, -log_p * weight, xp.zeros_like(scores)).sum(axis=-1)
        return losses, ((xp.exp(log_p) - right.astype(scores.dtype)) * weight, None, None), None

    def reference(self, x: Array, labels: Array, mask: Array) -> Array:
        log_p = jax.nn.log_softmax(x, axis=-1)
        own = jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
        return -jnp.sum(jnp.where(mask, own, 0)) / x.shape[0]

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            special(cls(), "generic", (2, 3, 4), [[0, 2, 3], [1, 1, 0]], (2, 3)),
            special(cls(), "generic", (1, 4, 3), [[2, 0, 1, 2]], (1, 4)),
            special(cls(), "generic", (3, 1, 3), [[2], [0], [1]], (3, 1)),
            special(cls(), "nothing counts", (1, 2, 3), [[0, 1]], [[False, False]]),
            special(cls(), "saturated", [[[0.0, 1e3], [40.0, -40.0]]], [[0, 0]], [[True, True]]),
        )
