"""Whole layers where rounding is at work: saturated, offset, graded, converged, long, random.

A few need JAX itself: a key that draws a mask, a scan whose carry has a dtype of its own.
"""

import numpy as np
from corpus.model import FULL, HALF, Draw, operation


def _softmax(xp, s):
    e = xp.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@operation(lambda d: (np.array([[60.0, 0, -60], [30, 29, 0], [0, 0, 90]]) + d.unit(3, 3),))
class saturated_softmax:
    """Most of the probability sits in one class, and most gradients are tiny."""

    def forward(xp, x):
        return _softmax(xp, x)

    def backward(xp, g, x):
        y = _softmax(xp, x)
        return y * (g - (g * y).sum(axis=-1, keepdims=True))


@saturated_softmax.fault("sparse gradients thresholded")
def certain_rows_dropped(xp, g, x):
    y = _softmax(xp, x)
    d = y * (g - (g * y).sum(axis=-1, keepdims=True))
    return xp.where(y.max(axis=-1, keepdims=True) > 0.999, 0 * d, d)


@saturated_softmax.fault("a softmax Jacobian taken for diagonal", "diagonal")
def taken_for_diagonal(xp, g, x):
    y = _softmax(xp, x)
    return g * y * (1 - y)


@operation(lambda d: (8 * d.unit(5, 4), 8 * d.unit(6, 4), d.unit(6, 3)))
class sharp_attention:
    """Not causal; its scores are so large that every row attends to one key."""

    def forward(xp, q, k, v):
        return _softmax(xp, q @ k.T / 2) @ v

    def backward(xp, g, q, k, v):
        return _attention_backward(xp, _softmax(xp, q @ k.T / 2), g, q, k, v)


def _attention_backward(xp, p, g, q, k, v):
    dp = g @ v.T
    ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True)) / 2
    return ds @ k, ds.T @ q, p.T @ g


@sharp_attention.fault("meta-pytorch/MSLK#263")
def backward_masked(xp, g, q, k, v):
    future = np.triu(np.ones((5, 6), bool), 1)
    p = _softmax(xp, xp.where(future, -1e4, q @ k.T / 2))
    return _attention_backward(xp, p, g, q, k, v)


@sharp_attention.fault("a scale forgotten", "factor")
def scale_forgotten(xp, g, q, k, v):
    dq, dk, dv = _attention_backward(xp, _softmax(xp, q @ k.T / 2), g, q, k, v)
    return 2 * dq, 2 * dk, dv


def _standard(xp, x):
    c = x - x.mean(axis=-1, keepdims=True)
    return c, 1 / xp.sqrt((c * c).mean(axis=-1, keepdims=True) + 1e-5)


@operation(lambda d: (100 + d.unit(4, 8), 1 + 0.3 * d.unit(8)))
class offset_layer_norm:
    """Rows around 100 whose spread is 1: the mean must be taken off before anything is squared."""

    def forward(xp, x, w):
        c, r = _standard(xp, x)
        return c * r * w

    def backward(xp, g, x, w):
        c, r = _standard(xp, x)
        return _standard_backward(g * w, c * r, r), (g * c * r).sum(axis=0)


def _standard_backward(g, y, r):
    mean = g.mean(axis=-1, keepdims=True)
    return r * (g - mean - y * (g * y).mean(axis=-1, keepdims=True))


@offset_layer_norm.fault("pytorch#80926", "term")
def mean_term_lost(xp, g, x, w):
    c, r = _standard(xp, x)
    d = g * w
    dx = r * (d - c * r * (d * c * r).mean(axis=-1, keepdims=True))
    return dx, (g * c * r).sum(axis=0)


@offset_layer_norm.fault("an unbiased variance in the backward alone")
def unbiased(xp, g, x, w):
    c, _ = _standard(xp, x)
    r = 1 / xp.sqrt((c * c).sum(axis=-1, keepdims=True) / 7 + 1e-5)
    return _standard_backward(g * w, c * r, r), (g * c * r).sum(axis=0)


@operation(lambda d: (d.normal(5, 7), np.geomspace(1e-6, 1, 7) * d.unit(7)))
class graded_scale:
    """A leaf whose entries span six orders of magnitude, and a gradient that does too."""

    def forward(xp, x, s):
        return (x * s).sum(axis=0)

    def backward(xp, g, x, s):
        return g * s + 0 * x, (g * x).sum(axis=0)


@graded_scale.fault("sparse gradients thresholded")
def small_columns_dropped(xp, g, x, s):
    kept = xp.where(np.arange(7) < 2, 0 * s, s)
    return g * kept + 0 * x, (g * x).sum(axis=0)


@graded_scale.fault("the sign of a rare entry", "condition")
def smallest_negated(xp, g, x, s):
    sign = xp.where(np.arange(7) == 0, -1, 1).astype(s.dtype)
    return g * s * sign + 0 * x, (g * x).sum(axis=0)


def _nearly(d):
    t = d.unit(3, 4)
    return t + 1e-2 * abs(t) * d.unit(3, 4) / 8, t


@operation(_nearly, special=(lambda d: (d.unit(3, 4),) * 2,))
class converged_error:
    """A loss near its end: all gradients are small, at its end they are zero."""

    def forward(xp, x, t):
        return ((x - t) ** 2).mean() / 64

    def backward(xp, g, x, t):
        d = g * (x - t) / (32 * x.size)
        return d, -d


@converged_error.fault("pytorch#59584", "detached")
def zero(xp, g, x, t):
    return 0 * x, 0 * t


@converged_error.fault("a 2 forgotten", "factor")
def half(xp, g, x, t):
    d = g * (x - t) / (64 * x.size)
    return d, -d


@operation(lambda d: (d.unit(6, 40), d.unit(40, 32) / 6))
class wide_layer:
    """More weights than a look at a few of them would do for."""

    def forward(xp, x, w):
        return xp.tanh(x @ w)

    def backward(xp, g, x, w):
        y = xp.tanh(x @ w)
        d = g * (1 - y) * (1 + y)
        return d @ w.T, x.T @ d


# in half precision 1.001 is 1, or one digit from it
@wide_layer.fault("one entry of 1,280, by one part in a thousand", dtypes=FULL)
def one_entry_off(xp, g, x, w):
    dx, dw = wide_layer.backward(xp, g, x, w)
    here = (np.arange(40) == 17)[:, None] & (np.arange(32) == 5)
    return dx, dw * xp.where(here, 1.001, 1.0).astype(dw.dtype)


@wide_layer.fault("jmschrei/cherimoya#25")
def last_row_of_the_batch_lost(xp, g, x, w):
    y = xp.tanh(x @ w)
    d = g * (1 - y) * (1 + y)
    return d @ w.T, x[:-1].T @ d[:-1]


@operation(lambda d: (d.normal(2000, 2), d.normal(2)))
class long_sum:
    """The bias of many rows: its gradient adds them all."""

    def forward(xp, x, b):
        return x + b

    def backward(xp, g, x, b):
        return g, g.sum(axis=0)


@long_sum.fault("a loop that ends one early", "index shifted")
def last_row_lost(xp, g, x, b):
    return g, g[:-1].sum(axis=0)


# in float32 a sum of 2,000 terms may itself be as far off as one float16 rounding
@long_sum.fault("jax#33012", "lower precision", dtypes=("float64",))
def summed_in_half_precision(xp, g, x, b):
    return g, g.astype(xp.float16).sum(axis=0).astype(g.dtype)


def _key(d: Draw):
    return d.integers(0, 2**31, 2).astype(np.uint32)


def _mask(key, shape):
    import jax

    return jax.random.bernoulli(jax.random.wrap_key_data(key), 0.75, shape)


@operation(lambda d: (d.normal(6, 5), _key(d)), form="jax")
class keyed_dropout:
    """The mask is drawn from a key, in the forward and again in the backward."""

    def forward(xp, x, key):
        return xp.where(_mask(key, x.shape), x / 0.75, 0)

    def backward(xp, g, x, key):
        return xp.where(_mask(key, x.shape), g / 0.75, 0), None


@keyed_dropout.fault("a key used up in between")
def another_mask(xp, g, x, key):
    return xp.where(_mask(key + 1, x.shape), g / 0.75, 0), None


@keyed_dropout.fault("NVIDIA/apex#816", "factor")
def scale_lost(xp, g, x, key):
    return xp.where(_mask(key, x.shape), g, 0), None


@operation(lambda d: (d.unit(6, 3), d.unit(3, 3) / 2), form="jax")
class scanned_recurrence:
    """h = tanh(h W + x), scanned with a carry that is float32 whatever the inputs are."""

    def forward(xp, x, w):
        return _scanned(x, w)[-1].astype(x.dtype)

    def backward(xp, g, x, w):
        return _scanned_backward(g, x, w, keep=1.0)


def _scanned(x, w):
    import jax
    import jax.numpy as jnp

    def step(h, row):
        h = jnp.tanh(h @ w.astype(jnp.float32) + row.astype(jnp.float32))
        return h, h

    return jax.lax.scan(step, jnp.zeros(3, jnp.float32), x)[1]


def _scanned_backward(g, x, w, keep):
    import jax
    import jax.numpy as jnp

    after = _scanned(x, w)
    before = jnp.concatenate([jnp.zeros((1, 3), jnp.float32), after[:-1]])
    wide = w.astype(jnp.float32)

    def step(carry, rows):
        dh, dw = carry
        h, y = rows
        d = dh * (1 - y) * (1 + y)
        return (keep * (d @ wide.T), dw + h[:, None] * d), d

    start = g.astype(jnp.float32), jnp.zeros((3, 3), jnp.float32)
    (_, dw), dx = jax.lax.scan(step, start, (before, after), reverse=True)
    return dx.astype(x.dtype), dw.astype(w.dtype)


@scanned_recurrence.fault("truncated after one step", "term|condition")
def truncated(xp, g, x, w):
    return _scanned_backward(g, x, w, keep=0.0)


@scanned_recurrence.fault("a decay that the forward has not", "condition")
def decayed(xp, g, x, w):
    return _scanned_backward(g, x, w, keep=0.9)


@scanned_recurrence.fault("jax#39899", "lower precision", dtypes=("float32",))
def carried_in_half_precision(xp, g, x, w):
    dx, dw = _scanned_backward(g, x, w, keep=1.0)
    return dx.astype(HALF[0]).astype(x.dtype), dw
