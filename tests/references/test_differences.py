from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gradlab.references import Slope, finite_differences


def finite_difference(function: Callable[[float], Any]) -> Slope:
    return finite_differences(lambda steps: [[np.asarray(function(t))] for t in steps])[0]


SMOOTH = {
    "sin": (np.sin, np.cos, 0.3),
    "exp": (np.exp, np.exp, -1.2),
    "cubic": (lambda x: x**3 - x, lambda x: 3 * x**2 - 1, 0.7),
    "large": (lambda x: np.sin(x), np.cos, 1e4),
    "log": (np.log, lambda x: 1 / x, 0.4),
    "steep": (lambda x: np.tanh(50 * x), lambda x: 50 / np.cosh(50 * x) ** 2, 0.01),
    "constant": (lambda x: 3.0 + 0 * x, lambda x: 0 * x, 0.5),
    "tiny": (lambda x: 1e-12 * np.sin(x), lambda x: 1e-12 * np.cos(x), 0.5),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_the_error_estimate_covers_the_error(name):
    function, derivative, x = SMOOTH[name]
    slope = finite_difference(lambda t: np.asarray(function(x + t)))
    error = np.abs(slope.value - derivative(x))
    assert error <= slope.error and not slope.kink
    assert slope.error <= 1e-7 * max(abs(derivative(x)), abs(function(x)), 1e-30)


def test_a_quotient_is_rounded_where_the_function_shows_no_noise():
    """A linear function that is zero at the point has the same quotient at every step."""
    slopes = np.random.default_rng(0).normal(size=1000)

    def function(steps):
        return [[np.array(t * slopes * 3) / 3] for t in steps]

    (found,) = finite_differences(function)
    assert (found.value != slopes).any() and not found.kink.any()
    assert (np.abs(found.value - slopes) <= found.error).all()


def test_the_noise_of_the_function_is_measured():
    def noisy(t):
        return np.asarray(np.float64(np.float32(np.sin(0.3 + t))))

    slope = finite_difference(noisy)
    assert 1e-9 < slope.noise < 1e-7
    assert abs(slope.value - np.cos(0.3)) <= slope.error < 1e-4


KINKS = {
    "abs": (abs, -1.0, 1.0),
    "relu": (lambda t: max(t, 0.0), 0.0, 1.0),
    "relu and sin": (lambda t: max(t, 0.0) + np.sin(t), 1.0, 2.0),
    "max of curves": (lambda t: max(np.exp(t), 1 - t), -1.0, 1.0),
}


@pytest.mark.parametrize("name", KINKS)
def test_kinks_have_two_slopes_and_are_never_certain(name):
    function, left, right = KINKS[name]
    slope = finite_difference(lambda t: np.asarray(float(function(t))))
    assert slope.kink
    assert abs(slope.left - left) < 1e-6 and abs(slope.right - right) < 1e-6
    assert slope.error >= abs(right - left) / 2


def test_a_kink_nearby_is_not_a_kink_here():
    slope = finite_difference(lambda t: np.asarray(abs(t + 1e-2)))
    assert not slope.kink and abs(slope.value - 1) <= slope.error < 1e-9


def test_jumps_and_edges_are_not_trusted():
    jump = finite_difference(lambda t: np.asarray(float(t > 0)))
    assert jump.error > 0.1
    with np.errstate(invalid="ignore"):
        edge = finite_difference(lambda t: np.sqrt(np.asarray(t)))
    assert edge.error == np.inf


def test_entries_choose_their_own_steps():
    scales = np.array([1e-6, 1.0, 300.0])

    def function(steps):
        return [[np.sin(scales * t), np.outer(scales, [t, abs(t)])] for t in steps]

    sines, table = finite_differences(function)
    assert (np.abs(sines.value - scales) <= sines.error).all()
    assert (sines.error <= 1e-8 * scales).all()
    assert table.kink[:, 1].all() and not table.kink[:, 0].any()


def test_complex_functions():
    slope = finite_difference(lambda t: np.exp(1j * (0.2 + t)))
    assert abs(slope.value - 1j * np.exp(0.2j)) <= slope.error < 1e-10
