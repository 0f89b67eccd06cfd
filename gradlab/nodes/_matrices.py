"""What the nodes of linear algebra share: they act on the last two axes, others are batch."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, namespace
from gradlab.operators import BlockDiagonal, Contraction, Operator, Reshape

if TYPE_CHECKING:
    from gradlab.nodes._base import Node

__all__ = [
    "batch_letters",
    "einsum",
    "from_pushforward",
    "positive_definite",
    "require_matrices",
    "sandwich",
    "solve_triangular",
    "symmetric",
    "turned",
]


def require_matrices(node: "Node", x: Array, square: bool = True) -> None:
    """Check that x holds matrices.

    Raises:
        InputError: it has fewer than two axes, or its matrices are not square where they must be.
    """
    if len(x.shape) < 2 or (square and x.shape[-1] != x.shape[-2]):
        kind = "square matrices (*batch, n, n)" if square else "matrices (*batch, m, n)"
        raise InputError(f"{node!r}: expected {kind}, but got shape {shape_text(x.shape)}")


def einsum(subscripts: str, *arrays: Array) -> Array:
    """Return the einsum in the first array's dtype; NumPy has none for bfloat16: in float32."""
    xp, dtype = namespace(*arrays), arrays[0].dtype
    if xp is np and any(a.dtype.kind == "V" for a in arrays):
        arrays = tuple(a.astype(np.float32) for a in arrays)
    return xp.einsum(subscripts, *arrays, optimize=True).astype(dtype)


def turned(a: Array) -> Array:
    """Return each matrix transposed."""
    return a.swapaxes(-1, -2)


def symmetric(a: Array) -> Array:
    """Return each matrix's symmetric part."""
    return (0.5 * (a + turned(a))).astype(a.dtype)


def batch_letters(x: Array) -> str:
    """Return a letter for each batch axis, for einsum."""
    return "ABCDEFGH"[: len(x.shape) - 2]


def sandwich(left: Array, right: Array, shape: tuple[int, ...]) -> Operator:
    """Return the map x -> left x right, matrix by matrix."""
    b = batch_letters(left)
    return Contraction(f"{b}ij,{b}kl,{b}jk->{b}il", left, right, input_shape=shape)


def solve_triangular(
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


def from_pushforward(
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
        columns = dy.reshape(m * n, *batch, int(np.prod(y_shape[len(batch) :])))
        blocks = BlockDiagonal(xp.moveaxis(columns, 0, -1))
        operators.append(
            Reshape(blocks.output_shape, y_shape, x.dtype)
            @ blocks
            @ Reshape(x.shape, blocks.input_shape, x.dtype)
        )
    return tuple(operators)


def positive_definite(seed: int, *shape: int) -> Any:
    """Return well-conditioned positive definite matrices (*batch, n, n), to verify nodes on."""
    a = np.random.default_rng(seed).standard_normal(shape)
    return a @ turned(a) / shape[-1] + np.eye(shape[-1])
