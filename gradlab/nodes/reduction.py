"""Reductions over axes: many entries in, one out; backward hands the upstream to all of them."""

from abc import abstractmethod
from dataclasses import dataclass
from math import prod
from typing import Any

from gradlab.errors import InputError
from gradlab.nodes._arrays import Array, Shape, as_inputs, as_upstream, axes_of, keeping, namespace
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, Domain, generic, special
from gradlab.nodes._functions import logsumexp, softmax
from gradlab.nodes._lazy import jax, jnp
from gradlab.operators import Diagonal, Operator, sum_over

__all__ = ["Logsumexp", "Max", "Mean", "Min", "Prod", "Reduction", "Sum", "products_before"]


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
        y = keeping(self.value(x, axes), (x,))
        kept = tuple(n for i, n in enumerate(x.shape) if i not in axes)
        output = y if self.keepdims else y.reshape(kept)
        return output, (x, y, output, axes)

    def local_gradient(self, residuals: Any) -> tuple[Operator, ...]:
        """Return `Sum @ Diagonal(dy/dx)`: all entries of a fold meet in one output."""
        x, y, _, axes = residuals
        folding = sum_over(x.shape, axes, x.dtype, self.keepdims)
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


class Prod(Reduction):
    """The product of x over axes.

    Local gradient: a sum after a diagonal, dy/dx[i] = the product of all other entries.
    Backward: dx = upstream * the product of all other entries: of those before times those after,
    never y / x, which fails at zeros.
    """

    def value(self, x: Array, axes: Shape) -> Array:
        return namespace(x).prod(x, axis=axes, keepdims=True)

    def derivative(self, x: Array, y: Array, axes: Shape) -> Any:
        xp = namespace(x)
        kept = tuple(i for i in range(x.ndim) if i not in axes)
        rows = xp.permute_dims(x, (*kept, *axes))
        flat = rows.reshape(prod(x.shape[i] for i in kept), prod(x.shape[i] for i in axes))
        after = xp.flip(products_before(xp.flip(flat, axis=1)), axis=1)
        others = (products_before(flat) * after).reshape(rows.shape)
        order = (*kept, *axes)
        return xp.permute_dims(others, tuple(order.index(i) for i in range(x.ndim)))

    def reference(self, x: Array) -> Array:
        return jnp.prod(x, axis=self.axis, keepdims=self.keepdims)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        """Return the cases of every fold; no, one and two zeros in a row."""
        zeros = [[2.0, 3.0, -1.0], [0.0, 3.0, 2.0], [0.0, 5.0, 0.0]]
        return (*super().cases(), special(cls(axis=1), "zeros", zeros))


def products_before(x: Array) -> Array:
    """Return for each entry the product of those before it along the last axis; 1 for none."""
    xp = namespace(x)
    return xp.cumulative_prod(xp.concat([xp.ones_like(x[..., :1]), x[..., :-1]], axis=-1), axis=-1)


class Logsumexp(Reduction):
    """log(sum(exp(x))) over axes: a maximum without its kink.

    Local gradient: a sum after a diagonal, dy/dx = softmax(x) over those axes.
    Backward: dx = upstream * softmax(x). Where all entries are -inf it is 0; JAX has NaN.
    """

    def value(self, x: Array, axes: Shape) -> Array:
        return logsumexp(x, axes)

    def derivative(self, x: Array, y: Array, axes: Shape) -> Any:
        return softmax(x, axes)

    def reference(self, x: Array) -> Array:
        return jax.nn.logsumexp(x, axis=self.axis, keepdims=self.keepdims)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        """Return the cases of every fold; large magnitudes and masked entries."""
        extreme = [[1e3, 1e3, -1e3], [0.5, float("-inf"), -40.0]]
        return (*super().cases(), special(cls(axis=1), "large and masked", extreme))


class _Extremum(Reduction):
    """The greatest or least entry: the upstream is routed to where it was found."""

    domains = (Domain(distinct=True),)

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        """Return the extremum, if there are any entries."""
        try:
            return super().forward(*inputs)
        except ValueError as error:
            if "zero-size" not in str(error):
                raise
            raise InputError(
                f"{self!r}: no entries along axis {self.axis} to choose from"
            ) from None

    def derivative(self, x: Array, y: Array, axes: Shape) -> Any:
        """Return 1 where the extremum is, shared equally by entries that tie."""
        xp = namespace(x)
        hit = xp.where(x == y, xp.ones_like(x), xp.zeros_like(x))
        return hit / hit.sum(axis=axes, keepdims=True)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        """Return the cases of every fold, and ties."""
        return (*super().cases(), special(cls(axis=0), "ties", [[1.0, 2.0], [1.0, 0.0]]))


class Max(_Extremum):
    """The greatest entry of x over axes: routes the upstream to where it was found.

    Local gradient: a selection, dy/dx[i] = 1 for the greatest entry, 0 for the others.
    Backward: dx = upstream at the greatest entry. Entries that tie share it equally, as in JAX.
    """

    def value(self, x: Array, axes: Shape) -> Array:
        return namespace(x).max(x, axis=axes, keepdims=True)

    def reference(self, x: Array) -> Array:
        return jnp.max(x, axis=self.axis, keepdims=self.keepdims)


class Min(_Extremum):
    """The least entry of x over axes: routes the upstream to where it was found.

    Local gradient: a selection, dy/dx[i] = 1 for the least entry, 0 for the others.
    Backward: dx = upstream at the least entry. Entries that tie share it equally, as in JAX.
    """

    def value(self, x: Array, axes: Shape) -> Array:
        return namespace(x).min(x, axis=axes, keepdims=True)

    def reference(self, x: Array) -> Array:
        return jnp.min(x, axis=self.axis, keepdims=self.keepdims)
