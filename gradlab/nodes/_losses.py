"""What losses have in common: items with a loss each, folded to one number, and their gradients.

A loss is computed together with its gradients, which share nearly all of the work; backward then
multiplies them by the upstream.
"""

from abc import abstractmethod
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, Shape, as_inputs, as_upstream, keeping, namespace, widened
from gradlab.nodes._base import Node
from gradlab.nodes._domain import REALS, Case, Domain, generic
from gradlab.operators import BlockDiagonal, Dense, Diagonal, Operator, Reshape

__all__ = ["LABELS", "EntryLoss", "LabelLoss", "Loss", "ReducedLoss", "require_equal_shapes"]

LABELS = Domain(low=0, high=3, integer=True)


class Loss(Node):
    """One loss for each item, summed.

    Write `items`. The gradient of an item's loss fills a row, or a single entry where an item is
    one entry: unreduced, the local gradient is block-diagonal or diagonal; reduced, it is one row.
    """

    @property
    def fold(self) -> str:
        """How the items are folded: "mean", "sum" or "none"."""
        return "sum"

    @abstractmethod
    def items(self, *x: Array) -> tuple[Array, tuple[Any, ...], Any]:
        """Return each item's loss, its gradient in each input, and its weight in the mean.

        A gradient has its input's shape, which starts with the losses' shape; it is None for an
        input without one. The weights are None where all items count alike.
        """

    def require_shapes(self, x: tuple[Array, ...]) -> None:
        """Raise an InputError if the inputs' shapes do not belong together."""
        require_equal_shapes(self, x)

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        """Return the loss; its gradients are residuals."""
        x = as_inputs(self, inputs)
        self.require_shapes(x)
        if self.fold not in ("mean", "sum", "none"):
            raise InputError(f"{self!r}: reduction is {self.fold!r}; use 'mean', 'sum' or 'none'")
        losses, gradients, weights = self.items(*x)
        factor: Any = 1.0
        items = losses.shape
        if self.fold == "mean":
            factor = 1.0 / max(losses.size, 1) if weights is None else _reciprocal(weights.sum())
        floats = tuple(xi for xi, g in zip(x, gradients) if g is not None)
        if self.fold != "none":
            losses = (widened(losses).sum() * factor).astype(losses.dtype)
        y = keeping(losses, floats)
        return y, (x, gradients, items, factor, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        """Return the gradients as operators."""
        x, gradients, items, factor, _ = residuals
        return tuple(
            None if g is None else self._operator(keeping(g * factor, (xi,)), items)
            for xi, g in zip(x, gradients)
        )

    def _operator(self, gradient: Array, items: Shape) -> Operator:
        shape = gradient.shape
        if self.fold != "none":
            return Dense(gradient.reshape(1, -1), (), shape)
        if shape == items:
            return Diagonal(gradient)
        rows = (prod(items), prod(shape[len(items) :]))
        blocks = BlockDiagonal(gradient.reshape(rows[0], 1, rows[1]))
        to_rows, to_items = Reshape(shape, rows, gradient.dtype), (rows[0], 1)
        return Reshape(to_items, items, gradient.dtype) @ blocks @ to_rows

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        """Return the upstream of each item times its gradient."""
        x, gradients, _, factor, y = residuals
        upstream = as_upstream(self, upstream, y) * factor
        return tuple(
            None if g is None else (_ending(upstream, g) * g).astype(xi.dtype)
            for xi, g in zip(x, gradients)
        )


def _ending(upstream: Array, gradient: Array) -> Array:
    """Return the upstream with axes of size 1 at its end, as many as a row has."""
    return upstream.reshape(upstream.shape + (1,) * (gradient.ndim - upstream.ndim))


def _reciprocal(total: Array) -> Array:
    """Return 1 / total; 1 where nothing counts, so that the mean of nothing is 0."""
    xp = namespace(total)
    return 1.0 / xp.where(total == 0, xp.ones_like(total), total)


def require_equal_shapes(node: Node, x: tuple[Array, ...]) -> None:
    """Raise an InputError if the inputs have not all the same shape."""
    if len({xi.shape for xi in x}) > 1:
        raise InputError(
            f"{node!r}: shapes {', '.join(shape_text(xi.shape) for xi in x)} came; "
            f"{', '.join(node.input_names())} must have the same shape"
        )


@dataclass(frozen=True)
class ReducedLoss(Loss):
    """A loss that is averaged over its items, summed, or neither.

    Args:
        reduction: "mean", "sum" or "none".
    """

    reduction: str = "mean"

    @property
    def fold(self) -> str:
        """How the items are folded."""
        return self.reduction

    def reduced(self, losses: Array) -> Array:
        """Return JAX's losses, folded: for references."""
        return {"mean": losses.mean, "sum": losses.sum, "none": lambda: losses}[self.reduction]()


class EntryLoss(ReducedLoss):
    """A loss whose items are single entries: write `value` and `derivatives`."""

    @abstractmethod
    def value(self, *x: Array) -> Array:
        """Return the loss of each entry."""

    @abstractmethod
    def derivatives(self, *x: Array) -> tuple[Array, ...]:
        """Return its derivative in each input."""

    def items(self, *x: Array) -> tuple[Array, tuple[Any, ...], Any]:
        """Return losses and derivatives."""
        return self.value(*x), self.derivatives(*x), None

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        """Return each reduction, a scalar and nothing at all."""
        n = int(cls.arity()[0])
        return (
            generic(cls(), *[(3, 4)] * n),
            generic(cls(reduction="sum"), *[(5,)] * n),
            generic(cls(reduction="none"), *[(2, 3)] * n),
            Case(cls(), ((),) * n, "scalar"),
            Case(cls(reduction="sum"), ((0, 3),) * n, "zero size"),
        )


@dataclass(frozen=True)
class LabelLoss(ReducedLoss):
    """A loss of rows of scores, (..., classes), given the right class of each, (...).

    Args:
        reduction: "mean", "sum" or "none".
        ignore: a label whose rows count for nothing; None for none.
    """

    ignore: int | None = None
    domains = (REALS, LABELS)

    @abstractmethod
    def rows(self, x: Array, right: Array) -> tuple[Array, Array, Any]:
        """Return each row's loss, its gradient, and its weight (None where all count alike).

        `right` is one-hot, in x's dtype: 1 at the right class.
        """

    def require_shapes(self, x: tuple[Array, ...]) -> None:
        """Raise an InputError unless each row has one label, and each label a class."""
        scores, labels = x
        if not scores.shape or labels.shape != scores.shape[:-1]:
            raise InputError(
                f"{self!r}: x has shape {shape_text(scores.shape)} and the labels "
                f"{shape_text(labels.shape)}; expected (..., classes) and (...)"
            )
        if namespace(*x) is not np:
            return  # traced labels cannot be looked at
        known = labels[labels != self.ignore] if self.ignore is not None else labels
        if known.size and not 0 <= known.min() <= known.max() < scores.shape[-1]:
            raise InputError(
                f"{self!r}: labels run from {known.min()} to {known.max()}, but x has "
                f"{scores.shape[-1]} classes; `ignore` names a label that counts for nothing"
            )

    def counted(self, losses: Array, labels: Array) -> Array:
        """Return JAX's losses, those of ignored labels left out, folded: for references."""
        if self.ignore is None:
            return self.reduced(losses)
        xp, kept = namespace(losses, labels), labels != self.ignore
        losses = xp.where(kept, losses, xp.zeros_like(losses))
        if self.reduction == "mean":
            return losses.sum() / xp.maximum(kept.sum(), 1)
        return self.reduced(losses)

    def items(self, *x: Array) -> tuple[Array, tuple[Any, ...], Any]:
        """Return the rows' losses and gradients, zeros where the label is ignored."""
        scores, labels = x
        xp = namespace(scores, labels)
        right = labels[..., None] == along_last(xp.arange(scores.shape[-1]), labels.ndim + 1)
        losses, gradients, weights = self.rows(scores, right.astype(scores.dtype))
        if self.ignore is None:
            return losses, (gradients, None), weights
        kept = labels != self.ignore
        zero = xp.zeros_like(losses)
        weights = xp.where(kept, xp.ones_like(losses) if weights is None else weights, zero)
        gradients = xp.where(kept[..., None], gradients, xp.zeros_like(gradients))
        return xp.where(kept, losses, zero), (gradients, None), weights


def along_last(row: Array, rank: int) -> Array:
    """Return a vector as the last axis of an array of so many axes."""
    return row.reshape((1,) * (rank - 1) + (-1,))
