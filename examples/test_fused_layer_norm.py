"""A fused layer norm with a hand-written backward: checked with no reference to write.

`gradcheck` reads the function that the rule decorates and differentiates that. In the wrong twin
the mean's term is missing from dx, as happens when the statistics are taken for constants; the
check says where and by how much.
"""

import jax
import numpy as np
import pytest

import gradlab


def normalise(x):
    centred = x - x.mean(-1, keepdims=True)
    rstd = jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return centred * rstd, rstd


def make_layer_norm(*, subtract_mean):
    @jax.custom_vjp
    def layer_norm(x, scale, shift):
        return normalise(x)[0] * scale + shift

    def forward(x, scale, shift):
        normal, rstd = normalise(x)
        return normal * scale + shift, (normal, rstd, scale)

    def backward(residuals, upstream):
        normal, rstd, scale = residuals
        g = upstream * scale
        along = (g * normal).mean(-1, keepdims=True)
        mean = g.mean(-1, keepdims=True) if subtract_mean else 0.0
        dx = rstd * (g - mean - normal * along)
        return dx, (upstream * normal).sum(0), upstream.sum(0)

    layer_norm.defvjp(forward, backward)
    return layer_norm


RNG = np.random.default_rng(0)
X, SCALE, SHIFT = RNG.normal(size=(6, 16)), RNG.normal(size=16), RNG.normal(size=16)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_layer_norm_is_right(gradcheck, dtype):
    gradcheck(make_layer_norm(subtract_mean=True), X, SCALE, SHIFT, dtypes=[dtype])


def test_a_missing_term_is_found():
    wrong = make_layer_norm(subtract_mean=False)
    with pytest.raises(gradlab.GradientMismatch) as caught:
        gradlab.assert_gradients(wrong, X, SCALE, SHIFT)
    assert caught.value.report.worst.path == "x"
