"""Digits that are left: a right formula is not ok where its numbers are worthless."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab


def with_rule(function, backward):
    rule = jax.custom_vjp(function)
    rule.defvjp(lambda x: (function(x), x), lambda x, g: (backward(x, g),))
    return rule


def cancels(x, g):  # log1p(x) - x + x**2 / 2 has slope x**2 / (1 + x)
    return g * (1 / (1 + x) - 1 + x)


def series(x):
    return x**3 * (1 / 3 - x * (1 / 4 - x * (1 / 5 - x * (1 / 6 - x / 7))))


def test_digits_that_autodiff_keeps_are_missed():
    x = jnp.asarray([3e-4, 1.0, 1e-4], jnp.float32)
    exact = with_rule(series, lambda x, g: g * jax.vjp(series, x)[1](jnp.ones_like(x))[0])
    assert gradlab.check(exact, x).status == "right"
    report = gradlab.check(with_rule(series, lambda x, g: cancels(x, g)), x[jnp.array([0, 2])])
    digits = report.digits["x"]
    assert not report.ok and not report.failed and report.status == "loses digits"
    assert digits.lost == digits.avoidable >= 1 and digits.total == 2
    assert digits.least < 0.5 < 6 < digits.autodiff_least <= digits.full
    assert f"right formula, but loses digits at x[{digits.at[0]}]" in str(report)
    assert report.leaves[0].reasons[-1].code == "digits lost"
    with pytest.raises(gradlab.GradientMismatch, match="loses digits"):
        gradlab.assert_gradients(with_rule(series, cancels), x[jnp.array([0, 2])])


def test_digits_that_autodiff_loses_too_are_a_warning():
    """The slope of tanh at 9 is 6e-8; autodiff's 1 - tanh(9)**2 in float32 is 0, or far off."""
    x = jnp.asarray([9.0, 0.5], jnp.float32)
    assert abs(float(jax.grad(jnp.tanh)(x[0])) - 6.092e-8) > 6e-8
    report = gradlab.check(with_rule(jnp.tanh, lambda x, g: g * (1 - jnp.tanh(x) ** 2)), x)
    digits = report.digits["x"]
    assert report.ok and report.status == "right, loses digits"
    assert (digits.lost, digits.avoidable, digits.at) == (1, 0, (0,)) and digits.autodiff_least == 0
    assert "right, but loses digits at x[0] = 9 (unavoidable here)" in str(report)
    gradlab.assert_gradients(jnp.tanh, x)


def test_a_sum_that_stalls_leaves_the_gradient_undecided():
    def weighted(w, x):
        return jax.lax.scan(lambda t, v: (t + (w * v).astype(jnp.float32), None), 0.0, x)[0]

    w, x = jnp.asarray(1.5, jnp.bfloat16), jnp.ones(5_000, jnp.bfloat16)
    assert float(jax.grad(weighted)(w, x)) == 256.0, "256 + 1 is 256 in bfloat16"
    with pytest.raises(gradlab.GradientUndecided) as raised:
        gradlab.assert_gradients(weighted, w, x)
    report = raised.value.report
    assert report.digits["w"].least < 0.5 and "w" in report.undecided and not report.ok
    assert "autodiff has 0.0 digits there too\n" in str(report)  # and finite, as it is here


def test_a_gradient_that_is_not_finite_is_never_ok():
    rule = with_rule(jax.nn.softplus, lambda x, g: g * jnp.exp(x) / (1 + jnp.exp(x)))
    x = jnp.asarray([12.0, 0.5], jnp.float16)
    assert np.isnan(np.asarray(jax.grad(lambda x: rule(x).sum())(x), float))[0]
    report = gradlab.check(rule, x)
    assert not report.ok and report.digits["x"].at == (0,)


def test_digits_that_a_compiler_hides_are_counted():
    """Equation by equation exp(x) - 1 + 1 is 0 at -40; XLA may make exp(x) of it."""
    rule = with_rule(lambda x: jnp.exp(x) - 1, lambda x, g: g * ((jnp.exp(x) - 1) + 1))
    assert gradlab.check(rule, np.array([-0.5, 1.0])).status == "right"
    assert gradlab.check(rule, np.array([-40.0, 1.0])).status == "loses digits"


SAFE = {
    "g * e / (1 + e)": ("softplus(x)", 100.0, "g / (1 + jnp.exp(-x))"),
    "g * (x + 1e8 - 1e8)": ("x * x / 2", 1e-9, "g * x"),
    "g * (jnp.exp(x) - 1 + 1)": ("jnp.exp(x) - 1", -40.0, "g * jnp.exp(x)"),
}


@pytest.mark.parametrize("written", SAFE)
def test_a_safe_form_is_found_where_digits_are_lost(written: str, tmp_path: Path) -> None:
    forward, at, safe = SAFE[written]
    path = tmp_path / "layer.py"
    text = (
        "import jax\nimport jax.numpy as jnp\nfrom jax.nn import softplus\n\n\n"
        f"@jax.custom_vjp\ndef layer(x):\n    return {forward}\n\n\n"
        f"def bwd(x, g):\n    e = jnp.exp(x)\n    return ({written},)\n\n\n"
        "layer.defvjp(lambda x: (layer(x), x), bwd)\n"
    )
    x = np.array([1.0, at], np.float32)
    reports = []
    for name, source in (("layer", text), ("mended", text.replace(written, safe))):
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        space = runpy.run_path(str(path))
        reports.append(gradlab.check(space["layer"], x, branches=False))
    assert not reports[0].ok and reports[1].ok
    assert reports[0].fixes[0].after == (f"    return ({safe},)",)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_common_layers_keep_their_digits(dtype):
    x = np.random.default_rng(0).normal(size=(4, 6))
    for layer in (jax.nn.softmax, jax.nn.gelu, lambda x: x / jnp.linalg.norm(x)):
        report = gradlab.check(layer, x, dtypes=dtype)
        digits = next(iter(report.digits.values()))
        assert report.ok and digits.lost == 0, report
        assert digits.least <= digits.median <= digits.full and digits.autodiff_least is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_cancellation_that_the_compiler_removes_is_there_as_written(dtype):
    """XLA makes x of (x + 1e8) - 1e8; without jit no digit is left."""
    x = np.array([1e-9, 1e-8], dtype)
    identity = with_rule(lambda x: x * x / 2, lambda x, g: g * ((x + 1e8) - 1e8))
    report = gradlab.check(identity, x)
    assert report.status == "loses digits" and report.digits["x"].avoidable == 2
