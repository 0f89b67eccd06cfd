"""The algebra of patterns against explicit boolean matrices: sound always, exact where promised."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import assume, given
from hypothesis import strategies as st

from gradlab.errors import InputError
from gradlab.patterns import Pattern, maps
from gradlab.patterns.pattern import widened
from gradlab.primitives.known import Known

SHAPE = st.lists(st.integers(1, 5), max_size=3).map(tuple)


@st.composite
def zones(draw, output_shape, input_shape):
    """A zone of random bounds between any two axes."""
    n, m = len(output_shape), len(input_shape)
    labels = [*range(n), *(~k for k in range(m))]
    bounds = []
    for _ in range(draw(st.integers(0, 3)) if labels else 0):
        a = draw(st.sampled_from(labels))
        b = draw(st.sampled_from([*labels, None]))
        low = draw(st.one_of(st.none(), st.integers(-3, 2)))
        high = draw(st.one_of(st.none(), st.integers(0, 3)))
        bounds.append((a, b, low, high))
    return Pattern.from_axes(output_shape, input_shape, bounds)


@st.composite
def patterns(draw, output_shape, input_shape, explicit=True, most=3):
    """A union of zones, some flipped, split or explicit."""
    parts = []
    for _ in range(draw(st.integers(0, most))):
        kinds = ["zone", "zone", "flip", "split"] + ["explicit"] * explicit
        kind = draw(st.sampled_from(kinds))
        p = draw(zones(output_shape, input_shape))
        if kind == "flip" and input_shape:
            p = p @ maps.reverse(input_shape, (draw(st.integers(0, len(input_shape) - 1)),))
        elif kind == "split" and output_shape:
            flat = (int(np.prod(output_shape)),)
            inner = draw(zones(flat, input_shape))
            p = maps.reshape(flat, output_shape) @ inner
        elif kind == "explicit":
            size = int(np.prod(output_shape)), int(np.prod(input_shape))
            seed = draw(st.integers(0, 2**20))
            p = Pattern.explicit(
                np.random.default_rng(seed).random(size) < 0.3, output_shape, input_shape
            )
        parts.append(p)
    return Pattern.union(parts) if parts else Pattern.zero(output_shape, input_shape)


def brute(output_shape, input_shape, bounds):
    """The matrix of one zone by trying every pair of indices."""
    m, n = int(np.prod(output_shape)), int(np.prod(input_shape))
    out = np.indices(output_shape).reshape(len(output_shape), m, 1)
    into = np.indices(input_shape).reshape(len(input_shape), 1, n)
    good = np.ones((m, n), bool)
    for a, b, low, high in bounds:
        x = out[a] if a >= 0 else into[~a]
        y = 0 if b is None else out[b] if b >= 0 else into[~b]
        good &= (low is None or x - y >= low) & (high is None or x - y <= high)
    return good


@given(SHAPE, SHAPE, st.data())
def test_bounds(output_shape, input_shape, data):
    labels = [*range(len(output_shape)), *(~k for k in range(len(input_shape)))]
    assume(labels)
    bound = st.tuples(
        st.sampled_from(labels),
        st.sampled_from([*labels, None]),
        st.one_of(st.none(), st.integers(-3, 3)),
        st.one_of(st.none(), st.integers(-3, 3)),
    )
    bounds = data.draw(st.lists(bound, max_size=4))
    pattern = Pattern.from_axes(output_shape, input_shape, bounds)
    truth = brute(output_shape, input_shape, bounds)
    np.testing.assert_array_equal(pattern.to_dense(), truth)
    assert (pattern.nnz, pattern.exact) == (truth.sum(), True)


@given(SHAPE, SHAPE, SHAPE, st.data())
def test_composition(out, middle, into, data):
    a = data.draw(patterns(out, middle))
    b = data.draw(patterns(middle, into))
    truth = (a.to_dense().astype(int) @ b.to_dense().astype(int)) > 0
    product = a @ b
    assert not product.widened
    np.testing.assert_array_equal(product.to_dense(), truth)
    assert (product.nnz, product.exact) == (truth.sum(), True)


@given(SHAPE, SHAPE, st.data())
def test_union_intersection_difference_containment(out, into, data):
    a, b = data.draw(patterns(out, into)), data.draw(patterns(out, into))
    x, y = a.to_dense(), b.to_dense()
    np.testing.assert_array_equal((a | b).to_dense(), x | y)
    assert (a | b).nnz == (x | y).sum()
    np.testing.assert_array_equal(a.T.to_dense(), x.T)
    np.testing.assert_array_equal((a & b).to_dense(), x & y)
    less = a - b
    assert (less.to_dense() >= (x & ~y)).all() and (less.to_dense() <= x).all()
    if not less.widened:
        np.testing.assert_array_equal(less.to_dense(), x & ~y)
    assert a.covers(b) == (x >= y).all()
    assert (a | b).covers(a) and (a | b).covers(b) and a.covers(a & b)


@given(SHAPE, SHAPE, st.data())
def test_difference_of_bounds_is_exact(out, into, data):
    a, b = data.draw(zones(out, into)), data.draw(zones(out, into)) | data.draw(zones(out, into))
    assert not (a - b).widened
    np.testing.assert_array_equal((a - b).to_dense(), a.to_dense() & ~b.to_dense())


@given(SHAPE, SHAPE, st.data())
def test_entries_one_by_one(out, into, data):
    p = data.draw(patterns(out, into))
    truth = p.to_dense().reshape(out + into)
    for index in list(np.ndindex(*truth.shape))[:: 1 + truth.size // 20]:
        assert p.contains(index[: len(out)], index[len(out) :]) == truth[index]
    every = np.indices(truth.shape).reshape(len(out + into), truth.size)
    if len(out + into):
        found = p.contains(tuple(every[: len(out)]), tuple(every[len(out) :]))
        np.testing.assert_array_equal(np.broadcast_to(found, every.shape[1:]), truth.ravel())


@given(SHAPE, SHAPE, st.data())
def test_regions(out, into, data):
    p = data.draw(patterns(out, into))
    x = p.to_dense()
    np.testing.assert_array_equal(p.rows().to_dense()[:, 0], x.any(1))
    np.testing.assert_array_equal(p.columns().to_dense()[:, 0], x.any(0))
    shape = out + into
    axes = data.draw(st.permutations(range(len(shape))))[: data.draw(st.integers(0, len(shape)))]
    region = data.draw(patterns(tuple(shape[k] for k in axes), ()))
    inside = region.to_dense().reshape([shape[k] for k in axes])
    labels = [k if k < len(out) else ~(k - len(out)) for k in axes]
    grid = np.indices(shape)
    kept = x.reshape(shape) & inside[tuple(grid[k] for k in axes)]
    found = p.where(region, labels)
    np.testing.assert_array_equal(found.to_dense(), kept.reshape(x.shape))


@given(SHAPE, SHAPE, st.data())
def test_axis_relations_hold_of_every_entry(out, into, data):
    p = data.draw(patterns(out, into))
    entries = np.argwhere(p.to_dense().reshape(out + into))
    for k in range(len(out)):
        for i in range(len(into)):
            kind, low, high = p.axis_relation(k, i)
            apart = entries[:, k] - entries[:, len(out) + i]
            assert (kind == "zero") == (not len(entries))
            assert low is None or (apart >= low).all()
            assert high is None or (apart <= high).all()


@given(SHAPE, st.data())
def test_closure(shape, data):
    p = data.draw(patterns(shape, shape, most=2))
    step = p.to_dense()
    truth = np.eye(len(step), dtype=bool)
    for _ in range(len(step)):
        truth |= (truth.astype(int) @ step.astype(int)) > 0
    found = p.closure()
    assert (found.to_dense() >= truth).all()
    if not found.widened:
        np.testing.assert_array_equal(found.to_dense(), truth)


@given(SHAPE, SHAPE, st.data())
def test_widening_comes_to_rest_above_both(out, into, data):
    p = data.draw(patterns(out, into))
    for _ in range(200):
        more = p | data.draw(patterns(out, into, most=1))
        wider = widened(p, more)
        assert wider.covers(p) and wider.covers(more)
        if wider == p:
            break
        p = wider
    assert p.to_dense().shape == p.shape


def test_reshape_there_and_back_is_one_zone_again():
    causal = Pattern.from_axes((12,), (12,), [(0, ~0, 0, None)])
    split = maps.reshape((12,), (3, 4)) @ causal
    assert len(split.zones) == 2 and split.nnz == causal.nnz
    assert (maps.reshape((3, 4), (12,)) @ split) == causal


def test_shifts_of_a_stencil_become_one_band():
    shifts = [
        Pattern.from_axes((64, 64), (64, 64), [(0, ~0, i, i), (1, ~1, j, j)])
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    ]
    assert len(Pattern.union(shifts).zones) == 1


def test_many_zones_stay_sound_and_idempotent():
    rng = np.random.default_rng(0)
    big = 10**6
    shifts = [
        Pattern.from_axes((big, 7), (big, 7), [(0, ~0, int(k), int(k)), (1, ~1)])
        for k in rng.choice(1000, 100, replace=False)
    ]
    p = Pattern.union(shifts)
    assert p.widened and not p.exact
    assert all(p.covers(shift) for shift in shifts)
    assert (p | p) == p
    small = [
        Pattern.from_axes((200, 7), (200, 7), [(0, ~0, int(k), int(k)), (1, ~1)])
        for k in rng.choice(200, 80, replace=False)
    ]
    q = Pattern.union(small)
    assert not q.widened and q.nnz == sum(s.nnz for s in small)


def test_sizes_beyond_32_bits():
    assert Pattern.dense((409_600,), (409_600,)).nnz == 409_600**2
    assert Pattern.from_axes((10**9,), (10**9,), [(0, ~0, 0, None)]).nnz == 10**9 * (10**9 + 1) // 2
    with pytest.raises(InputError, match="limit_bytes"):
        Pattern.dense((10**6,), (10**6,)).to_scipy()


def test_a_contraction_of_256_keeps_its_entries():
    p = Pattern.explicit(np.random.default_rng(0).random((3, 256)) < 2, (3,), (256,))
    index = np.arange(256) * 7 % 256
    q = maps.take((256,), index, 0) @ Pattern.dense((256,), (2,))
    assert (p @ q).nnz == 6


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Pattern.identity((3,)) | Pattern.identity((4,)), "union"),
        (lambda: Pattern.identity((3,)) @ Pattern.identity((4,)), "composition"),
        (lambda: Pattern.from_axes((3,), (3,), [(0, ~1)]), "no input axis 1"),
        (lambda: Pattern.broadcast((3,), (4,)), "does not broadcast"),
        (lambda: Pattern.explicit(np.eye(3), (3,), (4,)), "expected 3x4"),
        (lambda: Pattern.identity((3,)).contains((3,), (0,)), "no indices"),
        (lambda: Pattern.identity((3,)).has_structure("round"), "known are"),
        (lambda: Pattern.identity((3,)).colours("both"), "expected 'jvp'"),
    ],
)
def test_wrong_calls_say_what_is_wrong(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_a_reversed_axis_meets_itself():
    same, turned = Pattern.identity((5,)), maps.reverse((5,), (0,))
    assert (same & turned).nnz == 1 and not (same & turned).widened
    assert (same | turned).nnz == 9 and (same | turned).exact
    palindrome = maps.broadcast_in_dim((5,), (2, 5), (1,)) @ turned | Pattern.broadcast(
        (5,), (2, 5)
    )
    both = Pattern.dense((), (2, 5)).where(Pattern.region((5,), [(0, None, 1, 2)]), (~1,))
    assert (both @ palindrome).columns().nnz == 3


@given(st.integers(1, 4), st.integers(2, 4), st.integers(2, 4), st.integers(0, 3), st.data())
def test_small_axes_tied_to_a_large_one_that_is_split(small, rows, columns, low, data):
    p = maps.pad((small,), (low,), (rows * columns - small - low,))
    if data.draw(st.booleans()):
        p = p @ maps.reverse((small,), (0,))
    q = maps.reshape((rows * columns,), (rows, columns)) @ p
    np.testing.assert_array_equal(q.to_dense(), p.to_dense())
    back = maps.reshape((rows, columns), (columns, rows)) @ q
    np.testing.assert_array_equal(back.to_dense(), p.to_dense())


@given(st.data())
def test_chains_of_movements(data):
    """Long chains of reshapes, slices, pads and reversals, as programs have them."""
    shape = data.draw(st.sampled_from([(3, 3), (2, 6), (12,), (2, 3, 2)]))
    moved = np.arange(int(np.prod(shape))).reshape(shape)
    p = Pattern.identity(shape)
    for _ in range(data.draw(st.integers(1, 6))):
        kind = data.draw(st.sampled_from(["reshape", "slice", "pad", "reverse", "tile"]))
        axis = data.draw(st.integers(0, moved.ndim - 1)) if moved.ndim else 0
        if kind == "reshape" or not moved.ndim:
            n = moved.size
            rows = data.draw(st.sampled_from([k for k in range(1, n + 1) if n % k == 0]))
            new = data.draw(st.sampled_from([(n,), (rows, n // rows), (n // rows, 1, rows)]))
            step, moved = maps.reshape(moved.shape, new), moved.reshape(new)
        elif kind == "slice":
            start = data.draw(st.integers(0, moved.shape[axis] - 1))
            stride = data.draw(st.integers(1, 3))
            starts = tuple(start if k == axis else 0 for k in range(moved.ndim))
            strides = tuple(stride if k == axis else 1 for k in range(moved.ndim))
            step = maps.slice(moved.shape, starts, moved.shape, strides)
            moved = moved[(slice(None),) * axis + (slice(start, None, stride),)]
        elif kind == "pad":
            low, high = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))
            widths = [(low, high) if k == axis else (0, 0) for k in range(moved.ndim)]
            step = maps.pad(moved.shape, *zip(*widths))
            moved = np.pad(moved, widths, constant_values=-1)
        elif kind == "reverse":
            step, moved = maps.reverse(moved.shape, (axis,)), np.flip(moved, axis)
        elif kind == "tile" and moved.size < 40:
            repeats = tuple(2 if k == axis else 1 for k in range(moved.ndim))
            step, moved = maps.tile(moved.shape, repeats), np.tile(moved, repeats)
        else:
            continue
        before, p = p, step @ p
        truth = step.to_dense().astype(int) @ before.to_dense().astype(int) > 0
        np.testing.assert_array_equal(p.to_dense(), truth)
    truth = np.zeros(p.shape, bool)
    rows = np.flatnonzero(moved.reshape(-1) >= 0)
    truth[rows, moved.reshape(-1)[rows]] = True
    np.testing.assert_array_equal(p.to_dense(), truth)
    assert (p.nnz, p.exact) == (truth.sum(), True)


def test_a_split_that_would_repeat_a_stride():
    taken = maps.slice((6,), (1,), (4,), (1,)) @ maps.reshape((2, 3), (6,))
    spread = maps.broadcast_in_dim((3,), (3, 3), (1,)) @ taken
    flat = maps.reshape((3, 3), (9,)) @ spread
    np.testing.assert_array_equal(flat.to_dense(), spread.to_dense())


@st.composite
def steps(draw, shape):
    """The pattern of a random operation on an array of this shape."""
    kinds = ["cumulative", "roll", "take", "dense", "reverse", "pad", "reshape", "union", "where"]
    kind = draw(st.sampled_from(kinds))
    if kind == "reshape" or not shape:
        n = int(np.prod(shape))
        rows = draw(st.sampled_from([k for k in range(1, n + 1) if n % k == 0]))
        return maps.reshape(shape, draw(st.sampled_from([(n,), (rows, n // rows)])))
    axis = draw(st.integers(0, len(shape) - 1))
    if kind == "cumulative":
        return maps.cumulative(shape, axis, draw(st.booleans()))
    if kind == "roll":
        return maps.roll(shape, draw(st.integers(-3, 3)), axis)
    if kind == "take":
        index = draw(st.lists(st.integers(0, shape[axis] - 1), min_size=1, max_size=4))
        return maps.take(shape, index, axis)
    if kind == "dense":
        return maps.dense_along(shape, (axis,))
    if kind == "reverse":
        return maps.reverse(shape, (axis,))
    if kind == "pad":
        low = [draw(st.integers(-1, 2)) if shape[k] > 1 else 0 for k in range(len(shape))]
        return maps.pad(shape, tuple(low), (0,) * len(shape))
    same = Pattern.identity(shape)
    if kind == "union":
        return same | maps.roll(shape, 1, axis) | maps.reverse(shape, (axis,))
    low = draw(st.integers(0, shape[axis] - 1))
    return same.where(Pattern.region((shape[axis],), [(0, None, low, None)]), (axis,))


@given(st.data())
def test_chains_of_operations(data):
    """No entry is lost or added along programs of orders, shifts, index arrays and reshapes."""
    p = Pattern.identity(data.draw(st.sampled_from([(2, 6), (12,), (2, 3, 2), (4, 3)])))
    truth = p.to_dense()
    for _ in range(data.draw(st.integers(1, 6))):
        step = data.draw(steps(p.output_shape))
        p, truth = step @ p, step.to_dense().astype(int) @ truth.astype(int) > 0
        np.testing.assert_array_equal(p.to_dense(), truth)
        assert not p.widened and (p.nnz, p.exact) == (truth.sum(), True)
        assert p.columns().to_dense()[:, 0].tolist() == truth.any(0).tolist()


ROW, COLUMN = np.indices((72, 71))
INNER = (ROW > 0) & (ROW < 70) & (COLUMN > 2)
MASKS = {
    "checkerboard": (ROW + COLUMN) % 2 == 0,
    "its other colour": (ROW + COLUMN) % 2 == 1,
    "inside a border": INNER & ((ROW + COLUMN) % 2 == 1),
    "every third column": COLUMN % 3 == 1,
    "four colours": (ROW % 2 == 1) & (COLUMN % 2 == 0),
    "diagonals": (ROW + COLUMN) % 4 == 3,
    "triangle": ROW >= COLUMN,
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("inverse", [False, True])
def test_a_mask_that_repeats_is_said_by_bounds(name, inverse):
    mask = MASKS[name] != inverse
    region = Known(array=mask).nonzero
    assert all(zone.symbolic for zone in region.zones)
    assert np.array_equal(region.to_dense().reshape(mask.shape), mask)
    shift = maps.roll(mask.shape, 1, 0) | maps.roll(mask.shape, -1, 1)
    step = shift.to_scipy().astype(float)
    expected = step @ sp.diags_array(mask.ravel().astype(float)) @ step
    assert not ((shift @ shift.where(region)).to_scipy() != (expected > 0)).nnz


@pytest.mark.parametrize("partner", [1, 2, 3])
def test_partners_that_repeat_are_said_by_bounds(partner):
    index = np.arange(1200) ^ partner
    exchange = maps.take((1200,), index, 0)
    assert all(zone.symbolic for zone in exchange.zones)
    assert np.array_equal(exchange.to_dense().argmax(axis=1), index)


@given(st.data())
def test_many_explicit_zones_become_one(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    x, count = rng.random((6, 12, 12)) < 0.2, data.draw(st.integers(4, 6))
    parts = [Pattern.explicit(one, (12,), (12,)) for one in x[:count]]
    band = Pattern.from_axes((12,), (12,), [(0, ~0, -1, 1)])
    split = maps.reshape((3, 4), (12,)) @ Pattern.identity((3, 4)) @ maps.reshape((12,), (3, 4))
    same = Pattern.identity((5,))
    together = Pattern.union([maps.product(same, p) for p in (*parts, band, split)])
    assert len(together.zones) <= 3
    expected = x[:count].any(axis=0) | band.to_dense() | np.eye(12, dtype=bool)
    assert np.array_equal(together.to_dense(), np.kron(np.eye(5, dtype=bool), expected))
    assert together.axis_relation(0, 0) == ("equal", 0, 0)


def test_many_scattered_zones_are_listed():
    n = 200
    spread = [maps.affine(n, n // k, k, 0) @ maps.affine(n, n // k, k, 1).T for k in range(2, 30)]
    p = Pattern.union([q for part in spread for q in (part, part.T, part @ part)])
    expected = np.zeros((n, n), bool)
    for part in spread:
        one = part.to_dense().astype(int)
        expected |= (one + one.T + one @ one) > 0
    assert p.exact and np.array_equal(p.to_dense(), expected)
    low, high = np.subtract(*np.nonzero(expected)).min(), np.subtract(*np.nonzero(expected)).max()
    assert p.axis_relation(0, 0)[1:] == (low, high)


def test_what_follows_an_identity_is_not_composed():
    p = maps.take((3000,), np.random.default_rng(0).integers(0, 3000, 2000), 0)
    same = Pattern.identity((2000,)) @ p @ Pattern.identity((3000,))
    assert same.zones is p.zones


def test_places_are_no_mask():
    large = np.arange(2**20 + 1)
    assert Known(array=large).nonzero is None and not Known(array=large).is_zero
    assert Known(array=0 * large).is_zero and Known(array=0 * large).nonzero.is_zero
    assert Known(array=large[:9]).nonzero.nnz == 8
