"""Names, notation, relations and pictures."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlab.patterns import Pattern, maps
from gradlab.patterns.drawing import draw, occupied
from gradlab.patterns.words import NAMES

CAUSAL = Pattern.from_axes((8, 64, 16), (8, 64, 16), [(0, ~0), (1, ~1, 0, None)])
BAND = Pattern.from_axes((9,), (9,), [(0, ~0, -1, 1)])
PERMUTATION = maps.take((5,), [3, 1, 4, 0, 2], 0)

CASES = [
    (Pattern.zero((3, 2), (4,)), "zero", "out[:, :] <- nothing"),
    (Pattern.identity((100, 4096)), "diagonal", "out[i, j] <- in[i, j]"),
    (Pattern.identity(()), "diagonal", "out <- in"),
    (maps.reshape((12,), (3, 4)), "diagonal", "out[i, j] <- in[4*i+j]"),
    (maps.reshape((3, 4), (12,)), "diagonal", "out[4*i+j] <- in[i, j]"),
    (maps.transpose((3, 4), (1, 0)), "permutation", "out[i, j] <- in[j, i]"),
    (PERMUTATION, "permutation", "out[i] <- in[index(i)]"),
    (maps.reverse((8,), (0,)), "permutation", "out[i] <- in[7-i]"),
    (maps.roll((10,), 3, 0), "permutation", "out[i] <- in[i-3] | in[i+7]"),
    (Pattern.dense((3,), (4,)), "dense", "out[:] <- in[:]"),
    (maps.slice((9,), (2,), (7,)), "selection", "out[i] <- in[i+2]"),
    (maps.slice((9, 2), (2, 0), (7, 2), (2, 1)), "selection", "out[i, j] <- in[2*(i+1), j]"),
    (maps.reduce((3, 4), (0,)), "sum", "out[i] <- in[:, i]"),
    (BAND, "banded", "out[i] <- in[i-1..i+1]"),
    (maps.cumulative((9,), 0), "lower-triangular", "out[t] <- in[<=t]"),
    (maps.cumulative((9,), 0, True), "upper-triangular", "out[t] <- in[>=t]"),
    (maps.dense_along((100, 512), (1,)), "block-diagonal", "out[b, :] <- in[b, :]"),
    (CAUSAL, "block-lower-triangular", "out[b, t, :] <- in[b, <=t, :]"),
    (CAUSAL.T, "block-upper-triangular", "out[b, t, :] <- in[b, >=t, :]"),
    (maps.product(BAND, Pattern.dense((2,), (3,))), "block-banded", "out[i, :] <- in[i-1..i+1, :]"),
    (Pattern.from_axes((3, 3), (3,), [(0, ~0), (1, 0)]), "selection", "out[i, i] <- in[i]"),
    (Pattern.from_axes((3,), (3, 3), [(0, ~0), (0, ~1)]), "selection", "out[i] <- in[i, i]"),
    (Pattern.from_axes((9,), (9,), [(0, ~0, 1, None)]), "lower-triangular", "out[t] <- in[<t]"),
    (maps.slice((9,), (7,), (9,), (4,)), "selection", "out[0] <- in[7]"),
    (maps.slice((9,), (1,), (9,), (4,)), "selection", "out[i] <- in[4*i+1]"),
    (maps.affine(9, 5, 2, 0).T, "selection", "out[i] <- in[2*i]"),
    (Pattern.from_axes((9,), (9,), [(0, None, 2, 3)]), "sparse", "out[2..3] <- in[:]"),
]


@pytest.mark.parametrize(("pattern", "structure", "notation"), CASES, ids=[c[2] for c in CASES])
def test_structure_and_notation(pattern, structure, notation):
    assert pattern.structure == structure
    assert pattern.notation == notation
    assert pattern.has_structure(structure)


def flat_is(name, x, shape):
    """The definition of a name on an explicit matrix."""
    m, n = x.shape
    row, column = np.nonzero(x)
    tests = {
        "zero": lambda: not x.any(),
        "diagonal": lambda: m == n and (row == column).all(),
        "permutation": lambda: m == n and x.sum(0).max() <= 1 and x.sum(1).max() <= 1,
        "selection": lambda: x.sum(1).max() <= 1,
        "sum": lambda: x.sum(0).max() <= 1,
        "lower-triangular": lambda: m == n and (row >= column).all(),
        "upper-triangular": lambda: m == n and (row <= column).all(),
    }
    return tests[name]() if name in tests else None


@given(st.lists(st.integers(1, 4), min_size=1, max_size=2).map(tuple), st.data())
def test_names_hold_of_the_matrix(shape, data):
    labels = [*range(len(shape)), *(~k for k in range(len(shape)))]
    parts = []
    for _ in range(data.draw(st.integers(0, 2))):
        bounds = []
        for _ in range(data.draw(st.integers(0, 3))):
            a, b = data.draw(st.sampled_from(labels)), data.draw(st.sampled_from(labels))
            bounds.append((a, b, data.draw(st.integers(-2, 1)), data.draw(st.integers(0, 2))))
        parts.append(Pattern.from_axes(shape, shape, bounds))
    p = Pattern.union(parts) if parts else Pattern.zero(shape, shape)
    x = p.to_dense()
    for name in NAMES:
        truth = flat_is(name, x, shape)
        if truth is not None:
            assert p.has_structure(name) == truth, name
    assert all(p.has_structure(name) for name in p.structures)


def test_structures_contain_each_other():
    zero, diagonal = Pattern.zero((5,), (5,)), Pattern.identity((5,))
    assert all(zero.has_structure(name) for name in NAMES)
    for name in ("permutation", "banded", "lower-triangular", "upper-triangular", "block-diagonal"):
        assert diagonal.has_structure(name)
    assert not BAND.has_structure("diagonal") and BAND.has_structure("block-banded")
    assert CAUSAL.has_structure("block-diagonal") and not CAUSAL.has_structure("lower-triangular")


def test_relations_are_plain_data():
    found = {(r.a, r.b): (r.kind, r.low, r.high) for r in CAUSAL.relations[0]}
    assert found == {(0, ~0): ("equal", 0, 0), (1, ~1): ("order", 0, None)}
    (zone,) = maps.take((5, 2), [3, 1, 3], 0).relations
    assert {(r.a, r.b): r.kind for r in zone} == {(1, ~1): "equal", (0, ~0): "explicit"}
    (zone,) = Pattern.region((9,), [(0, None, 2, 3)]).relations
    assert [(r.a, r.b, r.kind, r.low, r.high) for r in zone] == [(0, None, "range", 2, 3)]


def test_your_own_names():
    p = Pattern.from_axes((10,), (10, 20), [(0, ~0)])
    assert p.describe("q", "W", ["k"], ["k", "i"]) == "q[k] <- W[k, :]"
    many = Pattern.union(
        [Pattern.from_axes((99,), (99,), [(0, ~0, 7 * k, 7 * k)]) for k in range(9)]
    )
    assert many.notation == "out[i] <- in[i] | in[i-7] | in[i-14] | in[i-21]; and 5 more"


@given(st.lists(st.integers(1, 6), max_size=3).map(tuple), st.integers(-3, 3), st.integers(1, 9))
def test_pictures_show_just_the_occupied_bins(shape, shift, most):
    bounds = [(k, ~k, min(shift, 0), max(shift, 0)) for k in range(len(shape))]
    p = Pattern.from_axes(shape, shape, bounds)
    dots = occupied(p, most, most)
    assert max(dots.shape) <= most
    assert dots.any() == p.to_dense().any()
    if np.prod(shape, dtype=int) <= most:
        np.testing.assert_array_equal(dots, p.to_dense())


def test_pictures_at_any_size():
    text = draw(Pattern.identity((100, 4096)))
    assert len(text.splitlines()) <= 20 and max(map(len, text.splitlines())) <= 40
    assert draw(Pattern.dense((10**7,), (10**7,)), 2, 3) == "⣿⣿⣿\n⣿⣿⣿"
    assert draw(maps.cumulative((10**7,), 0), 1, 2) == "⣷⣄"
    assert draw(Pattern.zero((3,), (3,)), 1, 2) == "⠀⠀"
    assert draw(Pattern.zero((0,), (3,))) == ""
