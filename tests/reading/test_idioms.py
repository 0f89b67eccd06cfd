"""NumPy as people write it: a reading gives what NumPy gives, where it was read and elsewhere."""

import copy
import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from gradlab.reading import evaluate, read

_spec = importlib.util.spec_from_file_location("idioms", Path(__file__).with_name("idioms.py"))
idioms = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(idioms)


def same(ours, theirs, dtype):
    assert len(ours) == len(theirs)
    slack = 1e-12 if dtype == np.float64 else 2e-5
    for mine, other in zip(ours, theirs):
        other = np.asarray(other)
        assert (mine.dtype, mine.shape) == (other.dtype, other.shape)
        np.testing.assert_allclose(mine, other, rtol=slack, atol=slack)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("function", idioms.FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.filterwarnings("ignore")  # what NumPy warns of is not the question
def test_values_are_numpys(function, dtype):
    inputs = [x.astype(dtype) for x in idioms.inputs(function)]
    reading = read(function, *inputs)
    held = 0
    for step in (0.0, 1e-3, -2e-3):
        moved = [(x * (1 + step) + step / 9).astype(dtype) for x in inputs]
        if not reading.holds(*moved):
            continue
        held += 1
        theirs = jax.tree.leaves(function(*copy.deepcopy(moved)))
        same(evaluate(reading.program, *moved), theirs, dtype)
    assert held == 3, [str(each) for each in reading.decisions]


def test_everything_is_as_it_was():
    assert idioms.np is np and idioms.exp is np.exp and idioms.zeros is np.zeros
    assert type(idioms.TABLE) is np.ndarray and type(idioms.NESTED["steps"][0]) is np.ndarray
    assert isinstance(idioms.half, np.vectorize) and not hasattr(idioms, "float")
    np.testing.assert_array_equal(idioms.TABLE, np.arange(12.0).reshape(3, 4) / 7)
