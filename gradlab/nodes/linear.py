"""Matrix products: linear in each input, so each local gradient is made of the other one."""

from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, aligned, as_inputs, as_upstream, unbroadcast
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, generic
from gradlab.nodes._lazy import jnp
from gradlab.operators import Broadcast, left_multiplication, right_multiplication

__all__ = ["Affine", "Matmul"]


def _require_inner(node: Node, a: Array, b: Array) -> None:
    inner = b.shape[-2] if len(b.shape) > 1 else (b.shape[0] if b.shape else None)
    if not a.shape or inner is None or a.shape[-1] != inner:
        raise InputError(
            f"{node!r}: shapes {shape_text(a.shape)} and {shape_text(b.shape)} do not multiply; "
            "the last axis of the first must be as long as the second-last of the second"
        )


class Matmul(Node):
    """a @ b, batched over leading axes, which broadcast; one-dimensional inputs are vectors.

    Local gradients: y[i, j] = sum_k a[i, k] b[k, j], so dy[i, j] / da[i, k] = b[k, j] and
    dy[i, j] / db[k, j] = a[i, k]: block-diagonal, the blocks all equal. Nothing else is nonzero.
    Backward: da = upstream @ b^T, db = a^T @ upstream, summed over batch axes that were broadcast.
    """

    def forward(self, a: Any, b: Any) -> tuple[Array, Any]:
        a, b = as_inputs(self, (a, b))
        try:
            y = a @ b
        except (ValueError, TypeError):
            _require_inner(self, a, b)
            raise InputError(
                f"{self!r}: the leading axes of shapes {shape_text(a.shape)} and "
                f"{shape_text(b.shape)} do not broadcast"
            ) from None
        return y, (a, b, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        a, b, _ = residuals
        return right_multiplication(b, a.shape), left_multiplication(a, b.shape)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        return self.backward_to((True, True), upstream, residuals)

    def backward_to(
        self, wanted: tuple[bool, ...], upstream: Any, residuals: Any
    ) -> tuple[Any, ...]:
        a, b, y = residuals
        upstream = as_upstream(self, upstream, y)
        # Vectors are matrices with one row or one column; give them that axis for the while.
        rows, columns = len(a.shape) > 1, len(b.shape) > 1
        a2 = a if rows else a[None, :]
        b2 = b if columns else b[:, None]
        if not columns:
            upstream = upstream[..., None]
        if not rows:
            upstream = upstream[..., None, :]
        da = db = None
        if wanted[0]:
            da = unbroadcast(upstream @ b2.mT, a2)
        if wanted[1]:
            db = unbroadcast(a2.mT @ upstream, b2)
        if not (rows and columns):
            da = None if da is None else da.reshape(a.shape)
            db = None if db is None else db.reshape(b.shape)
        return da, db

    def reference(self, a: Array, b: Array) -> Array:
        return jnp.matmul(a, b)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4), (4, 2)),
            generic(cls(), (2, 1, 3, 4), (3, 4, 2)),
            generic(cls(), (3,), (2, 3, 4)),
            Case(cls(), ((4,), (4,)), "two vectors"),
            Case(cls(), ((2, 3, 4), (4,)), "matrices and a vector"),
            Case(cls(), ((1, 1), (1, 3)), "size-1 axes"),
            Case(cls(), ((3, 0), (0, 2)), "zero size"),
        )


class Affine(Node):
    """x @ w + b: the fully connected layer, for x of shape (..., inputs).

    Local gradients: in x, the matrix w for each row by itself (block-diagonal); in w, x; in b, a
    broadcast. Backward: dx = upstream @ w^T; dw = x^T @ upstream and db = upstream, both summed
    over the rows.
    """

    def forward(self, x: Any, w: Any, b: Any) -> tuple[Array, Any]:
        x, w, b = as_inputs(self, (x, w, b))
        if len(w.shape) != 2 or b.shape != w.shape[1:]:
            raise InputError(
                f"{self!r}: w has shape {shape_text(w.shape)} and b {shape_text(b.shape)}; "
                "expected (inputs, outputs) and (outputs,)"
            )
        try:
            y, bias = aligned((x @ w, b))
        except (ValueError, TypeError):
            _require_inner(self, x, w)
            raise
        y = y + bias
        return y, (x, w, b, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, w, b, y = residuals
        return (
            right_multiplication(w, x.shape),
            left_multiplication(x, w.shape),
            Broadcast(b.shape, y.shape, y.dtype),
        )

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        return self.backward_to((True, True, True), upstream, residuals)

    def backward_to(
        self, wanted: tuple[bool, ...], upstream: Any, residuals: Any
    ) -> tuple[Any, ...]:
        x, w, b, y = residuals
        upstream = as_upstream(self, upstream, y)
        rows, grads = x.reshape(-1, w.shape[0]), upstream.reshape(-1, w.shape[1])
        dx = unbroadcast(upstream @ w.T, x) if wanted[0] else None
        dw = unbroadcast(rows.T @ grads, w) if wanted[1] else None
        db = unbroadcast(grads, b) if wanted[2] else None
        return dx, dw, db

    def reference(self, x: Array, w: Array, b: Array) -> Array:
        y = jnp.matmul(x, w)
        return y + jnp.broadcast_to(b, y.shape)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (5, 3), (3, 4), (4,)),
            generic(cls(), (2, 5, 3), (3, 2), (2,)),
            generic(cls(), (3,), (3, 4), (4,)),
            Case(cls(), ((1, 1), (1, 1), (1,)), "size-1 axes"),
            Case(cls(), ((0, 3), (3, 4), (4,)), "zero size"),
        )
