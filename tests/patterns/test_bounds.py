"""Difference bounds against all points of a small box, one by one."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gradlab.patterns import Pattern, dbm
from gradlab.patterns.compose import refine
from gradlab.patterns.layout import chain, frame, plain
from gradlab.patterns.union import recombined
from gradlab.patterns.zone import Zone


@st.composite
def closed(draw, sizes):
    """Random bounds that hold at some point at least."""
    d = dbm.free(sizes)
    n = len(sizes)
    for _ in range(draw(st.integers(0, 4))):
        x, y = draw(st.integers(0, n)), draw(st.integers(0, n))
        if x != y:
            tighter = dbm.tighten(d, x, y, draw(st.integers(-3, 4)))
            d = d if tighter is None else tighter
    return d


def points(d, sizes):
    """All points that satisfy the bounds."""
    found = set()
    for point in itertools.product(*map(range, sizes)):
        x = np.array((0, *point))
        if (x[:, None] - x[None] <= d).all():
            found.add(point)
    return found


SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)

SMALL = st.lists(st.integers(1, 3), min_size=1, max_size=2).map(tuple)


@given(SIZES, st.data())
def test_closed_bounds_are_attained(sizes, data):
    d = data.draw(closed(sizes))
    found = np.array([(0, *p) for p in points(d, sizes)])
    np.testing.assert_array_equal((found[:, :, None] - found[:, None, :]).max(0), d)
    np.testing.assert_array_equal(dbm.close(d), d)


@given(SIZES, st.data())
def test_minus_and_join(sizes, data):
    a, b = data.draw(closed(sizes)), data.draw(closed(sizes))
    pieces = [points(piece, sizes) for piece in dbm.minus(a, b)]
    assert sum(map(len, pieces)) == len(set().union(*pieces)), "the pieces are disjoint"
    assert set().union(*pieces) == points(a, sizes) - points(b, sizes)
    hull, exact = dbm.join(a, b)
    both = points(a, sizes) | points(b, sizes)
    assert points(hull, sizes) >= both
    assert exact == (points(hull, sizes) == both)


def test_join_of_neighbours_holds_nothing_else():
    """Two halves of a band: their hull is the band, which a hull of one bound too few is not."""
    sizes = (6, 6)
    band = dbm.tighten(dbm.tighten(dbm.free(sizes), 1, 2, 1), 2, 1, 2)
    low, high = dbm.tighten(band, 1, 2, -1), dbm.tighten(band, 2, 1, 0)
    hull, exact = dbm.join(low, high)
    assert exact and points(hull, sizes) == points(band, sizes)
    apart = dbm.tighten(band, 2, 1, -1)
    assert dbm.join(low, apart)[1] is False


@given(SIZES, st.data())
def test_flip_turns_whole_components_round(sizes, data):
    d = data.draw(closed(sizes))
    group = data.draw(st.sampled_from(dbm.components(d)))
    turned = {
        tuple(sizes[k] - 1 - v if k + 1 in group else v for k, v in enumerate(point))
        for point in points(d, sizes)
    }
    flipped = dbm.flip(d, sizes, group)
    assert points(flipped, sizes) == turned
    np.testing.assert_array_equal(dbm.close(flipped), flipped)


@given(SIZES, st.data())
def test_extend_gives_each_point_once(sizes, data):
    d = data.draw(closed(sizes))
    order = data.draw(st.permutations(range(1, len(sizes) + 1)))
    rows = np.zeros((1, 0), np.int64)
    for k, v in enumerate(order):
        rows = dbm.extend(rows, list(order[:k]), v, d, limit=10**6)
    found = [tuple(row[order.index(v)] for v in range(1, len(sizes) + 1)) for row in rows.tolist()]
    assert len(found) == len(set(found)) and set(found) == points(d, sizes)
    if len(found) > 1:
        assert dbm.extend(np.zeros((1, 0), np.int64), [], 1, d, limit=0) is None


@given(SMALL, SMALL, SMALL, st.data())
def test_compose_eliminates_exactly(out, middle, into, data):
    a, b = data.draw(closed(out + middle)), data.draw(closed(middle + into))
    result, alive = dbm.compose(a[None], b[None], len(out), len(middle))
    left, right = points(a, out + middle), points(b, middle + into)
    truth = {
        p[: len(out)] + q[len(middle) :]
        for p in left
        for q in right
        if p[len(out) :] == q[: len(middle)]
    }
    assert len(alive) == len(result) == bool(truth)
    if truth:
        assert points(result[0], out + into) == truth


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5).map(tuple), st.data())
def test_counting(sizes, data):
    d = data.draw(closed(sizes))
    assert dbm.count_bounds(d) == (len(points(d, sizes)), True)


def test_counting_chains_in_closed_form():
    chain_of = [(0, 1, None, 0), (1, 2, None, 0)]
    n = 1000
    assert Pattern.region((n, n, n), chain_of).nnz == n * (n + 1) * (n + 2) // 6
    four = Pattern.region((40,) * 4, [*chain_of, (2, 3, None, 0)])
    assert four.nnz == 40 * 41 * 42 * 43 // 24


def test_counting_says_when_it_is_an_upper_bound():
    n = 10**7
    p = Pattern.region((n, n, n), [(0, 1, None, 0), (1, 2, None, 0)])
    assert not p.exact and p.nnz >= n**3 // 6


@given(
    st.lists(st.sampled_from([2, 3, 6, 12]), min_size=2, max_size=3), st.integers(2, 7), st.data()
)
def test_splitting_and_recombining_keep_the_set(sizes, q, data):
    whole = frame(tuple(map(plain, sizes[:1])), tuple(map(plain, sizes[1:])))
    zone = Zone(whole, data.draw(closed(tuple(sizes))))
    if data.draw(st.booleans()):
        group = next(c for c in dbm.components(zone.bounds) if 1 in c)
        zone = zone.flip(group[:1]) if len(group) == 1 else zone
    pieces = refine(zone, 0, (q, 1))
    assume(pieces is not None)
    box = list(itertools.product(*map(range, sizes)))
    truth = {i for i in box if zone.contains(i)}
    assert {i for i in box if any(piece.contains(i) for piece in pieces)} == truth
    again = recombined(pieces)
    assert {i for i in box if any(piece.contains(i) for piece in again)} == truth
    assert len(again) <= len(pieces)


@pytest.mark.parametrize(
    ("strides", "expected"), [([4, 1, 12], (12, 4, 1)), ([4, 6, 1], None), ([], ())]
)
def test_chains_of_strides(strides, expected):
    assert chain(strides) == expected
