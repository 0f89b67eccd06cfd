"""Kernels as programs: what Pallas interprets, lifted and differentiated."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs.kernels import KERNELS, compiled_tanh, tanh

import gradlab
from gradlab.tracing import iterates, lift, opaque, open_kernels, trace, without_checks
from gradlab.tracing.jaxprs import contains

X = np.linspace(-1.0, 1.0, 24, dtype=np.float32).reshape(4, 6)


@pytest.mark.parametrize("name", KERNELS)
def test_an_opened_kernel_computes_what_the_kernel_does(name):
    kernel = KERNELS[name]
    inputs = kernel.inputs("float32")
    opened = open_kernels(trace(kernel.function, *inputs))
    np.testing.assert_allclose(opened.flat(*inputs)[0], kernel.function(*inputs), rtol=1e-6)


@pytest.mark.parametrize("name", KERNELS)
def test_an_opened_kernel_has_the_gradient_of_plain_code(name):
    kernel = KERNELS[name]
    inputs = kernel.inputs("float32")
    opened = open_kernels(trace(kernel.function, *inputs))
    out, pull = jax.vjp(lambda *a: opened.flat(*a)[0], *inputs)
    u = jnp.asarray(np.random.default_rng(1).standard_normal(out.shape), jnp.float32)
    for ours, theirs in zip(pull(u), jax.vjp(kernel.plain, *inputs)[1](u)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_is_lifted_to_float64(name):
    kernel = KERNELS[name]
    inputs = kernel.inputs("float32")
    program = trace(kernel.function, *inputs)
    assert opaque(program) == []
    with without_checks():
        wide = [np.asarray(x, np.float64) for x in inputs]
        found = np.asarray(lift(program)(*wide)[0])
        exact = np.asarray(kernel.plain(*map(jnp.asarray, wide)))
    np.testing.assert_allclose(found, exact, rtol=1e-13, atol=1e-15)


def test_a_kernel_for_an_accelerator_is_opened_where_there_is_none():
    program = trace(compiled_tanh, X)
    np.testing.assert_allclose(open_kernels(program).flat(X)[0], np.tanh(X), rtol=1e-6)
    with without_checks(), jax.default_device("cpu"):
        found = lift(program)(X.astype(np.float64))[0]
    np.testing.assert_allclose(found, np.tanh(X.astype(np.float64)), rtol=1e-13)


def test_a_kernel_inside_a_loop_and_a_branch_is_opened():
    def function(x):
        rows = jax.lax.map(lambda row: tanh(row[None])[0], x)
        return jax.lax.cond(x[0, 0] < 0, lambda y: tanh(y), lambda y: y, rows)

    opened = open_kernels(trace(function, X))
    assert "pallas_call" not in str(opened.jaxpr)
    np.testing.assert_allclose(opened.flat(X)[0], np.tanh(np.tanh(X)), rtol=1e-6)


def test_a_kernel_that_pallas_cannot_interpret_stays_closed(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax._src.pallas.hlo_interpreter", None)
    program = trace(tanh, X * 0.9)
    assert open_kernels(program) is program
    assert [part.name for part in opaque(program)] == ["pallas_call"]
    kernel = KERNELS["tanh"]
    right = gradlab.check(kernel.layer(), jnp.asarray(X), reference=jnp.tanh)
    assert right.ok and any("runs as traced" in note for note in right.notes)
    assert gradlab.check(kernel.layer(1.01), jnp.asarray(X), reference=jnp.tanh).failed


def test_a_loop_that_counts_does_not_iterate():
    def counts(x, n):
        return jax.lax.fori_loop(0, n, lambda i, y: jnp.sin(y), x)

    def converges(x):
        return jax.lax.while_loop(lambda y: jnp.abs(y).max() > 0.1, lambda y: y / 2, x)

    def decides(x):
        def step(state):
            y, _ = state
            return y / 2, jnp.abs(y).max() > 0.1

        return jax.lax.while_loop(lambda state: state[1], step, (x, jnp.array(True)))[0]

    assert not iterates(trace(counts, X, np.array(5)))
    assert iterates(trace(converges, X)) and iterates(trace(decides, X))


def test_a_rule_stays_a_rule_where_kernels_are_opened():
    layer = KERNELS["tanh"].layer(3.0)
    opened = open_kernels(trace(lambda x: layer(tanh(x)), X))
    found = jax.grad(lambda x: opened.flat(x)[0].sum())(jnp.asarray(X))
    y = np.tanh(X)
    np.testing.assert_allclose(found, 3 * (1 - np.tanh(y) ** 2) * (1 - y**2), rtol=1e-4)


def test_a_kernel_with_a_primitive_that_cannot_be_batched_is_opened():
    """JAX's own layer norm spreads its rows by a primitive of Triton's."""
    norms = pytest.importorskip("jax.experimental.pallas.ops.gpu.layer_norm")
    x, w = jnp.linspace(-1.0, 2.0, 32).reshape(1, 4, 8), jnp.linspace(0.5, 1.5, 8)

    def pulled(x, w, b):
        out, pull = jax.vjp(lambda *args: norms.layer_norm(*args, interpret=True), x, w, b)
        return pull(out)

    batched = jax.vmap(pulled, in_axes=(0, None, None))
    program = open_kernels(trace(batched, jnp.stack([x, x + 1, -x]), w, jnp.zeros(8)))
    assert not contains(program.jaxpr, lambda equation: equation.primitive.name == "pallas_call")
