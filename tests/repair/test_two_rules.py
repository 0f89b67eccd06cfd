"""Functions that meet two wrong rules: a fix mends both, or is told as half of what is wrong."""

import subprocess

import numpy as np
import pytest
from repair.test_mistakes import load

import gradlab

SOURCE = """
import jax
import jax.numpy as jnp


@jax.custom_vjp
def bent(x, a):
    return jnp.tanh(a * x)


def bent_forward(x, a):
    y = jnp.tanh(a * x)
    return y, (x, a, y)


def bent_backward(kept, g):
    x, a, y = kept
    d = g * (1 - y * y)
    return a * d, jnp.sum(d * x)


bent.defvjp(bent_forward, bent_backward)


@jax.custom_vjp
def scaled(x, b):
    return x * x * b


def scaled_backward(kept, g):
    x, b = kept
    return 2 * g * x * b, jnp.sum(g * x * x)


scaled.defvjp(lambda x, b: (scaled(x, b), (x, b)), scaled_backward)


def f(x, a, b):
    return scaled(bent(x, a), b)
"""
INPUTS = (
    np.linspace(-1.0, 2.0, 12, dtype=np.float32).reshape(4, 3),
    np.float32(0.7),
    np.float32(1.3),
)


@pytest.mark.parametrize(
    "slips",
    [
        [("1 - y * y", "1 - y"), ("2 * g * x * b", "g * x * b")],
        [
            ("    d = g * (1 - y * y)\n", "    d = g\n"),
            ("jnp.sum(g * x * x)", "jnp.mean(g * x * x)"),
        ],
    ],
)
def test_a_slip_in_each_of_two_rules_is_mended_by_one_fix(tmp_path, monkeypatch, slips):
    monkeypatch.chdir(tmp_path)
    text = SOURCE
    for right, wrong in slips:
        text = text.replace(right, wrong)
    module = load(tmp_path / "layers.py", text)
    report = gradlab.check(module.f, *INPUTS)
    assert report.status == "wrong"
    (fix,) = report.fixes
    assert fix.edits == 2 and len(fix.before) == 2
    assert "len(" not in fix.diff  # two values are kept, which is no reason for a factor 2
    (tmp_path / "fix.diff").write_text(fix.diff)
    subprocess.run(["patch", "-p1", "layers.py", "fix.diff"], cwd=tmp_path, check=True)
    mended = load(tmp_path / "mended.py", (tmp_path / "layers.py").read_text())
    assert gradlab.check(mended.f, *INPUTS).ok


def test_half_of_two_wrong_rules_is_no_fix(tmp_path):
    text = SOURCE.replace("1 - y * y", "1 - y")
    text = text.replace("return x * x * b", "return jnp.exp(jnp.sin(x * x)) * jnp.cos(b)")
    module = load(tmp_path / "layers.py", text)
    report = gradlab.check(module.f, *INPUTS)
    assert report.status == "wrong" and report.fixes == ()
    assert "That mends bent, but scaled stays wrong" in report.diagnosis
