"""Reductions over axes: many entries in, one out; backward hands the upstream to all of them."""

from abc import abstractmethod
from dataclasses import dataclass
from math import prod
from typing import Any

from gradlab.nodes._arrays import Array, Shape, as_inputs, as_upstream, axes_of, namespace
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, Domain, generic, special
from gradlab.nodes._lazy import jnp
from gradlab.operators import Diagonal, Operator
from gradlab.operators import Sum as SumOperator

__all__ = ["Max", "Mean", "Reduction", "Sum"]


@dataclass(frozen=True)
class Reduction(Node):
    """A node that folds the entries along `axis` into one.

    Write `value` and `derivative`. Its local gradient is `Sum @ Diagonal(dy/dx)`, its backward
    `upstream * dy/dx` with the upstream repeated along the axes that were folded.

    Args:
        axis: the axis or axes that are folded; None means all.
        keepdims: whether folded axes stay, with size 1.
    """

    axis: int | tuple[int, ...] | None = None
    keepdims: bool = False

    @abstractmethod
    def value(self, x: Array, axes: Shape) -> Array:
        """Return x folded over `axes`, which stay with size 1."""

    @abstractmethod
    def derivative(self, x: Array, y: Array, axes: Shape) -> Any:
        """Return dy/dx for each entry of x: an array, or a number where it is constant."""

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        """Return x folded over the axes, and what backward needs."""
        (x,) = as_inputs(self, inputs)
        axes = axes_of(self, self.axis, x.shape)
        y = self.value(x, axes)
        kept = tuple(n for i, n in enumerate(x.shape) if i not in axes)
        output = y if self.keepdims else y.reshape(kept)
        return output, (x, y, output, axes)

    def local_gradient(self, residuals: Any) -> tuple[Operator, ...]:
        """Return `Sum @ Diagonal(dy/dx)`: all entries of a fold meet in one output."""
        x, y, _, axes = residuals
        folding = SumOperator.over(x.shape, axes, x.dtype, self.keepdims)
        d = self.derivative(x, y, axes)
        return (d * folding if isinstance(d, float) else folding @ Diagonal(d),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        """Return the upstream, repeated along the folded axes, times dy/dx."""
        x, y, output, axes = residuals
        xp = namespace(x)
        upstream = as_upstream(self, upstream, output).reshape(y.shape)
        dx = xp.broadcast_to(upstream * self.derivative(x, y, axes), x.shape)
        return (dx.astype(x.dtype),)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        """Return folds over one, several, all and no axes, then the corners."""
        return (
            generic(cls(), (3, 4)),
            generic(cls(axis=-1), (2, 3, 4)),
            generic(cls(axis=(0, 2), keepdims=True), (2, 3, 4)),
            Case(cls(axis=()), ((2, 3),), "no axis"),
            Case(cls(), ((),), "scalar"),
            Case(cls(axis=1), ((3, 1, 2),), "size-1 axes"),
            Case(cls(axis=1), ((0, 3),), "zero size"),
        )


class Sum(Reduction):
    """The sum of x over axes.

    Local gradient: a sum, the transpose of a broadcast: dy/dx[i] = 1.
    Backward: dx = upstream, repeated along the folded axes.
    """

    def value(self, x: Array, axes: Shape) -> Array:
        return x.sum(axis=axes, keepdims=True)

    def derivative(self, x: Array, y: Array, axes: Shape) -> Any:
        return 1.0

    def reference(self, x: Array) -> Array:
        return jnp.sum(x, axis=self.axis, keepdims=self.keepdims)


class Mean(Reduction):
    """The mean of x over axes: a sum divided by the number of entries that are folded.

    Local gradient: 1/n times a sum. Backward: dx = upstream / n, repeated.
    """

    def value(self, x: Array, axes: Shape) -> Array:
        return x.mean(axis=axes, keepdims=True)

    def derivative(self, x: Array, y: Array, axes: Shape) -> Any:
        return 1.0 / max(prod(x.shape[a] for a in axes), 1)

    def reference(self, x: Array) -> Array:
        return jnp.mean(x, axis=self.axis, keepdims=self.keepdims)


class Max(Reduction):
    """The greatest entry of x over axes: routes the upstream to where it was found.

    Local gradient: a selection, dy/dx[i] = 1 for the greatest entry, 0 for the others.
    Backward: dx = upstream at the greatest entry. Entries that tie share it equally, as in JAX.
    """

    domains = (Domain(distinct=True),)

    def value(self, x: Array, axes: Shape) -> Array:
        return namespace(x).max(x, axis=axes, keepdims=True)

    def derivative(self, x: Array, y: Array, axes: Shape) -> Any:
        xp = namespace(x)
        hit = xp.where(x == y, xp.ones_like(x), xp.zeros_like(x))
        return hit / hit.sum(axis=axes, keepdims=True)

    def reference(self, x: Array) -> Array:
        return jnp.max(x, axis=self.axis, keepdims=self.keepdims)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        """Return the cases of every fold, and ties."""
        return (*super().cases(), special(cls(axis=0), "ties", [[1.0, 2.0], [1.0, 0.0]]))
