"""Structured operators read from programs, against JAX's VJPs, and in the bytes they need."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from one_by_one import jacobian_by_rows

from gradlab.nodes._registry import registry
from gradlab.operators import Operator
from gradlab.structure import jacobian

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 6)).astype(np.float32)
W = jnp.asarray(RNG.standard_normal((6, 3)), jnp.float32)


def softmax(x):
    e = jnp.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(x):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(var + 1e-5)


def batch_norm(x):
    return (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5)


def rms_norm(x):
    return x * lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-5)


@jax.custom_vjp
def ruled(x):
    return rms_norm(x)


ruled.defvjp(lambda x: (rms_norm(x), x), lambda x, g: jax.vjp(rms_norm, x)[1](g))

READ = {
    "tanh": (jnp.tanh, "diag(d)"),
    "softmax": (jax.nn.softmax, "diag(d) + u v' for each i"),
    "softmax by hand": (softmax, None),
    "layer norm": (layer_norm, "diag(d) + u 1' for each i + u v' for each i"),
    "standardize": (jax.nn.standardize, "diag(d) + u 1' for each i + u v' for each i"),
    "batch norm": (batch_norm, "diag(d) + u 1' for each j + u v' for each j"),
    "rms norm": (rms_norm, "diag(d) + u v' for each i"),
    "a custom backward": (ruled, None),
    "unit": (lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True), "diag(d) + u v' for each i"),
    "log softmax": (jax.nn.log_softmax, "I + 1 v' for each i"),
    "softmax, layer norm": (lambda x: layer_norm(jax.nn.softmax(x)), None),
    "product": (lambda x: x @ W, "W for each i"),
    "perceptron": (lambda x: jnp.tanh(x @ W) @ W.T, None),
    "sum": (lambda x: x.sum(), "1'"),
    "centred": (lambda x: x - x.mean(0), "I + c 1 1' for each j"),
    "mean": (lambda x: x.mean(), "c 1'"),
    "transpose": (lambda x: 2 * x.T, "c * I P"),
    "masked": (lambda x: jnp.where(x > 0, x, 0.1 * x), "diag(d)"),
    "heads": (lambda x: layer_norm(x.reshape(5, 2, 3)).reshape(5, 6), None),
    "outer": (lambda x: jnp.einsum("bi,bj->bij", x, x), None),
    "attention": (lambda x: softmax(x @ x.T) @ x, None),
    "another grid": (lambda x: jnp.sin(x.reshape(3, 10)), None),
    "loop": (lambda x: jnp.cumsum(jnp.sin(x), 0), None),
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", READ)
def test_the_operator_is_the_jacobian(name):
    function, formula = READ[name]
    J = jacobian(function, X)
    dense = jacobian_by_rows(function, X)
    operator = J.operator(X)
    assert isinstance(operator, Operator)
    assert np.allclose(operator.to_dense(), dense, atol=2e-5)
    assert np.allclose(operator.T.to_dense(), dense.T, atol=2e-5)
    assert formula in (None, str(operator))
    assert J.pattern.covers(operator.pattern)
    assert operator.stored_bytes <= 4 * np.prod(J.shape)
    assert np.allclose((operator.T @ operator).to_dense(), dense.T @ dense, atol=1e-4)


@pytest.mark.parametrize("name", ["softmax", "layer norm", "outer", "loop"])
def test_an_operator_is_made_and_applied_under_jit(name):
    function, _ = READ[name]
    J = jacobian(function, X)
    tangent = RNG.standard_normal(X.shape).astype(np.float32)
    under = jax.jit(lambda x, t: J.operator(x) @ t)(X, tangent)
    expected = jax.jvp(function, (X,), (tangent,))[1]
    assert np.allclose(np.ravel(under), np.ravel(expected), atol=1e-4)


def test_large_rows_take_the_bytes_of_their_vectors():
    x = jnp.ones((100, 512))
    J = jacobian(jax.nn.softmax, x)
    assert J.operator(x).stored_bytes < 1e6 < 1e8 < J.stored_bytes


def test_what_has_no_terms_is_a_program_and_says_so():
    operator = jacobian(lambda x: jnp.cumsum(x, 0), X).operator(X)
    assert str(operator) == "JVP of the program (cumsum has no terms)"
    assert operator.stored_bytes == 0


def test_values_do_not_decide_the_structure():
    def scaled(x, y):
        return x * y

    J = jacobian(scaled, X, X, wrt="x")
    assert str(J.operator(X, np.ones_like(X))) == str(J.operator(X, X)) == "diag(d)"
    assert set(jacobian(scaled, X, X).operator(X, X)) == {("output", "x"), ("output", "y")}


NODES = sorted(registry())


@pytest.mark.parametrize("every", [24, pytest.param(8, marks=pytest.mark.slow)])
def test_nodes_need_hardly_more_bytes_than_their_hand_written_gradients(every):
    fewer = total = 0
    for name in NODES[::every]:
        case = next(iter(registry()[name]().cases()))
        inputs = case.draw(0)
        out, residuals = case.node.forward(*inputs)
        if isinstance(out, tuple):
            continue
        J = jacobian(case.node.reference, *inputs)
        found = J.operator(*inputs)
        blocks = found if isinstance(found, dict) else dict.fromkeys(J.patterns, found)
        paths = [leaf.path for leaf in J.derivative.program.leaves]
        for (_, path), operator in blocks.items():
            hand = case.node.local_gradient(residuals)[paths.index(path)]
            if hand is None or np.prod(hand.shape) > 1e6:
                continue
            expected = np.asarray(hand.to_dense())
            size = max(1.0, np.abs(expected).max(initial=0))
            assert np.allclose(operator.to_dense(), expected, atol=1e-6 * size), (name, path)
            total += 1
            fewer += operator.stored_bytes <= hand.stored_bytes
    assert fewer >= 0.8 * total
