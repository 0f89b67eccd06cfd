"""A gradient that lies on purpose: rounding forward, the identity backward.

Held against its own forward, a straight-through estimator is wrong, and the check says so. Stating
the intention as `reference=`, a function with the same value and the gradient that is meant, makes
it a pass, and keeps the rule honest from then on (Bengio et al. 2013, arXiv:1308.3432).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab


@jax.custom_vjp
def round_through(x):
    return jnp.round(x)


round_through.defvjp(lambda x: (jnp.round(x), None), lambda _, upstream: (upstream,))


def intended(x):
    return x + jax.lax.stop_gradient(jnp.round(x) - x)


X = np.array([0.2, 1.7, -0.4, 2.6])


def test_the_intention_is_met(gradcheck):
    gradcheck(round_through, X, reference=intended)


def test_without_the_intention_it_is_a_mismatch():
    with pytest.raises(gradlab.GradientMismatch):
        gradlab.assert_gradients(round_through, X)
