"""A number times an operator: the matrix times the number, in the operator's dtype, as simple."""

import ml_dtypes
import numpy as np
import pytest

from gradlab.operators import Dense, Diagonal, OperatorSum, Permutation, Product, Scaled

SQUARE = (2, 2)
TURN = Permutation((1, 0), SQUARE, np.float32)
WEIGHTS = Diagonal(np.array([[1.0, -2.0], [3.0, 4.0]], np.float32))
FULL = Dense(np.arange(16, dtype=np.float32).reshape(4, 4), SQUARE, SQUARE)


def numbers_are_taken_in(operator):
    return not isinstance(operator, Scaled)


@pytest.mark.parametrize("number", [3, -0.5, np.float64(0.1), True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("kind", [Diagonal, Dense])
def test_a_real_number_leaves_the_dtype(number, dtype, kind):
    entries = np.array([1.0, -2.0, 3.0]).astype(dtype)
    operator = Diagonal(entries) if kind is Diagonal else Dense(np.diag(entries), (3,), (3,))
    matrix = (number * operator).to_dense()
    assert (number * operator).dtype == matrix.dtype == dtype
    expected = operator.to_dense().astype(np.float64) * float(number)
    np.testing.assert_allclose(matrix.astype(np.float64), expected, rtol=1e-2)


def test_a_complex_number_keeps_its_imaginary_part():
    for operator in (WEIGHTS, FULL, TURN, Product(TURN, WEIGHTS)):
        scaled = 2j * operator
        assert np.dtype(scaled.dtype) == np.complex64
        np.testing.assert_array_equal(scaled.to_dense(), 2j * operator.to_dense())


def test_the_first_factor_that_can_take_a_number_takes_it():
    scaled = 2 * Product(TURN, WEIGHTS)
    assert isinstance(scaled, Product) and all(map(numbers_are_taken_in, scaled.factors))
    assert scaled.factors[0] is TURN
    np.testing.assert_array_equal(scaled.to_dense(), 2 * Product(TURN, WEIGHTS).to_dense())
    none = 2 * Product(TURN, TURN)
    assert isinstance(none, Scaled) and isinstance(none.operator, Product)
    np.testing.assert_array_equal(none.to_dense(), 2 * Product(TURN, TURN).to_dense())


def test_a_sum_may_have_one_term():
    alone = OperatorSum(FULL)
    np.testing.assert_array_equal(alone.to_dense(), FULL.to_dense())
    np.testing.assert_array_equal((-alone).apply(np.ones(SQUARE)), -FULL.apply(np.ones(SQUARE)))


def test_one_times_an_operator_is_the_operator():
    assert 1 * FULL is FULL and 1.0 * TURN is TURN
    assert numbers_are_taken_in(-WEIGHTS) and isinstance(-TURN, Scaled)
