"""What a transformer block may not do: leak across the batch, or see the future. Both are proved.

The proof reads the program, so it holds for every input and any size. A block whose normalisation
runs over the batch fails, and the failure names the line.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab

BATCH, TIME, WIDTH = 3, 6, 8


def normalise(x, axis):
    centred = x - x.mean(axis, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(axis, keepdims=True) + 1e-5)


def attention(x, w):
    q, k, v = jnp.split(x @ w, 3, axis=-1)
    scores = jnp.einsum("btd,bsd->bts", q, k) / WIDTH**0.5
    past = jnp.tril(jnp.ones((TIME, TIME), bool))
    return jax.nn.softmax(jnp.where(past, scores, -jnp.inf)) @ v


def block(x, p, axis=-1):
    x = x + attention(normalise(x, axis), p["attention"])
    return x + jax.nn.gelu(normalise(x, axis) @ p["up"]) @ p["down"]


RNG = np.random.default_rng(0)
X = RNG.normal(size=(BATCH, TIME, WIDTH)).astype(np.float32)
P = {
    "attention": RNG.normal(size=(WIDTH, 3 * WIDTH)).astype(np.float32),
    "up": RNG.normal(size=(WIDTH, 2 * WIDTH)).astype(np.float32),
    "down": RNG.normal(size=(2 * WIDTH, WIDTH)).astype(np.float32),
}


def test_the_batch_does_not_leak_and_the_future_is_not_seen(jacobian):
    jacobian(lambda x: block(x, P), X).assert_independent(0).assert_causal(1)


def test_a_leak_is_named_with_its_line():
    with pytest.raises(gradlab.StructureMismatch, match=r"test_transformer_block\.py"):
        gradlab.assert_structure(lambda x: block(x, P, axis=0), X, independent=0)
