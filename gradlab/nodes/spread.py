"""Variance, standard deviation and norms: how far entries lie from their mean or from 0."""

import math
from dataclasses import dataclass, field
from typing import Any

from gradlab.nodes._arrays import Array, Shape, namespace, widened
from gradlab.nodes._domain import Case, Domain, generic, special
from gradlab.nodes._lazy import jnp
from gradlab.nodes.reduction import Reduction

__all__ = ["L1Norm", "L2Norm", "Norm", "Std", "Var"]


@dataclass(frozen=True)
class Var(Reduction):
    """The variance of x over axes: sum((x - mean)^2) / (n - correction).

    Args:
        correction: what is subtracted from the number of entries; 1 for the unbiased estimate.

    Local gradient: a sum after a diagonal, dy/dx = 2 (x - mean) / (n - correction); what x does to
    the mean cancels, for deviations sum to 0.
    Backward: dx = upstream * 2 (x - mean) / (n - correction).
    """

    correction: float = 0.0

    def freedom(self, x: Array, axes: Shape) -> float:
        """Return the number of folded entries less the correction."""
        return float(math.prod(x.shape[a] for a in axes)) - self.correction

    def value(self, x: Array, axes: Shape) -> Array:
        return self.wide_variance(x, axes).astype(x.dtype)

    def wide_variance(self, x: Array, axes: Shape) -> Array:
        """Return the variance, in float32 for half precision, where squares do not overflow."""
        x = widened(x)
        deviation = x - x.mean(axis=axes, keepdims=True)
        return (deviation * deviation).sum(axis=axes, keepdims=True) / self.freedom(x, axes)

    def derivative(self, x: Array, y: Array, axes: Shape) -> Any:
        return (x - x.mean(axis=axes, keepdims=True)) * (2.0 / self.freedom(x, axes))

    def reference(self, x: Array) -> Array:
        return jnp.var(x, axis=self.axis, keepdims=self.keepdims, correction=self.correction)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        """Return folds of two entries and more, with a correction, and a constant row."""
        return (
            generic(cls(), (3, 4)),
            generic(cls(axis=-1, correction=1), (2, 3, 4)),
            generic(cls(axis=(0, 2), keepdims=True), (2, 3, 4)),
            Case(cls(axis=1), ((0, 3),), "zero size"),
            special(cls(axis=1), "far from zero", [[1e4 + 1, 1e4 + 2, 1e4 - 1]]),
        )


@dataclass(frozen=True)
class Std(Var):
    """The standard deviation of x over axes: the root of the variance.

    Local gradient: a sum after a diagonal, dy/dx = (x - mean) / ((n - correction) y).
    Backward: dx = upstream * (x - mean) / ((n - correction) y). Where all entries are equal there
    is no gradient: NaN, as in JAX.
    """

    def value(self, x: Array, axes: Shape) -> Array:
        return namespace(x).sqrt(self.wide_variance(x, axes)).astype(x.dtype)

    def derivative(self, x: Array, y: Array, axes: Shape) -> Any:
        return 0.5 * super().derivative(x, y, axes) / y

    def reference(self, x: Array) -> Array:
        return jnp.std(x, axis=self.axis, keepdims=self.keepdims, correction=self.correction)


@dataclass(frozen=True)
class Norm(Reduction):
    """The norm of x over axes, of any order p >= 1: sum(|x|^p)^(1/p); max |x| for p = inf.

    Args:
        order: p.

    Local gradient: a sum after a diagonal, dy/dx = sign(x) (|x| / y)^(p-1); for p = inf, sign(x)
    at the greatest entry, shared equally by those that tie.
    Backward: dx = upstream * sign(x) (|x| / y)^(p-1). For p = 1 it shows that sign(0) = 1, as in
    JAX. Entries are divided by the greatest one first, so no power overflows. Where all entries are
    0 and 1 < p < inf there is no gradient: NaN, as in JAX.
    """

    order: float = 2.0
    domains = (Domain(kinks=(0.0,), distinct=True),)

    def value(self, x: Array, axes: Shape) -> Array:
        xp = namespace(x)
        size = xp.abs(x)
        if self.order == 1:
            return size.sum(axis=axes, keepdims=True)
        top = xp.max(size, axis=axes, keepdims=True, initial=0.0)
        if self.order == math.inf:
            return top
        ratio = size / xp.where(top == 0, xp.ones_like(top), top)
        return top * (ratio**self.order).sum(axis=axes, keepdims=True) ** (1 / self.order)

    def derivative(self, x: Array, y: Array, axes: Shape) -> Any:
        xp = namespace(x)
        size, one = xp.abs(x), xp.ones_like(x)
        sign = xp.where(x >= 0, one, -one)
        if self.order == 1:
            return sign
        if self.order == math.inf:
            hit = xp.where(size == y, sign, xp.zeros_like(x))
            return hit / xp.abs(hit).sum(axis=axes, keepdims=True)
        return sign * (size / y) ** (self.order - 1)

    def reference(self, x: Array) -> Array:
        size, how = jnp.abs(x), {"axis": self.axis, "keepdims": self.keepdims}
        if self.order == math.inf:
            return jnp.max(size, **how)
        return jnp.sum(size**self.order, **how) ** (1 / self.order)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        """Return several orders over several axes, zero entries and large magnitudes."""
        return (
            generic(cls(order=3.0), (3, 4)),
            generic(cls(axis=-1, order=1.5), (2, 3, 4)),
            generic(cls(axis=(0, 2), keepdims=True, order=math.inf), (2, 3, 4)),
            generic(cls(axis=0, order=1.0), (3, 2)),
            special(cls(order=3.0), "zero and large entries", [0.0, 3e30, -4e30]),
            special(cls(order=math.inf), "ties", [[2.0, -2.0], [1.0, 0.0]]),
            Case(cls(axis=1, order=4.0), ((0, 3),), "zero size"),
        )


@dataclass(frozen=True)
class L2Norm(Norm):
    """The Euclidean norm of x over axes: sqrt(sum(x^2)).

    Local gradient: a sum after a diagonal, dy/dx = x / y: the unit vector.
    Backward: dx = upstream * x / y. At x = 0 there is no gradient: NaN, as in JAX.
    """

    order: float = field(default=2.0, init=False, repr=False)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        """Return folds over one, several and all axes, zero entries and large magnitudes."""
        return (
            generic(cls(), (3, 4)),
            generic(cls(axis=-1), (2, 3, 4)),
            generic(cls(axis=(0, 2), keepdims=True), (2, 3, 4)),
            Case(cls(axis=1), ((3, 1, 2),), "size-1 axes"),
            Case(cls(axis=1), ((0, 3),), "zero size"),
            special(cls(), "zero and large entries", [0.0, 3e30, -4e30]),
        )


@dataclass(frozen=True)
class L1Norm(Norm):
    """The sum of |x| over axes.

    Local gradient: a sum after a diagonal, dy/dx = sign(x), with 1 at the kink x = 0, as in JAX.
    Backward: dx = upstream * sign(x).
    """

    order: float = field(default=1.0, init=False, repr=False)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        """Return the cases of every fold, and the kink."""
        return (
            generic(cls(), (3, 4)),
            generic(cls(axis=-1), (2, 3, 4)),
            generic(cls(axis=(0, 2), keepdims=True), (2, 3, 4)),
            Case(cls(axis=1), ((0, 3),), "zero size"),
            special(cls(), "the kink", [-1.0, 0.0, 2.0]),
        )
