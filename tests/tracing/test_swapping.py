"""A product that is only transposed: its operands are exchanged, and nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gradlab.tracing import lift, trace
from gradlab.tracing.jaxprs import body
from gradlab.tracing.lift import swapped

RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def product(a, b):
    return lax.dot_general(a, b, (((2,), (1,)), ((0,), (0,))))


CASES = {
    "plain": (lambda a, b: (a @ b).T, [draw(2, 3), draw(3, 5)], 1),
    "batched": (lambda a, b: product(a, b).transpose(0, 2, 1), [draw(4, 2, 3), draw(4, 3, 5)], 1),
    "several free axes": (
        lambda a, b: jnp.tensordot(a, b, ([1], [0])).transpose(2, 3, 0, 1),
        [draw(2, 3, 4), draw(3, 5, 6)],
        1,
    ),
    "columns alone": (
        lambda a, b: jnp.tensordot(a, b, 1).transpose(0, 2, 1),
        [draw(2, 3, 4), draw(4, 5)],
        2,
    ),
    "batch moved": (lambda a, b: product(a, b).T, [draw(4, 2, 3), draw(4, 3, 5)], 2),
    "used twice": (lambda a, b: (y := a @ b).T + y, [draw(3, 3), draw(3, 3)], 3),
    "both outputs": (lambda a, b: ((y := a @ b), y.T), [draw(3, 4), draw(4, 2)], 2),
    "to the power": (lambda a, b: ((a @ b).T @ b.T).T, [draw(3, 3), draw(3, 3)], 3),
    "precision": (
        lambda a, b: jnp.matmul(a, b, precision=("highest", "default")).T,
        [draw(2, 3), draw(3, 4)],
        1,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_values_stay_and_only_lone_products_are_exchanged(name):
    function, arguments, equations = CASES[name]
    parts = body(jax.make_jaxpr(function)(*arguments))
    assert len(swapped(parts.equations, parts.outvars)) == equations
    program = lift(trace(function, *arguments))
    with jax.enable_x64(True):
        wide = [jnp.asarray(a, jnp.float64) for a in arguments]
        expected = jax.tree.leaves(function(*wide))
        for found, wanted in zip(program(*wide), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-14, atol=1e-14)


def test_the_gradient_of_a_matrix_is_one_product():
    x, w = draw(8, 3), draw(3, 4)
    parts = body(jax.make_jaxpr(jax.grad(lambda w: jnp.sin(x @ w).sum()))(w))
    found = [e.primitive.name for e in swapped(parts.equations, parts.outvars)]
    assert "transpose" not in found and found[-1] == "dot_general"


def test_a_product_that_is_an_output_is_left():
    parts = body(jax.make_jaxpr(lambda a, b: ((y := a @ b), y.T))(draw(2, 3), draw(3, 4)))
    assert swapped(parts.equations, parts.outvars) == list(parts.equations)
