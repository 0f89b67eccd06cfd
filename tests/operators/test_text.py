"""What a person reads of an operator, and what it says about its size."""

import numpy as np
import pytest

from gradlab.operators import (
    Broadcast,
    Contraction,
    Dense,
    Diagonal,
    Identity,
    Operator,
    Permutation,
    Reshape,
    Selection,
    sum_over,
)

F = np.float32


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, F)


def test_the_layer_whose_jacobian_nobody_can_form() -> None:
    operator = Diagonal(ones(100, 4096))
    assert repr(operator) == "Diagonal(100x4096, 1.6 MB; dense would be 625 GiB)"
    assert operator.shape == (409_600, 409_600)
    assert operator.stored_bytes == 1_638_400
    assert operator.dense_bytes == 409_600**2 * 4
    upstream = np.linspace(-1, 1, 409_600, dtype=F).reshape(100, 4096)
    np.testing.assert_array_equal(upstream @ operator, upstream)


TEXTS = [
    (Diagonal(ones()), "Diagonal(scalar, 4 B)"),
    (Identity((3,), F), "Identity(3, 0 B; dense would be 36 B)"),
    (sum_over((2, 3), None, F), "Sum(scalar <- 2x3, 0 B; dense would be 24 B)"),
    (0.5 * sum_over((2,), 0, F), "0.5 * Sum(scalar <- 2, 0 B; dense would be 8 B)"),
    (-Reshape((4,), (2, 2), F), "-Reshape(2x2 <- 4, 0 B; dense would be 64 B)"),
    (
        Diagonal(ones(2, 3)) @ Broadcast((3,), (2, 3), F),
        "Diagonal @ Broadcast(2x3 <- 3, 24 B; dense would be 72 B)",
    ),
    (
        (Diagonal(ones(2, 2)) + Permutation((1, 0), (2, 2), F)) @ Broadcast((2,), (2, 2), F),
        "(Diagonal + Permutation) @ Broadcast(2x2 <- 2, 16 B; dense would be 32 B)",
    ),
    (Dense(ones(2, 3), (2,), (3,)), "Dense(2 <- 3, 24 B)"),
    (
        Contraction("kn,bk->bn", ones(4, 5), input_shape=(2, 4)),
        "Contraction(2x5 <- 2x4, 80 B; dense would be 320 B)",
    ),
    (
        Selection(np.zeros(3, np.int64), (5, 2), F, axis=0),
        "Selection(3x2 <- 5x2, 24 B; dense would be 240 B)",
    ),
]


@pytest.mark.parametrize(("operator", "text"), TEXTS, ids=[text for _, text in TEXTS])
def test_repr(operator: Operator, text: str) -> None:
    assert repr(operator) == text


def test_sizes_are_python_integers() -> None:
    operator = Identity(np.array([2**20, 2**20]), F)
    assert operator.dense_bytes == 2**82
    assert type(operator.shape[0]) is int
