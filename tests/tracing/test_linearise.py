"""The linear program of a function: which mode, what is left of it, whose lines it remembers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab.tracing import trace
from gradlab.tracing.jaxprs import body, contains, source
from gradlab.tracing.linearise import call_body, linearise, part_of_jax, stateful

X = np.ones((3, 2), np.float32)


def test_forward_mode_keeps_only_what_reaches_the_tangents():
    def f(x):
        jnp.sort(x)
        return jnp.tanh(x) + 1

    linear = linearise(trace(f, X), [0], [0])
    names = [equation.primitive.name for equation in body(linear.jaxpr).equations]
    assert (linear.mode, linear.seeds) == ("jvp", 1)
    assert "sort" not in names
    assert len(body(linear.jaxpr).invars) == 2
    assert source(body(linear.jaxpr).equations[0]).startswith("test_linearise.py:")


def test_a_custom_vjp_is_read_backwards_at_any_depth():
    f = jax.custom_vjp(jnp.sin)
    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (2 * g,))
    for function in (f, jax.jit(f), lambda x: jax.lax.map(f, x)):
        assert linearise(trace(function, X), [0], [0]).mode == "vjp"
    hidden = linearise(trace(lambda x: jax.lax.stop_gradient(f(x)) * x, X), [0], [0])
    assert hidden.mode == "jvp"


def test_what_neither_mode_differentiates_raises():
    def f(x):
        return jax.pure_callback(np.sin, x, x)

    with pytest.raises(Exception, match="callback"):
        linearise(trace(f, X), [0], [0])


def test_float64_stays_float64():
    linear = linearise(trace(jnp.tanh, np.ones(3)), [0], [0])
    assert linear.jaxpr.out_avals[0].dtype == np.float64


def test_calls_are_told_from_loops():
    def f(x):
        return jax.lax.fori_loop(0, 3, lambda i, y: jax.jit(jnp.sin)(y), jnp.where(x > 0, x, 0))

    by_name = {e.primitive.name: e for e in body(trace(f, X).jaxpr).equations}
    assert call_body(by_name["scan"]) is None
    assert part_of_jax(call_body(by_name["jit"]))


def test_mutable_arrays_inside_loops_are_found():
    def loop(x):
        box = jax.new_ref(x)
        jax.lax.fori_loop(0, 2, lambda i, _: box.__setitem__(i, x[0]), None)
        return box[...]

    def top(x):
        box = jax.new_ref(x)
        return box[...]

    assert stateful(trace(loop, X).jaxpr) == "swap"
    assert stateful(trace(top, X).jaxpr) == ""
    assert contains(trace(top, X).jaxpr, lambda e: e.primitive.name == "get")
