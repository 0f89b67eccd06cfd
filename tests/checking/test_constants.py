"""Constants keep their digits however they are written, and what is exact is not called rounded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab


def with_rule(function, backward):
    rule = jax.custom_vjp(function)
    rule.defvjp(lambda *xs: (function(*xs), xs), lambda xs, g: backward(g, *xs))
    return rule


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_constant_that_fills_an_array_is_the_constant(dtype):
    x = jnp.asarray([1.0, 2.0, 3.0, -4.0], dtype)
    for factor, right in ((0.1, True), (0.11, False)):

        def backward(g, x, factor=factor):
            return (g * jnp.full(x.shape, factor, x.dtype),)

        report = gradlab.check(with_rule(lambda x: x * 0.1, backward), x)
        assert report.ok == right, report


def test_masks_made_of_integers_have_all_digits():
    def loss(logits, labels):
        return -jax.nn.log_softmax(logits)[jnp.arange(4), labels].mean()

    def backward(g, logits, labels):
        p = jax.nn.softmax(logits)
        return g * (p - jax.nn.one_hot(labels, 5, dtype=p.dtype)) / 4, None

    logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5)), jnp.float32)
    report = gradlab.check(with_rule(loss, backward), logits, jnp.array([0, 3, 1, 1]))
    assert report.ok and not any(law.status == "warned" for law in report.laws), report


def test_bounds_given_as_integers_have_all_digits_in_half_precision():
    rule = with_rule(
        lambda x: jnp.where(jnp.abs(x) <= 1, 0.5 * x * x, jnp.abs(x) - 0.5),
        lambda g, x: (g * jnp.clip(x, -1, 1),),
    )
    report = gradlab.check(rule, jnp.asarray([-3.0, -0.5, 0.25, 2.0], jnp.float16))
    assert report.status == "right" and report.leaves[0].right == 4
    assert not any(law.status == "warned" for law in report.laws), report


def test_a_rule_may_write_into_a_copy_of_an_array_that_it_closes_over():
    table = jnp.asarray([1.0, 2.0, 3.0])

    def backward(g, x, last):
        return (g * table.at[2].set(last),)

    for last, right in ((3.0, True), (0.5, False)):
        rule = with_rule(lambda x: x * table, lambda g, x, last=last: backward(g, x, last))
        assert gradlab.check(rule, jnp.ones(3)).ok == right
