"""Digits left: the formula on numbers, entry by entry."""

import numpy as np
import pytest

from gradlab.references import Estimate, digits_left, full_digits, zero_to_rounding


def left(actual, value, dtype, scatter=0.0, rounding=0.0):
    actual, value = np.atleast_1d(actual), np.atleast_1d(value)
    truth = Estimate(value, np.broadcast_to(scatter, value.shape))
    return digits_left(actual, truth, np.broadcast_to(rounding, value.shape), dtype).tolist()


@pytest.mark.parametrize(
    ("relative", "digits"), [(1e-3, 3.0), (0.5, 0.301), (0.0, None), (3.0, 0.0), (1.0, 0.0)]
)
def test_digits_are_the_logarithm_of_the_relative_error(relative, digits):
    expected = full_digits("float32") if digits is None else digits
    for value in (1.0, -1e-20, 3e20):
        assert left(value * (1 + relative), value, "float32") == [pytest.approx(expected, abs=1e-3)]


def test_a_larger_error_never_keeps_more_digits():
    errors = np.logspace(-12, 3, 60)
    digits = left(1 + errors, np.ones(60), "float32")
    assert digits == sorted(digits, reverse=True)


def test_zero_is_as_exact_as_the_terms_that_cancel():
    """The terms are of size 1: in float64 they leave 1e-16, in float32 they may leave 1e-7."""
    full = full_digits("float32")
    found = left([0.0, 1e-7, 1e-3], np.full(3, 3e-17), "float32", scatter=1e-16, rounding=1e-7)
    assert found == [full, full, 0.0]
    truth = Estimate(np.array([0.0, 3e-17, 1e-3]), np.array([0.0, 1e-16, 1e-16]))
    assert zero_to_rounding(truth).tolist() == [True, True, False]


def test_what_is_not_finite_has_no_digit_unless_the_dtype_cannot_hold_more():
    full = full_digits("float16")
    assert left([np.nan, np.inf, -np.inf], np.ones(3), "float16") == [0.0, 0.0, 0.0]
    beyond = left([np.inf, -np.inf, np.nan, 1.0], np.full(4, 1e9), "float16")
    assert beyond == [full, 0.0, 0.0, pytest.approx(0.0, abs=1e-6)]
    assert left([np.inf, np.inf], [np.inf, -np.inf], "float16") == [full, 0.0]


def test_an_uncertain_reference_counts_nothing():
    assert np.isnan(left(1.0, 1.0, "float32", scatter=2e-2)).all()
    assert np.isnan(left(1.0, np.nan, "float32")).all()
    assert left(1.0, 1.0, "float32", scatter=5e-3) == [pytest.approx(full_digits("float32"))]


def test_below_the_smallest_normal_number_digits_count_from_there():
    """float16 has subnormal numbers down to 6e-8, and ever fewer digits among them."""
    smallest = 2.0**-14
    kept = left([0.0, 2 * smallest], [smallest / 100, smallest], "float16")
    assert kept == [pytest.approx(2.0, abs=1e-6), 0.0]
