"""A fix is right by what the user says is right: `reference=`, or `intended=`."""

import jax
import jax.numpy as jnp
import numpy as np
from repair.patched import patched

import gradlab

X = np.array([-0.5, 0.3, 1.7, 2.5])


@jax.custom_vjp
def wave(x):
    return jnp.sin(x)


def wave_backward(x, g):
    return (g * jnp.cos(x) * 3,)


wave.defvjp(lambda x: (wave(x), x), wave_backward)


def doubled(x):
    return 2 * jnp.sin(x)


def cube_backward(g, x):
    return 2 * g * x * x


def test_what_is_intended_decides_which_edit_is_right():
    report = gradlab.check(wave, X, intended=doubled)
    space = patched(report.fixes[0])
    assert gradlab.check(space["wave"], X, intended=doubled).ok
    _, pull = jax.vjp(space["wave"], jnp.asarray(X))
    np.testing.assert_allclose(pull(jnp.ones(4))[0], 2 * np.cos(X), rtol=1e-6)


def test_the_derivative_of_another_function_is_never_offered():
    report = gradlab.check(wave, X, intended=lambda x: x * x)
    for fix in report.fixes:
        assert gradlab.check(patched(fix)["wave"], X, intended=lambda x: x * x).ok


def test_a_reference_decides_too():
    report = gradlab.check(lambda x: x**3, X, backward=cube_backward, reference=lambda x: x * x * x)
    space = patched(report.fixes[0])
    np.testing.assert_allclose(space["cube_backward"](np.ones(4), X), 3 * X**2)


def test_a_rule_inside_is_not_held_to_what_the_whole_means():
    report = gradlab.check(lambda x: wave(x) + x, X, intended=lambda x: 2 * jnp.sin(x) + x)
    assert report.status == "wrong" and not report.fixes


def test_nobody_is_told_to_intend_something_else():
    @jax.custom_vjp
    def quantised(x):
        return jnp.floor(jnp.clip(x, 0, 2))

    quantised.defvjp(lambda x: (quantised(x), None), lambda _, g: (g,))
    report = gradlab.check(quantised, X, intended=lambda x: jnp.clip(x, 0, 2))
    assert report.status == "wrong" and "pass intended=" not in str(report)


@jax.custom_vjp
def stack(first, second, x):
    return jnp.tanh(jnp.tanh(x @ first) @ second).sum(-1)


def stack_forward(first, second, x):
    a = jnp.tanh(x @ first)
    b = jnp.tanh(a @ second)
    return b.sum(-1), (first, second, x, a, b)


def stack_backward(kept, g):
    first, second, x, a, b = kept

    def below(dy, y, inner, w):
        d = dy * (1 - y**2)
        return d @ w.T, inner.T @ d

    dy = jnp.broadcast_to(g[:, None], b.shape)
    dy, top = below(dy, a, a, second)
    dx, bottom = below(dy, a, x, first)
    return bottom, top, dx


stack.defvjp(stack_forward, stack_backward)


def test_what_returns_several_things_of_different_shapes_is_mended():
    rng = np.random.default_rng(0)
    shapes = (3, 4), (4, 4), (5, 3)
    report = gradlab.check(stack, *(rng.normal(size=shape) for shape in shapes))
    assert report.fixes[0].after[0].strip() == "dy, top = below(dy, b, a, second)"
