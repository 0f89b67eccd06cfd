"""A search for other branches costs a bounded number of values, and says what it did not reach."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab.proof import branches
from gradlab.proof.branches import walk_branches
from gradlab.tracing import trace


def scores(q, k):
    return jax.nn.softmax(q @ k.T, -1)


def never(x):
    return jnp.where(x * x < -1, 0.0, x)


@pytest.fixture
def points(monkeypatch):
    """The number of points of each pass."""
    seen = []
    visit = branches._Walk.visit

    def counted(walk, some):
        seen.append(len(some))
        return visit(walk, some)

    monkeypatch.setattr(branches._Walk, "visit", counted)
    return seen


def test_what_a_program_computes_bounds_the_points_and_not_its_inputs_alone(points):
    q, k = np.random.default_rng(0).normal(size=(2, 512, 4)).astype(np.float32)
    walk_branches([trace(scores, q, k)], {"q": q, "k": k}, ["q", "k"])
    entries = 8 * 512 * 512  # at least, of one point
    assert max(points) * 512 * 512 <= branches._LARGEST
    assert sum(points) * entries <= 2 * branches._ENTRIES


def test_a_side_that_is_out_of_reach_of_a_large_input_takes_no_square_of_it():
    x = np.random.default_rng(0).normal(size=30_000).astype(np.float32)
    tracemalloc.start()
    found = walk_branches([trace(never, x)], {"x": x}, ["x"])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.unreached
    assert most < 1e9


def test_a_walk_over_no_entries_finds_nothing():
    x = np.zeros((0, 3), np.float32)
    assert walk_branches([trace(jnp.abs, x)], {"x": x}, ["x"]).places == ()
