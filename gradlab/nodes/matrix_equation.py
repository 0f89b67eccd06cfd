"""Inverses and linear systems: their gradients are solutions of the same systems.

Source: Giles, "Collected matrix derivative results for forward and reverse mode algorithmic
differentiation" (2008).
"""

from dataclasses import dataclass
from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, namespace
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, generic, special
from gradlab.nodes._lazy import jax, jnp
from gradlab.nodes._matrices import (
    batch_letters,
    require_matrices,
    sandwich,
    solve_triangular,
    turned,
)
from gradlab.operators import Contraction, Diagonal, left_multiplication

__all__ = ["Inverse", "Solve", "TriangularSolve"]


class Inverse(Node):
    """The inverse of square matrices (*batch, n, n).

    Local gradient: dy = -y dx y, so dy[i, l]/dx[j, k] = -y[i, j] y[k, l]: a Kronecker product for
    each matrix. Backward: dx = -y^T upstream y^T.
    Source: Giles (2008), section 2.2.3.
    """

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        require_matrices(self, x)
        y = namespace(x).linalg.inv(x).astype(x.dtype)
        return y, y

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        y = residuals
        return (sandwich(-y, y, y.shape),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        y = residuals
        return (-(turned(y) @ as_upstream(self, upstream, y) @ turned(y)).astype(y.dtype),)

    def reference(self, x: Array) -> Array:
        return jnp.linalg.inv(x)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 3)),
            generic(cls(), (2, 2, 2)),
            generic(cls(), (2, 1, 1)),
            special(cls(), "triangular", [[2.0, 0.0], [1.0, -1.0]]),
            Case(cls(), ((0, 2, 2),), "zero size"),
        )


class Solve(Node):
    """a^-1 b: the solution x of a x = b, for matrices b (*batch, n, k) or one vector b (n,).

    Shapes: a (*batch, n, n), b and x (*batch, n, k), or a (n, n) with b and x (n,).

    Local gradients: in b, a^-1, the same for each column; in a, dx[i, c]/da[j, k] = -a^-1[i, j]
    x[k, c]. Backward: db = a^-T upstream; da = -db x^T.
    Source: Giles (2008), section 2.2.3.
    """

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        a, b = as_inputs(self, inputs)
        require_matrices(self, a)
        vector = len(b.shape) == 1
        if b.shape[: len(a.shape) - 1] != a.shape[:-1] or len(b.shape) not in (a.ndim, 1):
            raise InputError(
                f"{self!r}: a has shape {shape_text(a.shape)} and b {shape_text(b.shape)}; "
                "expected (*batch, n, n) and (*batch, n, k), or (n, n) and (n,)"
            )
        x = namespace(a).linalg.solve(a, b[:, None] if vector else b).astype(b.dtype)
        return x[:, 0] if vector else x, (a, b, x)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        a, b, x = residuals
        inverse, letters = namespace(a).linalg.inv(a), batch_letters(a)
        if len(b.shape) == 1:
            of_a = Contraction("ij,k,jk->i", -inverse, x[:, 0], input_shape=a.shape)
        else:
            subscripts = f"{letters}ij,{letters}kc,{letters}jk->{letters}ic"
            of_a = Contraction(subscripts, -inverse, x, input_shape=a.shape)
        return of_a, left_multiplication(inverse, b.shape)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        a, b, x = residuals
        u = as_upstream(self, upstream, b).reshape(x.shape)
        db = namespace(a).linalg.solve(turned(a), u)
        return -(db @ turned(x)).astype(a.dtype), db.reshape(b.shape).astype(b.dtype)

    def reference(self, a: Array, b: Array) -> Array:
        return jnp.linalg.solve(a, b)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 3), (3, 2)),
            generic(cls(), (2, 2, 2), (2, 2, 3)),
            generic(cls(), (4, 4), (4,)),
            Case(cls(), ((1, 1), (1, 1)), "size-1 axes"),
            Case(cls(), ((0, 2, 2), (0, 2, 3)), "zero size"),
        )


@dataclass(frozen=True)
class TriangularSolve(Node):
    """The solution x of a x = b, or of a^T x = b, for a triangular a.

    Only one triangle of a is read; what lies beyond has no gradient.

    Shapes: a (*batch, n, n), b and x (*batch, n, k).

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

    def _options(self, turn: bool = False) -> tuple[bool, bool, bool]:
        return self.lower, self.transposed != turn, self.unit_diagonal

    def _triangle(self, a: Array) -> Array:
        xp, inset = namespace(a), int(self.unit_diagonal)
        return xp.tril(a, k=-inset) if self.lower else xp.triu(a, k=inset)

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        a, b = as_inputs(self, inputs)
        require_matrices(self, a)
        if len(b.shape) != len(a.shape) or b.shape[:-1] != a.shape[:-1]:
            raise InputError(
                f"{self!r}: a has shape {shape_text(a.shape)} and b {shape_text(b.shape)}; "
                "expected (*batch, n, n) and (*batch, n, k)"
            )
        x = solve_triangular(a, b, *self._options())
        return x, (a, b, x)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        a, b, x = residuals
        xp, letters = namespace(a), batch_letters(a)
        eye = xp.broadcast_to(xp.eye(a.shape[-1], dtype=a.dtype), a.shape)
        inverse = solve_triangular(a, eye, *self._options())
        moved = f"{letters}kj" if self.transposed else f"{letters}jk"
        subscripts = f"{letters}ij,{letters}kc,{moved}->{letters}ic"
        of_a = Contraction(subscripts, -inverse, x, input_shape=a.shape)
        return of_a @ Diagonal(self._triangle(xp.ones_like(a))), left_multiplication(
            inverse, b.shape
        )

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        a, _, x = residuals
        db = solve_triangular(a, as_upstream(self, upstream, x), *self._options(turn=True))
        da = x @ turned(db) if self.transposed else db @ turned(x)
        return -self._triangle(da).astype(a.dtype), db

    def reference(self, a: Array, b: Array) -> Array:
        lower, transposed, unit = self._options()
        return jax.scipy.linalg.solve_triangular(
            a, b, trans=int(transposed), lower=lower, unit_diagonal=unit
        )

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 3), (3, 2)),
            generic(cls(lower=False, transposed=True), (2, 2, 2), (2, 2, 3)),
            generic(cls(unit_diagonal=True), (4, 4), (4, 1)),
            Case(cls(lower=False), ((3, 3), (3, 1)), "upper"),
            Case(cls(), ((1, 1), (1, 1)), "size-1 axes"),
        )
