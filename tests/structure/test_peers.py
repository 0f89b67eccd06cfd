"""Cross-check with asdex, which detects patterns entry by entry; skipped where it is missing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from programs.corpus import CORPUS

from gradlab.structure import jacobian

asdex = pytest.importorskip(
    "asdex", reason="asdex is not installed: pip install 'gradlab[bench]' brings it"
)

V = np.random.default_rng(0).standard_normal(12).astype(np.float32)
M = V.reshape(3, 4)
WEIGHTS = np.random.default_rng(1).standard_normal((4, 5)).astype(np.float32)
KERNEL = np.ones((1, 1, 3), np.float32)


def attention(x):
    scores = jnp.where(np.tri(3, dtype=bool), x @ x.T, -jnp.inf)
    return jax.nn.softmax(scores, axis=-1) @ x


EQUAL = {
    "tanh": (jnp.tanh, V),
    "softmax": (jax.nn.softmax, M),
    "reduction": (lambda x: x.sum(0), M),
    "reshape": (lambda x: x.reshape(4, 3).T * 2, M),
    "slice": (lambda x: x[::2] * x[1::2], V),
    "differences": (lambda x: x[2:] - 2 * x[1:-1] + x[:-2], V),
    "roll": (lambda x: jnp.roll(x, 1, 0) + x, M),
    "pad": (lambda x: jnp.pad(x, ((1, 0), (0, 2))), M),
    "product": (lambda x: x @ WEIGHTS, M),
    "stack": (lambda x: jnp.stack([x, x * x], 1), M),
    "gather": (lambda x: x[np.array([3, 0, 3])], V),
    "convolution": (lambda x: lax.conv(x[None, None], KERNEL, (1,), "VALID"), V),
    "cumulative": (lambda x: jnp.cumsum(x, 1), M),
    "sort": (lambda x: jnp.sort(x, 1), M),
    "branches": (lambda x: lax.cond(x.sum() > 0, jnp.sin, lambda y: y[::-1], x), V),
}
SMALLER = {
    "attention": (attention, M),
    "zeros": (lambda x: x[:, None] * np.eye(12, dtype=np.float32), V),
}


def patterns(function, x):
    theirs = asdex.jacobian_sparsity(function, x).todense() != 0
    return jacobian(function, x).pattern.to_dense(), np.asarray(theirs)


@pytest.mark.parametrize("name", EQUAL)
def test_both_find_the_same(name):
    ours, theirs = patterns(*EQUAL[name])
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("name", SMALLER)
def test_nothing_is_here_that_is_not_there(name):
    ours, theirs = patterns(*SMALLER[name])
    assert (theirs | ~ours).all()


@pytest.mark.filterwarnings("ignore::asdex.DenseColoringWarning")
@pytest.mark.one_in(16)
@pytest.mark.parametrize("name", CORPUS)
def test_never_more_passes_or_entries_than_theirs(name):
    function, shape = CORPUS[name]
    x = np.ones(shape, np.float32)
    try:
        theirs = asdex.jacobian_coloring(function, x)
    except NotImplementedError as refused:
        pytest.skip(f"asdex: {refused}")
    ours = jacobian(function, x)
    assert ours.passes <= theirs.num_colors
    assert ours.nnz <= theirs.sparsity.nnz
