"""Primitives whose operands tell where entries lie: sparse matrices, groups, coordinates, grids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental import sparse
from one_by_one import nonzero

from gradlab.structure import jacobian

RNG = np.random.default_rng(2)
MATRIX = np.where(RNG.random((6, 8)) < 0.25, RNG.uniform(1, 2, (6, 8)), 0).astype(np.float32)
PLACES = np.argwhere(MATRIX).astype(np.int32)
ENTRIES = MATRIX[tuple(PLACES.T)]
STARTS = np.searchsorted(PLACES[:, 0], np.arange(7)).astype(np.int32)
BEYOND = np.array([MATRIX.shape] * 3, np.int32)
BCOO = sparse.BCOO((ENTRIES, PLACES), shape=MATRIX.shape)
BCSR = sparse.BCSR((ENTRIES, PLACES[:, 1], STARTS), shape=MATRIX.shape)
PADDED = sparse.BCOO((np.pad(ENTRIES, (0, 3)), np.vstack([PLACES, BEYOND])), shape=MATRIX.shape)
SQUARE = (RNG.uniform(0.1, 1, (3, 4, 4)) + 2 * np.eye(4)).astype(np.float32)
GROUPS = np.array([1, 0, 2])
LOWER = np.tril(RNG.uniform(0.5, 1, (6, 3, 3))).astype(np.float32)


def _blocks(kernel, shape, block):
    grid = tuple(n // b for n, b in zip(shape, block))
    spec = pl.BlockSpec(block, lambda *place: place)
    made = jax.ShapeDtypeStruct(shape, jnp.float32)
    return pl.pallas_call(kernel, made, grid=grid, in_specs=[spec], out_specs=spec, interpret=True)


def _sine(x, y):
    y[...] = jnp.sin(x[...])


def _running(x, y):
    y[...] = jnp.cumsum(x[...], axis=-1)


# name -> function, its input, how many entries too many the pattern may have
FUNCTIONS = {
    "bcoo": (lambda x: BCOO @ x, np.ones(8, np.float32), 0),
    "bcoo with padding": (lambda x: PADDED @ x, np.ones(8, np.float32), 0),
    "bcoo, a matrix": (lambda x: BCOO @ x, np.ones((8, 2), np.float32), 0),
    "bcoo from the left": (lambda x: x @ BCOO, np.ones(6, np.float32), 0),
    "bcsr": (lambda x: BCSR @ x, np.ones(8, np.float32), 0),
    "its entries": (
        lambda d: sparse.BCOO((d, BCOO.indices), shape=(6, 8)) @ jnp.arange(1.0, 9.0),
        BCOO.data,
        0,
    ),
    "written out": (
        lambda d: sparse.BCOO((d, BCOO.indices), shape=(6, 8)).todense(),
        BCOO.data,
        0,
    ),
    "a window at a place within bounds": (
        lambda x: lax.dynamic_slice(x, (1 + 2 * jnp.argmax(x[:2]),), (3,)),
        np.array([1, 2, 0, 0, 0, 0, 0], np.float32),
        6,
    ),
    "written at a place within bounds": (
        lambda x: lax.dynamic_update_slice(x, jnp.sin(x[2:4]), (jnp.argmax(x[:2]),)),
        np.array([2, 1, 0, 0], np.float32),
        3,
    ),
    "entries at places within bounds": (
        lambda x: x[jnp.array([0, 1]) + jnp.argmax(x[:2])],
        np.array([2, 1, 0, 0], np.float32),
        2,
    ),
    "written within bounds": (
        lambda x: x.at[lax.clamp(1, x[0].astype(int), 2)].set(x[5]),
        np.array([2, 1, 0, 0, 1, 2], np.float32),
        2,
    ),
    "set at places within bounds": (
        lambda x: x.at[jnp.arange(2) + jnp.maximum(2 * jnp.argmax(x), 1)].set(jnp.cos(x[:2])),
        np.array([3, 2, 1, 0, 0, 0, 0], np.float32),
        12,
    ),
    "at a place that a cast wraps": (
        lambda x: lax.dynamic_slice(x, ((100 * jnp.argmax(x[:5])).astype(jnp.uint8) // 25,), (2,)),
        np.array([0, 1, 2, 4, 0, 0, 0, 0], np.float32),
        14,
    ),
    "written beyond the only place": (lambda x: x.at[1].set(7.0), np.ones(1, np.float32), 0),
    "written beyond the only column": (
        lambda x: x.at[1:, 1].set(7.0),
        np.ones((3, 1), np.float32),
        0,
    ),
    "read beyond the only column": (
        lambda x: x.at[np.arange(3), np.array([0, 1, 0])].get(mode="fill", fill_value=0),
        np.ones((3, 1), np.float32),
        0,
    ),
    "forgotten in a loop": (
        lambda x: lax.fori_loop(0, 2, lambda i, y: y.at[0].set(7.0), x),
        np.ones((1, 3), np.float32),
        0,
    ),
    "weights that a scan reads, zero in the same places": (
        lambda x: lax.scan(
            lambda h, wv: (wv[0] @ h + wv[1],) * 2, jnp.zeros(3), (jnp.asarray(LOWER), x)
        )[1],
        np.ones((6, 3), np.float32),
        0,
    ),
    "beside nothing": (
        lambda x: jnp.concatenate([jnp.zeros(0), x, jnp.ones(0)]),
        np.ones(3, np.float32),
        0,
    ),
    "a loop that runs once": (
        lambda x: jnp.hstack(lax.scan(lambda c, v: (c + v, c[0]), jnp.zeros(2), x[None])),
        np.ones(2, np.float32),
        0,
    ),
    "determinants": (jnp.linalg.det, SQUARE, 0),
    "logarithms of determinants": (lambda x: jnp.linalg.slogdet(x)[1], SQUARE, 0),
    "inverses": (jnp.linalg.inv, SQUARE, 0),
    "solutions": (lambda x: jnp.linalg.solve(x, jnp.ones((3, 4, 1))), SQUARE, 0),
    "rows in groups": (
        lambda x: lax.ragged_dot(x, jnp.ones((3, 4, 5)), jnp.asarray(GROUPS)),
        np.ones((4, 4), np.float32),
        0,
    ),
    "matrices of groups": (
        lambda w: lax.ragged_dot(jnp.ones((4, 4)), w, jnp.asarray(GROUPS)),
        np.ones((3, 4, 2), np.float32),
        0,
    ),
    "a kernel over a grid": (_blocks(_sine, (12, 8), (4, 4)), np.ones((12, 8), np.float32), 0),
    "a causal kernel": (_blocks(_running, (4, 8), (2, 8)), np.ones((4, 8), np.float32), 0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_known_of_places_is_used(name):
    function, x, spare = FUNCTIONS[name]
    x = np.asarray(x)
    moved = [x * (1 + 0.2 * np.random.default_rng(k).random(x.shape, np.float32)) for k in (0, 1)]
    seen = nonzero(function, *moved)
    report = jacobian(function, x)
    pattern = report.pattern.to_dense()
    assert not report.unknown
    assert not (seen & ~pattern).any()
    assert (pattern & ~seen).sum() <= spare


def _around(u):
    p = jnp.pad(u, 1)
    return (p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:]) / 4


def red_black(n, blend):
    """Return two sweeps over a grid whose points are coloured like a chess board."""
    red = np.indices((n, n)).sum(axis=0) % 2 == 1

    def sweeps(u):
        for mask in (red, ~red):
            u = jnp.where(mask, _around(u), u) if blend else u + mask * (_around(u) - u)
        return jnp.sin(u)

    return sweeps


def multigrid(levels):
    """Return a V-cycle with slices to the coarser grid and written parts back to the finer one."""

    def smooth(u, b):
        p = jnp.pad(u, 1)
        return u + 0.6 * (b + (p[:-2] + p[2:]) / 2 - u)

    def cycle(b, level):
        u = smooth(jnp.zeros_like(b), b)
        if level > 1:
            rest = b - u
            e = cycle(rest[:-2:2] / 4 + rest[1:-1:2] / 2 + rest[2::2] / 4, level - 1)
            fine = jnp.zeros_like(b).at[1:-1:2].set(e).at[2:-2:2].set((e[1:] + e[:-1]) / 2)
            u = u + fine.at[0].set(e[0] / 2).at[-1].set(e[-1] / 2)
        return smooth(u, b)

    return lambda b: jnp.sin(cycle(b, levels))


def sorting_network(x):
    """Sort by comparing partners (Batcher 1968)."""
    place, width = np.arange(x.size), 2
    while width <= x.size:
        apart = width // 2
        while apart:
            other = x[place ^ apart]
            low = (place < place ^ apart) == (place & width == 0)
            x = jnp.where(low, jnp.minimum(x, other), jnp.maximum(x, other))
            apart //= 2
        width *= 2
    return x


@pytest.mark.parametrize(("blend", "passes"), [(True, 9), (False, 13)])
def test_red_black_sweeps_are_closed_forms(blend, passes):
    n = 46
    report = jacobian(red_black(n, blend), jax.ShapeDtypeStruct((n, n), jnp.float32))
    assert report.exact and all(zone.symbolic for zone in report.pattern.zones)
    assert report.passes == passes and report.pattern.colours("jvp").closed_form
    x = np.random.default_rng(0).random((n, n), np.float32)
    seen = nonzero(lambda u: red_black(n, blend)(jnp.zeros((n, n)).at[:6, :6].set(u)), x[:6, :6])
    assert not (
        seen & ~report.pattern.to_dense().reshape(n * n, n, n)[:, :6, :6].reshape(n * n, 36)
    ).any()


@pytest.mark.parametrize("levels", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 4))])
def test_multigrid_is_exact(levels):
    b = np.random.default_rng(0).random(63, np.float32)
    report = jacobian(multigrid(levels), b)
    assert not report.notes and report.exact
    assert np.array_equal(report.pattern.to_dense(), nonzero(multigrid(levels), b))
    assert report.passes <= 1.2 * report.pattern.to_dense().sum(axis=1).max()


def test_a_sorting_network_keeps_few_zones():
    x = np.random.default_rng(0).random((2, 16)).astype(np.float32)
    report = jacobian(lambda x: jnp.stack([sorting_network(x[0]), x[1]]), x)
    assert len(report.pattern.zones) <= 3 and not report.notes
    assert report.nnz == 16 * 16 + 16


def test_steps_that_are_known_to_forget_end_what_is_read():
    first = np.arange(60) % 7 == 0

    def run(x):
        def step(h, now):
            h = jnp.where(now[1], 0.0, h * 0.9 + now[0])
            return h, h

        return lax.scan(step, jnp.zeros(4), (x, first))[1]

    J = jacobian(run, np.ones((60, 4), np.float32))
    time, segment = np.arange(60), np.cumsum(first)
    reads = (time[:, None] >= time) & (segment[:, None] == segment) & ~(first[:, None] | first)
    expected = np.einsum("ts,df->tdsf", reads, np.eye(4, dtype=bool))
    np.testing.assert_array_equal(J.pattern.to_dense().reshape(60, 4, 60, 4), expected)
    assert J.passes == 6
