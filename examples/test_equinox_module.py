"""A layer of a third-party library: an Equinox module is a pytree, its parameters are inputs.

`gradcheck` holds the gradient of every parameter; `gradaudit` meets each custom rule that the
module calls, here JAX's own relu and an activation with a hand-written rule.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab

equinox = pytest.importorskip("equinox", reason="Equinox is not installed (extra: bench)")


def make_softsign(*, power):
    @jax.custom_jvp
    def softsign(x):
        return x / (1 + jnp.abs(x))

    softsign.defjvps(lambda tangent, _, x: tangent / (1 + jnp.abs(x)) ** power)
    return softsign


def mlp(activation):
    return equinox.nn.MLP(
        4, 3, 8, depth=2, activation=activation, final_activation=jax.nn.relu, key=jax.random.key(0)
    )


def call(layer, x):
    return layer(x)


X = np.random.default_rng(0).normal(size=4).astype(np.float32)


def test_the_gradients_of_a_module_and_its_input(gradcheck):
    report = gradcheck(call, mlp(make_softsign(power=2)), X)
    assert any("weight" in leaf.path for leaf in report.leaves)


def test_every_rule_inside_a_module(gradaudit):
    report = gradaudit(call, mlp(make_softsign(power=2)), X)
    assert {rule.name for rule in report.rules} == {"softsign", "relu"}


def test_a_wrong_rule_inside_a_module_is_found():
    report = gradlab.audit(call, mlp(make_softsign(power=1)), X)
    right = {rule.name: rule.report.ok for rule in report.rules}
    assert right == {"softsign": False, "relu": True}
