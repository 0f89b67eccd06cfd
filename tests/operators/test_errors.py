"""A wrong call says what came and what was expected; shapes are named in full."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gradlab.errors import InputError, InputTypeError
from gradlab.operators import (
    BlockDiagonal,
    Broadcast,
    Contraction,
    Convolution,
    CumulativeSum,
    Dense,
    Diagonal,
    DiagonalPlusLowRank,
    Identity,
    LowerTriangular,
    Permutation,
    Reshape,
    Selection,
    Slice,
    embedding,
    left_multiplication,
    right_multiplication,
    scatter,
    sum_over,
)

F = np.float64


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape)


WRONG_SHAPES = {
    "apply": (lambda: Diagonal(ones(2, 3)).apply(ones(3, 2)), ["(2, 3)", "(3, 2)"]),
    "matmul with an array": (lambda: Diagonal(ones(2)) @ ones(3), ["(2,)", "(3,)"]),
    "upstream": (lambda: ones(3, 3) @ Broadcast((3,), (3, 3), F).T, ["(3,)", "(3, 3)"]),
    "product": (lambda: Diagonal(ones(2)) @ Identity((3,), F), ["Diagonal", "(2,)", "(3,)"]),
    "sum": (lambda: Diagonal(ones(2)) + Identity((3,), F), ["Diagonal", "(2,)", "(3,)"]),
    "reshape": (lambda: Reshape((2, 3), (4,), F), ["(2, 3)", "(4,)"]),
    "permutation": (lambda: Permutation((0,), (2, 3), F), ["(0,)", "(2, 3)"]),
    "permutation, repeated": (lambda: Permutation((0, 0), (2, 3), F), ["(0, 0)"]),
    "broadcast": (lambda: Broadcast((2,), (2, 3), F), ["(2,)", "(2, 3)"]),
    "broadcast to fewer axes": (lambda: Broadcast((2, 3), (3,), F), ["(2, 3)", "(3,)"]),
    "broadcast along axes": (lambda: Broadcast((2,), (2, 3), F, (0,)), ["(2,)", "(2, 3)"]),
    "sum to a shape": (lambda: Broadcast((2,), (2, 3), F).T, ["(2,)", "(2, 3)"]),
    "sum over no such axis": (lambda: sum_over((2, 3), 2, F), ["axis 2", "shape 2x3"]),
    "sum twice over an axis": (lambda: sum_over((2, 3), (1, -1), F), ["(1, -1)"]),
    "cumulative sum": (lambda: CumulativeSum((2, 3), F, 2), ["axis 2"]),
    "selection out of bounds": (lambda: Selection([0, 3], (3, 2), F, 0), ["3", "(3, 2)"]),
    "selection along no such axis": (lambda: Selection([0], (3, 2), F, 2), ["axis 2"]),
    "scatter out of bounds": (lambda: scatter([-4], (3,), F), ["-4", "(3,)"]),
    "slice": (lambda: Slice((3,), [slice(1), slice(1)], F), ["2 slices", "(3,)"]),
    "embedding": (lambda: embedding([slice(1), slice(1)], (3,), F), ["2 slices", "(3,)"]),
    "blocks": (lambda: BlockDiagonal(ones(3)), ["(3,)", "(*batch, m, n)"]),
    "low rank": (
        lambda: DiagonalPlusLowRank(ones(2, 3), ones(2, 3, 1), ones(2, 4, 1)),
        ["(2, 3)", "(2, 4, 1)"],
    ),
    "dense": (lambda: Dense(ones(2, 3), (2,), (4,)), ["(2, 4)", "(2, 3)"]),
    "contraction, sizes": (
        lambda: Contraction("ij,j->i", ones(2, 3), input_shape=(4,)),
        ["'j' is 3 and 4", "(2, 3)", "(4,)"],
    ),
    "contraction, axes": (
        lambda: Contraction("ij,j->i", ones(2), input_shape=(3,)),
        ["'ij'", "(2,)"],
    ),
    "contraction, operands": (
        lambda: Contraction("ij,j->i", input_shape=(3,)),
        ["2 operands named, 1 given"],
    ),
    "contraction, a diagonal read": (
        lambda: Contraction("i,jj->i", ones(2), input_shape=(3, 3)),
        ["'jj'"],
    ),
    "contraction, a letter of x alone": (
        lambda: Contraction("i,j->i", ones(2), input_shape=(3,)),
        ["'j'"],
    ),
    "matmul, left": (lambda: left_multiplication(ones(2, 3), (4, 5)), ["(2, 3)", "(4, 5)"]),
    "matmul, right": (lambda: right_multiplication(ones(2, 3), (4, 5)), ["(4, 5)", "(2, 3)"]),
    "matmul, scalar": (lambda: left_multiplication(ones(2, 3), ()), ["(2, 3)", "()"]),
    "matmul, batches": (
        lambda: left_multiplication(ones(2, 3, 4), (3, 4, 5)),
        ["(2, 3, 4)", "(3, 4, 5)"],
    ),
    "causal": (
        lambda: LowerTriangular(ones(2, 2), (2, 3)),
        ["LowerTriangular", "(3, 3)", "(2, 2)"],
    ),
    "convolution, axes": (
        lambda: Convolution(ones(1, 1, 3, 3), (1, 1, 5)),
        ["(1, 1, 5)", "(1, 1, 3, 3)"],
    ),
    "convolution, channels": (
        lambda: Convolution(ones(4, 2, 3), (1, 3, 5), groups=2),
        ["(1, 3, 5)", "(4, 2, 3)", "2 groups"],
    ),
    "convolution, strides": (
        lambda: Convolution(ones(1, 1, 3), (1, 1, 5), strides=(1, 1)),
        ["strides", "(1, 1)"],
    ),
    "convolution, dilation": (
        lambda: Convolution(ones(1, 1, 3), (1, 1, 5), dilation=0),
        ["dilation", "0"],
    ),
    "convolution, padding": (
        lambda: Convolution(ones(1, 1, 3), (1, 1, 5), padding=[(0, -1)]),
        ["padding", "-1"],
    ),
    "convolution, padding of two axes": (
        lambda: Convolution(ones(1, 1, 3), (1, 1, 5), padding=[1, 1]),
        ["padding", "1 spatial"],
    ),
    "multiplied by an array": (
        lambda: Identity((3,), F) * ones(3),
        ["(3,)", "Diagonal(array) @ operator"],
    ),
}


@pytest.mark.parametrize("name", WRONG_SHAPES)
def test_wrong_shapes_are_named(name: str) -> None:
    call, words = WRONG_SHAPES[name]
    with pytest.raises(InputError) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)


WRONG_KINDS: dict[str, tuple[Callable[[], Any], str]] = {
    "apply to a list": (lambda: Identity((2,), F).apply([1.0, 2.0]), "list"),
    "float indices": (lambda: Selection([0.0], (2,), F), "float64"),
    "a mask": (lambda: Selection([True, False], (2,), F), "numpy.nonzero"),
    "operator times operator": (lambda: Diagonal(ones(2)) * Diagonal(ones(2)), "a @ b"),
}


@pytest.mark.parametrize("name", WRONG_KINDS)
def test_wrong_kinds_are_named(name: str) -> None:
    call, words = WRONG_KINDS[name]
    with pytest.raises(InputTypeError) as caught:
        call()
    assert words in str(caught.value)


def test_an_array_is_not_added() -> None:
    with pytest.raises(TypeError):
        Identity((2,), F) + ones(2)
    with pytest.raises(TypeError):
        ones(2) + Identity((2,), F)


def test_a_matrix_that_cannot_fit_is_refused_before_it_is_made() -> None:
    layer = Diagonal(np.broadcast_to(np.float32(1.0), (100, 4096)))
    with pytest.raises(InputError, match=r"409,600 x 409,600 matrix takes 625 GiB.*apply"):
        layer.to_dense()
    with pytest.raises(InputError, match="max_bytes=15 B"):
        Diagonal(ones(2)).to_dense(max_bytes=15)
    held = Dense(ones(2, 2), (2,), (2,))
    assert held.to_dense(max_bytes=1) is held.matrix
