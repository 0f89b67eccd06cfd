"""Numbers made of a matrix: its determinant, the logarithm of that, its trace.

Source: Giles, "Collected matrix derivative results for forward and reverse mode algorithmic
differentiation" (2008), sections 2.2.4 and 2.3.1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradlab.nodes._arrays import Array, as_inputs, as_upstream, namespace
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, generic, special
from gradlab.nodes._lazy import jnp
from gradlab.nodes._matrices import batch_letters, require_matrices, turned
from gradlab.operators import Contraction, Reshape, Selection, Zero, sum_over

__all__ = ["Determinant", "Slogdet", "Trace"]


def _of_matrix(weights: Array) -> Contraction:
    """Return the map dx -> sum of weights * dx over each matrix."""
    b = batch_letters(weights)
    return Contraction(f"{b}ij,{b}ij->{b}", weights, input_shape=weights.shape)


class Determinant(Node):
    """The determinant of square matrices (*batch, n, n): (*batch).

    Local gradient: dy/dx = C, the cofactors, which are y x^-T. Where y = 0 they are taken from the
    singular values: C = det(U V) U diag(products of the other s) V^T. Backward: dx = upstream * C.
    """

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        require_matrices(self, x)
        y = namespace(x).linalg.det(x).astype(x.dtype)
        return y, (x, y)

    def _cofactors(self, x: Array, y: Array) -> Array:
        xp = namespace(x)
        singular = xp.broadcast_to((y == 0)[..., None, None], x.shape)
        eye = xp.broadcast_to(xp.eye(x.shape[-1], dtype=x.dtype), x.shape)
        cofactors = y[..., None, None] * turned(xp.linalg.inv(xp.where(singular, eye, x)))
        if xp is not np or singular.any():
            cofactors = xp.where(singular, _from_singular_values(x), cofactors)
        return cofactors.astype(x.dtype)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        return (_of_matrix(self._cofactors(*residuals)),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, y = residuals
        upstream = as_upstream(self, upstream, y)
        return ((upstream[..., None, None] * self._cofactors(x, y)).astype(x.dtype),)

    def reference(self, x: Array) -> Array:
        return jnp.linalg.det(x)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 3)),
            generic(cls(), (2, 2, 2)),
            generic(cls(), (3, 1, 1)),
            special(cls(), "singular", [[1.0, 2.0], [2.0, 4.0]]),
            special(cls(), "nearly", [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]),
            special(cls(), "a reflection", [[0.0, 1.0], [1.0, 0.0]]),
        )


class Slogdet(Node):
    """The sign of the determinant, and the logarithm of its magnitude, which cannot overflow.

    Shapes: x (*batch, n, n), both outputs (*batch).

    Local gradients: of the sign none (zero), of the logarithm x^-T.
    Backward: dx = (upstream of the logarithm) * x^-T.
    """

    def forward(self, *inputs: Any) -> tuple[Any, Any]:
        (x,) = as_inputs(self, inputs)
        require_matrices(self, x)
        sign, log = (y.astype(x.dtype) for y in namespace(x).linalg.slogdet(x))
        return (sign, log), (x, sign)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, sign = residuals
        inverse = namespace(x).linalg.inv(x)
        return (Zero(sign.shape, x.shape, x.dtype),), (_of_matrix(turned(inverse)),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, sign = residuals
        as_upstream(self, upstream[0], sign)
        u = as_upstream(self, upstream[1], sign)[..., None, None]
        return ((u * turned(namespace(x).linalg.inv(x))).astype(x.dtype),)

    def reference(self, x: Array) -> Any:
        return tuple(jnp.linalg.slogdet(x))

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 3)),
            generic(cls(), (2, 2, 2)),
            generic(cls(), (3, 1, 1)),
            special(cls(), "large", [[1e200, 0.0], [1.0, 1e200]]),
            special(cls(), "a reflection", [[0.0, 1.0], [1.0, 0.0]]),
        )


def _from_singular_values(x: Array) -> Array:
    xp = namespace(x)
    u, s, vt = xp.linalg.svd(x)
    eye = xp.broadcast_to(xp.eye(x.shape[-1], dtype=bool), x.shape)
    others = xp.where(eye, xp.ones_like(x), xp.broadcast_to(s[..., None, :], x.shape))
    sign = xp.linalg.det(u) * xp.linalg.det(vt)
    return (u * (sign[..., None, None] * xp.prod(others, axis=-1)[..., None, :])) @ vt


@dataclass(frozen=True)
class Trace(Node):
    """The sum of the diagonal of matrices (*batch, m, n): (*batch).

    Args:
        offset: which diagonal; 1 is the one above the main diagonal, -1 the one below.

    Local gradient: a selection, then a sum: dy/dx[i, j] = 1 where j - i = offset, else 0.
    Backward: dx = upstream on the diagonal, 0 elsewhere.
    """

    offset: int = 0

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        require_matrices(self, x, square=False)
        y = namespace(x).trace(x, offset=self.offset, axis1=-2, axis2=-1)
        return y, (x, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, _ = residuals
        *batch, m, n = x.shape
        entries = np.diagonal(np.arange(m * n).reshape(m, n), self.offset)
        picked = Selection(entries, (*batch, m * n), x.dtype, axis=len(batch))
        total = sum_over(picked.output_shape, len(batch), x.dtype)
        return (total @ picked @ Reshape(x.shape, (*batch, m * n), x.dtype),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, y = residuals
        xp, u = namespace(x), as_upstream(self, upstream, y).astype(x.dtype)
        diagonal = xp.eye(*x.shape[-2:], k=self.offset, dtype=x.dtype)
        return (u[..., None, None] * xp.broadcast_to(diagonal, x.shape),)

    def reference(self, x: Array) -> Array:
        return jnp.trace(x, self.offset, axis1=-2, axis2=-1)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 3)),
            generic(cls(offset=1), (2, 2, 4)),
            generic(cls(offset=-1), (3, 2)),
            Case(cls(offset=3), ((2, 3),), "no such diagonal"),
            Case(cls(), ((1, 1),), "size-1 axes"),
            Case(cls(), ((0, 2, 2),), "zero size"),
        )
