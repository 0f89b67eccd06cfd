"""Colours are valid (no two inputs of one colour share an output) and as few as possible."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlab.patterns import Pattern, maps
from gradlab.structure import jacobian

SHAPE = st.lists(st.integers(1, 5), max_size=3).map(tuple)


def valid(pattern, mode):
    """Check a colouring against the listed matrix."""
    colouring = pattern.colours(mode)
    assigned = colouring.assignment()
    matrix = pattern.to_scipy() if mode == "jvp" else pattern.to_scipy().T.tocsr()
    assert assigned.shape == (matrix.shape[1],)
    assert assigned.min(initial=0) >= 0 and assigned.max(initial=-1) < max(colouring.count, 1)
    entries = matrix.tocoo()
    pairs = np.stack([entries.row, assigned[entries.col]])
    assert len(np.unique(pairs, axis=1).T) == matrix.nnz, "two inputs of one colour share an output"
    assert colouring.count >= np.diff(matrix.indptr).max(initial=0)
    return colouring


@given(SHAPE, SHAPE, st.integers(0, 2**20), st.data())
def test_random_patterns(out, into, seed, data):
    labels = [*range(len(out)), *(~k for k in range(len(into)))]
    parts = []
    for _ in range(data.draw(st.integers(1, 4))):
        bounds = []
        for _ in range(data.draw(st.integers(0, 3)) if labels else 0):
            a, b = data.draw(st.sampled_from(labels)), data.draw(st.sampled_from([*labels, None]))
            low = data.draw(st.integers(-2, 2))
            bounds.append((a, b, low, low + data.draw(st.integers(0, 2))))
        parts.append(Pattern.from_axes(out, into, bounds))
    if data.draw(st.booleans()):
        size = int(np.prod(out)), int(np.prod(into))
        parts.append(Pattern.explicit(np.random.default_rng(seed).random(size) < 0.3, out, into))
    p = Pattern.union(parts)
    valid(p, "jvp")
    valid(p, "vjp")


@pytest.mark.parametrize(
    ("pattern", "jvp", "vjp"),
    [
        (Pattern.zero((3,), (4,)), 0, 0),
        (Pattern.identity((10, 7)), 1, 1),
        (Pattern.dense((10,), (7,)), 7, 10),
        (maps.dense_along((10, 7), (1,)), 7, 7),
        (Pattern.from_axes((50,), (50,), [(0, ~0, -1, 1)]), 3, 3),
        (Pattern.from_axes((50, 4), (50, 3), [(0, ~0, -2, 0)]), 9, 12),
        (maps.cumulative((9,), 0), 9, 9),
        (maps.reduce((10, 7), (1,)), 7, 1),
        (maps.broadcast_in_dim((10,), (10, 7), (0,)), 1, 7),
        (maps.reshape((12,), (3, 4)), 1, 1),
        (maps.reshape((4, 6), (6, 4)), 1, 1),
        (maps.take((10,), [3, 3, 5], 0), 1, 2),
        (maps.roll((10, 3), 4, 0), 1, 1),
        (maps.reverse((10, 3), (0, 1)), 1, 1),
        (maps.grouped(6, 4, 2), 2, 3),
        (maps.window(30, 15, 3, stride=2, low=1), 3, 2),
        (maps.window(30, 26, 3, dilation=2), 3, 3),
        (Pattern.from_axes((6,), (6, 6), [(0, ~0), (~0, ~1)]), 1, 1),
    ],
)
def test_fewest_colours(pattern, jvp, vjp):
    assert (valid(pattern, "jvp").count, valid(pattern, "vjp").count) == (jvp, vjp)


def stencil(n, wrap):
    shape = (n, n)
    parts = [Pattern.identity(shape)]
    for axis in (0, 1):
        for shift in (-1, 1):
            if wrap:
                parts.append(maps.roll(shape, shift, axis))
            else:
                bounds = [(k, ~k, *((shift, shift) if k == axis else (0, 0))) for k in (0, 1)]
                parts.append(Pattern.from_axes(shape, shape, bounds))
    return Pattern.union(parts)


def test_stencils_are_coloured_by_a_lattice():
    assert valid(stencil(20, wrap=False), "jvp").count == 5
    assert valid(stencil(20, wrap=True), "jvp").count == 5
    assert valid(stencil(23, wrap=True), "jvp").count <= 10
    large = stencil(1000, wrap=True).colours("jvp")
    assert large.closed_form and large.count <= 8


def test_an_axis_of_one_entry_costs_a_lattice_nothing():
    flat, thin = stencil(20, wrap=False), maps.reshape((20, 20), (20, 1, 20))
    assert valid(thin @ flat @ thin.T, "jvp").count == 5


def test_explicit_patterns_are_coloured_greedily():
    arrow = np.eye(30, dtype=bool)
    arrow[:, 0] = True
    p = Pattern.explicit(arrow, (30,), (30,))
    assert valid(p, "jvp").count == 2
    assert not p.colours("jvp").closed_form


def test_a_permutation_in_pieces_takes_one_pass():
    size = 1 << 20
    place = (3 * np.arange(size) + 5) % size
    report = jacobian(lambda x: x[place], jax.ShapeDtypeStruct((size,), jnp.float32))
    assert len(report.pattern.zones) > 1
    assert report.pattern.colours("jvp").closed_form
    assert report.passes == 1


def test_seeds_and_passes():
    p = maps.reduce((10, 7), (1,))
    assert (p.passes.mode, p.passes.count) == ("vjp", 1)
    band = Pattern.from_axes((5, 2), (5, 2), [(0, ~0, -1, 1), (1, ~1)]).colours("jvp")
    seeds = [band.seed(c) for c in range(band.count)]
    assert seeds[0].shape == (5, 2)
    np.testing.assert_array_equal(sum(s.astype(int) for s in seeds), 1)


def test_closed_forms_need_no_listing():
    huge = Pattern.from_axes((10**7, 64), (10**7, 64), [(0, ~0, -1, 1)])
    assert huge.colours("jvp").count == 192 and huge.colours("vjp").closed_form


def test_large_explicit_patterns_are_coloured():
    rng = np.random.default_rng(0)
    n = 60_000
    index = rng.integers(0, n, (n, 3))
    p = Pattern.union([maps.take((n,), column, 0) for column in index.T])
    colouring = p.colours("jvp")
    assert colouring.count <= 12
    entries = p.to_scipy().tocoo()
    pairs = entries.row.astype(np.int64) * colouring.count + colouring.assignment()[entries.col]
    assert len(np.unique(pairs)) == p.nnz


def test_columns_that_meet_in_one_row_alone():
    place = np.random.default_rng(0).integers(0, 40, 3000)
    p = maps.take((40,), place, 0).T
    colouring = valid(p, "jvp")
    assert colouring.count == np.bincount(place).max()
    assert valid(p, "vjp").count == 1


def test_a_flat_stencil_that_wraps_into_the_next_row():
    n = 24
    parts = [maps.roll((n * n,), shift, 0) for shift in (0, 1, -1, n, -n)]
    colouring = valid(Pattern.union(parts), "jvp")
    assert colouring.closed_form and colouring.count <= 7
