"""Graphs of JAX functions against jax.grad: calls, loops, custom rules, pytrees, dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab import Graph
from gradlab.errors import GradlabError

RNG = np.random.default_rng(0)


@jax.custom_vjp
def scaled(x):
    return jnp.tanh(x)


scaled.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (3.0 * g,))  # its rule is what must count


def model(parameters, x, n):
    h = jax.nn.relu(x @ parameters["w"] + parameters["b"])
    h = scaled(h)
    y, _ = jax.lax.scan(lambda c, a: (c * a, c), h[0], h)
    s = jnp.where(h > 0.1, h, 0).sum() + jax.nn.softmax(h)[n].sum()
    return {"loss": jnp.var(y) + s, "state": h}


def inputs(dtype):
    parameters = {"w": RNG.standard_normal((3, 4)), "b": RNG.standard_normal(4), "mode": "train"}
    cast = {k: v.astype(dtype) if hasattr(v, "astype") else v for k, v in parameters.items()}
    return cast, RNG.standard_normal((2, 3)).astype(dtype), np.int32(1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_is_the_function_and_its_gradient(dtype) -> None:
    parameters, x, n = inputs(dtype)
    g = Graph.from_jax(model, parameters, x, n)
    upstream = {"loss": dtype(0.5), "state": RNG.standard_normal((2, 4)).astype(dtype)}
    output, (found, dx, dn) = g.value_and_gradient(parameters, x, n, upstream=upstream)
    with jax.enable_x64(dtype == np.float64):
        arrays = {k: parameters[k] for k in ("w", "b")}
        expected, pull = jax.vjp(lambda p, x: model(p, x, n), arrays, x)
        dp, ex = jax.tree.map(np.asarray, pull(jax.tree.map(jnp.asarray, upstream)))
        expected = jax.tree.map(np.asarray, expected)
    close = {"rtol": 1e-5 if dtype == np.float32 else 1e-12, "atol": 1e-6}
    for a, b in ((output["loss"], expected["loss"]), (output["state"], expected["state"])):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, **close)
    for a, b in ((found["w"], dp["w"]), (found["b"], dp["b"]), (dx, ex)):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, **close)
    assert found["mode"] is None and dn is None


def test_calls_are_groups_that_open_and_loops_are_one_node() -> None:
    g = Graph.from_jax(model, *inputs(np.float32))
    assert {"matmul", "relu", "scaled", "scan[0]", "var", "where"} <= set(g.names)
    before = g.backward(g.ones())
    members = {gate.node: gate.members for gate in g.report().gates}
    assert members["var"] > 4 and members["scan x2"] == 0
    g.ungroup("var")
    assert "var/square" in g.names
    jax.tree.map(np.testing.assert_array_equal, g.backward(g.ones()), before)
    opened = [gate for gate in g.report().gates if gate.frame == ("var",)]
    assert opened and all(gate.line.startswith("test_from_jax.py:") for gate in opened)


def test_a_jitted_function_is_opened() -> None:
    g = Graph.from_jax(jax.jit(lambda x: jnp.sin(x) * x), np.ones(3, np.float32))
    assert g.names == ["x", "sin", "multiply"]


@pytest.mark.parametrize("function", [jnp.sin, jnp.arctan, lambda x: jnp.cumsum(x), jax.nn.gelu])
def test_local_gradients_are_jacobians(function) -> None:
    x = np.array([0.3, -0.7, 0.9])
    g = Graph.from_jax(function, x)
    last = g.names[-1]
    with jax.enable_x64(True):
        expected = np.asarray(jax.jacrev(function)(x))
    if g.report().gates[-1].inputs == ("x",):
        found = g.local_gradients[last, 0]
        np.testing.assert_allclose(np.asarray(found.to_dense()), expected, rtol=1e-12)
        np.testing.assert_allclose(np.asarray(found.T.to_dense()), expected.T, rtol=1e-12)
    np.testing.assert_allclose(g.backward(np.ones(3)), expected.sum(axis=0), rtol=1e-12)


def test_a_function_without_equations() -> None:
    g = Graph.from_jax(lambda x: x, np.ones(2, np.float32))
    np.testing.assert_array_equal(g.backward(np.full(2, 3.0, np.float32)), [3, 3])


def test_it_runs_under_the_users_switches() -> None:
    x = np.array([0.5, -1.0], np.float32)
    with jax.debug_nans(True), jax.numpy_rank_promotion("raise"):
        g = Graph.from_jax(lambda x: jnp.log(x) * 2, x)
        g.backward(np.ones(2, np.float32))
    assert any("first NaN is log (log, test_from_jax.py:" in line for line in g.report().findings)


def test_what_cannot_be_traced_is_said() -> None:
    with pytest.raises(GradlabError, match="reads values"):
        Graph.from_jax(lambda x: x if x > 0 else -x, np.float32(1))
