"""Random programs of views, writes and operations: a reading computes what NumPy computes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gradlab.reading import evaluate, read

VIEWS = (
    lambda a: a.T,
    lambda a: a[::-1],
    lambda a: a[..., ::2],
    lambda a: a[1:],
    lambda a: a.reshape(-1),
    lambda a: np.expand_dims(a, 0),
    lambda a: np.moveaxis(a, 0, -1),
    lambda a: np.flip(a),
    lambda a: a[..., None],
    lambda a: a.reshape(2, -1) if a.size % 2 == 0 else a,
    lambda a: np.broadcast_to(a, (2, *a.shape)),
    lambda a: a[[0, -1]] if len(a) > 1 else a,
    lambda a: a[a > 0] if a.ndim == 1 else a,
    lambda a: np.diagonal(a) if a.ndim > 1 else a,
    lambda a: np.lib.stride_tricks.sliding_window_view(a, 2, axis=-1) if a.shape[-1] > 2 else a,
)
OPERATIONS = (
    lambda a: np.sin(a) + 1,
    lambda a: a * a.mean(),
    lambda a: np.maximum(a, 0.1),
    lambda a: a - a.max(axis=-1, keepdims=True),
    lambda a: np.cumsum(a, axis=0),
    lambda a: np.where(a > 0, a, 0.5 * a),
    lambda a: np.concatenate([a, 2 * a]),
    lambda a: np.array([row * 2 for row in a]),
    lambda a: a.astype(np.float32),
    lambda a: np.exp(-np.abs(a)),
    lambda a: np.sort(a, axis=-1),
    lambda a: np.take(a, np.argmax(a, axis=0) % len(a), axis=0) if a.ndim == 1 else a,
)


def _add(a):
    a += 1


def _scale(a):
    a[...] = a * 0.5


def _row(a):
    a[0] = a[-1] * 2


def _column(a):
    a[..., -1] -= a[..., 0]


def _mask(a):
    a[a < 0] *= 0.1


def _shift(a):
    a[1:] += a[:-1].copy()


def _overlap(a):
    a[1:] += a[:-1]


def _scatter(a):
    np.add.at(a, [0, 0], 0.5)


def _exp(a):
    np.exp(-np.abs(a), out=a)


def _zero(a):
    a.fill(0)


def _accumulate(a):
    for k in range(len(a)):
        a[k] += k


WRITES = (_add, _scale, _row, _column, _mask, _shift, _overlap, _scatter, _exp, _zero, _accumulate)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["view", "operate", "write", "keep"]),
        st.integers(0, 100),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=9,
)


def program(steps):
    """Return a function that takes the steps; arrays made on the way may share memory."""

    def function(x):
        arrays = [x]
        for kind, which, at in steps:
            a = arrays[at % len(arrays)]
            if kind == "view" and a.ndim < 4:
                arrays.append(VIEWS[which % len(VIEWS)](a))
            elif kind == "operate":
                arrays.append(OPERATIONS[which % len(OPERATIONS)](a))
            elif kind == "keep":
                arrays.append(np.zeros_like(a) + 0.5 if which % 2 else a)
            elif a.flags.writeable:
                WRITES[which % len(WRITES)](a)
        return arrays

    return function


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(0, 1000))
def test_a_reading_computes_what_numpy_computes(steps, seed):
    function = program(steps)
    x = np.random.default_rng(seed).normal(size=(3, 4))
    try:
        expected = function(x.copy())
    except (IndexError, ValueError):  # an empty array has no largest entry
        return
    reading = read(function, x)
    for moved in (x, x * 1.01 + 1e-3):
        if not reading.holds(moved):
            continue
        expected = function(moved.copy())
        found = evaluate(reading.program, moved)
        for mine, other in zip(found, expected):
            assert (mine.dtype, mine.shape) == (other.dtype, other.shape)
            slack = 1e-11 if mine.dtype == np.float64 else 1e-5
            np.testing.assert_allclose(mine, other, rtol=slack, atol=slack)
