"""Executables are shared exactly where programs are the same."""

import numpy as np

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
