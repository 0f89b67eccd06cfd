"""Structured linear maps: what local gradients are.

The Jacobian of one output with respect to one input, stored by its structure: an elementwise
operation's is a `Diagonal`, a sum's a `Sum`, a matrix product's a `Contraction`, a softmax's a
`DiagonalPlusLowRank`. Operators compose (`a @ b`), add (`a + b`) and transpose (`.T`), simplify as
they do, and apply to arrays of NumPy and JAX, traced ones too.
"""

from gradlab.operators.base import Operator
from gradlab.operators.block import BlockDiagonal
from gradlab.operators.broadcast import Broadcast, Sum
from gradlab.operators.compose import Product, Scaled, SumOfOperators
from gradlab.operators.contraction import Contraction, left_multiplication, right_multiplication
from gradlab.operators.convolution import Convolution, TransposedConvolution
from gradlab.operators.dense import Dense
from gradlab.operators.diagonal import Diagonal
from gradlab.operators.kronecker import Kronecker
from gradlab.operators.low_rank import DiagonalPlusLowRank
from gradlab.operators.reshape import Permutation, Reshape
from gradlab.operators.selection import Scatter, Selection
from gradlab.operators.slicing import Embedding, Slice
from gradlab.operators.triangular import CumulativeSum, LowerTriangular, UpperTriangular
from gradlab.operators.trivial import Identity, Zero

__all__ = [
    "BlockDiagonal",
    "Broadcast",
    "Contraction",
    "Convolution",
    "CumulativeSum",
    "Dense",
    "Diagonal",
    "DiagonalPlusLowRank",
    "Embedding",
    "Identity",
    "Kronecker",
    "LowerTriangular",
    "Operator",
    "Permutation",
    "Product",
    "Reshape",
    "Scaled",
    "Scatter",
    "Selection",
    "Slice",
    "Sum",
    "SumOfOperators",
    "TransposedConvolution",
    "UpperTriangular",
    "Zero",
    "left_multiplication",
    "right_multiplication",
]
