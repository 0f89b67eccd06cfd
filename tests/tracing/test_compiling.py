"""Executables are shared exactly where programs are the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab.tracing import compile_once

X = np.arange(3, dtype=np.float32)
Y = X + 10


def test_the_same_program_is_compiled_once():
    assert compile_once(lambda a: a * 3.0, X) is compile_once(lambda b: b * 3.0, Y)


def test_constants_count():
    for table in (np.float32([1, 2, 3]), np.float32([1, 2, 4])):
        out = compile_once(lambda a, t=table: a + t, X)(X)
        np.testing.assert_array_equal(out, X + table)


def test_arguments_that_are_not_used_are_not_confused():
    first = compile_once(lambda a, b: a * 2.0, X, Y)
    second = compile_once(lambda a, b: b * 2.0, X, Y)
    np.testing.assert_array_equal(first(X, Y), 2 * X)
    np.testing.assert_array_equal(second(X, Y), 2 * Y)


def test_output_trees_are_not_confused():
    assert set(compile_once(lambda a: {"left": a}, X)(X)) == {"left"}
    assert set(compile_once(lambda a: {"right": a}, X)(X)) == {"right"}


def test_outputs_that_are_the_same_array_keep_their_places():
    swapped = compile_once(lambda a, b: (b, a), X, Y)(X, Y)
    kept = compile_once(lambda a, b: (a, b), X, Y)(X, Y)
    np.testing.assert_array_equal(swapped[0], Y)
    np.testing.assert_array_equal(kept[0], X)


@pytest.mark.slow
def test_what_one_emitter_of_xla_fails_at_is_left_to_the_other():
    def chain(x):
        for _ in range(1000):
            x = jnp.sin(x)
        return x

    def gradient(x):
        return jax.vjp(chain, x)[1](jnp.ones_like(x))[0]

    x = np.array([0.5, 1.0])
    with jax.enable_x64(True):
        ours = compile_once(gradient, x)(x)
    value, slope = x, 1.0
    for _ in range(1000):
        value, slope = np.sin(value), slope * np.cos(value)
    np.testing.assert_allclose(ours, slope, rtol=1e-10)
