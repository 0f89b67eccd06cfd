"""Gather, scatter, slices, rolls, concatenation: repeated indices, shifts, masks."""

import numpy as np
from corpus.model import add_at, operation, set_at


def _repeated(d):
    return d.normal(5, 3), np.array([0, 2, 0, 4, 2, 0])


@operation(_repeated)
class gather:
    def forward(xp, x, i):
        return x[i]

    def backward(xp, g, x, i):
        return add_at(xp, x.shape, i, g), None


@gather.fault("pytorch#1631", "overwritten|condition")
def overwrites(xp, g, x, i):
    return set_at(xp, 0 * x, i, g), None


@gather.fault("apache/mxnet#9172", "condition")
def averages_repeats(xp, g, x, i):
    ones = xp.ones_like(g)
    count = add_at(xp, x.shape, i, ones)
    return add_at(xp, x.shape, i, g) / xp.where(count == 0, 1, count), None


@gather.fault("apache/mxnet#17989", "index shifted")
def one_row_late(xp, g, x, i):
    return add_at(xp, x.shape, (i + 1) % 5, g), None


def _square_gather(d):
    return d.normal(4, 2), np.array([2, 0, 3, 2])


@operation(_square_gather)
class permute_rows:
    def forward(xp, x, i):
        return x[i]

    def backward(xp, g, x, i):
        return add_at(xp, x.shape, i, g), None


@permute_rows.fault("AiDotNet.Tensors#894", "condition")
def gathers_again(xp, g, x, i):
    return g[i], None


@operation(lambda d: (d.normal(40, 3), np.array([7] * 20 + [1, 39])))
class embedding:
    """One row is common, two are rare."""

    def forward(xp, table, i):
        return table[i]

    def backward(xp, g, table, i):
        return add_at(xp, table.shape, i, g), None


@embedding.fault("pytorch#26302", "condition")
def padding_row_kept(xp, g, table, i):
    d = add_at(xp, table.shape, i, g)
    return set_at(xp, d, 0, g[0]), None


@embedding.fault("pytorch#28716", "condition")
def rare_rows_lost(xp, g, table, i):
    d = add_at(xp, table.shape, i, g)
    return set_at(xp, set_at(xp, d, 1, 0 * g[0]), 39, 0 * g[0]), None


@embedding.fault("tinygrad#9597", "overwritten")
def duplicates_counted_once(xp, g, table, i):
    return set_at(xp, 0 * table, i, g), None


@operation(lambda d: (d.normal(6), d.normal(2), np.array([1, 4])))
class scatter_set:
    def forward(xp, x, v, i):
        return set_at(xp, x, i, v)

    def backward(xp, g, x, v, i):
        return set_at(xp, g, i, 0 * v), g[i], None


@scatter_set.fault("jax 5fac477a8a", "condition|upstream passed")
def as_scatter_add(xp, g, x, v, i):
    return g, g[i], None


@scatter_set.fault("chainer 208ace83c4", "detached")
def values_forgotten(xp, g, x, v, i):
    return set_at(xp, g, i, 0 * v), 0 * v, None


@operation(lambda d: (d.normal(3, 6),))
class roll:
    def forward(xp, x):
        return xp.roll(x, 2, axis=1)

    def backward(xp, g, x):
        return xp.roll(g, -2, axis=1)


@roll.fault("chainer 6487802693", "index shifted")
def rolled_on(xp, g, x):
    return xp.roll(g, 2, axis=1)


@roll.fault("an index off by one", "index shifted")
def off_by_one(xp, g, x):
    return xp.roll(g, -1, axis=1)


@roll.fault("rolled along the other axis")
def other_axis(xp, g, x):
    return xp.roll(g, -2, axis=0)


@operation(lambda d: (d.normal(9),))
class strided_slice:
    def forward(xp, x):
        return x[1::3]

    def backward(xp, g, x):
        return set_at(xp, 0 * x, slice(1, None, 3), g)


@strided_slice.fault("jax f39d111d8f", "index shifted")
def start_forgotten(xp, g, x):
    return set_at(xp, 0 * x, slice(0, None, 3), g)


@strided_slice.fault("pytorch#63314")
def stride_forgotten(xp, g, x):
    return set_at(xp, 0 * x, slice(1, 4), g)


@operation(lambda d: (d.normal(2, 3), d.normal(2, 3)))
class concatenate:
    def forward(xp, x, y):
        return xp.concatenate([x, y], axis=1)

    def backward(xp, g, x, y):
        return g[:, :3], g[:, 3:]


@concatenate.fault("oneflow#6149", "swapped")
def halves_swapped(xp, g, x, y):
    return g[:, 3:], g[:, :3]


@operation(lambda d: (d.normal(3, 4),))
class flip:
    def forward(xp, x):
        return xp.flip(x, axis=1)

    def backward(xp, g, x):
        return xp.flip(g, axis=1)


@flip.fault("a flip forgotten", "flipped|upstream passed")
def not_flipped(xp, g, x):
    return g


@operation(lambda d: (d.normal(3, 3),))
class transpose:
    def forward(xp, x):
        return x.T

    def backward(xp, g, x):
        return g.T


@transpose.fault("jax 2292681128", "transposed|upstream passed")
def not_transposed(xp, g, x):
    return g


@operation(lambda d: (d.normal(2, 3),))
class tile:
    def forward(xp, x):
        return xp.tile(x, (1, 2))

    def backward(xp, g, x):
        return g[:, :3] + g[:, 3:]


@tile.fault("pytorch#136662")
def one_copy_lost(xp, g, x):
    return g[:, :3]


@tile.fault("a repeat for a tile")
def repeated_for_tiled(xp, g, x):
    return g.reshape(2, 3, 2).sum(axis=2)


@operation(lambda d: (d.normal(7), np.sort(d.integers(0, 3, 7))))
class segment_sum:
    def forward(xp, x, s):
        return add_at(xp, (3,), s, x)

    def backward(xp, g, x, s):
        return g[s], None


@segment_sum.fault("jmschrei/cherimoya#25", "index shifted")
def one_segment_late(xp, g, x, s):
    return g[(s + 1) % 3], None
