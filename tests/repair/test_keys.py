"""Layers that draw random numbers from a key that they are given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab

KEEP = 0.7
X = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)


@jax.custom_vjp
def dropout(x, key):
    kept = jax.random.bernoulli(key, KEEP, x.shape)
    return jnp.where(kept, x / KEEP, 0.0)


def dropout_forward(x, key):
    kept = jax.random.bernoulli(key, KEEP, x.shape)
    return jnp.where(kept, x / KEEP, 0.0), kept


def dropout_backward(kept, upstream):
    return jnp.where(kept, upstream, 0.0), None


dropout.defvjp(dropout_forward, dropout_backward)


@jax.custom_vjp
def noisy(x, size, key):
    return x + size * jax.random.normal(key, x.shape)


def noisy_forward(x, size, key):
    noise = jax.random.normal(key, x.shape)
    return x + size * noise, noise


def noisy_backward(noise, upstream):
    return upstream, jnp.mean(upstream * noise), None


noisy.defvjp(noisy_forward, noisy_backward)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
def test_dropout_that_forgets_its_rate_is_mended(make):
    report = gradlab.check(dropout, X, make(3))
    assert report.status == "wrong"
    assert "/ KEEP" in report.fixes[0].after[0]


def test_noise_is_mended_under_a_batch_of_keys():
    def batched(x, size, keys):
        return jax.vmap(noisy, (0, None, 0))(x, size, keys)

    report = gradlab.check(batched, X, np.float32(0.3), jax.random.split(jax.random.key(3), len(X)))
    assert report.status == "wrong"
    assert "jnp.sum(upstream * noise)" in report.fixes[0].after[0]


def test_a_key_that_a_rule_closes_over_hinders_no_fix():
    key = jax.random.key(3)
    report = gradlab.audit(lambda x: dropout(x, key).sum(), X)
    assert "/ KEEP" in report.rules[0].fixes[0].after[0]


@pytest.mark.parametrize("factor", [1.0, 1.1])
def test_a_rule_may_return_the_next_key(factor):
    @jax.custom_vjp
    def stepped(x, key):
        now, later = jax.random.split(key)
        return x * jax.random.normal(now, x.shape), later

    def forward(x, key):
        now, later = jax.random.split(key)
        noise = jax.random.normal(now, x.shape)
        return (x * noise, later), noise

    stepped.defvjp(forward, lambda noise, upstream: (factor * upstream[0] * noise, None))
    report = gradlab.check(stepped, X, jax.random.key(3))
    assert report.status == ("right" if factor == 1.0 else "wrong"), report
