"""Values that reach an output without a derivative are named, and no others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from programs.drawn import draw

import gradlab

X = np.ones((4, 6), np.float32)


def attention(x):
    mask = jnp.tril(jnp.ones((x.shape[0], x.shape[0]), bool))
    return jax.nn.softmax(jnp.where(mask, x @ x.T, -jnp.inf)) @ jnp.where(x > 0, x, 0)


@pytest.mark.parametrize(
    ("function", "through"),
    [
        (lambda x: x * lax.stop_gradient(x.mean(0)), "stop_gradient"),
        (lambda x: jax.nn.one_hot(jnp.argmax(x, 1), 6), "argmax"),
        (lambda x: x[jnp.argmax(x, 1) % 4], "argmax"),
        (lambda x: jnp.floor(x), "floor"),
        (lambda x: x * x.sum().astype(jnp.int32), "a cast to integers"),
        (lambda x: lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x), "a comparison"),
        (lambda x: lax.while_loop(lambda c: c.sum() < 99, lambda c: c * 2, x), "a loop"),
    ],
)
def test_what_has_no_derivative_is_named_where_a_value_goes_beyond_the_pattern(function, through):
    J = gradlab.jacobian(function, X)
    assert J.unseen.startswith(f"x also reaches out through {through} at test_unseen.py:")
    assert J.unseen in J.why() and J.unseen in J.why(0) and J.unseen in " ".join(str(J).split())


def rows(step):
    return lambda x: lax.scan(lambda c, row: (c, step(row)), 0.0, x)[1]


@pytest.mark.parametrize(
    ("function", "through"),
    [
        (rows(lambda row: row * lax.stop_gradient(row.sum())), "stop_gradient"),
        (rows(lambda row: jnp.where(row > row.mean(), row, -row)), "a comparison"),
        (rows(lambda row: jax.nn.one_hot(jnp.argmax(row), 6) * row), "argmax"),
        (lambda x: lax.map(lambda row: row[::-1] * jnp.floor(row), x), "floor"),
        (
            lambda x: lax.scan(lambda c, v: (jnp.round(c) + v, v + jnp.round(c)), x[0], x)[1],
            "round",
        ),
        (
            lambda x: lax.fori_loop(0, 50, lambda k, y: y * (x.sum() > k).astype(y.dtype), x),
            "a comparison",
        ),
        (
            rows(lambda row: lax.while_loop(lambda r: r.sum() < 9, lambda r: r * 2, row)),
            "a comparison",
        ),
        (rows(lambda row: rows(lambda v: v * lax.stop_gradient(row[0]))(row)), "stop_gradient"),
    ],
)
def test_what_has_no_derivative_is_named_inside_of_loops(function, through):
    J = gradlab.jacobian(function, X)
    assert J.unseen.startswith(f"x also reaches out through {through} at test_unseen.py:")
    assert " and " not in J.unseen


@pytest.mark.parametrize(
    "function",
    [
        jax.nn.softmax,
        jax.nn.relu,
        attention,
        lambda x: jnp.where(x > 0, x, -x),
        lambda x: x + lax.stop_gradient(jnp.round(x) - x),
        lambda x: jnp.take_along_axis(x, jnp.argsort(x, axis=1), 1),
        lambda x: jnp.sort(x, 1) * jnp.sign(x.max(1, keepdims=True)),
        lambda x: lax.scan(lambda c, v: (c + v, jnp.where(v > 0, v, c)), x[0], x)[1],
        rows(jax.nn.softmax),
        rows(lambda row: jnp.sort(row) * jnp.round(row.max()) * row.sum()),
        lambda x: lax.scan(lambda c, v: (jnp.maximum(c, v), c), x[0] - x[0], x)[1],
    ],
)
def test_nothing_is_said_where_the_pattern_tells_all(function):
    assert gradlab.jacobian(function, X).unseen == ""


def test_what_conditions_hide_is_not_seen():
    def rounded(x):
        scores = jnp.where(jnp.tri(4, dtype=bool), x @ x.T, -1e30)
        return jax.nn.softmax(scores) @ jnp.round(x)

    J = gradlab.jacobian(rounded, X)
    assert "through round" in J.unseen
    assert J.under(1e6).unseen == ""


RULES = {"reversing rule", "clipping rule"}


def test_no_value_goes_beyond_a_pattern_without_a_word():
    for seed in range(0, 1000, 100):
        program = draw(seed)
        if RULES & set(program.names):
            continue
        J = gradlab.jacobian(program.function, np.zeros(program.shape, np.float32))
        point = np.random.default_rng(seed).standard_normal(program.shape).astype(np.float32)
        steps = 2 * np.eye(point.size, dtype=np.float32).reshape(-1, *program.shape)
        there = [np.ravel(program.function(at)) for at in (point, *(point + steps))]
        changed = ~np.isclose(there[1:], there[0], atol=1e-4, equal_nan=True).T
        assert J.unseen or not (changed & ~J.pattern.to_dense()).any(), (seed, program.names)
