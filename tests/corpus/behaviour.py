"""Backwards that misbehave: they write into arrays, round too early, change from call to call."""

import itertools

import numpy as np
from corpus.model import FULL, operation

_calls = itertools.count()


@operation(lambda d: (d.normal(4, 3), d.normal(4, 3)), dtypes=FULL)
class gated:
    def forward(xp, x, y):
        return x * xp.tanh(y)

    def backward(xp, g, x, y):
        t = xp.tanh(y)
        return g * t, g * x * (1 - t) * (1 + t)


@gated.fault("apache/mxnet#18203", "modifies", form="numpy")
def writes_into_the_upstream(xp, g, x, y):
    t = xp.tanh(y)
    dy = g * x * (1 - t) * (1 + t)
    g *= t
    return g, dy


@gated.fault("linkedin/Liger-Kernel#272", "modifies", form="numpy")
def writes_into_the_input(xp, g, x, y):
    t = xp.tanh(y)
    dx, dy = g * t, g * x * (1 - t) * (1 + t)
    x *= 0.5
    return dx, dy


@gated.fault("jmschrei/cherimoya#25", "not deterministic", form="numpy")
def changes_from_call_to_call(xp, g, x, y):
    t = xp.tanh(y)
    return g * t * (1 + 1e-3 * next(_calls)), g * x * (1 - t) * (1 + t)


@gated.fault("torch/nn#345", "layout", form="numpy")
def assumes_contiguous(xp, g, x, y):
    t = xp.tanh(y)
    g = g.ravel(order="K").reshape(g.shape)
    return g * t, g * x * (1 - t) * (1 + t)


@gated.fault("jax#39899", "lower precision")
def through_half_precision(xp, g, x, y):
    half = xp.float16
    t = xp.tanh(y).astype(half)
    return g * t.astype(g.dtype), g * x * (1 - xp.tanh(y)) * (1 + xp.tanh(y))


@gated.fault("optax#1754", "lower precision", dtypes=("float64",))
def through_single_precision(xp, g, x, y):
    t = xp.tanh(y)
    return (g.astype(xp.float32) * t.astype(xp.float32)).astype(g.dtype), g * x * (1 - t) * (1 + t)


@gated.fault("pytorch#194719", "dtype", form="numpy")
def wrong_dtype(xp, g, x, y):
    t = xp.tanh(y)
    return (g * t).astype(np.float16), g * x * (1 - t) * (1 + t)


@gated.fault(
    "jax#347", "nonfinite", inputs=lambda d: (d.normal(4, 3) * (d.unit(4, 3) > 0), d.normal(4, 3))
)
def zero_over_zero(xp, g, x, y):
    t = xp.tanh(y)
    return g * t * x / x, g * x * (1 - t) * (1 + t)


@gated.fault("sparse gradients thresholded", "condition")
def small_entries_dropped(xp, g, x, y):
    t = xp.tanh(y)
    return g * t, xp.where(abs(x) < 0.7, 0 * x, g * x * (1 - t) * (1 + t))
