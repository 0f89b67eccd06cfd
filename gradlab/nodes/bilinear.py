"""Products of vectors: bilinear and quadratic forms."""

from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, keeping
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, generic
from gradlab.nodes._lazy import jnp
from gradlab.operators import Contraction, Dense

__all__ = ["Dot", "Outer", "QuadraticForm"]


class Outer(Node):
    """The outer product of two vectors: y[i, j] = a[i] b[j].

    Local gradients: dy[i, j]/da[i] = b[j] and dy[i, j]/db[j] = a[i]; nothing else is nonzero.
    Backward: da = upstream @ b, db = a @ upstream.
    """

    def forward(self, a: Any, b: Any) -> tuple[Array, Any]:
        a, b = as_inputs(self, (a, b))
        _require_vectors(self, a, b)
        y = a[:, None] * b[None, :]
        return y, (a, b, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        a, b, _ = residuals
        return (
            Contraction("j,i->ij", b, input_shape=a.shape),
            Contraction("i,j->ij", a, input_shape=b.shape),
        )

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        a, b, y = residuals
        upstream = as_upstream(self, upstream, y)
        return (upstream @ b).astype(a.dtype), (a @ upstream).astype(b.dtype)

    def reference(self, a: Array, b: Array) -> Array:
        return jnp.outer(a, b)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3,), (4,)),
            generic(cls(), (5,), (2,)),
            generic(cls(), (1,), (3,)),
            Case(cls(), ((0,), (3,)), "zero size"),
        )


class Dot(Node):
    """The dot product of two vectors: sum(a * b).

    Local gradients: the rows b^T and a^T. Backward: da = upstream * b, db = upstream * a.
    """

    def forward(self, a: Any, b: Any) -> tuple[Array, Any]:
        a, b = as_inputs(self, (a, b))
        _require_vectors(self, a, b)
        if a.shape != b.shape:
            raise InputError(
                f"{self!r}: vectors of {a.shape[0]} and {b.shape[0]} entries came; "
                "both must be equally long"
            )
        y = (a * b).sum()
        return y, (a, b, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        a, b, _ = residuals
        return Dense(b[None, :], (), a.shape), Dense(a[None, :], (), b.shape)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        a, b, y = residuals
        upstream = as_upstream(self, upstream, y)
        return (upstream * b).astype(a.dtype), (upstream * a).astype(b.dtype)

    def reference(self, a: Array, b: Array) -> Array:
        return jnp.dot(a, b)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3,), (3,)),
            generic(cls(), (7,), (7,)),
            generic(cls(), (1,), (1,)),
            Case(cls(), ((0,), (0,)), "zero size"),
        )


class QuadraticForm(Node):
    """x^T A x for a vector x and a square matrix A, which need not be symmetric.

    Local gradients: the row ((A + A^T) x)^T, and in A the outer product x x^T as one row.
    Backward: dx = upstream * (A + A^T) x, dA = upstream * x x^T.
    """

    def forward(self, x: Any, a: Any) -> tuple[Array, Any]:
        x, a = as_inputs(self, (x, a))
        if len(x.shape) != 1 or a.shape != x.shape * 2:
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)} and a {shape_text(a.shape)}; "
                "expected (n,) and (n, n)"
            )
        y = keeping(x @ (a @ x), (x, a))
        return y, (x, a, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, a, _ = residuals
        row, outer = (a @ x + x @ a)[None, :], (x[:, None] * x[None, :]).reshape(1, -1)
        return Dense(row, (), x.shape), Dense(outer, (), a.shape)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        x, a, y = residuals
        upstream = as_upstream(self, upstream, y)
        dx = upstream * (a @ x + x @ a)
        return dx.astype(x.dtype), (upstream * x[:, None] * x[None, :]).astype(a.dtype)

    def reference(self, x: Array, a: Array) -> Array:
        return jnp.dot(x, jnp.matmul(a, x))

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3,), (3, 3)),
            generic(cls(), (5,), (5, 5)),
            generic(cls(), (1,), (1, 1)),
            Case(cls(), ((0,), (0, 0)), "zero size"),
        )


def _require_vectors(node: Node, a: Array, b: Array) -> None:
    if len(a.shape) != 1 or len(b.shape) != 1:
        raise InputError(
            f"{node!r}: shapes {shape_text(a.shape)} and {shape_text(b.shape)} came; "
            "both inputs are vectors"
        )
