"""Reductions over axes: many entries in, one out; backward hands the upstream to all of them."""

import math
from dataclasses import field
from typing import ClassVar

from gradlab.common.arrays import (
    Array,
    DTypeLike,
    Shape,
    at_least_float32,
    in_dtype_of,
    namespace,
    normal_axes,
)
from gradlab.errors import InputError
from gradlab.nodes._base import Applied, Derivative, Gradients, Namespace, Node, Pulled, after_xp
from gradlab.nodes._domain import Domain
from gradlab.nodes._lazy import jnp
from gradlab.nodes._stable import logsumexp, softmax
from gradlab.operators import Diagonal, sum_over


class _Reduction(Node):
    """A node that folds the entries along `axis` into one.

    Write `value` and `derivative`, or `formulas`. Its local gradient is `Sum @ Diagonal(dy/dx)`,
    its backward `upstream * dy/dx`, the upstream repeated along the folded axes. `derivative`
    names what it needs: first `n`, the number of entries that are folded, then `x`, the output `y`.

    Args:
        axis: the axis or axes that are folded; None means all.
        keepdims: whether folded axes stay, with size 1.
    """

    _kind = (
        "Reduction: the local gradient is a sum after diag(dy/dx), the backward dx = upstream * "
        "dy/dx, with the upstream repeated along the axes that were folded."
    )
    axis: int | tuple[int, ...] | None = None
    keepdims: bool = False
    drawn = (
        "3x4; 2x3x4 axis=-1; 2x3x4 axis=(0,2) keepdims=True; no axis: 2x3 axis=(); "
        "scalar: scalar; size-1 axes: 3x1x2 axis=1; zero size: 0x3 axis=1"
    )
    _named: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **keywords: bool) -> None:
        super().__init_subclass__(**keywords)
        cls._named = tuple(p.name for p in after_xp(cls, "derivative")[1:])

    def value(self, xp: Namespace, x: Array, axes: Shape) -> Array:
        """Return x folded over `axes`, which stay with size 1."""
        raise NotImplementedError

    def derivative(self, xp: Namespace, axes: Shape, *named: Array) -> Derivative:
        """Return dy/dx for each entry of x: an array, or a number where it is constant."""
        raise NotImplementedError

    def apply(self, xp: Namespace, x: Array) -> Applied:
        axes = normal_axes(self.axis, x.shape, self)
        y = in_dtype_of(self.value(xp, x, axes), (x,))
        kept = (axes, x.shape, x.dtype, *[x if n == "x" else y for n in self._named if n != "n"])
        if self.keepdims:
            return y, kept
        return y.reshape([n for i, n in enumerate(x.shape) if i not in axes]), kept

    def gradients(
        self, xp: Namespace, axes: Shape, shape: Shape, dtype: DTypeLike, *named: Array
    ) -> Gradients:
        """Return `Sum @ Diagonal(dy/dx)`: all entries of a fold meet in one output."""
        folding = sum_over(shape, axes, dtype, self.keepdims)
        d = self._derivative(xp, axes, shape, named)
        return d * folding if isinstance(d, float) else folding @ Diagonal(d)

    def pull(
        self, xp: Namespace, u: Array, axes: Shape, shape: Shape, dtype: DTypeLike, *named: Array
    ) -> Pulled:
        u = u.reshape([1 if i in axes else n for i, n in enumerate(shape)])
        return xp.broadcast_to(u * self._derivative(xp, axes, shape, named), shape)

    def _derivative(
        self, xp: Namespace, axes: Shape, shape: Shape, named: tuple[Array, ...]
    ) -> Derivative:
        if self._named[:1] == ("n",):
            return self.derivative(xp, axes, math.prod([shape[a] for a in axes]), *named)
        return self.derivative(xp, axes, *named)


class Sum(_Reduction):
    """The sum of x over axes; dy/dx = 1."""

    jax = "jax.numpy.sum"
    formulas = lambda xp, x, axes: x.sum(axis=axes, keepdims=True), lambda xp, axes: 1.0


class Mean(_Reduction):
    """The mean of x over axes; dy/dx = 1/n for the n entries that are folded."""

    jax = "jax.numpy.mean"
    formulas = (
        lambda xp, x, axes: x.mean(axis=axes, keepdims=True),
        lambda xp, axes, n: 1.0 / max(n, 1),
    )


class Prod(_Reduction):
    """The product of x over axes.

    Local gradient: a sum after a diagonal, dy/dx[i] = the product of all other entries.
    Backward: dx = upstream * the product of all other entries: of those before times those after,
    never y / x, which fails at zeros.
    """

    jax = "jax.numpy.prod"
    points = {"zeros": ({"axis": 1}, [[2.0, 3.0, -1.0], [0.0, 3.0, 2.0], [0.0, 5.0, 0.0]])}

    def value(self, xp: Namespace, x: Array, axes: Shape) -> Array:
        return xp.prod(x, axis=axes, keepdims=True)

    def derivative(self, xp: Namespace, axes: Shape, x: Array) -> Derivative:
        order = (*(i for i in range(x.ndim) if i not in axes), *axes)
        rows = xp.permute_dims(x, order)
        folded = math.prod([x.shape[i] for i in axes])
        flat = rows.reshape(math.prod(rows.shape[: x.ndim - len(axes)]), folded)
        after = xp.flip(products_before(xp.flip(flat, axis=1)), axis=1)
        others = (products_before(flat) * after).reshape(rows.shape)
        return xp.permute_dims(others, tuple(order.index(i) for i in range(x.ndim)))


def products_before(x: Array) -> Array:
    """Return for each entry the product of those before it along the last axis; 1 for none."""
    xp = namespace(x)
    return xp.cumulative_prod(xp.concat([xp.ones_like(x[..., :1]), x[..., :-1]], axis=-1), axis=-1)


class Logsumexp(_Reduction):
    """log(sum(exp(x))) over axes: a maximum without its kink.

    Local gradient: a sum after a diagonal, dy/dx = softmax(x) over those axes.
    Backward: dx = upstream * softmax(x). Where all entries are -inf it is 0; JAX has NaN.
    """

    jax = "jax.nn.logsumexp"
    points = {"large and masked": ({"axis": 1}, [[1e3, 1e3, -1e3], [0.5, -math.inf, -40.0]])}
    formulas = lambda xp, x, axes: logsumexp(x, axes), lambda xp, axes, x: softmax(x, axes)


class _Extremum(_Reduction):
    """The greatest or least entry: the upstream is routed to where it was found."""

    domains = (Domain(distinct=True),)
    points = {"ties": ({"axis": 0}, [[1.0, 2.0], [1.0, 0.0]])}

    def apply(self, xp: Namespace, x: Array) -> Applied:
        try:
            return super().apply(xp, x)
        except ValueError as error:
            if "zero-size" not in str(error):
                raise
            raise InputError(
                f"{self!r}: no entries along axis {self.axis} to choose from"
            ) from None

    def derivative(self, xp: Namespace, axes: Shape, x: Array, y: Array) -> Derivative:
        """Return 1 where the extremum is, shared equally by entries that tie."""
        hit = xp.where(x == y, xp.ones_like(x), xp.zeros_like(x))
        return hit / hit.sum(axis=axes, keepdims=True)


class Max(_Extremum):
    """The greatest entry of x over axes: routes the upstream to where it was found.

    Local gradient: a selection, dy/dx[i] = 1 for the greatest entry, 0 for the others.
    Backward: dx = upstream at the greatest entry. Entries that tie share it equally, as in JAX.
    """

    jax = "jax.numpy.max"

    def value(self, xp: Namespace, x: Array, axes: Shape) -> Array:
        return xp.max(x, axis=axes, keepdims=True)


class Min(_Extremum):
    """The least entry of x over axes: routes the upstream to where it was found.

    Local gradient: a selection, dy/dx[i] = 1 for the least entry, 0 for the others.
    Backward: dx = upstream at the least entry. Entries that tie share it equally, as in JAX.
    """

    jax = "jax.numpy.min"

    def value(self, xp: Namespace, x: Array, axes: Shape) -> Array:
        return xp.min(x, axis=axes, keepdims=True)


class Var(_Reduction):
    """The variance of x over axes: sum((x - mean)^2) / (n - correction).

    Args:
        correction: what is subtracted from the number of entries; 1 for the unbiased estimate.
    """

    correction: float = 0.0
    jax = "jax.numpy.var"
    drawn = "3x4; 2x3x4 axis=-1 correction=1; 2x3x4 axis=(0,2) keepdims=True; zero size: 0x3 axis=1"
    points = {"far from zero": ({"axis": 1}, [[1e4 + 1, 1e4 + 2, 1e4 - 1]])}

    def value(self, xp: Namespace, x: Array, axes: Shape) -> Array:
        return self._wide(x, axes).astype(x.dtype)

    def _wide(self, x: Array, axes: Shape) -> Array:
        """Return the variance, in float32 for half precision, where squares do not overflow."""
        x = at_least_float32(x)
        deviation = x - x.mean(axis=axes, keepdims=True)
        freedom = float(math.prod([x.shape[a] for a in axes])) - self.correction
        return (deviation * deviation).sum(axis=axes, keepdims=True) / freedom

    def derivative(self, xp: Namespace, axes: Shape, n: int, x: Array) -> Derivative:
        return (x - x.mean(axis=axes, keepdims=True)) * (2.0 / (n - self.correction))


class Std(Var):
    """The standard deviation of x over axes: the root of the variance.

    Local gradient: a sum after a diagonal, dy/dx = (x - mean) / ((n - correction) y).
    Backward: dx = upstream * (x - mean) / ((n - correction) y). Where all entries are equal there
    is no gradient: NaN, as in JAX.
    """

    jax = "jax.numpy.std"

    def value(self, xp: Namespace, x: Array, axes: Shape) -> Array:
        return xp.sqrt(self._wide(x, axes)).astype(x.dtype)

    def derivative(self, xp: Namespace, axes: Shape, n: int, x: Array, y: Array) -> Derivative:
        return 0.5 * super().derivative(xp, axes, n, x) / y


class Norm(_Reduction):
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
    drawn = (
        "3x4 order=3.0; 2x3x4 axis=-1 order=1.5; 2x3x4 axis=(0,2) keepdims=True order=inf; "
        "3x2 axis=0 order=1.0; zero size: 0x3 axis=1 order=4.0"
    )
    points = {
        "zero and large entries": ({"order": 3.0}, [0.0, 3e30, -4e30]),
        "ties": ({"order": math.inf}, [[2.0, -2.0], [1.0, 0.0]]),
    }

    def value(self, xp: Namespace, x: Array, axes: Shape) -> Array:
        size = xp.abs(x)
        if self.order == 1:
            return size.sum(axis=axes, keepdims=True)
        top = xp.max(size, axis=axes, keepdims=True, initial=0.0)
        if self.order == math.inf:
            return top
        ratio = size / xp.where(top == 0, xp.ones_like(top), top)
        return top * (ratio**self.order).sum(axis=axes, keepdims=True) ** (1 / self.order)

    def derivative(self, xp: Namespace, axes: Shape, x: Array, y: Array) -> Derivative:
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


class L2Norm(Norm):
    """The Euclidean norm of x over axes; dy/dx = x / y, NaN where y = 0, as in JAX."""

    order: float = field(default=2.0, init=False, repr=False)
    drawn = (
        "3x4; 2x3x4 axis=-1; 2x3x4 axis=(0,2) keepdims=True; size-1 axes: 3x1x2 axis=1; "
        "zero size: 0x3 axis=1"
    )
    points = {"zero and large entries": [0.0, 3e30, -4e30]}


class L1Norm(Norm):
    """The sum of |x| over axes; dy/dx = sign(x), with 1 at the kink x = 0, as in JAX."""

    order: float = field(default=1.0, init=False, repr=False)
    drawn = "3x4; 2x3x4 axis=-1; 2x3x4 axis=(0,2) keepdims=True; zero size: 0x3 axis=1"
    points = {"the kink": [-1.0, 0.0, 2.0]}
