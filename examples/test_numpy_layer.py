"""A layer in the course's form, NumPy alone: `out, cache = forward(...)`, `backward(dout, cache)`.

JAX cannot look inside, so finite differences with an error estimate are the witness. The second
layer forgets that x is used twice: in the product and in the skip connection.
"""

import numpy as np
import pytest

import gradlab


def affine_relu_forward(x, w, b):
    hidden = x @ w + b
    return np.maximum(hidden, 0) + x, (x, w, hidden)


def affine_relu_backward(upstream, cache):
    x, w, hidden = cache
    g = upstream * (hidden > 0)
    return g @ w.T + upstream, x.T @ g, g.sum(0)


def forgets_the_skip(upstream, cache):
    dx, dw, db = affine_relu_backward(upstream, cache)
    return dx - upstream, dw, db


RNG = np.random.default_rng(1)
INPUTS = RNG.normal(size=(5, 4)), RNG.normal(size=(4, 4)), RNG.normal(size=4)


def test_the_layer_is_right(gradcheck):
    gradcheck(
        affine_relu_forward, *INPUTS, backward=affine_relu_backward, returns="output+residuals"
    )


def test_a_forgotten_branch_is_found():
    with pytest.raises(gradlab.GradientMismatch, match="x"):
        gradlab.assert_gradients(
            affine_relu_forward, *INPUTS, backward=forgets_the_skip, returns="output+residuals"
        )
