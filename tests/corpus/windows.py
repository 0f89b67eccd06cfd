"""Pooling, convolution, interpolation: strides, padding, overlap, clipped windows."""

import numpy as np
from corpus.model import FULL, add_at, operation


def _windows(n, size, stride):
    places = np.arange(size)[None, :] + stride * np.arange((n - size) // stride + 1)[:, None]
    return places.astype(np.int32)  # JAX confuses int64 where x64 comes and goes


_POOL = _windows(7, 3, 2)


@operation(lambda d: (d.normal(2, 7),))
class average_pool:
    def forward(xp, x):
        return x[:, _POOL].mean(axis=2)

    def backward(xp, g, x):
        share = xp.repeat(g[:, :, None] / 3, 3, axis=2)
        return xp.stack([add_at(xp, (7,), _POOL, row) for row in share])


@average_pool.fault("NNlib.jl#205")
def overlap_overwritten(xp, g, x):
    share = xp.repeat(g[:, :, None] / 3, 3, axis=2)
    out = 0 * x
    for k in range(3):
        if xp is np:
            out[:, _POOL[k]] = share[:, k]
        else:
            out = out.at[:, _POOL[k]].set(share[:, k])
    return out


@average_pool.fault("pytorch#188344", "factor")
def divides_by_stride(xp, g, x):
    share = xp.repeat(g[:, :, None] / 2, 3, axis=2)
    return xp.stack([add_at(xp, (7,), _POOL, row) for row in share])


_CLIPPED = ((0, 3), (2, 5), (4, 7), (6, 8))


@operation(lambda d: (d.normal(8),))
class average_pool_ceil:
    """The last window is clipped: it has two entries, not three."""

    def forward(xp, x):
        return xp.stack([x[a:b].mean() for a, b in _CLIPPED])

    def backward(xp, g, x):
        return sum(_spread(xp, x, a, b, g[k] / (b - a)) for k, (a, b) in enumerate(_CLIPPED))


def _spread(xp, x, a, b, value):
    inside = (np.arange(x.shape[0]) >= a) & (np.arange(x.shape[0]) < b)
    return xp.where(inside, value, 0 * x)


@average_pool_ceil.fault("tracel-ai/burn#5604")
def clipped_window_by_full_size(xp, g, x):
    return sum(_spread(xp, x, a, b, g[k] / 3) for k, (a, b) in enumerate(_CLIPPED))


_MAX = _windows(6, 2, 1)


@operation(lambda d: (d.normal(6),))
class max_pool:
    """Stride 1: windows overlap, an entry may win twice."""

    def forward(xp, x):
        return x[_MAX].max(axis=1)

    def backward(xp, g, x):
        w = x[_MAX]
        won = (w == w.max(axis=1, keepdims=True)) * g[:, None]
        return add_at(xp, x.shape, _MAX, won)


@max_pool.fault(
    "NNlib.jl#133", "condition", inputs=lambda d: (np.array([1.0, 5.0, 2.0, 3.0, 9.0, 4.0]),)
)
def winners_overwritten(xp, g, x):
    w = x[_MAX]
    won = (w == w.max(axis=1, keepdims=True)) * g[:, None]
    if xp is np:
        out = 0 * x
        for k in range(len(_MAX)):
            out[_MAX[k]] = np.where(won[k] != 0, won[k], out[_MAX[k]])
        return out
    out = 0 * x
    for k in range(len(_MAX)):
        out = out.at[_MAX[k]].set(xp.where(won[k] != 0, won[k], out[_MAX[k]]))
    return out


@max_pool.fault("burn#4466")
def spread_over_the_window(xp, g, x):
    return add_at(xp, x.shape, _MAX, xp.repeat(g[:, None] / 2, 2, axis=1))


@operation(lambda d: (d.normal(9), d.normal(3)))
class convolution:
    def forward(xp, x, w):
        return x[_windows(9, 3, 1)] @ w

    def backward(xp, g, x, w):
        i = _windows(9, 3, 1)
        return add_at(xp, x.shape, i, g[:, None] * w[None, :]), g @ x[i]


@convolution.fault("jax 2292681128", "input flipped")
def kernel_flipped(xp, g, x, w):
    i = _windows(9, 3, 1)
    return add_at(xp, x.shape, i, g[:, None] * w[None, ::-1]), g @ x[i]


@convolution.fault("a kernel gradient reversed", "flipped")
def kernel_gradient_flipped(xp, g, x, w):
    i = _windows(9, 3, 1)
    return add_at(xp, x.shape, i, g[:, None] * w[None, :]), (g @ x[i])[::-1]


@convolution.fault("jax 6c4bba8d02", "index shifted")
def padding_off_by_one(xp, g, x, w):
    i = _windows(9, 3, 1)
    return xp.roll(add_at(xp, x.shape, i, g[:, None] * w[None, :]), 1), g @ x[i]


_DILATED = 2 * np.arange(3, dtype=np.int32)[None, :] + np.arange(6, dtype=np.int32)[:, None]


@operation(lambda d: (d.normal(10), d.normal(3)))
class dilated_convolution:
    def forward(xp, x, w):
        return x[_DILATED] @ w

    def backward(xp, g, x, w):
        return add_at(xp, x.shape, _DILATED, g[:, None] * w[None, :]), g @ x[_DILATED]


@dilated_convolution.fault("jax 6c4bba8d02")
def dilation_ignored(xp, g, x, w):
    i = np.arange(3)[None, :] + np.arange(6)[:, None]
    return add_at(xp, x.shape, i, g[:, None] * w[None, :]), g @ x[_DILATED]


@dilated_convolution.fault("jmschrei/cherimoya#25")
def overlaps_dropped(xp, g, x, w):
    out = 0 * x
    for k in range(3):
        values = g * w[k]
        if xp is np:
            out[_DILATED[:, k]] = values
        else:
            out = out.at[_DILATED[:, k]].set(values)
    return out, g @ x[_DILATED]


@operation(lambda d: (d.normal(4),))
class upsample_linear:
    """Two to one, corners aligned: weights are thirds and so on."""

    def forward(xp, x):
        return _UP @ x if xp is np else xp.asarray(_UP, x.dtype) @ x

    def backward(xp, g, x):
        return xp.asarray(_UP.T, x.dtype) @ g


_UP = np.maximum(0, 1 - abs(np.linspace(0, 3, 7)[:, None] - np.arange(4)[None, :]))


@upsample_linear.fault("FlagGems#5218")
def window_too_short(xp, g, x):
    return xp.asarray((_UP * (_UP > 0.5)).T, x.dtype) @ g


def _knots(d):
    return d.normal(6), np.array([0.3, 1.6, 2.5, 3.9, 4.2])


@operation(_knots, dtypes=FULL)
class interpolate:
    def forward(xp, v, t):
        i = xp.floor(t).astype(int)
        return v[i] * (1 - (t - i)) + v[i + 1] * (t - i)

    def backward(xp, g, v, t):
        i = xp.floor(t).astype(int)
        f = (t - i).astype(v.dtype)
        dv = add_at(xp, v.shape, i, g * (1 - f)) + add_at(xp, v.shape, i + 1, g * f)
        return dv, g * (v[i + 1] - v[i])


@interpolate.fault("jax 460343293f", "term")
def upper_neighbour_lost(xp, g, v, t):
    i = xp.floor(t).astype(int)
    f = (t - i).astype(v.dtype)
    return add_at(xp, v.shape, i, g * (1 - f)), g * (v[i + 1] - v[i])


@interpolate.fault("pytorch#67660")
def weights_exchanged(xp, g, v, t):
    i = xp.floor(t).astype(int)
    f = (t - i).astype(v.dtype)
    dv = add_at(xp, v.shape, i, g * f) + add_at(xp, v.shape, i + 1, g * (1 - f))
    return dv, g * (v[i + 1] - v[i])
