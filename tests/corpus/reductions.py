"""Sums, means, extrema, products, running sums, variances."""

import numpy as np
from corpus.model import FULL, operation


@operation(lambda d: (d.normal(3, 4),))
class mean_rows:
    def forward(xp, x):
        return x.mean(axis=1)

    def backward(xp, g, x):
        return xp.broadcast_to(g[:, None] / x.shape[1], x.shape)


@mean_rows.fault("pocketpy/cTensor#24", "factor")
def divides_by_output_size(xp, g, x):
    return xp.broadcast_to(g[:, None] / x.shape[0], x.shape)


@mean_rows.fault("jax b90f65e4ee", "sum for mean|factor")
def not_divided(xp, g, x):
    return xp.broadcast_to(g[:, None], x.shape) + 0 * x


@mean_rows.fault("pytorch#1813", "upstream shifted|index shifted")
def upstream_rolled(xp, g, x):
    return xp.broadcast_to(xp.roll(g, 1)[:, None] / x.shape[1], x.shape)


@operation(lambda d: (d.normal(3, 3),))
class sum_square:
    def forward(xp, x):
        return x.sum(axis=0)

    def backward(xp, g, x):
        return xp.broadcast_to(g[None, :], x.shape)


@sum_square.fault("harvard-edge/cs249r_book#1867", "transposed")
def expanded_on_the_wrong_axis(xp, g, x):
    return xp.broadcast_to(g[:, None], x.shape)


@operation(lambda d: (d.normal(2, 3, 2),))
class sum_two_axes:
    def forward(xp, x):
        return x.sum(axis=(0, 2))

    def backward(xp, g, x):
        return xp.broadcast_to(g[None, :, None], x.shape)


@sum_two_axes.fault("chainer acf9773cea", "factor")
def counted_twice(xp, g, x):
    return xp.broadcast_to(2 * g[None, :, None], x.shape)


def _tied(d):
    return (np.array([[1.0, 3.0, 3.0], [2.0, 0.0, 2.0]]),)


@operation(lambda d: (d.normal(3, 5),), special=(_tied,))
class row_maximum:
    def forward(xp, x):
        return x.max(axis=1)

    def backward(xp, g, x):
        hit = (x == x.max(axis=1, keepdims=True)).astype(x.dtype)
        return g[:, None] * hit / hit.sum(axis=1, keepdims=True)


@row_maximum.fault("Theano#4568", "condition", inputs=_tied)
def every_tie_full(xp, g, x):
    return g[:, None] * (x == x.max(axis=1, keepdims=True))


@row_maximum.fault("a maximum for a minimum", "input negated")
def of_the_minimum(xp, g, x):
    return g[:, None] * (x == x.min(axis=1, keepdims=True))


def _pairs(d):
    return np.array([1.0, 2.0, 3.0]) + 0.1 * d.unit(3), np.array([2.0, 1.0, 4.0])


@operation(_pairs, special=(lambda d: (np.ones(3), np.ones(3)),))
class maximum:
    def forward(xp, x, y):
        return xp.maximum(x, y)

    def backward(xp, g, x, y):
        right = (y > x) + 0.5 * (x == y)
        return g * (1 - right).astype(x.dtype), g * right.astype(x.dtype)


@maximum.fault(
    "onnxruntime#7217",
    "upstream passed|condition",
    inputs=lambda d: (np.array([1.0, 2.0]), np.array([1.0, 1.0])),
)
def both_at_ties(xp, g, x, y):
    return g * (x >= y), g * (y >= x)


@maximum.fault("chainer e67538082c", "swapped")
def sides_swapped(xp, g, x, y):
    return g * (y > x), g * (x >= y)


@operation(lambda d: (d.unit(5) + 2,), special=(lambda d: (np.array([2.0, 0.0, 3.0]),),))
class product:
    def forward(xp, x):
        return x.prod()

    def backward(xp, g, x):
        ones = xp.ones_like(x[:1])
        before = xp.concatenate([ones, xp.cumprod(x)[:-1]])
        after = xp.concatenate([xp.cumprod(x[::-1])[::-1][1:], ones])
        return g * before * after


@product.fault(
    "autograd#93", "nonfinite", inputs=lambda d: (np.array([2.0, 0.0, 3.0]),), form="jax"
)
def divides_by_zero(xp, g, x):
    return g * x.prod() / x


@product.fault("autograd#93", "condition", inputs=lambda d: (np.array([2.0, 0.0, 3.0]),))
def zero_where_zero(xp, g, x):
    return xp.where(x == 0, 0 * x, g * x.prod() / xp.where(x == 0, 1, x))


@operation(lambda d: (d.normal(6),))
class running_sum:
    def forward(xp, x):
        return xp.cumsum(x)

    def backward(xp, g, x):
        return xp.cumsum(g[::-1])[::-1]


@running_sum.fault("jax#10993", "flipped")
def not_reversed(xp, g, x):
    return xp.cumsum(g)


@running_sum.fault("jmschrei/cherimoya#25", "index shifted")
def exclusive(xp, g, x):
    return xp.cumsum(g[::-1])[::-1] - g


@running_sum.fault("half of the reversal", "flipped")
def reversed_once(xp, g, x):
    return xp.cumsum(g[::-1])


@operation(lambda d: (d.normal(4, 5),))
class variance:
    def forward(xp, x):
        return ((x - x.mean(axis=1, keepdims=True)) ** 2).mean(axis=1)

    def backward(xp, g, x):
        return 2 * g[:, None] * (x - x.mean(axis=1, keepdims=True)) / x.shape[1]


@variance.fault("jax 9ea8ce9b58", "factor")
def divides_by_n_minus_one(xp, g, x):
    return 2 * g[:, None] * (x - x.mean(axis=1, keepdims=True)) / (x.shape[1] - 1)


@variance.fault("d(x^2) without its 2", "factor")
def two_forgotten(xp, g, x):
    return g[:, None] * (x - x.mean(axis=1, keepdims=True)) / x.shape[1]


@variance.fault("numpy-ml#94")
def mean_not_subtracted(xp, g, x):
    return 2 * g[:, None] * x / x.shape[1]


@operation(lambda d: (d.normal(3, 4),))
class row_norm:
    def forward(xp, x):
        return xp.sqrt((x * x).sum(axis=1))

    def backward(xp, g, x):
        return g[:, None] * x / xp.sqrt((x * x).sum(axis=1, keepdims=True))


@row_norm.fault("jax#3058")
def norm_squared(xp, g, x):
    return g[:, None] * x / (x * x).sum(axis=1, keepdims=True)


@operation(lambda d: (d.normal(3, 4),))
class unit_rows:
    def forward(xp, x):
        return x / xp.sqrt((x * x).sum(axis=1, keepdims=True))

    def backward(xp, g, x):
        n = xp.sqrt((x * x).sum(axis=1, keepdims=True))
        y = x / n
        return (g - y * (g * y).sum(axis=1, keepdims=True)) / n


@unit_rows.fault("ooples/AiDotNet#695", "term")
def norm_held_constant(xp, g, x):
    return g / xp.sqrt((x * x).sum(axis=1, keepdims=True))


@unit_rows.fault("jax#3213", "term")
def projection_added(xp, g, x):
    n = xp.sqrt((x * x).sum(axis=1, keepdims=True))
    y = x / n
    return (g + y * (g * y).sum(axis=1, keepdims=True)) / n


@operation(lambda d: (d.unit(3, 4), d.unit(3, 4)), dtypes=FULL)
class gaussian_logpdf:
    def forward(xp, x, s):
        return -0.5 * x * x * xp.exp(-2 * s) - s

    def backward(xp, g, x, s):
        return -g * x * xp.exp(-2 * s), g * (x * x * xp.exp(-2 * s) - 1)


@gaussian_logpdf.fault("GaussianMarkovRandomFields.jl#193", "term")
def log_determinant_lost(xp, g, x, s):
    return -g * x * xp.exp(-2 * s), g * x * x * xp.exp(-2 * s)
