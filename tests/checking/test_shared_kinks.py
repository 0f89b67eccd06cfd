"""Ties that only finite differences can judge: each entry may be possible, and all impossible."""

import numpy as np
import pytest

import gradlab

X = np.array([0.5, 2.0, 2.0, -1.0])
ONE, HALVES, ALL = [0, 1, 0, 0], [0, 0.5, 0.5, 0], [0, 1, 1, 0]


def largest(x):
    """A maximum that JAX cannot trace."""
    return np.float64(max(x.tolist()))


def share(parts):
    return lambda g, x: g * np.array(parts, float)


@pytest.mark.parametrize("parts", [ONE, HALVES, [0, 0, 1, 0], [0, 0.25, 0.75, 0]])
def test_any_division_of_the_upstream_among_ties_is_right(parts):
    # the backward holds the places of the maximum, so it is right at X alone
    report = gradlab.check(largest, X, backward=share(parts), branches=False)
    assert report.ok, report


@pytest.mark.parametrize("parts", [ALL, [0, 0, 0, 0], [0, 0.9, 0.9, 0]])
def test_more_or_less_than_the_upstream_is_wrong(parts):
    report = gradlab.check(largest, X, backward=share(parts))
    assert report.failed
    assert report.worst.index in {(1,), (2,)}
