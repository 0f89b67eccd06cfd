"""Diagnoses of another input that was read wrongly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from repair.patched import patched

import gradlab

RNG = np.random.default_rng(0)
SQUARE = [RNG.standard_normal((4, 4)).astype(np.float32) for _ in range(2)]
THREE = [RNG.standard_normal((5, 3)).astype(np.float32) for _ in range(3)]


def product(x, w):
    return x @ w


def gated(x, gate, w):
    return x * gate * w


CASES = {
    "input negated": (jax.nn.relu, lambda u, x: (u * (x < 0),), THREE[:1], "x"),
    "input ignored": (gated, lambda u, x, g, w: (u * g, u * x * w, u * x * g), THREE, "x"),
    "input flipped": (
        gated, lambda u, x, g, w: (u * g * w, u * x * w, u * x[::-1] * g), THREE, "w"
    ),
    "input transposed": (product, lambda u, x, w: (u @ w.T, x @ u), SQUARE, "w"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_what_was_read_wrongly_is_named(kind):
    function, backward, inputs, path = CASES[kind]
    layer = jax.custom_vjp(function)
    layer.defvjp(
        lambda *inputs: (function(*inputs), inputs), lambda inputs, u: backward(u, *inputs)
    )
    report = gradlab.check(layer, *map(jnp.asarray, inputs))
    found = [(found.kind, found.path) for found in report.findings]
    assert found == [(kind, path)] or (report.fixes and not found), report
    for fix in report.fixes:
        mended = patched(fix)["CASES"][kind][1]
        given = [jnp.asarray(RNG.standard_normal(x.shape)) for x in inputs]
        output, pull = jax.vjp(function, *given)
        upstream = jnp.asarray(RNG.standard_normal(output.shape))
        for came, right in zip(mended(upstream, *given), pull(upstream), strict=True):
            np.testing.assert_allclose(came, right, rtol=1e-4, atol=1e-5)


def test_what_is_right_if_an_input_is_all_ones_is_no_diagnosis_of_that_input_itself():
    """A gradient of one is what x would have at x = 1: nothing was left out of x * x / 2."""
    layer = jax.custom_vjp(lambda x: x * x / 2)
    layer.defvjp(lambda x: (x * x / 2, x), lambda x, u: (u,))
    report = gradlab.check(layer, jnp.asarray(THREE[0]))
    assert report.failed and all(found.kind != "input ignored" for found in report.findings)
