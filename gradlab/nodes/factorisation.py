"""Factorisations of matrices: Cholesky, QR, eigenvalues and singular values.

A factorisation has one derivative along each direction of x, given here as a pushforward; the
backward is its adjoint, written for itself.
"""

from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, namespace
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, generic, special
from gradlab.nodes._lazy import jnp
from gradlab.nodes._matrices import (
    batch_letters,
    from_pushforward,
    positive_definite,
    require_matrices,
    solve_triangular,
    symmetric,
    turned,
)
from gradlab.operators import Contraction

__all__ = ["Cholesky", "Eigh", "Eigvalsh", "Qr", "SingularValues"]


def _half_lower(a: Array) -> Array:
    """Return the lower triangle with half of the diagonal."""
    xp = namespace(a)
    return 0.5 * (xp.tril(a) + xp.tril(a, k=-1))


class Cholesky(Node):
    """The lower-triangular L with L L^T = x, for positive definite matrices x (*batch, n, n).

    The symmetric part of x is what is factorised, so that the gradient is symmetric, as in JAX.

    Local gradient: dL = L P(L^-1 sym(dx) L^-T), with P the lower triangle with half its diagonal.
    Backward: S = L^-T P(L^T tril(upstream)) L^-1, dx = (S + S^T) / 2.
    Source: Murray, "Differentiation of the Cholesky decomposition" (arXiv:1602.07527, 2016).
    """

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        require_matrices(self, x)
        y = namespace(x).linalg.cholesky(symmetric(x)).astype(x.dtype)
        return y, y

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        y, xp = residuals, namespace(residuals)
        eye = xp.broadcast_to(xp.eye(y.shape[-1], dtype=y.dtype), y.shape)
        inverse = solve_triangular(y, eye)

        def pushforward(dx: Array) -> tuple[Array]:
            return (y @ _half_lower(inverse @ symmetric(dx) @ turned(inverse)),)

        return from_pushforward(pushforward, y)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        y, xp = residuals, namespace(residuals)
        p = _half_lower(turned(y) @ xp.tril(as_upstream(self, upstream, y)))
        left = solve_triangular(y, p, transposed=True)
        s = turned(solve_triangular(y, turned(left), transposed=True))
        return (symmetric(s).astype(y.dtype),)

    def reference(self, x: Array) -> Array:
        return jnp.linalg.cholesky(x, symmetrize_input=True)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            special(cls(), "generic", positive_definite(1, 3, 3)),
            special(cls(), "generic", positive_definite(2, 2, 2, 2)),
            special(cls(), "generic", positive_definite(3, 4, 4)),
            special(cls(), "diagonal", [[4.0, 0.0], [0.0, 9.0]]),
            special(cls(), "not symmetric", [[4.0, 2.0], [0.0, 9.0]]),
        )


class Qr(Node):
    """Q with orthonormal columns and an upper-triangular R with Q R = x (reduced).

    Shapes: x (*batch, m, n) with m >= n and full rank, Q (*batch, m, n), R (*batch, n, n).

    Local gradients, with X = dx R^-1, C = Q^T X and W = tril(C, -1) - tril(C, -1)^T:
    dR = (C - W) R, dQ = X - Q C + Q W.
    Backward, for upstreams U and V of Q and R: M = R triu(V)^T - U^T Q, and with the upper triangle
    of M replaced by the mirrored lower one, dx = (U + Q M) R^-T.
    Source: Liao et al., "Differentiable programming tensor networks" (arXiv:1903.09650, 2019),
    section III.
    """

    def forward(self, *inputs: Any) -> tuple[Any, Any]:
        (x,) = as_inputs(self, inputs)
        require_matrices(self, x, square=False)
        if x.shape[-2] < x.shape[-1]:
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)}; expected at least as many rows as "
                "columns (otherwise Q R has more unknowns than its gradient can settle)"
            )
        q, r = (y.astype(x.dtype) for y in namespace(x).linalg.qr(x))
        return (q, r), (q, r)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        q, r = residuals
        xp = namespace(q)
        inverse = xp.linalg.inv(r)

        def pushforward(dx: Array) -> tuple[Array, Array]:
            x = dx @ inverse
            c = turned(q) @ x
            w = xp.tril(c, k=-1)
            w = w - turned(w)
            return x - q @ c + q @ w, (c - w) @ r

        of_q, of_r = from_pushforward(pushforward, q)
        return (of_q,), (of_r,)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        q, r = residuals
        xp = namespace(q)
        u, v = as_upstream(self, upstream[0], q), as_upstream(self, upstream[1], r)
        lower = xp.tril(r @ turned(xp.triu(v)) - turned(u) @ q)
        m = lower + turned(xp.tril(lower, k=-1))
        dx = turned(solve_triangular(r, turned(u + q @ m), lower=False))
        return (dx.astype(q.dtype),)

    def reference(self, x: Array) -> Any:
        return tuple(jnp.linalg.qr(x))

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 2)),
            generic(cls(), (2, 2, 2)),
            generic(cls(), (4, 3)),
            Case(cls(), ((1, 1),), "size-1 axes"),
        )


def _signs(v: Array) -> Array:
    """Return the sign that makes the largest entry of each column positive."""
    xp = namespace(v)
    largest = xp.argmax(xp.abs(v), axis=-2)[..., None, :]
    one = xp.ones_like(v[..., :1, :])
    return xp.where(xp.take_along_axis(v, largest, axis=-2) < 0, -one, one)


class Eigh(Node):
    """The eigenvalues w, ascending, and orthonormal eigenvectors V of symmetric x: x V = V diag(w).

    The symmetric part of x is what is decomposed. An eigenvector's sign is free; here its largest
    entry is positive. Where eigenvalues are equal the eigenvectors have no gradient (nan or inf).

    Shapes: x and V (*batch, n, n), eigenvectors as columns; w (*batch, n).

    Local gradients, with M = V^T sym(dx) V and F[i, j] = 1 / (w[j] - w[i]), 0 on the diagonal:
    dw = diag(M), dV = V (F * M).
    Backward: dx = the symmetric part of V (diag(upstream of w) + F * (V^T upstream of V)) V^T.
    Source: Giles (2008), section 3.1.
    """

    def forward(self, *inputs: Any) -> tuple[Any, Any]:
        (x,) = as_inputs(self, inputs)
        require_matrices(self, x)
        w, v = (y.astype(x.dtype) for y in namespace(x).linalg.eigh(symmetric(x)))
        v = v * _signs(v)
        return (w, v), (w, v)

    def _factors(self, w: Array) -> Array:
        xp = namespace(w)
        eye = xp.broadcast_to(xp.eye(w.shape[-1], dtype=w.dtype), (*w.shape, w.shape[-1]))
        return (1.0 - eye) / (w[..., None, :] - w[..., :, None] + eye)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        w, v = residuals
        xp = namespace(v)

        def pushforward(dx: Array) -> tuple[Array, Array]:
            m = turned(v) @ symmetric(dx) @ v
            return xp.einsum("...ii->...i", m), v @ (self._factors(w) * m)

        of_w, of_v = from_pushforward(pushforward, v)
        return (of_w,), (of_v,)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        w, v = residuals
        dw, dv = as_upstream(self, upstream[0], w), as_upstream(self, upstream[1], v)
        inner = self._factors(w) * (turned(v) @ dv)
        dx = (v @ inner + v * dw[..., None, :]) @ turned(v)
        return (symmetric(dx).astype(v.dtype),)

    def reference(self, x: Array) -> Any:
        w, v = jnp.linalg.eigh(x, symmetrize_input=True)
        return w, v * _signs(v)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 3)),
            generic(cls(), (2, 2, 2)),
            special(cls(), "generic", [[2.0, 0.5, 0.0], [0.5, -1.0, 0.3], [0.0, 0.3, 0.7]]),
            special(cls(), "diagonal", [[3.0, 0.0], [0.0, -1.0]]),
            Case(cls(), ((1, 1),), "size-1 axes"),
        )


class Eigvalsh(Node):
    """The eigenvalues of symmetric matrices x (*batch, n, n), ascending: (*batch, n).

    Local gradient: dw[k] = v_k^T sym(dx) v_k, rank one for each eigenvalue.
    Backward: dx = V diag(upstream) V^T.
    Source: Giles (2008), section 3.1.
    """

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        require_matrices(self, x)
        w, v = (y.astype(x.dtype) for y in namespace(x).linalg.eigh(symmetric(x)))
        return w, (w, v)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        _, v = residuals
        b = batch_letters(v)
        return (Contraction(f"{b}ik,{b}jk,{b}ij->{b}k", v, v, input_shape=v.shape),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        w, v = residuals
        return (((v * as_upstream(self, upstream, w)[..., None, :]) @ turned(v)).astype(v.dtype),)

    def reference(self, x: Array) -> Array:
        return jnp.linalg.eigh(x, symmetrize_input=True)[0]

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 3)),
            generic(cls(), (2, 2, 2)),
            special(cls(), "generic", [[2.0, 0.5, 0.0], [0.5, -1.0, 0.3], [0.0, 0.3, 0.7]]),
            special(cls(), "diagonal", [[3.0, 0.0], [0.0, -1.0]]),
            Case(cls(), ((1, 1),), "size-1 axes"),
        )


class SingularValues(Node):
    """The singular values of matrices x (*batch, m, n), descending: (*batch, min(m, n)).

    Local gradient: ds[k] = u_k^T dx v_k, rank one for each singular value; x = U diag(s) V^T.
    Backward: dx = U diag(upstream) V^T.
    Source: Giles (2008), section 3.2.
    """

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        require_matrices(self, x, square=False)
        u, s, vt = (y.astype(x.dtype) for y in namespace(x).linalg.svd(x, full_matrices=False))
        return s, (x, u, s, vt)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, u, _, vt = residuals
        b = batch_letters(x)
        return (Contraction(f"{b}ik,{b}kj,{b}ij->{b}k", u, vt, input_shape=x.shape),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, u, s, vt = residuals
        return (((u * as_upstream(self, upstream, s)[..., None, :]) @ vt).astype(x.dtype),)

    def reference(self, x: Array) -> Array:
        return jnp.linalg.svd(x, compute_uv=False)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 2)),
            generic(cls(), (2, 2, 3)),
            generic(cls(), (3, 3)),
            special(cls(), "diagonal", [[3.0, 0.0], [0.0, -1.0]]),
            Case(cls(), ((1, 1),), "size-1 axes"),
        )
