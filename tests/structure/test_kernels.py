"""The structure of kernels, proved from the program that Pallas interprets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs.kernels import KERNELS, SHAPE, call

import gradlab
from gradlab import InputError

STRUCTURES = {"tanh": "diagonal", "softmax": "block-diagonal"}


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_structure_of_a_kernel_with_a_rule_is_proved(name):
    kernel = KERNELS[name]
    report = gradlab.jacobian(kernel.layer(), *kernel.inputs("float32"))
    assert report.structure == STRUCTURES[name] and report.evidence == "proved"
    assert not report.unknown


def test_a_backward_that_is_a_kernel_itself():
    def kernel(y_ref, u_ref, out_ref):
        out_ref[...] = u_ref[...] * (1 - y_ref[...] ** 2)

    tanh = KERNELS["tanh"].function
    layer = jax.custom_vjp(tanh)
    layer.defvjp(
        lambda x: (tanh(x),) * 2, lambda y, u: (call(kernel, SHAPE(y.shape, y.dtype), y, u),)
    )
    (x,) = KERNELS["tanh"].inputs("float32")
    report = gradlab.jacobian(layer, x)
    assert report.structure == "diagonal" and not report.unknown
    assert gradlab.check(layer, x).ok


@pytest.mark.parametrize("name", KERNELS)
def test_the_pattern_of_a_kernel_covers_its_jacobian(name):
    """Without a rule: JAX may refuse to differentiate it, and what it computes is read instead."""
    kernel = KERNELS[name]
    inputs = kernel.inputs("float32")
    report = gradlab.jacobian(kernel.function, *inputs)
    exact = jax.jacfwd(kernel.plain, argnums=tuple(range(len(inputs))))(*inputs)
    for pattern, block in zip(report.patterns.values(), exact, strict=True):
        found = pattern.to_dense()
        assert not ((np.asarray(block).reshape(found.shape) != 0) & ~found.astype(bool)).any()
    dense = np.concatenate([np.asarray(b).reshape(-1, x.size) for b, x in zip(exact, inputs)], 1)
    np.testing.assert_allclose(report.to_dense(), dense, rtol=1e-4, atol=1e-6)


def test_what_neither_jax_nor_pallas_differentiates_is_said():
    def function(x):
        return jax.pure_callback(np.tanh, SHAPE(x.shape, x.dtype), x)

    with pytest.raises(InputError, match="neither forwards nor backwards"):
        gradlab.jacobian(function, jnp.ones(3))
