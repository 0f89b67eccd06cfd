"""The pattern of every array operation, against the operation itself on an array of indices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlab.errors import InputError
from gradlab.patterns import Pattern, maps

SIZES = st.integers(1, 6)
SHAPES = st.lists(SIZES, min_size=0, max_size=3).map(tuple)
AXES = st.lists(SIZES, min_size=1, max_size=3).map(tuple)


def reads(output, input_shape):
    """The boolean matrix of an operation that moved flat indices (-1: reads nothing)."""
    flat = np.asarray(output).reshape(-1)
    matrix = np.zeros((flat.size, int(np.prod(input_shape))), bool)
    rows = np.flatnonzero(flat >= 0)
    matrix[rows, flat[rows]] = True
    return matrix


def numbered(shape):
    return np.arange(int(np.prod(shape))).reshape(shape)


def same(pattern, matrix):
    assert pattern.shape == matrix.shape
    assert not pattern.widened
    np.testing.assert_array_equal(pattern.to_dense(), matrix)
    assert pattern.exact
    assert pattern.nnz == matrix.sum()


@given(SHAPES, st.data())
def test_transpose(shape, data):
    permutation = tuple(data.draw(st.permutations(range(len(shape)))))
    same(maps.transpose(shape, permutation), reads(numbered(shape).transpose(permutation), shape))


@given(st.lists(st.sampled_from([1, 2, 3, 4, 5]), max_size=4).map(tuple), st.data())
def test_reshape(shape, data):
    rest, new = int(np.prod(shape)), []
    while rest > 1:
        n = data.draw(st.sampled_from([k for k in range(2, rest + 1) if rest % k == 0]))
        new.append(n)
        rest //= n
    new.insert(data.draw(st.integers(0, len(new))), 1)
    pattern = maps.reshape(shape, tuple(new))
    same(pattern, reads(numbered(shape), shape))
    assert pattern.is_diagonal


def test_reshape_with_strides_that_do_not_divide_each_other():
    assert not maps.reshape((4, 6), (6, 4)).widened
    assert maps.reshape((4096, 6000), (6000, 4096)).widened
    with pytest.raises(InputError, match="24 entries"):
        maps.reshape((4, 6), (5, 5))


@given(AXES, st.data())
def test_slice(shape, data):
    start = tuple(data.draw(st.integers(0, n)) for n in shape)
    limit = tuple(data.draw(st.integers(a, n)) for a, n in zip(start, shape))
    strides = tuple(data.draw(st.integers(1, 4)) for _ in shape)
    cut = tuple(map(slice, start, limit, strides))
    same(maps.slice(shape, start, limit, strides), reads(numbered(shape)[cut], shape))


@given(AXES, st.data())
def test_pad(shape, data):
    low, high, interior = [], [], []
    x = numbered(shape)
    for k, n in enumerate(shape):
        gap = data.draw(st.integers(0, 2))
        a, b = data.draw(st.integers(-3, 3)), data.draw(st.integers(-3, 3))
        size = n + gap * (n - 1)
        if size + a + b < 0:
            a = b = 0
        spread = np.full((*x.shape[:k], size, *x.shape[k + 1 :]), -1)
        spread[(slice(None),) * k + (slice(None, None, gap + 1),)] = x
        widths = [(0, 0)] * len(shape)
        widths[k] = (max(a, 0), max(b, 0))
        x = np.pad(spread, widths, constant_values=-1)
        end = x.shape[k] - max(-b, 0)
        x = x[(slice(None),) * k + (slice(max(-a, 0), end),)]
        low.append(a)
        high.append(b)
        interior.append(gap)
    same(maps.pad(shape, tuple(low), tuple(high), tuple(interior)), reads(x, shape))


@given(AXES, st.data())
def test_concatenate(shape, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    shapes = tuple(
        (*shape[:axis], data.draw(st.integers(1, 4)), *shape[axis + 1 :]) for _ in range(3)
    )
    for k, pattern in enumerate(maps.concatenate(shapes, axis)):
        parts = [numbered(s) if k == n else np.full(s, -1) for n, s in enumerate(shapes)]
        same(pattern, reads(np.concatenate(parts, axis), shapes[k]))


@given(AXES, st.data())
def test_reverse(shape, data):
    axes = tuple(data.draw(st.sets(st.integers(0, len(shape) - 1))))
    same(maps.reverse(shape, axes), reads(np.flip(numbered(shape), axes), shape))


@given(AXES, st.data())
def test_roll(shape, data):
    axis, shift = data.draw(st.integers(0, len(shape) - 1)), data.draw(st.integers(-7, 7))
    same(maps.roll(shape, shift, axis), reads(np.roll(numbered(shape), shift, axis), shape))


@given(AXES, st.data())
def test_tile(shape, data):
    repeats = tuple(data.draw(st.integers(1, 3)) for _ in shape)
    same(maps.tile(shape, repeats), reads(np.tile(numbered(shape), repeats), shape))


@given(AXES, st.data())
def test_reduce_and_broadcast(shape, data):
    axes = tuple(sorted(data.draw(st.sets(st.integers(0, len(shape) - 1)))))
    kept = [k for k in range(len(shape)) if k not in axes]
    pattern = maps.reduce(shape, axes)
    small = tuple(shape[k] for k in kept)
    spread = np.broadcast_to(np.expand_dims(numbered(small), axes), shape)
    same(pattern.T, reads(spread, small))
    same(maps.broadcast_in_dim(small, shape, tuple(kept)), reads(spread, small))
    ones = tuple(1 if k in axes else n for k, n in enumerate(shape))
    spread = np.broadcast_to(numbered(ones), (2, *shape))
    same(Pattern.broadcast(ones, (2, *shape)), reads(spread, ones))


@given(AXES, st.data())
def test_dense_along_and_cumulative(shape, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    index = np.indices(shape).reshape(len(shape), -1)
    equal = index[:, :, None] == index[:, None, :]
    others = np.delete(equal, axis, 0).all(0)
    same(maps.dense_along(shape, (axis,)), others)
    same(maps.cumulative(shape, axis), others & (index[axis][None] <= index[axis][:, None]))
    same(maps.cumulative(shape, axis, True), others & (index[axis][None] >= index[axis][:, None]))


@given(st.data())
def test_dot_general(data):
    b, m, k, n = (data.draw(SIZES) for _ in range(4))
    left, right = maps.dot_general((b, m, k), (k, b, n), (((2,), (0,)), ((0,), (1,))))
    i = np.indices((b, m, n)).reshape(3, -1)[:, :, None]
    x = np.indices((b, m, k)).reshape(3, -1)[:, None, :]
    y = np.indices((k, b, n)).reshape(3, -1)[:, None, :]
    same(left, (i[0] == x[0]) & (i[1] == x[1]))
    same(right, (i[0] == y[1]) & (i[2] == y[2]))


@given(
    size=st.integers(1, 12),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    low=st.integers(-2, 5),
    high=st.integers(-2, 5),
    dilation=st.integers(1, 4),
    base=st.integers(1, 3),
)
def test_window(size, kernel, stride, low, high, dilation, base):
    dilated = (size - 1) * base + 1 + low + high
    count = max(0, (dilated - (kernel - 1) * dilation - 1) // stride + 1)
    matrix = np.zeros((count, size), bool)
    for o in range(count):
        for k in range(kernel):
            place = stride * o - low + dilation * k
            if place % base == 0 and 0 <= place // base < size:
                matrix[o, place // base] = True
    same(maps.window(size, count, kernel, stride, low, dilation, base), matrix)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_grouped(groups, outputs, inputs):
    blocks = np.kron(np.eye(groups), np.ones((outputs, inputs))).astype(bool)
    same(maps.grouped(groups * outputs, groups * inputs, groups), blocks)


@given(AXES, st.data())
def test_take(shape, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    n = shape[axis]
    size = data.draw(st.sampled_from([(), (3,), (2, 3), (1,)]))
    flat = data.draw(st.lists(st.integers(-n, n - 1), min_size=6, max_size=6))
    index = np.array(flat[: int(np.prod(size))]).reshape(size)
    same(maps.take(shape, index, axis), reads(numbered(shape).take(index, axis), shape))


def test_take_outside_reads_nothing():
    assert maps.take((4,), [0, 9, -9], 0).nnz == 1


@given(st.data())
def test_gather_over_groups_of_axes(data):
    a, b, c, d = (data.draw(st.integers(1, 4)) for _ in range(4))
    indices = data.draw(
        st.lists(st.integers(-1, a * c - 1), min_size=d * 2, max_size=d * 2).map(np.array)
    )
    x = numbered((a, b, c)).transpose(1, 0, 2).reshape(b, a * c)
    out = np.where(indices >= 0, x[:, indices], -1).reshape(b, d, 2)
    pattern = maps.gather((b, d, 2), (a, b, c), (1, 2), (0, 2), indices, [(0, 1)])
    same(pattern, reads(out, (a, b, c)))
    same(pattern.T, reads(out, (a, b, c)).T)


def test_affine_index_arrays_are_zones():
    assert maps.take((100, 8), np.arange(10, 60), 0).zones[0].symbolic
    assert not maps.take((100, 8), np.arange(10, 60) % 7, 0).zones[0].symbolic


def _moved_about(rng):
    """Return a grid of flat indices after some moves along its axes, and how many there were."""
    grid = np.arange(np.prod(sizes := rng.integers(2, 5, int(rng.integers(1, 4))))).reshape(sizes)
    for move in rng.integers(0, 6, int(rng.integers(0, 4))):
        axis = int(rng.integers(grid.ndim))
        clipped = np.clip(np.arange(grid.shape[axis]) + 1, 0, grid.shape[axis] - 1)
        grid = (
            np.roll(grid, int(rng.integers(-2, 3)), axis),
            np.flip(grid, axis),
            np.moveaxis(grid, axis, 0),
            np.take(grid, clipped, axis),
            np.repeat(grid, 2, axis),
            grid.take(range(0, grid.shape[axis], 2), axis),
        )[move]
    return grid.ravel(), int(np.prod(sizes))


@pytest.mark.parametrize("seed", range(60))
def test_an_index_array_read_in_pieces_is_exact(seed, monkeypatch):
    monkeypatch.setattr(maps, "_LONG", 0)
    rng = np.random.default_rng(seed)
    flat, size = _moved_about(rng)
    size += int(rng.integers(0, 3))
    truth = np.zeros((len(flat), size), bool)
    truth[np.arange(len(flat)), flat] = True
    alone = maps.gather((len(flat),), (size,), (0,), (0,), flat)
    assert (alone.to_dense() == truth).all()
    beside = maps.gather((2, len(flat)), (size, 2), (1,), (0,), flat, [(0, 1)])
    expected = np.einsum("ij,ab->aijb", truth, np.eye(2, dtype=bool))
    assert (beside.to_dense() == expected.reshape(2 * len(flat), -1)).all()


def test_a_flattened_periodic_grid_is_a_few_zones_and_takes_five_passes():
    places = np.arange(60 * 70).reshape(60, 70)
    shifted = [np.roll(places, by, axis).ravel() for by in (1, -1) for axis in (0, 1)]
    size = places.size
    stencil = Pattern.union([
        Pattern.identity((size,)),
        *(maps.gather((size,), (size,), (0,), (0,), index) for index in shifted),
    ])  # fmt: skip
    assert stencil.nnz == 5 * size and stencil.exact and len(stencil.zones) < 16
    colouring = stencil.colours("jvp")
    assert colouring.count == 5
    colours = colouring.assignment()[stencil.to_scipy().indices].reshape(-1, 5)
    assert (np.diff(np.sort(colours, axis=1), axis=1) > 0).all()
