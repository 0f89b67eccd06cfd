"""A Pallas kernel with a hand-written backward: checked by itself, audited inside a model.

JAX does not differentiate a kernel backwards, but Pallas can interpret it: gradlab reads what is
computed, block after block, and so has autodiff of the kernel's own forward as the reference, in
float64, and proves the shape of its Jacobian. A `reference=` in plain code is a second opinion. The
wrong twin lacks the term of x in swish's derivative. The CPU runs the kernel interpreted; on an
accelerator leave `interpret=True` out: the same tests then check it compiled.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas

import gradlab


def swish_kernel(x_ref, out_ref):
    x = x_ref[...]
    out_ref[...] = x / (1 + jnp.exp(-x))


def run(x):
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return pallas.pallas_call(swish_kernel, out_shape=shape, interpret=True)(x)


def make_swish(*, complete):
    @jax.custom_vjp
    def swish(x):
        return run(x)

    def backward(x, upstream):
        s = jax.nn.sigmoid(x)
        return (upstream * s * (1 + x * (1 - s)) if complete else upstream * s,)

    swish.defvjp(lambda x: (run(x), x), backward)
    return swish


swish, lacks_a_term = make_swish(complete=True), make_swish(complete=False)
RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(4, 3)).astype(np.float32), RNG.normal(size=(3, 5)).astype(np.float32)


def test_the_kernel_against_plain_code(gradcheck):
    gradcheck(swish, X, reference=lambda x: x * jax.nn.sigmoid(x))


def test_the_kernel_against_itself(gradcheck):
    gradcheck(swish, X)


def test_the_kernel_is_elementwise(jacobian):
    jacobian(swish, X).assert_elementwise()


def test_the_kernel_inside_a_model(gradaudit):
    report = gradaudit(lambda x, w: jnp.tanh(swish(x @ w)), X, W)
    assert [rule.name for rule in report.rules] == ["swish"]


def test_a_missing_term_is_found():
    report = gradlab.audit(lambda x, w: jnp.tanh(lacks_a_term(x @ w)), X, W)
    assert [rule.name for rule in report.rules] == ["swish"]
    assert report.rules[0].report.failed
