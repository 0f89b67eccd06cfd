"""Linear algebra on the last two axes: determinants, systems, factorisations, matrix functions.

A factorisation has one derivative along each direction of x, given here as a pushforward; the
backward is its adjoint, written for itself.

Source: Giles, "Collected matrix derivative results for forward and reverse mode algorithmic
differentiation" (2008); Higham, "Functions of matrices" (2008): the derivative of a matrix function
along E is a block of that function of [[x, E], [0, x]] (theorem 3.6).
"""

import math
from collections.abc import Callable

import numpy as np

from gradlab import operators as ops
from gradlab.common.arrays import Array, Shape, einsum, namespace
from gradlab.nodes._base import (
    Applied,
    Case,
    Gradients,
    Like,
    Linear,
    Namespace,
    Node,
    Outputs,
    Pulled,
    special,
)
from gradlab.nodes._domain import Domain
from gradlab.nodes._lazy import jax, jnp
from gradlab.operators import Operator

_SQUARE = "x (*batch, n, n)"


def _symmetric(a: Array) -> Array:
    """Return each matrix's symmetric part."""
    return (0.5 * (a + a.mT)).astype(a.dtype)


def _batch_letters(x: Array) -> str:
    """Return a letter for each batch axis, for einsum."""
    return "ABCDEFGH"[: len(x.shape) - 2]


def _left_right_product(left: Array, right: Array, shape: Shape) -> Operator:
    """Return the map x -> left x right, matrix by matrix."""
    b = _batch_letters(left)
    return ops.Contraction(f"{b}ij,{b}kl,{b}jk->{b}il", left, right, input_shape=shape)


def _solve_triangular(
    a: Array, b: Array, lower: bool = True, transposed: bool = False, unit: bool = False
) -> Array:
    """Return a^-1 b, or a^-T b, reading one triangle of a; neither namespace has it."""
    if namespace(a, b) is np:
        from scipy.linalg import solve_triangular as solve
    else:
        from jax.scipy.linalg import solve_triangular as solve
    if 0 in b.shape:
        return namespace(a, b).zeros_like(b)
    # LAPACK has no half precision, and SciPy no longer widens by itself.
    wide_a, wide_b = (m.astype(np.float32) if m.dtype.itemsize < 4 else m for m in (a, b))
    x = solve(wide_a, wide_b, trans=int(transposed), lower=lower, unit_diagonal=unit)
    return x.astype(b.dtype)


def _from_pushforward(
    pushforward: Callable[[Array], tuple[Array, ...]], x: Array
) -> tuple[Operator, ...]:
    """Return the local gradient of each output, one block per matrix, from the derivative along dx.

    Args:
        pushforward: dx -> the derivatives of the outputs; it takes any axes in front of x's.
        x: the matrices (*batch, m, n).
    """
    xp, (*batch, m, n) = namespace(x), x.shape
    basis = xp.eye(m * n, dtype=x.dtype).reshape(m * n, *(1,) * len(batch), m, n)
    operators = []
    for dy in pushforward(xp.broadcast_to(basis, (m * n, *batch, m, n))):
        y_shape = dy.shape[1:]
        columns = dy.reshape(m * n, *batch, math.prod(y_shape[len(batch) :]))
        blocks = ops.BlockDiagonal(xp.moveaxis(columns, 0, -1))
        operators.append(
            ops.Reshape(blocks.output_shape, y_shape, x.dtype)
            @ blocks
            @ ops.Reshape(x.shape, blocks.input_shape, x.dtype)
        )
    return tuple(operators)


def _of_matrix(weights: Array) -> ops.Contraction:
    """Return the map dx -> sum of weights * dx over each matrix."""
    b = _batch_letters(weights)
    return ops.Contraction(f"{b}ij,{b}ij->{b}", weights, input_shape=weights.shape)


class Determinant(Node):
    """The determinant of square matrices.

    Local gradient: dy/dx = C, the cofactors, which are y x^-T. Where y = 0 they are taken from the
    singular values: C = det(U V) U diag(products of the other s) V^T. Backward: dx = upstream * C.
    Source: Giles (2008), section 2.2.4.
    """

    jax = "jax.numpy.linalg.det"
    shapes = f"{_SQUARE} -> (*batch)"
    drawn = "3x3; 2x2x2; 3x1x1"
    points = {
        "singular": [[1.0, 2.0], [2.0, 4.0]],
        "nearly": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]],
        "a reflection": [[0.0, 1.0], [1.0, 0.0]],
    }

    def apply(self, xp: Namespace, x: Array) -> Applied:
        y = xp.linalg.det(x).astype(x.dtype)
        return y, (x, y)

    def _cofactors(self, xp: Namespace, x: Array, y: Array) -> Array:
        singular = xp.broadcast_to((y == 0)[..., None, None], x.shape)
        eye = xp.broadcast_to(xp.eye(x.shape[-1], dtype=x.dtype), x.shape)
        cofactors = y[..., None, None] * xp.linalg.inv(xp.where(singular, eye, x)).mT
        if xp is not np or singular.any():
            cofactors = xp.where(singular, _from_singular_values(x), cofactors)
        return cofactors.astype(x.dtype)

    def gradients(self, xp: Namespace, x: Array, y: Array) -> Gradients:
        return _of_matrix(self._cofactors(xp, x, y))

    def pull(self, xp: Namespace, upstream: Array, x: Array, y: Array) -> Pulled:
        return upstream[..., None, None] * self._cofactors(xp, x, y)


def _from_singular_values(x: Array) -> Array:
    xp = namespace(x)
    u, s, vt = xp.linalg.svd(x)
    eye = xp.broadcast_to(xp.eye(x.shape[-1], dtype=bool), x.shape)
    others = xp.where(eye, xp.ones_like(x), xp.broadcast_to(s[..., None, :], x.shape))
    sign = xp.linalg.det(u) * xp.linalg.det(vt)
    return (u * (sign[..., None, None] * xp.prod(others, axis=-1)[..., None, :])) @ vt


class Slogdet(Node):
    """The sign of the determinant, and the logarithm of its magnitude, which cannot overflow.

    Local gradients: of the sign none (zero), of the logarithm x^-T.
    Backward: dx = (upstream of the logarithm) * x^-T.
    Source: Giles (2008), section 2.3.1.
    """

    shapes = f"{_SQUARE} -> (*batch), (*batch)"
    drawn = "3x3; 2x2x2; 3x1x1"
    points = {"large": [[1e200, 0.0], [1.0, 1e200]], "a reflection": [[0.0, 1.0], [1.0, 0.0]]}

    def apply(self, xp: Namespace, x: Array) -> Applied:
        sign, log = (y.astype(x.dtype) for y in xp.linalg.slogdet(x))
        return (sign, log), (x,)

    def gradients(self, xp: Namespace, x: Array) -> Gradients:
        of_log = _of_matrix(xp.linalg.inv(x).mT)
        return (ops.Zero(x.shape[:-2], x.shape, x.dtype),), (of_log,)

    def pull(self, xp: Namespace, upstream: tuple[Array, Array], x: Array) -> Pulled:
        return upstream[1][..., None, None] * xp.linalg.inv(x).mT

    def reference(self, x: Array) -> Outputs:
        return tuple(jnp.linalg.slogdet(x))


class Trace(Linear):
    """The sum of the diagonal of matrices.

    Args:
        offset: which diagonal; 1 is the one above the main diagonal, -1 the one below.
    """

    offset: int = 0
    shapes = "x (*batch, m, n) -> (*batch)"
    drawn = (
        "3x3; 2x2x4 offset=1; 3x2 offset=-1; no such diagonal: 2x3 offset=3; size-1 axes: 1x1; "
        "zero size: 0x2x2"
    )

    def operator(self, x: Like) -> Operator:
        *batch, m, n = x.shape
        entries = np.diagonal(np.arange(m * n).reshape(m, n), self.offset)
        picked = ops.Selection(entries, (*batch, m * n), x.dtype, axis=len(batch))
        total = ops.sum_over(picked.output_shape, len(batch), x.dtype)
        return total @ picked @ ops.Reshape(x.shape, (*batch, m * n), x.dtype)

    def reference(self, x: Array) -> Array:
        return jnp.trace(x, self.offset, axis1=-2, axis2=-1)


class Inverse(Node):
    """The inverse of square matrices.

    Local gradient: dy = -y dx y, so dy[i, l]/dx[j, k] = -y[i, j] y[k, l]: a Kronecker product for
    each matrix. Backward: dx = -y^T upstream y^T.
    Source: Giles (2008), section 2.2.3.
    """

    jax = "jax.numpy.linalg.inv"
    shapes = f"{_SQUARE} -> (*batch, n, n)"
    drawn = "3x3; 2x2x2; 2x1x1; zero size: 0x2x2"
    points = {"triangular": [[2.0, 0.0], [1.0, -1.0]]}

    def apply(self, xp: Namespace, x: Array) -> Applied:
        y = xp.linalg.inv(x).astype(x.dtype)
        return y, (y,)

    def gradients(self, xp: Namespace, y: Array) -> Gradients:
        return _left_right_product(-y, y, y.shape)

    def pull(self, xp: Namespace, upstream: Array, y: Array) -> Pulled:
        return -(y.mT @ upstream @ y.mT)


class Solve(Node):
    """a^-1 b: the solution x of a x = b, for matrices b (*batch, n, k) or one vector b (n,).

    Local gradients: in b, a^-1, the same for each column; in a, dx[i, c]/da[j, k] = -a^-1[i, j]
    x[k, c]. Backward: db = a^-T upstream; da = -db x^T.
    Source: Giles (2008), section 2.2.3.
    """

    jax = "jax.numpy.linalg.solve"
    shapes = "a (*batch, n, n), b (*any) -> (*any)"
    drawn = "3x3 3x2; 2x2x2 2x2x3; 4x4 4; size-1 axes: 1x1 1x1; zero size: 0x2x2 0x2x3"

    def apply(self, xp: Namespace, a: Array, b: Array) -> Applied:
        vector = len(b.shape) == 1
        fits = b.shape[: len(a.shape) - 1] == a.shape[:-1] and len(b.shape) in (a.ndim, 1)
        self.require(fits, "expected b (*batch, n, k), or (n,)", a=a.shape, b=b.shape)
        x = xp.linalg.solve(a, b[:, None] if vector else b).astype(b.dtype)
        return x[:, 0] if vector else x, (a, b.shape, x)

    def gradients(self, xp: Namespace, a: Array, b: Shape, x: Array) -> Gradients:
        inverse, letters = xp.linalg.inv(a), _batch_letters(a)
        if len(b) == 1:
            of_a = ops.Contraction("ij,k,jk->i", -inverse, x[:, 0], input_shape=a.shape)
        else:
            subscripts = f"{letters}ij,{letters}kc,{letters}jk->{letters}ic"
            of_a = ops.Contraction(subscripts, -inverse, x, input_shape=a.shape)
        return of_a, ops.left_multiplication(inverse, b)

    def pull(self, xp: Namespace, upstream: Array, a: Array, b: Shape, x: Array) -> Pulled:
        db = xp.linalg.solve(a.mT, upstream.reshape(x.shape))
        return -(db @ x.mT), db.reshape(b)


class TriangularSolve(Node):
    """The solution x of a x = b, or of a^T x = b, for a triangular a.

    Only one triangle of a is read; what lies beyond has no gradient.

    Args:
        lower: whether the lower triangle is read, else the upper one.
        transposed: whether a^T x = b is solved.
        unit_diagonal: whether the diagonal is taken for ones, and not read.

    Local gradients: in b, a^-1, triangular, the same for each column; in a, dx[i, c]/da[j, k] =
    -a^-1[i, j] x[k, c] within the triangle (transposed: -a^-1[k, i] x[j, c]).
    Backward: db = a^-T upstream; da = the triangle of -db x^T (transposed: db = a^-1 upstream, da
    = the triangle of -x db^T).
    Source: Giles (2008), section 2.2.3.
    """

    lower: bool = True
    transposed: bool = False
    unit_diagonal: bool = False
    shapes = "a (*batch, n, n), b (*batch, n, k) -> (*batch, n, k)"
    drawn = (
        "3x3 3x2; 2x2x2 2x2x3 lower=False transposed=True; 4x4 4x1 unit_diagonal=True; "
        "upper: 3x3 3x1 lower=False; size-1 axes: 1x1 1x1"
    )

    def _options(self, turn: bool = False) -> tuple[bool, bool, bool]:
        return self.lower, self.transposed != turn, self.unit_diagonal

    def _triangle(self, xp: Namespace, a: Array) -> Array:
        inset = int(self.unit_diagonal)
        return xp.tril(a, k=-inset) if self.lower else xp.triu(a, k=inset)

    def apply(self, xp: Namespace, a: Array, b: Array) -> Applied:
        x = _solve_triangular(a, b, *self._options())
        return x, (a, x)

    def gradients(self, xp: Namespace, a: Array, x: Array) -> Gradients:
        letters = _batch_letters(a)
        eye = xp.broadcast_to(xp.eye(a.shape[-1], dtype=a.dtype), a.shape)
        inverse = _solve_triangular(a, eye, *self._options())
        moved = f"{letters}kj" if self.transposed else f"{letters}jk"
        subscripts = f"{letters}ij,{letters}kc,{moved}->{letters}ic"
        of_a = ops.Contraction(subscripts, -inverse, x, input_shape=a.shape)
        read = ops.Diagonal(self._triangle(xp, xp.ones_like(a)))
        return of_a @ read, ops.left_multiplication(inverse, x.shape)

    def pull(self, xp: Namespace, upstream: Array, a: Array, x: Array) -> Pulled:
        db = _solve_triangular(a, upstream, *self._options(turn=True))
        da = x @ db.mT if self.transposed else db @ x.mT
        return -self._triangle(xp, da), db

    def reference(self, a: Array, b: Array) -> Array:
        lower, transposed, unit = self._options()
        return jax.scipy.linalg.solve_triangular(
            a, b, trans=int(transposed), lower=lower, unit_diagonal=unit
        )


def _half_lower(a: Array) -> Array:
    """Return the lower triangle with half of the diagonal."""
    xp = namespace(a)
    return 0.5 * (xp.tril(a) + xp.tril(a, k=-1))


def _positive_definite(seed: int, *shape: int) -> Array:
    """Return well-conditioned positive definite matrices (*batch, n, n), to verify nodes on."""
    a = np.random.default_rng(seed).standard_normal(shape)
    return a @ a.mT / shape[-1] + np.eye(shape[-1])


class Cholesky(Node):
    """The lower-triangular L with L L^T = x, for positive definite matrices x.

    The symmetric part of x is what is factorised, so that the gradient is symmetric, as in JAX.

    Local gradient: dL = L P(L^-1 sym(dx) L^-T), with P the lower triangle with half its diagonal.
    Backward: S = L^-T P(L^T tril(upstream)) L^-1, dx = (S + S^T) / 2.
    Source: Murray, "Differentiation of the Cholesky decomposition" (arXiv:1602.07527, 2016).
    """

    shapes = f"{_SQUARE} -> (*batch, n, n)"
    points = {"diagonal": [[4.0, 0.0], [0.0, 9.0]], "not symmetric": [[4.0, 2.0], [0.0, 9.0]]}

    def apply(self, xp: Namespace, x: Array) -> Applied:
        y = xp.linalg.cholesky(_symmetric(x)).astype(x.dtype)
        return y, (y,)

    def gradients(self, xp: Namespace, y: Array) -> Gradients:
        eye = xp.broadcast_to(xp.eye(y.shape[-1], dtype=y.dtype), y.shape)
        inverse = _solve_triangular(y, eye)

        def pushforward(dx: Array) -> tuple[Array]:
            return (y @ _half_lower(inverse @ _symmetric(dx) @ inverse.mT),)

        return _from_pushforward(pushforward, y)

    def pull(self, xp: Namespace, upstream: Array, y: Array) -> Pulled:
        p = _half_lower(y.mT @ xp.tril(upstream))
        left = _solve_triangular(y, p, transposed=True)
        return _symmetric(_solve_triangular(y, left.mT, transposed=True).mT)

    def reference(self, x: Array) -> Array:
        return jnp.linalg.cholesky(x, symmetrize_input=True)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        shapes = (3, 3), (2, 2, 2), (4, 4)
        drawn = (_positive_definite(i, *shape) for i, shape in enumerate(shapes, start=1))
        return (*(special(cls(), "generic", x) for x in drawn), *super().cases())


class Qr(Node):
    """Q with orthonormal columns and an upper-triangular R with Q R = x (reduced), m >= n.

    Local gradients, with X = dx R^-1, C = Q^T X and W = tril(C, -1) - tril(C, -1)^T:
    dR = (C - W) R, dQ = X - Q C + Q W.
    Backward, for upstreams U and V of Q and R: M = R triu(V)^T - U^T Q, and with the upper triangle
    of M replaced by the mirrored lower one, dx = (U + Q M) R^-T.
    Source: Liao et al., "Differentiable programming tensor networks" (arXiv:1903.09650, 2019),
    section III.
    """

    shapes = "x (*batch, m, n) -> (*batch, m, n), (*batch, n, n)"
    drawn = "3x2; 2x2x2; 4x3; size-1 axes: 1x1"

    def apply(self, xp: Namespace, x: Array) -> Applied:
        self.require(x.shape[-2] >= x.shape[-1], "expected as many rows as columns", x=x.shape)
        q, r = (y.astype(x.dtype) for y in xp.linalg.qr(x))
        return (q, r), (q, r)

    def gradients(self, xp: Namespace, q: Array, r: Array) -> Gradients:
        inverse = xp.linalg.inv(r)

        def pushforward(dx: Array) -> tuple[Array, Array]:
            x = dx @ inverse
            c = q.mT @ x
            w = xp.tril(c, k=-1)
            w = w - w.mT
            return x - q @ c + q @ w, (c - w) @ r

        of_q, of_r = _from_pushforward(pushforward, q)
        return (of_q,), (of_r,)

    def pull(self, xp: Namespace, upstream: tuple[Array, Array], q: Array, r: Array) -> Pulled:
        u, v = upstream
        lower = xp.tril(r @ xp.triu(v).mT - u.mT @ q)
        m = lower + xp.tril(lower, k=-1).mT
        return _solve_triangular(r, (u + q @ m).mT, lower=False).mT

    def reference(self, x: Array) -> Outputs:
        return tuple(jnp.linalg.qr(x))


def _column_signs(v: Array) -> Array:
    """Return the sign that makes the largest entry of each column positive."""
    xp = namespace(v)
    largest = xp.argmax(xp.abs(v), axis=-2)[..., None, :]
    one = xp.ones_like(v[..., :1, :])
    return xp.where(xp.take_along_axis(v, largest, axis=-2) < 0, -one, one)


class Eigh(Node):
    """The eigenvalues w, ascending, and orthonormal eigenvectors V of symmetric x: x V = V diag(w).

    The symmetric part of x is what is decomposed. An eigenvector's sign is free; here its largest
    entry is positive. Where eigenvalues are equal the eigenvectors have no gradient (nan or inf).

    Local gradients, with M = V^T sym(dx) V and F[i, j] = 1 / (w[j] - w[i]), 0 on the diagonal:
    dw = diag(M), dV = V (F * M).
    Backward: dx = the symmetric part of V (diag(upstream of w) + F * (V^T upstream of V)) V^T.
    Source: Giles (2008), section 3.1.
    """

    shapes = f"{_SQUARE} -> (*batch, n), (*batch, n, n)"
    drawn = "3x3; 2x2x2; size-1 axes: 1x1"
    points = {
        "generic": [[2.0, 0.5, 0.0], [0.5, -1.0, 0.3], [0.0, 0.3, 0.7]],
        "diagonal": [[3.0, 0.0], [0.0, -1.0]],
    }

    def apply(self, xp: Namespace, x: Array) -> Applied:
        w, v = (y.astype(x.dtype) for y in xp.linalg.eigh(_symmetric(x)))
        v = v * _column_signs(v)
        return (w, v), (w, v)

    def _factors(self, xp: Namespace, w: Array) -> Array:
        eye = xp.broadcast_to(xp.eye(w.shape[-1], dtype=w.dtype), (*w.shape, w.shape[-1]))
        return (1.0 - eye) / (w[..., None, :] - w[..., :, None] + eye)

    def gradients(self, xp: Namespace, w: Array, v: Array) -> Gradients:
        def pushforward(dx: Array) -> tuple[Array, Array]:
            m = v.mT @ _symmetric(dx) @ v
            factors = xp.broadcast_to(self._factors(xp, w), m.shape)
            return einsum("...ii->...i", m), v @ (factors * m)

        of_w, of_v = _from_pushforward(pushforward, v)
        return (of_w,), (of_v,)

    def pull(self, xp: Namespace, upstream: tuple[Array, Array], w: Array, v: Array) -> Pulled:
        dw, dv = upstream
        inner = self._factors(xp, w) * (v.mT @ dv)
        return _symmetric((v @ inner + v * dw[..., None, :]) @ v.mT)

    def reference(self, x: Array) -> Outputs:
        w, v = jnp.linalg.eigh(x, symmetrize_input=True)
        return w, v * _column_signs(v)


class _Spectrum(Node):
    """Eigenvalues or singular values: dy[k] = u_k^T dx v_k, and so dx = U diag(upstream) V^T."""

    def gradients(self, xp: Namespace, u: Array, vt: Array) -> Gradients:
        b, shape = _batch_letters(u), (*u.shape[:-1], vt.shape[-1])
        return ops.Contraction(f"{b}ik,{b}kj,{b}ij->{b}k", u, vt, input_shape=shape)

    def pull(self, xp: Namespace, upstream: Array, u: Array, vt: Array) -> Pulled:
        return (u * upstream[..., None, :]) @ vt


class Eigvalsh(_Spectrum):
    """The eigenvalues of symmetric matrices, ascending.

    Local gradient: dw[k] = v_k^T sym(dx) v_k, rank one for each eigenvalue.
    Backward: dx = V diag(upstream) V^T.
    Source: Giles (2008), section 3.1.
    """

    shapes = f"{_SQUARE} -> (*batch, n)"
    drawn = Eigh.drawn
    points = Eigh.points

    def apply(self, xp: Namespace, x: Array) -> Applied:
        w, v = (y.astype(x.dtype) for y in xp.linalg.eigh(_symmetric(x)))
        return w, (v, v.mT)

    def reference(self, x: Array) -> Array:
        return jnp.linalg.eigh(x, symmetrize_input=True)[0]


class SingularValues(_Spectrum):
    """The singular values of matrices (*batch, m, n), descending: (*batch, min(m, n)).

    Local gradient: ds[k] = u_k^T dx v_k, rank one for each singular value; x = U diag(s) V^T.
    Backward: dx = U diag(upstream) V^T.
    Source: Giles (2008), section 3.2.
    """

    shapes = "x (*batch, m, n)"
    drawn = "3x2; 2x2x3; 3x3; size-1 axes: 1x1"
    points = {"diagonal": [[3.0, 0.0], [0.0, -1.0]]}

    def apply(self, xp: Namespace, x: Array) -> Applied:
        u, s, vt = (y.astype(x.dtype) for y in xp.linalg.svd(x, full_matrices=False))
        return s, (u, vt)

    def reference(self, x: Array) -> Array:
        return jnp.linalg.svd(x, compute_uv=False)


class MatrixPower(Node):
    """The n-th power of square matrices, for n >= 0.

    Args:
        n: the exponent; for a negative one take the power of the inverse.

    Local gradient: dy = sum over k < n of x^k dx x^(n-1-k), Kronecker products.
    Backward: dx = sum over k < n of (x^T)^k upstream (x^T)^(n-1-k).
    """

    n: int = 2
    jax = "jax.numpy.linalg.matrix_power"
    shapes = "x (*batch, m, m) -> (*batch, m, m)"
    drawn = "3x3; 2x2x2 n=3; 3x3 n=1; the power 0: 2x2 n=0; zero size: 0x2x2"
    points = {"nilpotent": ({"n": 4}, [[0.0, 1.0], [0.0, 0.0]])}

    def apply(self, xp: Namespace, x: Array) -> Applied:
        self.require(self.n >= 0, "expected n of at least 0 (invert x first)")
        powers = [xp.broadcast_to(xp.eye(x.shape[-1], dtype=x.dtype), x.shape)]
        for _ in range(self.n):
            powers.append((powers[-1] @ x).astype(x.dtype))
        return powers[-1], (Like.of(x), *powers[:-1])

    def gradients(self, xp: Namespace, x: Like, *powers: Array) -> Gradients:
        none: Operator = ops.Zero(x.shape, x.shape, x.dtype)
        terms = (_left_right_product(a, b, x.shape) for a, b in zip(powers, powers[::-1]))
        return sum(terms, start=none)

    def pull(self, xp: Namespace, upstream: Array, x: Like, *powers: Array) -> Pulled:
        terms = (a.mT @ upstream @ b.mT for a, b in zip(powers, powers[::-1]))
        return sum(terms, start=xp.zeros_like(upstream))


_PADE = (  # of degree 13, divided by the first
    1.0, 1 / 2, 3 / 25, 11 / 600, 11 / 5520, 3 / 18400, 1 / 96600, 1 / 1932000,
    1 / 48944000, 1 / 1585785600, 1 / 67395888000, 1 / 3953892096000,
    1 / 355850288640000, 1 / 64764752532480000,
)  # fmt: skip
_MOST_SQUARINGS = 12


def _expm(x: Array) -> Array:
    """Return exp(x) by scaling and squaring: x is halved until it is small, exp(x) is squared.

    Source: Higham, "The scaling and squaring method for the matrix exponential revisited" (2005).
    """
    xp = namespace(x)
    norm = xp.max(xp.abs(x).sum(axis=-2), axis=-1, initial=0.0)
    halvings = xp.ceil(xp.log2(xp.maximum(norm / 5.3, xp.ones_like(norm))))
    halvings = xp.minimum(halvings, xp.full_like(halvings, _MOST_SQUARINGS))[..., None, None]
    x = x / xp.broadcast_to(2.0**halvings, x.shape).astype(x.dtype)
    square = x @ x
    power = xp.broadcast_to(xp.eye(x.shape[-1], dtype=x.dtype), x.shape)
    even, odd = xp.zeros_like(x), xp.zeros_like(x)
    for k in range(0, len(_PADE), 2):
        even, odd = even + _PADE[k] * power, odd + _PADE[k + 1] * power
        power = power @ square
    odd = x @ odd
    y = xp.linalg.solve(even - odd, even + odd)
    for k in range(_MOST_SQUARINGS):
        more = k < halvings
        if xp is np and not more.any():
            break
        y = xp.where(xp.broadcast_to(more, y.shape), y @ y, y)
    return y


def _expm_along(x: Array, direction: Array) -> Array:
    """Return the derivative of exp(x) along a direction."""
    xp, n = namespace(x), x.shape[-1]
    x = xp.broadcast_to(x, direction.shape)
    top = xp.concat([x, direction], axis=-1)
    bottom = xp.concat([xp.zeros_like(x), x], axis=-1)
    return _expm(xp.concat([top, bottom], axis=-2))[..., :n, n:]


class MatrixExponential(Node):
    """exp(x) = sum over k of x^k / k!, of square matrices.

    Local gradient: dy = L(x, dx), the upper right block of exp([[x, dx], [0, x]]): dense.
    Backward: dx = L(x^T, upstream).
    Source: Al-Mohy and Higham, "Computing the Frechet derivative of the matrix exponential" (2009).
    """

    domains = (Domain(low=-0.4, high=0.4),)
    shapes = f"{_SQUARE} -> (*batch, n, n)"
    drawn = "2x2; 2x1x1; 2x2"
    points = {
        "generic": [[0.1, 0.4], [-0.2, 0.3]],
        "nilpotent": [[0.0, 1.0], [0.0, 0.0]],
        "a rotation": [[0.0, -1.0], [1.0, 0.0]],
    }

    def apply(self, xp: Namespace, x: Array) -> Applied:
        return _expm(x).astype(x.dtype), (x,)

    def gradients(self, xp: Namespace, x: Array) -> Gradients:
        return _from_pushforward(lambda dx: (_expm_along(x, dx),), x)

    def pull(self, xp: Namespace, upstream: Array, x: Array) -> Pulled:
        return _expm_along(x.mT, upstream)

    def reference(self, x: Array) -> Array:
        term = total = jnp.broadcast_to(jnp.eye(x.shape[-1], dtype=x.dtype), x.shape)
        for k in range(1, 20):
            term = term @ x / k
            total = total + term
        return total


class Kron(Node):
    """The Kronecker product of two matrices: y[i p + k, j q + l] = a[i, j] b[k, l].

    Local gradients: dy[(i, k), (j, l)]/da[i, j] = b[k, l] and /db[k, l] = a[i, j], else 0.
    Backward: da[i, j] = sum over k, l of upstream * b[k, l]; db[k, l] the same with a[i, j].
    """

    jax = "jax.numpy.kron"
    shapes = "a (m, n), b (p, q) -> (m p, n q)"
    drawn = "2x3 3x2; 1x2 3x1; 3x2 1x2; size-1 axes: 1x1 1x1; zero size: 0x2 2x2"

    def apply(self, xp: Namespace, a: Array, b: Array) -> Applied:
        (m, n), (p, q) = a.shape, b.shape
        return (a[:, None, :, None] * b[None, :, None, :]).reshape(m * p, n * q), (a, b)

    def gradients(self, xp: Namespace, a: Array, b: Array) -> Gradients:
        of_a = ops.Contraction("kl,ij->ikjl", b, input_shape=a.shape)
        of_b = ops.Contraction("ij,kl->ikjl", a, input_shape=b.shape)
        (m, n), (p, q) = a.shape, b.shape
        flat = ops.Reshape(of_a.output_shape, (m * p, n * q), a.dtype)
        return flat @ of_a, flat @ of_b

    def pull(self, xp: Namespace, upstream: Array, a: Array, b: Array) -> Pulled:
        (m, n), (p, q) = a.shape, b.shape
        u = upstream.reshape(m, p, n, q)
        return einsum("ikjl,kl->ij", u, b), einsum("ikjl,ij->kl", u, a)
