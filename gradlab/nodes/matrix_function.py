"""Functions of a square matrix, and the Kronecker product of two.

Source: Higham, "Functions of matrices" (2008): the derivative of a matrix function along E is a
block of that function of [[x, E], [0, x]] (theorem 3.6).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, namespace
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, Domain, generic, special
from gradlab.nodes._lazy import jnp
from gradlab.nodes._matrices import einsum, from_pushforward, require_matrices, sandwich, turned
from gradlab.operators import Contraction, Operator, Reshape, Zero

__all__ = ["Kron", "MatrixExponential", "MatrixPower"]


@dataclass(frozen=True)
class MatrixPower(Node):
    """The n-th power of square matrices (*batch, m, m), for n >= 0.

    Args:
        n: the exponent; for a negative one take the power of the inverse.

    Local gradient: dy = sum over k < n of x^k dx x^(n-1-k), Kronecker products.
    Backward: dx = sum over k < n of (x^T)^k upstream (x^T)^(n-1-k).
    """

    n: int = 2

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        require_matrices(self, x)
        if self.n < 0:
            raise InputError(f"{self!r}: n is {self.n}; expected at least 0 (invert x first)")
        xp = namespace(x)
        powers = [xp.broadcast_to(xp.eye(x.shape[-1], dtype=x.dtype), x.shape)]
        for _ in range(self.n):
            powers.append((powers[-1] @ x).astype(x.dtype))
        return powers[-1], (x, powers)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, powers = residuals
        none: Operator = Zero(x.shape, x.shape, x.dtype)
        terms = (sandwich(a, b, x.shape) for a, b in zip(powers, powers[-2::-1]))
        return (sum(terms, start=none),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, powers = residuals
        u = as_upstream(self, upstream, x)
        terms = (turned(a) @ u @ turned(b) for a, b in zip(powers, powers[-2::-1]))
        return (sum(terms, start=namespace(x).zeros_like(x)).astype(x.dtype),)

    def reference(self, x: Array) -> Array:
        return jnp.linalg.matrix_power(x, self.n)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 3)),
            generic(cls(3), (2, 2, 2)),
            generic(cls(1), (3, 3)),
            Case(cls(0), ((2, 2),), "the power 0"),
            special(cls(4), "nilpotent", [[0.0, 1.0], [0.0, 0.0]]),
            Case(cls(), ((0, 2, 2),), "zero size"),
        )


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
    """exp(x) = sum over k of x^k / k!, of square matrices (*batch, n, n).

    Local gradient: dy = L(x, dx), the upper right block of exp([[x, dx], [0, x]]): dense.
    Backward: dx = L(x^T, upstream).
    Source: Al-Mohy and Higham, "Computing the Frechet derivative of the matrix exponential" (2009).
    """

    domains = (Domain(low=-0.4, high=0.4),)

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        require_matrices(self, x)
        return _expm(x).astype(x.dtype), x

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x = residuals
        return from_pushforward(lambda dx: (_expm_along(x, dx),), x)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x = residuals
        return (_expm_along(turned(x), as_upstream(self, upstream, x)).astype(x.dtype),)

    def reference(self, x: Array) -> Array:
        term = total = jnp.broadcast_to(jnp.eye(x.shape[-1], dtype=x.dtype), x.shape)
        for k in range(1, 20):
            term = term @ x / k
            total = total + term
        return total

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 2)),
            generic(cls(), (2, 1, 1)),
            special(cls(), "generic", [[0.1, 0.4], [-0.2, 0.3]]),
            special(cls(), "nilpotent", [[0.0, 1.0], [0.0, 0.0]]),
            special(cls(), "a rotation", [[0.0, -1.0], [1.0, 0.0]]),
        )


class Kron(Node):
    """The Kronecker product of two matrices: y[i p + k, j q + l] = a[i, j] b[k, l].

    Shapes: a (m, n), b (p, q), y (m p, n q).

    Local gradients: dy[(i, k), (j, l)]/da[i, j] = b[k, l] and /db[k, l] = a[i, j], else 0.
    Backward: da[i, j] = sum over k, l of upstream * b[k, l]; db[k, l] the same with a[i, j].
    """

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        a, b = as_inputs(self, inputs)
        if not len(a.shape) == len(b.shape) == 2:
            raise InputError(
                f"{self!r}: shapes {shape_text(a.shape)} and {shape_text(b.shape)} came; expected "
                "two matrices"
            )
        (m, n), (p, q) = a.shape, b.shape
        y = (a[:, None, :, None] * b[None, :, None, :]).reshape(m * p, n * q)
        return y, (a, b, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        a, b, y = residuals
        of_a = Contraction("kl,ij->ikjl", b, input_shape=a.shape)
        of_b = Contraction("ij,kl->ikjl", a, input_shape=b.shape)
        flat = Reshape(of_a.output_shape, y.shape, y.dtype)
        return flat @ of_a, flat @ of_b

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        a, b, y = residuals
        (m, n), (p, q) = a.shape, b.shape
        u = as_upstream(self, upstream, y).reshape(m, p, n, q)
        return einsum("ikjl,kl->ij", u, b), einsum("ikjl,ij->kl", u, a)

    def reference(self, a: Array, b: Array) -> Array:
        return jnp.kron(a, b)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 3), (3, 2)),
            generic(cls(), (1, 2), (3, 1)),
            generic(cls(), (3, 2), (1, 2)),
            Case(cls(), ((1, 1), (1, 1)), "size-1 axes"),
            Case(cls(), ((0, 2), (2, 2)), "zero size"),
        )
