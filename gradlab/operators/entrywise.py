"""Maps that keep the rows of a batch apart: a factor for each entry, or a matrix for each row."""

from gradlab.common.arrays import Array, matmul, namespace, result_type, scalar
from gradlab.errors import InputError
from gradlab.operators.core import (
    Dense,
    Identity,
    Number,
    Operator,
    Scaled,
    merges_product,
    merges_sum,
)
from gradlab.patterns import Pattern


class Diagonal(Operator):
    """Multiplication by an array, entry by entry: `y = d * x`.

    Example:
        >>> import numpy as np
        >>> Diagonal(np.array([2.0, 3.0])).to_dense()
        array([[2., 0.],
               [0., 3.]])
    """

    def __init__(self, diagonal: Array) -> None:
        super().__init__(diagonal.shape, diagonal.shape, diagonal.dtype, (diagonal,))
        self.diagonal = diagonal

    def _apply(self, x: Array) -> Array:
        return self.diagonal * x

    @property
    def T(self) -> "Diagonal":
        return self

    @property
    def pattern(self) -> Pattern:
        return Pattern.identity(self.input_shape)

    def _dense(self) -> Array:
        """Return the matrix; an infinite factor leaves the zeros beside it zero."""
        return namespace(self.diagonal).diag(self.diagonal.reshape(-1))

    def scaled_by(self, factor: Number) -> "Diagonal":
        return Diagonal(scalar(factor, self.diagonal) * self.diagonal)


class _Rows(Operator):
    """A map along the last axis, with a matrix of its own for each place of the other axes."""

    @property
    def pattern(self) -> Pattern:
        batch = range(len(self.input_shape) - 1)
        equal = [(axis, ~axis) for axis in batch]
        return Pattern.from_axes(self.output_shape, self.input_shape, equal)


class BlockDiagonal(_Rows):
    """One matrix per batch entry, along the last axis: `y[b] = blocks[b] @ x[b]`.

    Args:
        blocks: The matrices, `(*batch, m, n)`; input `(*batch, n)`, output `(*batch, m)`.

    Example:
        >>> import numpy as np
        >>> BlockDiagonal(np.ones((100, 10, 64), np.float32))
        BlockDiagonal(100x10 <- 100x64, 256 kB; dense would be 25.6 MB)
    """

    def __init__(self, blocks: Array) -> None:
        if len(blocks.shape) < 2:
            raise InputError(
                f"BlockDiagonal: blocks must have shape (*batch, m, n); got {tuple(blocks.shape)}"
            )
        *batch, rows, columns = blocks.shape
        super().__init__((*batch, rows), (*batch, columns), blocks.dtype, (blocks,))
        self.blocks = blocks

    def _apply(self, x: Array) -> Array:
        return matmul(self.blocks, x[..., None])[..., 0]

    @property
    def T(self) -> "BlockDiagonal":
        return BlockDiagonal(namespace(self.blocks).matrix_transpose(self.blocks))

    def scaled_by(self, factor: Number) -> "BlockDiagonal":
        return BlockDiagonal(scalar(factor, self.blocks) * self.blocks)


class DiagonalPlusLowRank(_Rows):
    """For each batch row, `diag(d) + u v'` along the last axis: softmax, and normalisation.

    The gradient of p = softmax(x) is diag(p) - p p'. That of a layer norm is diag(1/s) minus a
    matrix of rank two.

    Args:
        diagonal: d, `(*batch, n)`: the shape of input and output.
        left: u, `(*batch, n, rank)`.
        right: v, `(*batch, n, rank)`.

    Example:
        >>> import numpy as np
        >>> p = np.full((128, 1000), 1e-3)
        >>> DiagonalPlusLowRank(p, -p[..., None], p[..., None])
        DiagonalPlusLowRank(128x1000, 3.1 MB; dense would be 122.1 GiB)
    """

    def __init__(self, diagonal: Array, left: Array, right: Array) -> None:
        shape = tuple(diagonal.shape)
        if not shape or left.shape[:-1] != shape or left.shape != right.shape:
            raise InputError(
                "DiagonalPlusLowRank: expected diagonal (*batch, n), left and right "
                f"(*batch, n, rank); got {shape}, {tuple(left.shape)}, {tuple(right.shape)}"
            )
        dtype = result_type(diagonal.dtype, left.dtype, right.dtype)
        super().__init__(shape, shape, dtype, (diagonal, left, right))
        self.diagonal, self.left, self.right = diagonal, left, right

    def _apply(self, x: Array) -> Array:
        xp = namespace(*self.arrays, x)
        inner = matmul(xp.matrix_transpose(self.right), x[..., None])
        return self.diagonal * x + matmul(self.left, inner)[..., 0]

    @property
    def T(self) -> "DiagonalPlusLowRank":
        return DiagonalPlusLowRank(self.diagonal, self.right, self.left)

    def scaled_by(self, factor: Number) -> "DiagonalPlusLowRank":
        number = scalar(factor, self.diagonal)
        return DiagonalPlusLowRank(number * self.diagonal, number * self.left, self.right)


@merges_product(Diagonal, Diagonal)
def _diagonal_after_diagonal(a: Diagonal, b: Diagonal) -> Operator:
    return Diagonal(a.diagonal * b.diagonal)


@merges_product(BlockDiagonal, Diagonal)
def _blocks_after_diagonal(a: BlockDiagonal, b: Diagonal) -> Operator:
    return BlockDiagonal(a.blocks * b.diagonal[..., None, :])


@merges_product(BlockDiagonal, BlockDiagonal)
def _blocks_after_blocks(a: BlockDiagonal, b: BlockDiagonal) -> Operator | None:
    rows, middle = a.blocks.shape[-2:]
    columns = b.blocks.shape[-1]
    if rows * columns > rows * middle + middle * columns:
        return None
    return BlockDiagonal(matmul(a.blocks, b.blocks))


@merges_product(DiagonalPlusLowRank, Diagonal)
def _low_rank_after_diagonal(a: DiagonalPlusLowRank, b: Diagonal) -> Operator:
    return DiagonalPlusLowRank(a.diagonal * b.diagonal, a.left, b.diagonal[..., None] * a.right)


@merges_product(DiagonalPlusLowRank, DiagonalPlusLowRank)
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


@merges_product(Dense, Diagonal)
def _dense_after_diagonal(a: Dense, b: Diagonal) -> Operator:
    matrix = a.matrix * b.diagonal.reshape((1, -1))
    return Dense(matrix, a.output_shape, a.input_shape)


@merges_sum(Diagonal, Diagonal)
def _diagonal_and_diagonal(a: Diagonal, b: Diagonal) -> Operator:
    return Diagonal(a.diagonal + b.diagonal)


@merges_sum(Diagonal, Identity)
def _diagonal_and_identity(a: Diagonal, b: Identity) -> Operator:
    return Diagonal(a.diagonal + scalar(1, a.diagonal))


@merges_sum(Diagonal, Scaled)
def _diagonal_and_multiple(a: Diagonal, b: Scaled) -> Operator | None:
    return Diagonal(a.diagonal + scalar(b.factor, a.diagonal)) if b.operator.is_identity else None


@merges_sum(BlockDiagonal, BlockDiagonal)
def _blocks_and_blocks(a: BlockDiagonal, b: BlockDiagonal) -> Operator:
    return BlockDiagonal(a.blocks + b.blocks)


@merges_sum(BlockDiagonal, Diagonal)
def _blocks_and_diagonal(a: BlockDiagonal, b: Diagonal) -> Operator:
    xp = namespace(a.blocks, b.diagonal)
    eye = xp.eye(a.blocks.shape[-1], dtype=b.dtype)
    return BlockDiagonal(a.blocks + b.diagonal[..., None] * xp.broadcast_to(eye, a.blocks.shape))


@merges_sum(DiagonalPlusLowRank, Diagonal)
def _low_rank_and_diagonal(a: DiagonalPlusLowRank, b: Diagonal) -> Operator:
    return DiagonalPlusLowRank(a.diagonal + b.diagonal, a.left, a.right)


@merges_sum(DiagonalPlusLowRank, DiagonalPlusLowRank)
def _low_rank_and_low_rank(a: DiagonalPlusLowRank, b: DiagonalPlusLowRank) -> Operator:
    xp = namespace(*a.arrays, *b.arrays)
    return DiagonalPlusLowRank(
        a.diagonal + b.diagonal,
        xp.concat([a.left, b.left], axis=-1),
        xp.concat([a.right, b.right], axis=-1),
    )
