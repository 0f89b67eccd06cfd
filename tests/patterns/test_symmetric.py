"""Colours of symmetric patterns: every entry is read from a pass that holds it unmixed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlab.patterns import Pattern, symmetric_colours


def pattern_of(matrix):
    return Pattern.explicit(matrix, matrix.shape[:1], matrix.shape[1:])


def arrow(n, heads=1):
    matrix = np.eye(n, dtype=bool)
    matrix[:heads], matrix[:, :heads] = True, True
    return matrix


@pytest.mark.parametrize(("n", "heads"), [(9, 1), (40, 3), (400, 8)])
def test_an_arrow_takes_a_colour_for_each_head_and_one_for_the_rest(n, heads):
    assert symmetric_colours(pattern_of(arrow(n, heads))).count == heads + 1


def test_blocks_with_a_border_take_a_block_and_the_border():
    blocks = np.kron(np.eye(20), np.ones((5, 5))).astype(bool)
    blocks[-2:], blocks[:, -2:] = True, True
    assert symmetric_colours(pattern_of(blocks)).count == 7


@given(st.integers(0, 2**32 - 1), st.integers(1, 24), st.integers(0, 3), st.floats(0, 0.2))
def test_every_entry_can_be_read(seed, n, heads, share):
    rng = np.random.default_rng(seed)
    matrix = (rng.random((n, n)) < share) | np.eye(n, dtype=bool)
    busy = rng.permutation(n)[:heads]
    matrix[busy] |= rng.random((len(busy), n)) < 0.8
    matrix |= matrix.T
    colouring = symmetric_colours(pattern_of(matrix))
    if colouring is None:
        return
    of = colouring.assignment()
    assert of.max() < colouring.count
    for i, j in np.argwhere(matrix):
        mirrored = of[i] < colouring.heads <= of[j]
        column, row = (i, j) if mirrored else (j, i)
        assert (matrix[row] & (of == of[column])).sum() == 1


def test_what_is_not_symmetric_has_no_such_colours():
    matrix = arrow(9)
    matrix[0, 5] = False
    assert symmetric_colours(pattern_of(matrix)) is None
    assert symmetric_colours(pattern_of(matrix[:5])) is None
    assert symmetric_colours(Pattern.identity((9,))) is None
