"""What is written into a program narrows what it reads: indices that are computed, masks, weights.

The truth is where the Jacobian is not zero at some points, one JVP at a time.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from one_by_one import nonzero

from gradlab.structure import jacobian
from gradlab.structure.infer import Walk

RNG = np.random.default_rng(0)
ORDER = RNG.permutation(12)
COUNTS = np.array([1, 0, 3, 2])
KNOTS = np.cumsum(RNG.uniform(0.5, 1.5, 12))
AT = np.sort(RNG.uniform(1.0, 10.0, 9))
MASK = np.array([0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0], bool)
WEIGHTS = np.where(MASK, 1.5, 0.0)
BAND = np.eye(12) + 0.5 * np.eye(12, k=-3)


def _masked_scan(reverse):
    def function(x):
        def step(carry, both):
            row, on = both
            carry = 0.5 * carry + row
            return carry, jnp.where(on, carry, 0.0)

        return lax.scan(step, 0.0, (x, jnp.asarray(MASK)), reverse=reverse)[1]

    return function


def _only_when_on(x):
    def step(carry, both):
        row, on = both
        return carry + on * jnp.sin(row), None

    return lax.scan(step, 0.0, (x, jnp.asarray(WEIGHTS)))[0]


def _three_kinds(x):
    def step(carry, both):
        row, kind = both
        made = lax.switch(kind.astype(int), [lambda: row, lambda: carry, lambda: 0.0 * row])
        return carry + jnp.where(kind == 1, row, 0.0), made

    kinds = jnp.asarray(np.arange(12) % 3, jnp.float32)
    return lax.scan(step, 0.0, (x, kinds))[1]


def _cost(x):
    def step(state, both):
        row, weight = both
        state = 0.9 * state + row
        return state, weight * jnp.sin(state) ** 2 + 0.1 * row**4

    weights = np.zeros(12)
    weights[2] = 1.0
    return lax.scan(step, 0.0, (x, jnp.asarray(weights)))[1].sum()


def _by_branch(x):
    which = jnp.asarray(ORDER)[3] % 2
    return lax.cond(which == 1, lambda: x[::-1], lambda: jnp.cumsum(x))


def _counted(x):
    places = lax.fori_loop(0, 12, lambda i, p: p.at[i].set((5 * i) % 12), jnp.zeros(12, jnp.int32))
    return x[places]


def _first_above(x):
    step = lax.while_loop(lambda k: jnp.asarray(KNOTS)[k] < 4.0, lambda k: k + 1, 0)
    return lax.dynamic_slice(x, (step,), (2,))


def _set(x):
    return x.at[jnp.asarray(ORDER[:5])].set(0.0)


def _banded(**how):
    def function(x):
        return jax.scipy.linalg.solve_triangular(jnp.asarray(BAND, x.dtype), x, **how)

    return function


def _right(x):
    matrix = jnp.asarray(BAND, x.dtype)
    return lax.linalg.triangular_solve(matrix, x.reshape(1, 12), left_side=False, lower=True)


def _by_step(x):
    def step(total, both):
        k, value = both
        return total + value, jnp.where(k < 3, total + value, 0.0)

    return lax.scan(step, 0.0, (jnp.arange(12), x))[1]


def _branch_by_step(x):
    def step(first, both):
        k, value = both
        return first, lax.cond(k < 2, lambda v: v * first, lambda v: v, value)

    return lax.scan(step, x[0], (jnp.arange(12), x))[1]


def _counting_while(x):
    def turn(state):
        return state[0] + 1, state[1] + jnp.roll(state[1], 1)

    return lax.while_loop(lambda state: state[0] < 2, turn, (0, x))[1]


def _products_of_sums(starts, on):
    """Each entry times the sum of those before it, which starts anew where a mask is off."""

    def function(x):
        def step(total, both):
            value, kept = both
            return jnp.where(kept, total + value, 0.0), value * total

        return lax.scan(step, starts(x), (x, jnp.asarray(on)))[1]

    return function


def _register(x):
    def step(held, value):
        return (held[1], held[2], held[0] + value), held[0]

    return jnp.sin(x) * lax.scan(step, (x[0] * 0, x[-1], x[0]), x)[1]


def _column_with_zeros(x):
    ahead = jnp.arange(12) < 5

    def step(total, value):
        return total + value, value * total

    return lax.scan(step, 1.0, jnp.where(ahead, x, 0.0))[1]


def _above(x):
    rows, columns = (lax.broadcasted_iota(jnp.int32, (12, 12), k) for k in (0, 1))
    return (x[:, None] * x) * (1 - (rows >= columns).astype(jnp.int32))


# name -> function of 12 numbers, how many entries too many the pattern may have
FUNCTIONS = {
    "argsort": (lambda x: x[jnp.argsort(jnp.asarray(KNOTS[ORDER]))], 0),
    "sort of integers": (lambda x: x[jnp.sort(jnp.asarray(ORDER))[:4]], 0),
    "searchsorted": (lambda x: x[jnp.searchsorted(jnp.asarray(KNOTS), jnp.asarray(AT))], 0),
    "interpolation": (lambda x: jnp.interp(jnp.asarray(AT), jnp.asarray(KNOTS), x), 0),
    "repeat": (lambda x: jnp.repeat(x[:4], jnp.asarray(COUNTS), total_repeat_length=6), 0),
    "unique": (lambda x: x[jnp.unique(jnp.asarray(ORDER) // 3, size=4)], 0),
    "running sum of indices": (lambda x: x[jnp.cumsum(jnp.asarray(COUNTS))], 0),
    "tiled indices": (lambda x: x[jnp.tile(jnp.asarray(ORDER[:3]), 2)], 0),
    "bins": (lambda x: x[jnp.digitize(jnp.asarray(AT), jnp.asarray(KNOTS))], 0),
    "a random permutation": (lambda x: x[jax.random.permutation(jax.random.key(3), 12)], 0),
    "random signs": (lambda x: x * (jax.random.bits(jax.random.PRNGKey(1), (12,)) % 2), 0),
    "a permutation": (lambda x: jax.random.permutation(jax.random.key(3), x), 0),
    "dropped entries": (
        lambda x: jnp.where(jax.random.bernoulli(jax.random.key(1), 0.4, (12,)), x, 0),
        0,
    ),
    "resampled": (lambda x: jax.image.resize(x, (17,), "linear"), 0),
    "resampled by cubes": (lambda x: jax.image.resize(x, (19,), "cubic"), 0),
    "nearest samples": (lambda x: jax.image.resize(x, (8,), "nearest"), 0),
    "powers": (lambda x: jnp.vander(x, 4), 0),
    "chosen by the step": (_by_step, 0),
    "a branch of the step": (_branch_by_step, 0),
    "a while that counts": (_counting_while, 0),
    "counted": (_counted, 0),
    "while": (_first_above, 0),
    "scattered indices": (
        lambda x: x[jnp.zeros(12, jnp.int32).at[jnp.asarray(ORDER)].set(jnp.arange(12))],
        0,
    ),
    "a branch": (_by_branch, 0),
    "a mask in a scan": (_masked_scan(False), 0),
    "a mask in a scan backwards": (_masked_scan(True), 0),
    "weights in a scan": (_only_when_on, 0),
    "three kinds of steps": (_three_kinds, 12),
    "weights of a cost": (jax.grad(_cost), 0),
    "overwritten": (_set, 0),
    "a band solved": (_banded(lower=True), 0),
    "a band solved upwards": (_banded(lower=True, trans=1), 0),
    "a band solved from the right": (_right, 0),
    "a sum that starts at zero": (_products_of_sums(lambda x: 0.0, [True] * 12), 0),
    "a sum that starts anew": (_products_of_sums(lambda x: 0.0, MASK), 0),
    "a sum that starts anew, and elsewhere": (_products_of_sums(lambda x: x[3], MASK), 0),
    "zeros that go round": (_register, 0),
    "a column with zeros": (_column_with_zeros, 0),
    "one less a mask": (lambda x: (x[:, None] + x) * (1 - jnp.eye(12)), 0),
    "one less a mask of integers": (_above, 0),
    "read beyond the end": (
        lambda x: x * x.at[2 * np.arange(12)].get(mode="fill", fill_value=0.0),
        0,
    ),
    "a diagonal solved": (
        lambda x: jax.scipy.linalg.solve_triangular(jnp.diag(jnp.arange(1.0, 13)), x),
        0,
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_constants_narrow_what_is_read(name):
    function, spare = FUNCTIONS[name]
    points = np.random.default_rng(1).uniform(0.3, 2.0, (4, 12)).astype(np.float32)
    seen = nonzero(function, *points)
    pattern = jacobian(function, np.ones(12, np.float32)).pattern.to_dense()
    assert not (seen & ~pattern).any()
    assert (pattern & ~seen).sum() <= spare


BOUNDED = {
    "add": jnp.add,
    "sub": jnp.subtract,
    "mul": jnp.multiply,
    "div": lambda a, b: a / (1.5 + abs(b)),
    "less": jnp.less,
    "equal": jnp.equal,
    "different": jnp.not_equal,
    "true": lambda a, b: (a - b).astype(bool),
    "floor": lambda a, b: jnp.floor(4 * a) + b.astype(int),
    "choice": lambda a, b: jnp.where(a < b, a, b) + jnp.clip(a, b, 1.0),
    "sum": lambda a, b: jnp.cumsum(a) + b.sum(),
    "square": lambda a, b: a * a + jnp.square(b) - abs(a + b),
    "moved": lambda a, b: jnp.flip(jnp.concatenate([a, b])).reshape(2, -1),
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bounds_hold_what_is_computed(name, dtype):
    for seed in range(8):
        a, b = np.random.default_rng(seed).integers(-9, 9, (2, 6)) / 7

        def function(a=a, b=b):
            x, y = jnp.asarray(a, dtype), jnp.asarray(b, dtype)
            return BOUNDED[name](x * x, y * jnp.asarray(0.3, dtype))

        seen = np.asarray(jax.jit(function)(), np.float64)
        [told] = Walk().run(jax.make_jaxpr(function)(), [])
        if told.known is not None and told.known.between is not None:
            low, high = told.known.between
            assert ((low <= seen) & (seen <= high)).all()
        elif told.known is not None and told.known.array is not None:
            assert (told.known.array == seen).all()
        region = told.known and told.known.nonzero
        assert region is None or region.to_dense().ravel()[seen.ravel() != 0].all()


@pytest.mark.parametrize(
    ("place", "known"), [(2.4, True), (3.0, False)], ids=["clear", "on the edge"]
)
def test_numbers_that_are_rounded_are_foretold_between_bounds(place, known):
    def function(x):
        rounded = (jnp.asarray(AT) * 0.1).sum()  # in which order, and how, is XLA's to choose
        index = jnp.floor(rounded - (float(np.sum(AT * 0.1)) - place)).astype(int)
        return lax.dynamic_slice(x, (index,), (1,))

    pattern = jacobian(function, np.ones(12, np.float32)).pattern
    assert pattern.nnz == (1 if known else 2)
    assert pattern.to_dense()[0, 2]


def test_a_mask_is_not_read_from_bits_that_the_session_does_not_draw():
    def function(x):  # at float64 inputs, gradlab draws 64 bits; a session without them draws 32
        return x * jax.random.bernoulli(jax.random.key(0), 0.5, x.shape)

    x = np.ones(6)
    seen = jnp.diag(jax.jacfwd(function)(x)) != 0
    with jax.enable_x64(True):
        wide = jnp.diag(jax.jacfwd(function)(x)) != 0
    assert (seen != wide).any()
    pattern = jacobian(function, x).pattern.to_dense()
    assert (np.diag(pattern) >= np.asarray(seen | wide)).all()
    assert jacobian(function, x.astype(np.float32)).nnz == seen.sum()
