"""The rules of simplification: what two neighbours in a product, or two terms of a sum, become.

A rule takes both operators and returns the one that equals them, or None where there is none or
keeping both is cheaper. It is found by the two classes; `algebra` applies it.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from gradlab.operators._arrays import matmul, namespace, result_type, scalar
from gradlab.operators.base import Operator
from gradlab.operators.block import BlockDiagonal
from gradlab.operators.broadcast import Broadcast, Sum
from gradlab.operators.compose import Scaled
from gradlab.operators.contraction import Contraction
from gradlab.operators.dense import Dense
from gradlab.operators.diagonal import Diagonal
from gradlab.operators.kronecker import Kronecker
from gradlab.operators.low_rank import DiagonalPlusLowRank
from gradlab.operators.reshape import Permutation, Reshape
from gradlab.operators.selection import Selection
from gradlab.operators.slicing import Embedding, Slice
from gradlab.operators.trivial import Identity, Zero

__all__ = ["PRODUCTS", "SUMS"]

Rule: TypeAlias = Callable[[Any, Any], Operator | None]


def _shared(a: Operator, b: Operator) -> Any:
    return result_type(a.dtype, b.dtype)


def _without_ones(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size != 1]


# Products: the right one is applied first.


def _blocks_after_blocks(a: BlockDiagonal, b: BlockDiagonal) -> Operator | None:
    rows, middle = a.blocks.shape[-2:]
    columns = b.blocks.shape[-1]
    if rows * columns > rows * middle + middle * columns:
        return None
    return BlockDiagonal(matmul(a.blocks, b.blocks))


def _low_rank_after_low_rank(a: DiagonalPlusLowRank, b: DiagonalPlusLowRank) -> Operator:
    # (D + U V')(E + W Z') = D E + (D W + U V' W) Z' + U (E V)'
    xp = namespace(*a.arrays, *b.arrays)
    inner = matmul(xp.matrix_transpose(a.right), b.left)
    through = a.diagonal[..., None] * b.left + matmul(a.left, inner)
    return DiagonalPlusLowRank(
        a.diagonal * b.diagonal,
        xp.concat([through, a.left], axis=-1),
        xp.concat([b.right, b.diagonal[..., None] * a.right], axis=-1),
    )


def _kronecker_after_kronecker(a: Kronecker, b: Kronecker) -> Operator | None:
    pairs = list(zip(a.factors, b.factors))
    apart = sum(math.prod(factor.shape) for pair in pairs for factor in pair)
    if sum(one.shape[0] * other.shape[1] for one, other in pairs) > apart:
        return None
    return Kronecker(*(matmul(one, other) for one, other in pairs))


def _broadcast_after_broadcast(a: Broadcast, b: Broadcast) -> Operator:
    # The axes that `a` does not repeat are, up to ones, the axes that `b` puts out, in order.
    passed = [i for i, size in enumerate(a.output_shape) if i not in a.axes and size != 1]
    middle = [i for i, size in enumerate(b.output_shape) if size != 1]
    earlier = [i for i, j in zip(passed, middle) if j in b.axes]
    return Broadcast(b.input_shape, a.output_shape, _shared(a, b), (*a.axes, *earlier))


def _sum_after_sum(a: Sum, b: Sum) -> Operator:
    return _broadcast_after_broadcast(b.T, a.T).T


def _sum_after_broadcast(a: Sum, b: Broadcast) -> Operator | None:
    if a.axes != b.axes or a.output_shape != b.input_shape:
        return None
    if a.terms == 0:
        return Zero(a.output_shape, b.input_shape, _shared(a, b))
    identity = Identity(a.output_shape, _shared(a, b))
    return identity if a.terms == 1 else a.terms * identity


def _broadcast_after_reshape(a: Broadcast, b: Reshape) -> Operator | None:
    if _without_ones(a.input_shape) != _without_ones(b.input_shape):
        return None
    return Broadcast(b.input_shape, a.output_shape, _shared(a, b), a.axes)


def _reshape_after_sum(a: Reshape, b: Sum) -> Operator | None:
    transposed = _broadcast_after_reshape(b.T, a.T)
    return None if transposed is None else transposed.T


def _selection_after_selection(a: Selection, b: Selection) -> Operator | None:
    # JAX's indices may lie outside, which indexing them once more would hide.
    if a.axis != b.axis or b.indices.ndim != 1 or not (a.is_static and b.is_static):
        return None
    return Selection(b.indices[a.indices], b.input_shape, _shared(a, b), b.axis)


def _slice_after_slice(a: Slice, b: Slice) -> Operator:
    ranges = [indices[part] for indices, part in zip(b.ranges, a.slices)]
    return Slice.of_ranges(b.input_shape, ranges, _shared(a, b))


def _embedding_after_embedding(a: Embedding, b: Embedding) -> Operator:
    return _slice_after_slice(b.T, a.T).T


def _slice_after_embedding(a: Slice, b: Embedding) -> Operator | None:
    if a.ranges == b.ranges:
        return Identity(a.output_shape, _shared(a, b))
    for wanted, filled in zip(a.ranges, b.ranges):
        if wanted and filled and (max(wanted) < min(filled) or max(filled) < min(wanted)):
            return Zero(a.output_shape, b.input_shape, _shared(a, b))
    return None


PRODUCTS: dict[tuple[type[Operator], type[Operator]], Rule] = {
    (Diagonal, Diagonal): lambda a, b: Diagonal(a.diagonal * b.diagonal),
    (Diagonal, BlockDiagonal): lambda a, b: BlockDiagonal(a.diagonal[..., None] * b.blocks),
    (BlockDiagonal, Diagonal): lambda a, b: BlockDiagonal(a.blocks * b.diagonal[..., None, :]),
    (BlockDiagonal, BlockDiagonal): _blocks_after_blocks,
    (Diagonal, DiagonalPlusLowRank): lambda a, b: DiagonalPlusLowRank(
        a.diagonal * b.diagonal, a.diagonal[..., None] * b.left, b.right
    ),
    (DiagonalPlusLowRank, Diagonal): lambda a, b: DiagonalPlusLowRank(
        a.diagonal * b.diagonal, a.left, b.diagonal[..., None] * a.right
    ),
    (DiagonalPlusLowRank, DiagonalPlusLowRank): _low_rank_after_low_rank,
    (Kronecker, Kronecker): _kronecker_after_kronecker,
    (Diagonal, Dense): lambda a, b: Dense(
        a.diagonal.reshape((-1, 1)) * b.matrix, b.output_shape, b.input_shape
    ),
    (Dense, Diagonal): lambda a, b: Dense(
        a.matrix * b.diagonal.reshape((1, -1)), a.output_shape, a.input_shape
    ),
    (Dense, Reshape): lambda a, b: Dense(a.matrix, a.output_shape, b.input_shape),
    (Reshape, Dense): lambda a, b: Dense(b.matrix, a.output_shape, b.input_shape),
    (Reshape, Reshape): lambda a, b: Reshape(b.input_shape, a.output_shape, _shared(a, b)),
    (Permutation, Permutation): lambda a, b: Permutation(
        [b.axes[axis] for axis in a.axes], b.input_shape, _shared(a, b)
    ),
    (Broadcast, Broadcast): _broadcast_after_broadcast,
    (Sum, Sum): _sum_after_sum,
    (Sum, Broadcast): _sum_after_broadcast,
    (Broadcast, Reshape): _broadcast_after_reshape,
    (Reshape, Sum): _reshape_after_sum,
    (Selection, Selection): _selection_after_selection,
    (Slice, Slice): _slice_after_slice,
    (Embedding, Embedding): _embedding_after_embedding,
    (Slice, Embedding): _slice_after_embedding,
}


# Sums: a rule holds for both orders of its two terms.


def _blocks_and_diagonal(a: BlockDiagonal, b: Diagonal) -> Operator:
    xp = namespace(a.blocks, b.diagonal)
    eye = xp.eye(a.blocks.shape[-1], dtype=b.dtype)
    return BlockDiagonal(a.blocks + b.diagonal[..., None] * xp.broadcast_to(eye, a.blocks.shape))


def _low_rank_and_low_rank(a: DiagonalPlusLowRank, b: DiagonalPlusLowRank) -> Operator:
    xp = namespace(*a.arrays, *b.arrays)
    return DiagonalPlusLowRank(
        a.diagonal + b.diagonal,
        xp.concat([a.left, b.left], axis=-1),
        xp.concat([a.right, b.right], axis=-1),
    )


def _contraction_and_contraction(a: Contraction, b: Contraction) -> Operator | None:
    if a.subscripts != b.subscripts or len(a.arrays) > 1:
        return None
    return Contraction(a.subscripts, a.arrays[0] + b.arrays[0], input_shape=a.input_shape)


def _diagonal_and_multiple(a: Diagonal, b: Scaled) -> Operator | None:
    return Diagonal(a.diagonal + scalar(b.factor, a.diagonal)) if b.operator.is_identity else None


SUMS: dict[tuple[type[Operator], type[Operator]], Rule] = {
    (Identity, Identity): lambda a, b: 2 * a,
    (Diagonal, Diagonal): lambda a, b: Diagonal(a.diagonal + b.diagonal),
    (Diagonal, Identity): lambda a, b: Diagonal(a.diagonal + scalar(1, a.diagonal)),
    (Diagonal, Scaled): _diagonal_and_multiple,
    (BlockDiagonal, BlockDiagonal): lambda a, b: BlockDiagonal(a.blocks + b.blocks),
    (BlockDiagonal, Diagonal): _blocks_and_diagonal,
    (DiagonalPlusLowRank, Diagonal): lambda a, b: DiagonalPlusLowRank(
        a.diagonal + b.diagonal, a.left, a.right
    ),
    (DiagonalPlusLowRank, DiagonalPlusLowRank): _low_rank_and_low_rank,
    (Contraction, Contraction): _contraction_and_contraction,
}
