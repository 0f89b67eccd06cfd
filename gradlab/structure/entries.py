"""The evaluated entries of a Jacobian, and its sides: the leaves of inputs and outputs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse

from gradlab.errors import InputError
from gradlab.formatting import size_text
from gradlab.structure.evaluate import Compressed

__all__ = ["Entries", "Pair", "Side", "only", "refuse_dense"]

Pair = tuple[str, str]


@dataclass(frozen=True)
class Side:
    """One input or output leaf of the function."""

    path: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes per entry."""
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize


@dataclass(frozen=True, eq=False)
class Entries:
    """The evaluated entries of a Jacobian, block by block, compressed by colours.

    Attributes:
        blocks: for each (output path, input path), the compressed block.
    """

    outputs: tuple[Side, ...]
    inputs: tuple[Side, ...]
    blocks: Mapping[Pair, Compressed]

    @property
    def block(self) -> Compressed:
        """The only block.

        Raises:
            InputError: there are several; look in `blocks`.
        """
        block: Compressed = only(self.blocks, "block", "blocks")
        return block

    @property
    def nbytes(self) -> int:
        """The memory that the entries take."""
        return sum(block.values.nbytes for block in self.blocks.values())

    def to_scipy(self) -> Any:
        """Return the matrix (all outputs flattened, all inputs flattened) in SciPy's CSR format.

        Memory: three integers of 8 bytes and two numbers for each entry of the pattern.
        """
        rows = [
            [self.blocks[out.path, given.path].to_scipy() for given in self.inputs]
            for out in self.outputs
        ]
        return scipy.sparse.block_array(rows, format="csr")

    def to_dense(self, max_bytes: int = 2**30) -> np.ndarray[Any, Any]:
        """Return the matrix as a dense array of at most `max_bytes`.

        Raises:
            InputError: it takes more; nothing has been allocated then.
        """
        refuse_dense(self.outputs, self.inputs, max_bytes)
        dense: np.ndarray[Any, Any] = self.to_scipy().toarray()
        return dense

    def to_bcoo(self) -> Any:
        """Return the matrix as a JAX BCOO array."""
        from jax.experimental.sparse import BCOO

        return BCOO.from_scipy_sparse(self.to_scipy())


def refuse_dense(outputs: Sequence[Side], inputs: Sequence[Side], max_bytes: int) -> None:
    """Raise where the dense matrix takes more than `max_bytes`."""
    m, n = sum(side.size for side in outputs), sum(side.size for side in inputs)
    size = m * n * max((side.itemsize for side in outputs), default=1)
    if size > max_bytes:
        raise InputError(
            f"to_dense: the dense {m:,} x {n:,} matrix takes {size_text(size)}, more than "
            f"max_bytes={size_text(max_bytes)}; use evaluate() or to_scipy(), which keep only the "
            "entries of the pattern, or raise max_bytes"
        )


def only(blocks: Mapping[Pair, Any], one: str, many: str) -> Any:
    """Return the only block, or raise and say where to look for the others."""
    if len(blocks) != 1:
        raise InputError(
            f"{one}: there are {len(blocks)} blocks, {', '.join(map(str, list(blocks)[:4]))}; "
            f"look in .{many}[output path, input path]"
        )
    return next(iter(blocks.values()))
