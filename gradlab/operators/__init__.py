"""Structured linear maps: what local gradients are.

The Jacobian of one output with respect to one input, stored by its structure. The local gradient
of an elementwise operation is a `Diagonal`, that of a sum is a `Sum`, that of a matrix product a
`Contraction`, that of a softmax a `DiagonalPlusLowRank`. Operators compose (`a @ b`), add (`a + b`)
and transpose (`.T`), simplify as they do, and apply to arrays of NumPy and JAX, traced ones too.

To add a structure, write its class and its rules in one file: `_apply`, `.T` or
`_apply_transposed`, `pattern`, and `merges_product` or `merges_sum` for what it merges with.
"""

from gradlab.operators.convolution import Convolution
from gradlab.operators.core import (
    Dense,
    Identity,
    Operator,
    OperatorSum,
    Product,
    Scaled,
    Transposed,
    Zero,
)
from gradlab.operators.entrywise import BlockDiagonal, Diagonal, DiagonalPlusLowRank
from gradlab.operators.moves import (
    Broadcast,
    Permutation,
    Reshape,
    Selection,
    Slice,
    embedding,
    scatter,
    sum_over,
)
from gradlab.operators.products import (
    Contraction,
    CumulativeSum,
    LowerTriangular,
    left_multiplication,
    right_multiplication,
)

__all__ = [
    "BlockDiagonal",
    "Broadcast",
    "Contraction",
    "Convolution",
    "CumulativeSum",
    "Dense",
    "Diagonal",
    "DiagonalPlusLowRank",
    "Identity",
    "LowerTriangular",
    "Operator",
    "OperatorSum",
    "Permutation",
    "Product",
    "Reshape",
    "Scaled",
    "Selection",
    "Slice",
    "Transposed",
    "Zero",
    "embedding",
    "left_multiplication",
    "right_multiplication",
    "scatter",
    "sum_over",
]
