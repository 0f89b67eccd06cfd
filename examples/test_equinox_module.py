"""A layer of a third-party library: an Equinox module is a pytree, its parameters are inputs."""

import jax
import numpy as np
import pytest

equinox = pytest.importorskip("equinox", reason="Equinox is not installed (extra: bench)")


def test_the_gradients_of_a_module_and_its_input(gradcheck):
    layer = equinox.nn.MLP(4, 3, 8, depth=1, activation=jax.nn.tanh, key=jax.random.key(0))
    x = np.random.default_rng(0).normal(size=4).astype(np.float32)
    report = gradcheck(lambda layer, x: layer(x), layer, x)
    assert any("weight" in leaf.path for leaf in report.leaves)
