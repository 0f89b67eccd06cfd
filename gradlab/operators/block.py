"""Block-diagonal maps: each row of a batch has a matrix of its own."""

from typing import Any

from gradlab.errors import InputError
from gradlab.operators._arrays import Array, matmul, namespace, scalar
from gradlab.operators.base import Operator

__all__ = ["BlockDiagonal"]


class BlockDiagonal(Operator):
    """One matrix per batch entry, along the last axis: `y[b] = blocks[b] @ x[b]`.

    Args:
        blocks: The matrices, `(*batch, m, n)`; input `(*batch, n)`, output `(*batch, m)`.

    Raises:
        InputError: If `blocks` has fewer than two axes.

    Example:
        >>> import numpy as np
        >>> BlockDiagonal(np.ones((100, 10, 64), np.float32))
        BlockDiagonal(100x10 <- 100x64, 256.0 kB; dense would be 25.6 MB)
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
        """The blocks transposed."""
        return BlockDiagonal(namespace(self.blocks).matrix_transpose(self.blocks))

    def _scale(self, factor: Any) -> "BlockDiagonal":
        return BlockDiagonal(scalar(factor, self.blocks) * self.blocks)
